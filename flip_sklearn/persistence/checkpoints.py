"""The folder that the published training leaves: vocab.json beside the checkpoints of the model.

rank_512/vocab.json
rank_512/checkpoints/model_state_dict_best_val_recall_avg.safetensors    the best on held-out sentences
                     model_state_dict_100.safetensors                    after this number of iterations
                     model_state_dict_interrupt.safetensors              when training was interrupted
"""

from __future__ import annotations

from pathlib import Path

from flip_sklearn.persistence.format import MODEL_FILE, VOCABULARY_FILE

FOLDER = "checkpoints"
PREFIX, EXTENSION = "model_state_dict_", ".safetensors"
BEST = "best_val_recall_avg"  # of the published configuration, which selects models by mean recall
OTHER_BEST = "best"


def find_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint that stands for the model of a folder; None if the folder has model.safetensors.

    The best ones come first, then that of most iterations. Files may also lie beside vocab.json.
    """
    if (folder / MODEL_FILE).exists() or (folder / MODEL_FILE).is_symlink():
        return None
    for place in (folder / FOLDER, folder):
        paths = list(place.glob(f"{PREFIX}*{EXTENSION}")) if place.is_dir() else []
        if paths:
            return min(paths, key=_preference)
    return None


def is_best(checkpoint: str) -> bool:
    """Return whether a checkpoint was selected on held-out sentences."""
    return _suffix(Path(checkpoint)).startswith(OTHER_BEST)


def advice(folder: Path) -> str:
    """Return what to do about a folder of the published training that cannot be read; empty for others."""
    pickles = [path for place in (folder / FOLDER, folder) for path in sorted(place.glob(f"{PREFIX}*.pt"))]
    has_checkpoint = find_checkpoint(folder) is not None
    if pickles and not has_checkpoint:
        name = pickles[0].relative_to(folder)
        return (
            f" {name} is a pickle, which is not read, since that could execute code: convert it with "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), path_of_a_safetensors_file)."
        )
    if folder.name == FOLDER and (folder.parent / VOCABULARY_FILE).exists():
        return f" Pass the folder above {FOLDER!r}, which has {VOCABULARY_FILE}."
    if has_checkpoint:
        return (
            f" {VOCABULARY_FILE} has the words of the checkpoint, {{word: row}}: the vocabulary_ of the "
            "CountVectorizer of its training."
        )
    return ""


def _suffix(path: Path) -> str:
    return path.name.removeprefix(PREFIX).removesuffix(EXTENSION)


def _preference(path: Path) -> tuple[bool, bool, int, bool, str]:
    """Return a sorting key: the best first, then by iterations, then interrupted training, then by name."""
    suffix = _suffix(path)
    is_number = suffix.isascii() and suffix.isdigit()
    iterations = int(suffix[:18]) if is_number else -1
    return suffix != BEST, not suffix.startswith(OTHER_BEST), -iterations, suffix != "interrupt", suffix
