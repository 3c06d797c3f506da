"""To and from the Hugging Face hub: a few files by name, one commit, one message for what goes wrong."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from flip_sklearn.persistence.folder import CARD, ENCODING_FILE, FILES

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def locate(
    folder_or_id: Any, subfolder: Any = None, revision: str | None = None, token: Any = None
) -> Path:
    """The folder of a model on this machine; one of the hub is downloaded into the client's cache.

    Raises
    ------
    ValueError
        If there is no such folder or repository, or ``subfolder`` leads out of it.
    OSError
        If the hub cannot be reached.
    ImportError
        If it is of the hub and huggingface_hub is not installed.
    """
    below = check_subfolder(subfolder)
    if not isinstance(folder_or_id, (str, PathLike)) or not str(folder_or_id):
        raise ValueError(
            f"{folder_or_id!r} is no model; use the path of a folder, or 'owner/name' on the hub."
        )
    root = Path(folder_or_id)
    if root.exists():
        if revision is not None:
            raise ValueError(
                f"revision={revision!r} is for repositories of the hub, and {str(folder_or_id)!r} is a "
                "folder here; leave one of them out."
            )
    elif isinstance(folder_or_id, str) and REPOSITORY.fullmatch(folder_or_id):
        root = _download(folder_or_id, below, revision, token)
    else:
        raise ValueError(
            f"there is no folder {str(folder_or_id)!r}, and it is no id of the hub, 'owner/name', either."
        )
    folder = root / below
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"subfolder={str(subfolder)!r} is a link that leads out of {str(folder_or_id)!r}; use a "
            "folder inside."
        )
    if below.parts and not folder.is_dir():
        raise ValueError(f"{str(folder_or_id)!r} has no folder {str(subfolder)!r} with a model.")
    for name in (*FILES, ENCODING_FILE):
        if not _stays_inside(folder / name, root.resolve()):
            raise ValueError(
                f"{name} in {str(folder)!r} is a link that leads out of {str(folder_or_id)!r}; put the file "
                "itself there."
            )
    return folder


def _stays_inside(path: Path, root: Path) -> bool:
    """Whether a link to a file leads into its folder; the hub's cache keeps its files in ../blobs."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise ValueError(f"{str(path)!r} is a link that leads nowhere.") from error
    snapshots = [above for above in (root, *root.parents) if above.name == "snapshots"]
    return any(target.is_relative_to(p) for p in (root, *(s.parent / "blobs" for s in snapshots)))


def check_subfolder(subfolder: Any) -> PurePosixPath:
    """A path below a folder or repository, without a way out; None is the folder itself."""
    if subfolder is None:
        return PurePosixPath()
    text = str(subfolder)
    below = PurePosixPath(text)
    if (
        not isinstance(subfolder, (str, PathLike))
        or not text.isprintable()
        or not below.parts
        or below.is_absolute()
        or ".." in below.parts
        or "\\" in text
        or ":" in text
    ):
        raise ValueError(
            f"subfolder={subfolder!r} is not allowed; use a path inside, such as 'mcv15/rank-512', "
            "without '..', or None."
        )
    return below


def check_repository(repo_id: Any) -> str:
    """``"owner/name"``."""
    if not isinstance(repo_id, str) or not REPOSITORY.fullmatch(repo_id):
        raise ValueError(f"repo_id={repo_id!r} is not an id of the hub; use 'owner/name'.")
    return repo_id


def _download(repo_id: str, below: PurePosixPath, revision: str | None, token: Any) -> Path:
    """The files of a model, and no others, all of one commit."""
    hub = _client()
    # The names stand for themselves: a subfolder with a * in it is not a pattern.
    wanted = [glob.escape(str(below / name)) for name in (*FILES, ENCODING_FILE)]
    with _speaking_of(repo_id, "read"):
        return Path(
            hub.snapshot_download(repo_id, revision=revision, token=token, allow_patterns=wanted)
        )


def upload(
    folder: Path,
    repo_id: str,
    below: PurePosixPath,
    *,
    revision: str | None,
    token: Any,
    private: bool | None,
) -> str:
    """All files of a folder in one commit, but no card over one that is there; gives its address."""
    hub = _client()
    api = hub.HfApi(token=token)
    with _speaking_of(repo_id, "written"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        card = str(below / CARD)
        kept = [CARD] if api.file_exists(repo_id, card, revision=revision) else None
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            path_in_repo=str(below) if below.parts else None,
            revision=revision,
            commit_message="A model of flip-sklearn",
            ignore_patterns=kept,
        )
    return str(commit.commit_url)


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "models of the hub need huggingface_hub: pip install 'flip-sklearn[hub]'; or download the "
            f"folder ({', '.join(FILES)}) and pass its path."
        ) from error
    return huggingface_hub


@contextmanager
def _speaking_of(repo_id: str, verb: str) -> Iterator[None]:
    """Whatever the client and its HTTP library raise becomes one sentence with the remedy."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"{repo_id!r} has no such revision on the hub; see its branches."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ValueError(
            f"{repo_id!r} cannot be {verb}: it is not on the hub, or is private or gated. Check the name; "
            "for one that is not public, pass a token that may."
        ) from error
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise ValueError(
                f"{repo_id!r} cannot be {verb} with this token; pass one that may."
            ) from error
        why = f"it answered {status}" if status else "it cannot be reached, or this is offline mode"
        raise OSError(
            f"{repo_id!r} cannot be {verb} on the hub: {why}, and nothing usable is in the cache. Try again "
            "later, or download the folder elsewhere and pass its path."
        ) from error
