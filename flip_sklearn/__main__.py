"""Run the command line with ``python -m flip_sklearn``."""

from flip_sklearn.cli import main

if __name__ == "__main__":
    main()
