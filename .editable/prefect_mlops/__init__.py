"""The package as it is imported in development: its rooms are the root folders."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2])]
