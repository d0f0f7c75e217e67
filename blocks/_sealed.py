"""Sealed lines: a line of canonical JSON, and a line with its sha256, so that an auditor needs only `sha256sum`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import ValidationError

from prefect_mlops.blocks._canonical import Value, digest


class Sealed(Value):
    """A value that is kept in a journal as a sealed line."""

    def encode(self) -> bytes:
        """Its bytes: a line of canonical JSON, and a line with its sha256."""
        return self._line + b"\n" + hashlib.sha256(self._line).hexdigest().encode() + b"\n"

    @cached_property
    def hash(self) -> str:
        """The digest by which the next one names it as `prev`."""
        return digest(self._line)

    @cached_property
    def _line(self) -> bytes:
        return self.canonical()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with bytes of its own."""
        copied = super().model_copy(update=update, deep=deep)
        for cached in ("_line", "hash"):
            vars(copied).pop(cached, None)
        return copied

    @classmethod
    def unsealed(cls, data: bytes) -> Self:
        """Read the bytes that `encode` writes.

        Raises:
            ValueError: If they are not exactly such bytes; it says why.
        """
        line, _, rest = data.partition(b"\n")
        if rest != hashlib.sha256(line).hexdigest().encode() + b"\n":
            raise ValueError("its second line is not the sha256 of its first")
        try:
            value = cls.model_validate(json.loads(line))
        except RecursionError:
            raise ValueError("its first line is not an entry (it is nested too deeply)") from None
        except (ValidationError, ValueError) as error:
            raise ValueError(f"its first line is not an entry ({str(error).splitlines()[0]})") from None
        if value.encode() != data:
            raise ValueError("its first line is not in canonical form")
        return value
