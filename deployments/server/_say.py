"""What the server says: plain lines on standard error, and few of them."""

from __future__ import annotations

import sys


def say(sentence: str) -> None:
    """Write one line, whatever is in `sentence`."""
    line = " ".join(sentence.split())
    sys.stderr.write(f"model server: {line}\n")
    sys.stderr.flush()
