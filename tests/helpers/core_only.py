"""Fits, saves and loads a model where only the core dependencies are installed (`make release-check`)."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Run outside the repository, with the Python of the environment."""
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    import flip_sklearn
    from flip_sklearn import FLiPExtractor

    assert Path(flip_sklearn.__file__).is_relative_to(sys.prefix), flip_sklearn.__file__
    version = flip_sklearn.__version__
    assert importlib.metadata.version("flip-sklearn") == version
    for optional in ("matplotlib", "pandas", "sentence_transformers", "transformers", "dask"):
        assert importlib.util.find_spec(optional) is None, optional
    words = CountVectorizer()
    Y = words.fit_transform(["red fish", "blue fish", "red bird", "blue bird"] * 20)
    X = Y.toarray() @ np.eye(len(words.vocabulary_), 8)
    flip = FLiPExtractor(rank=2, vocabulary=words.vocabulary_, random_state=0).fit(X, Y)
    with tempfile.TemporaryDirectory() as folder:
        flip.save_pretrained(folder)
        loaded = FLiPExtractor.from_pretrained(folder)
        assert loaded.extract_keywords(X[:4], top_k=2) == flip.extract_keywords(X[:4], top_k=2)
    command = Path(sys.executable).parent / "flip-sklearn"
    subprocess.run([command, "--help"], check=True, capture_output=True)
    sys.stdout.write(f"flip-sklearn {version} fits, saves and loads with its core dependencies only\n")


if __name__ == "__main__":
    main()
