"""Cutting large files where their content says, so that an edit changes the chunks around it and no others.

A boundary is a place after a byte that is frequent in the file (the line end of a text), where a hash of the
bytes that follow is small: it depends on nothing else, so the same boundaries are found again behind an edit.
The closer the last one is, the smaller the hash has to be, as in Xia et al., "FastCDC" (USENIX ATC 2016).
Where boundaries are matters for the space that a store takes, never for what is read from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK = 8 << 20
"""How much of a file is read at a time."""

LARGEST = 2 << 20
"""No chunk is longer."""

_SAMPLE = 64 << 10
_PIECE = 64 << 10  # stays in the processor's cache
_WINDOW = 24
_FREQUENT = (1 / 1024, 1 / 8)
_PREFERRED = (0x0A, 0x20, 0x2C, 0x00)
_RULES = ((256 << 10, 13), (1 << 20, 10), (3 << 19, 6))
"""From so many bytes on, one in so many powers of two of the places is a boundary."""

_MIX = tuple(np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))


def chunks(read_into: Callable[[memoryview], int]) -> Iterator[memoryview]:
    """The content of a file in chunks of at most `LARGEST` bytes; put together they are the file.

    Args:
        read_into: Fills the beginning of a buffer with the file's next bytes and says how many; 0 at its end.
    """
    rest, marker, ended = memoryview(b""), -1, False
    while not ended:
        buffer = np.empty(len(rest) + BLOCK, np.uint8).data
        buffer[: len(rest)] = rest
        size = _filled(read_into, buffer, len(rest))
        ended, buffer = size < len(buffer), buffer[:size]
        marker = marker if marker >= 0 else _marker(buffer[:_SAMPLE])
        start = 0
        while start < size if ended else start + LARGEST + _WINDOW <= size:
            end = _end(buffer, start, marker)
            yield buffer[start:end]
            start = end
        rest = buffer[start:]


def _filled(read_into: Callable[[memoryview], int], buffer: memoryview, begun: int) -> int:
    while begun < len(buffer) and (got := read_into(buffer[begun:])):
        begun += got
    return begun


def _marker(sample: memoryview) -> int:
    """The byte after which boundaries may be: a frequent one, and the same for other versions of the file."""
    counts = np.bincount(np.frombuffer(sample, np.uint8), minlength=256)
    low, high = (share * len(sample) for share in _FREQUENT)
    frequent = np.flatnonzero((counts >= low) & (counts <= high))
    return next((byte for byte in _PREFERRED if byte in frequent), int(frequent[0]) if len(frequent) else 0)


def _end(buffer: memoryview, start: int, marker: int) -> int:
    """Where the chunk ends that begins at `start`."""
    last = min(start + LARGEST, len(buffer) - _WINDOW)
    for (least, bits), until in zip(_RULES, (*(least for least, _ in _RULES[1:]), LARGEST), strict=True):
        for at in range(start + least, min(start + until, last), _PIECE):
            places, hashes = _hashed(buffer, at, min(at + _PIECE, last), marker)
            if len(found := np.flatnonzero(hashes < np.uint64(1 << (64 - bits)))):
                return int(places[found[0]])
    return min(start + LARGEST, len(buffer))


def _hashed(buffer: memoryview, begin: int, end: int, marker: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Each place from `begin` on and before `end` that is after a marker, and the hash of what follows it."""
    before = np.frombuffer(buffer[begin - 1 : end - 1], np.uint8)
    places = np.flatnonzero(before == marker)
    words = np.ndarray((end - begin + _WINDOW - 7,), "<u8", buffer, offset=begin, strides=(1,))
    hashes = words[places] * _MIX[0]
    hashes ^= hashes >> np.uint64(29)
    hashes += words[places + 8]
    hashes *= _MIX[1]
    hashes ^= hashes >> np.uint64(31)
    hashes += words[places + 16]
    hashes *= _MIX[2]
    return places + begin, hashes
