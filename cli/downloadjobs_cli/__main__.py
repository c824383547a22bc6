"""Lets `python -m downloadjobs_cli` do what `downloadjobs` does."""

from __future__ import annotations

from downloadjobs_cli.main import main

if __name__ == "__main__":
    main()
