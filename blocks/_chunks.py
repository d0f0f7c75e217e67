"""Cutting large files where their content says, so that an edit changes the chunks around it and no others.

A boundary is a place after a byte that is frequent in the file (the line end of a text), where a hash of the
bytes that follow is small: it depends on nothing else, so the same boundaries are found again behind an edit.
The closer the last one is, the smaller the hash has to be, as in Xia et al., "FastCDC" (USENIX ATC 2016); and
the smaller, the more frequent the byte, so that chunks are as long in short lines as in long ones.
Where boundaries are matters for the space that a store takes, never for what is read from it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 16 << 20
"""How much of a file is held at a time."""

LARGEST = 2 << 20
"""No chunk is longer."""

_SAMPLE = 256 << 10
_PIECE = 128 << 10  # stays in the processor's cache
_WINDOW = 64
_FREQUENT = (1 / 4096, 1 / 4)
_PREFERRED = (0x0A, 0x20, 0x2C, 0x00)
_RULES = ((512 << 10, 18), (1 << 20, 17), (3 << 19, 14))
"""From so many bytes on, one byte in two to the power of so many is a boundary."""

_MIX = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, 1 + _WINDOW // 8)], np.uint64)
"""What the words of a window are multiplied by: odd, so that the high bits of the sum depend on all of it."""


class _Marker(NamedTuple):
    """The byte after which boundaries may be: one byte in two to the power of `bits` is it."""

    byte: int
    bits: int


def chunks(read_into: Callable[[memoryview], int]) -> Iterator[memoryview]:
    """The content of a file in chunks of at most `LARGEST` bytes; put together they are the file.

    Args:
        read_into: Fills the beginning of a buffer with the file's next bytes and says how many; 0 at its end.
    """
    unused: list[NDArray[np.uint8]] = []
    rest, marker, ended = memoryview(b""), None, False
    while not ended:
        buffer = _buffer(unused)
        buffer[: len(rest)] = rest
        size = _filled(read_into, buffer, len(rest))
        ended, buffer = size < len(buffer), buffer[:size]
        marker = marker or _marker(buffer[:_SAMPLE])
        start = 0
        while start < size if ended else start + LARGEST + _WINDOW <= size:
            end = _end(buffer, start, marker)
            yield buffer[start:end]
            start = end
        rest = buffer[start:]


def _buffer(unused: list[NDArray[np.uint8]]) -> memoryview:
    """One that is used again as soon as nobody has a view of it: fresh memory costs about as much as hashing it."""
    memory = unused.pop() if unused else np.empty(BLOCK, np.uint8)
    view = memory[:]
    weakref.finalize(view, unused.append, memory)
    return view.data


def _filled(read_into: Callable[[memoryview], int], buffer: memoryview, begun: int) -> int:
    while begun < len(buffer) and (got := read_into(buffer[begun:])):
        begun += got
    return begun


def _marker(sample: memoryview) -> _Marker:
    """A frequent byte, and the same for other versions of the file."""
    counts = np.bincount(np.frombuffer(sample, np.uint8), minlength=256)
    low, high = (share * len(sample) for share in _FREQUENT)
    frequent = np.flatnonzero((counts >= low) & (counts <= high))
    byte = next((byte for byte in _PREFERRED if byte in frequent), int(frequent[0]) if len(frequent) else 0)
    return _Marker(byte, round(np.log2((len(sample) + 1) / (counts[byte] + 1))))


def _end(buffer: memoryview, start: int, marker: _Marker) -> int:
    """Where the chunk ends that begins at `start`."""
    last = min(start + LARGEST, len(buffer) - _WINDOW)
    for (least, bits), until in zip(_RULES, (*(least for least, _ in _RULES[1:]), LARGEST), strict=True):
        limit = np.uint64(1 << 64 - max(bits - marker.bits, 1))
        for at in range(start + least, min(start + until, last), _PIECE):
            places, hashes = _hashed(buffer, at, min(at + _PIECE, last), marker)
            if len(found := np.flatnonzero(hashes < limit)):
                return int(places[found[0]])
    return min(start + LARGEST, len(buffer))


def _hashed(buffer: memoryview, begin: int, end: int, marker: _Marker) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Each place from `begin` on and before `end` that is after a marker, and the hash of what follows it."""
    places = np.flatnonzero(np.frombuffer(buffer[begin - 1 : end - 1], np.uint8) == marker.byte)
    windows = np.ndarray((end - begin,), f"V{_WINDOW}", buffer, offset=begin, strides=(1,))
    return places + begin, windows[places].view("<u8").reshape(-1, len(_MIX)) @ _MIX
