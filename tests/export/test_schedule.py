"""Schedules of token merging are read, checked and proposed."""

import pytest

from vit_edge.errors import OptionError
from vit_edge.export.schedule import Sites, check_schedule, format_schedule, parse_schedule, schedules


def test_a_schedule_is_read_as_it_is_written() -> None:
    """It is typed, shown in tables, and stored in the file."""
    assert parse_schedule(" 5:32, 7:48") == ((5, 32), (7, 48))
    for sites in schedules(12, 197):
        assert parse_schedule(format_schedule(sites)) == sites


@pytest.mark.parametrize(
    "text", ["", "5", "5:", "5:x", "5:32;7:32", "5:-1", "5:32:1", "7:32,5:32", "5:32,5:32"]
)
def test_nonsense_is_no_schedule(text: str) -> None:
    """The answer says what a schedule looks like, or that blocks ascend."""
    with pytest.raises(OptionError, match="expected"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (((11, 8),), "blocks 0 to 10 of 12.* got block 11"),
        (((5, 99),), "at most 98 of the 197 tokens in block 5.* got 99"),
        (((5, 98), (6, 50)), "at most 49 of the 99 tokens in block 6.* got 50"),
        (((7, 8), (5, 8)), "ascending blocks.* got 7:8,5:8"),
    ],
)
def test_a_schedule_that_does_not_fit_the_network_is_refused(sites: Sites, message: str) -> None:
    """Each second token can go at a site, the class token stays, and what follows has to gain by it."""
    with pytest.raises(OptionError, match=message):
        check_schedule(sites, depth=12, tokens=197)


@pytest.mark.parametrize(
    ("depth", "tokens"), [(12, 197), (12, 577), (24, 257), (6, 65), (4, 17), (2, 5), (1, 2)]
)
def test_candidates_fit_any_network_and_grow_stronger(depth: int, tokens: int) -> None:
    """They are stated by relative depth and share, and some of a small network's fall together."""
    found = schedules(depth, tokens)
    assert len(set(found)) == len(found)
    assert len(found) >= (8 if depth >= 12 else 2 if depth >= 4 else 0)
    for sites in found:
        check_schedule(sites, depth=depth, tokens=tokens)
    saved = [sum((depth - block) * count for block, count in sites) for sites in found]
    assert saved == sorted(saved)
