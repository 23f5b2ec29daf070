"""A clock that is burned into a picture, so that whoever receives it knows how old it is.

Across the top of the picture runs a strip of black and white blocks: 40 bits of time, most significant first, and
8 bits that check them. The blocks are large enough to survive any compression that leaves the picture usable.
Nothing but the standard library is needed here: Debian's Python runs it too.
"""

from collections.abc import Sequence

COLUMNS = 48
"""Blocks in the strip."""

UNIT_S = 1e-4
"""What the last bit of the time stands for, seconds."""

STRIP = 12
"""The strip's height is this part of the picture's: 1/12."""

_TIME_BITS = 40


def bits_of(time_s: float) -> list[int]:
    """Give the blocks of a time, 1 for white."""
    time = round(time_s / UNIT_S) % 2**_TIME_BITS
    word = time << 8 | _check(time)
    return [word >> place & 1 for place in reversed(range(COLUMNS))]


def time_of(bits: Sequence[int]) -> float:
    """Give the time that the blocks stand for, seconds.

    Raises:
        ValueError: They are no clock, or not all of them were read rightly.
    """
    word = int("".join(map(str, bits)), 2)
    time, check = word >> 8, word & 0xFF
    if check != _check(time):
        raise ValueError("the picture carries no clock that can be read")
    return time * UNIT_S


def strip_row(time_s: float, width: int) -> bytes:
    """Give one row of the strip, (width,) bytes, 16 or 235: the range of video."""
    edges = [width * column // COLUMNS for column in range(COLUMNS + 1)]
    return b"".join(
        (b"\xeb" if bit else b"\x10") * (right - left)
        for bit, left, right in zip(bits_of(time_s), edges, edges[1:], strict=False)
    )


def _check(time: int) -> int:
    """Give 8 bits that depend on all of the time, and are not 0 for a black picture's 0."""
    return (time * 0x9E3779B97F4A7C15 + 0x5D) >> 24 & 0xFF
