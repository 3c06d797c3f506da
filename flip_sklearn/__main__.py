"""``python -m flip_sklearn`` is ``flip-sklearn``."""

from flip_sklearn.cli import main

if __name__ == "__main__":
    main()
