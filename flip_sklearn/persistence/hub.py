"""Download and upload of models with the client of the Hugging Face hub."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

from flip_sklearn.parameters import install_command, refusal
from flip_sklearn.persistence.checkpoints import find_checkpoint
from flip_sklearn.persistence.format import CARD_FILE, CONFIG_FILE, ENCODING_FILE, MODEL_FILES
from flip_sklearn.persistence.ownership import foreign_files_error, is_config, is_unedited_card

DOWNLOADED_FILES = (*MODEL_FILES, ENCODING_FILE)
REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def locate(folder_or_id: Any, subfolder: Any = None, revision: str | None = None, token: Any = None) -> Path:
    """Return the local folder of a model, after a download into the client's cache if it is on the hub."""
    subpath = check_subfolder(subfolder)
    if not isinstance(folder_or_id, (str, PathLike)) or not str(folder_or_id):
        raise ValueError(
            f"{folder_or_id!r} is not a model; use the path of a folder, or 'owner/name' on the hub."
        )
    root = Path(os.path.expanduser(folder_or_id))
    if os.path.exists(root):
        if revision is not None:
            raise ValueError(
                f"revision={revision!r} is for repositories on the hub, but {str(folder_or_id)!r} is a "
                "local folder; leave out the revision."
            )
    elif isinstance(folder_or_id, str) and REPOSITORY_ID.fullmatch(folder_or_id):
        # A subfolder may have characters of patterns, such as *, in its name.
        patterns = [glob.escape(str(subpath / name)) for name in DOWNLOADED_FILES]
        hub = _client()
        with _hub_errors(folder_or_id, "read"):
            root = Path(
                hub.snapshot_download(folder_or_id, revision=revision, token=token, allow_patterns=patterns)
            )
    else:
        raise ValueError(
            f"there is no folder {str(folder_or_id)!r}, and it is not a repository id, 'owner/name'."
        )
    folder = root / subpath
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"subfolder={str(subfolder)!r} is a link to a place outside of {str(folder_or_id)!r}; use a "
            "folder inside."
        )
    if subpath.parts and not folder.is_dir():
        raise ValueError(f"{str(folder_or_id)!r} has no folder {str(subfolder)!r} with a model.")
    checkpoint = find_checkpoint(folder)
    for path in [folder / name for name in DOWNLOADED_FILES] + ([checkpoint] if checkpoint else []):
        if not _is_inside(path, root.resolve()):
            raise ValueError(
                f"{path.relative_to(folder)} in {str(folder)!r} is a link to a place outside of "
                f"{str(folder_or_id)!r}; replace it by a copy of the file."
            )
    return folder


def _is_inside(path: Path, root: Path) -> bool:
    """Return whether a file, with links followed, is inside ``root`` or in the blobs of the hub's cache."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise ValueError(f"{str(path)!r} is a broken link.") from error
    blobs = [parent.parent / "blobs" for parent in (root, *root.parents) if parent.name == "snapshots"]
    return any(target.is_relative_to(folder) for folder in (root, *blobs))


def check_subfolder(subfolder: Any) -> PurePosixPath:
    """Return a relative path that stays inside its folder or repository; None is the folder itself."""
    if subfolder is None:
        return PurePosixPath()
    text = str(subfolder)
    subpath = PurePosixPath(text)
    if (
        not isinstance(subfolder, (str, PathLike))
        or not text.isprintable()
        or not subpath.parts
        or subpath.is_absolute()
        or ".." in subpath.parts
        or any(character in text for character in "\\:")
    ):
        raise refusal("subfolder", subfolder, "a path inside, as 'mcv15/rank-512', without '..', or None")
    return subpath


def upload(
    folder: Path, repo_id: str, subpath: PurePosixPath, revision: str | None, token: Any, private: bool | None
) -> str:
    """Upload the files of a folder in one commit and return its URL.

    Files of others are refused, and a model card that a person has edited is not replaced.
    """
    api = _client().HfApi(token=token)
    paths = {name: str(subpath / name) for name in (*MODEL_FILES, CARD_FILE)}
    with tempfile.TemporaryDirectory() as existing:
        with _hub_errors(repo_id, "written"):
            api.create_repo(repo_id, private=private, exist_ok=True)
            present = [name for name in paths if api.file_exists(repo_id, paths[name], revision=revision)]
            for name in {CONFIG_FILE, CARD_FILE}.intersection(present):
                api.hf_hub_download(repo_id, paths[name], revision=revision, local_dir=existing)
        foreign = [name for name in present if name != CARD_FILE]
        if foreign and not is_config(Path(existing) / paths[CONFIG_FILE]):
            raise foreign_files_error(repo_id, foreign)
        keeps_card = CARD_FILE in present and not is_unedited_card(Path(existing) / paths[CARD_FILE])
    with _hub_errors(repo_id, "written"):
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            path_in_repo=str(subpath) if subpath.parts else None,
            revision=revision,
            commit_message="A model of flip-sklearn",
            ignore_patterns=[CARD_FILE] if keeps_card else None,
        )
    return str(commit.commit_url)


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"models on the hub need huggingface_hub: {install_command('hub')}; or download the "
            f"folder ({', '.join(MODEL_FILES)}) and pass its path."
        ) from error
    return huggingface_hub


@contextmanager
def _hub_errors(repo_id: str, action: str) -> Iterator[None]:
    """Turn errors of the client and its HTTP library into one-sentence messages with the remedy."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"{repo_id!r} has no such revision on the hub; use one of its branches, tags or commits."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ValueError(
            f"{repo_id!r} cannot be {action}: it is not on the hub, or is private or gated. Check the name; "
            "for a repository that is not public, pass a token with access to it."
        ) from error
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise ValueError(
                f"{repo_id!r} cannot be {action} with this token; pass one with access to it."
            ) from error
        reason = f"answered {status}" if status else "cannot be reached, or offline mode is on"
        raise OSError(
            f"{repo_id!r} cannot be {action}: the hub {reason}. Try again later; to read a model without the "
            "hub, download the folder elsewhere and pass its path."
        ) from error
