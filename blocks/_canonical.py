"""Canonical JSON and digests: the bytes that everything recorded is made of."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A digest that carries its algorithm: `sha256:` and 64 lower-case hexadecimal digits."""

Label = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$")]
"""A DNS label of at most 30 characters, so that every target can make names from it."""

BRANCH = r"^[a-z0-9][a-z0-9._-]{0,62}$"
BranchName = Annotated[str, StringConstraints(pattern=BRANCH)]
"""Name of a branch: at most 63 of `a-z`, `0-9`, `.`, `_` and `-`, the first a letter or a digit."""


class Value(BaseModel):
    """A frozen value, pure data, that goes through JSON and comes back equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> bytes:
        """The one line of canonical JSON that stands for this value, without a line end."""
        return canonical(self.model_dump(mode="json"))


def canonical(document: Any) -> bytes:
    """Write `document` as canonical JSON: sorted keys, no blanks, UTF-8, no floats.

    Raises:
        TypeError: If `document` holds a float or anything else that JSON has no exact word for.
    """
    _refuse_floats(document)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(data: bytes) -> str:
    """The digest of `data`, with its algorithm."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def short(digest_or_none: str | None) -> str:
    """A digest as people read it in a table: its first eight digits."""
    return (digest_or_none or "").removeprefix("sha256:")[:8]


_LEAVES = (str, int, bool, type(None))


def _refuse_floats(node: Any) -> None:
    if isinstance(node, float):
        raise TypeError(f"canonical JSON holds no floats, got {node!r}; write it as a string or a whole number")
    if isinstance(node, dict):
        for key in node:
            if not isinstance(key, str):
                raise TypeError(f"canonical JSON has only text keys, got {key!r}")
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for child in node:
        if type(child) not in _LEAVES:
            _refuse_floats(child)
