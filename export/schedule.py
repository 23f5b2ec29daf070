"""Schedules of token merging: in which blocks how many tokens go; read, written, checked and proposed."""

from ..errors import OptionError

Sites = tuple[tuple[int, int], ...]
"""Where tokens are merged: blocks, counted from 0, each with the number of tokens that go there."""


def parse_schedule(text: str) -> Sites:
    """Read a schedule as typed.

    >>> parse_schedule("5:32,7:32,9:32")
    ((5, 32), (7, 32), (9, 32))

    Args:
        text: BLOCK:TOKENS, with commas between sites.

    Raises:
        OptionError: The text is no schedule, or its blocks do not ascend.
    """
    pairs = [site.split(":") for site in text.split(",")]
    if not all(len(pair) == 2 and all(part.strip().isdecimal() for part in pair) for pair in pairs):
        raise OptionError(
            f"expected a schedule as BLOCK:TOKENS,BLOCK:TOKENS, such as 5:32,7:32, got {text!r}; "
            "blocks are counted from 0"
        )
    sites = tuple((int(block), int(count)) for block, count in pairs)
    _check_order(sites)
    return sites


def format_schedule(sites: Sites) -> str:
    """Write a schedule as `parse_schedule` reads it.

    >>> format_schedule(((5, 32), (7, 32)))
    '5:32,7:32'
    """
    return ",".join(f"{block}:{count}" for block, count in sites)


def check_schedule(sites: Sites, *, depth: int, tokens: int) -> None:
    """Check that a network can merge as a schedule says.

    Args:
        sites: The schedule.
        depth: The network's number of blocks.
        tokens: How many tokens its first block takes, the class token among them.

    Raises:
        OptionError: Blocks do not ascend, there is no such block, nothing follows it, or fewer tokens can go.
    """
    _check_order(sites)
    for block, count in sites:
        if block > depth - 2:
            raise OptionError(
                f"expected to merge tokens in blocks 0 to {depth - 2} of {depth}, since fewer tokens pay in the blocks "
                f"behind, got block {block}; choose an earlier one"
            )
        most = (tokens - 1) // 2
        if count > most:
            raise OptionError(
                f"expected to merge at most {most} of the {tokens} tokens in block {block}, since each second one is "
                f"matched with another, got {count}; merge fewer there or more in another block"
            )
        tokens -= count


def schedules(depth: int, tokens: int) -> tuple[Sites, ...]:
    """Give the schedules to try on a network, from mild to strong.

    They are stated by relative depth and by share of the tokens, so that a schedule that one network bears means the
    same work on another.

    Args:
        depth: The network's number of blocks.
        tokens: How many tokens its first block takes, the class token among them.
    """
    found: set[Sites] = set()
    for depths, share in _CANDIDATES:
        count = round(share * tokens)
        # In a shallow network, sites fall together or behind the last block that gains: what is left is milder.
        blocks = sorted({block for part in depths if (block := round(part * depth)) <= depth - 2})
        sites = tuple((block, count) for block in blocks)
        if sites and count:
            found.add(sites)
    return tuple(sorted(found, key=lambda sites: sum((depth - block) * count for block, count in sites)))


# Relative depths of the sites, and the share of all tokens that goes at each. Few sites at which many tokens go, past
# the middle, drift less for the time they save than many sites at which few go, and than early ones.
_CANDIDATES: tuple[tuple[tuple[float, ...], float], ...] = (
    ((6 / 12, 8 / 12, 10 / 12), 0.10),
    ((8 / 12, 10 / 12), 0.24),
    ((6 / 12, 8 / 12), 0.15),
    ((6 / 12, 8 / 12, 10 / 12), 0.15),
    ((7 / 12, 9 / 12), 0.24),
    ((6 / 12, 9 / 12), 0.24),
    ((5 / 12, 7 / 12, 9 / 12), 0.15),
    ((6 / 12, 8 / 12), 0.24),
    ((5 / 12, 7 / 12), 0.24),
)


def _check_order(sites: Sites) -> None:
    blocks = [block for block, _ in sites]
    if blocks != sorted(set(blocks)) or any(number < 0 for site in sites for number in site):
        raise OptionError(
            f"expected ascending blocks and counts of at least 0, got {format_schedule(sites)}; "
            "name each block once, the first in front"
        )
