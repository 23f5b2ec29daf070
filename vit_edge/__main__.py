"""Runs the command line as ``python -m vit_edge``."""

from .cli import main

if __name__ == "__main__":
    main()
