"""Chance without state: every draw is a function of the seed and of what it is for.

So a run that is resumed, or shared out among processes, draws what it would have drawn in one go: there is nothing to
save and nothing to keep in step.
"""

import numpy as np
from numpy.typing import NDArray

# What a draw is for; another purpose gives other numbers.
ORDER, IMAGES, OPERATIONS, MIXING, DEPTH = range(5)

BUFFER = 8192
"""Images of shards are mixed with those of so many places around them."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def bits(seed: int, *keys: int, places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Give 64 random bits for each place: SplitMix64 (Steele, Lea and Flood 2014), once for each key.

    Args:
        seed: Of the run.
        keys: What the draw is for: one of the purposes of this module, the epoch or step, which draw of several.
        places: (count,) what is drawn for, as the images' places in their set.
    """
    state = np.asarray(seed, np.uint64)
    for key in keys:
        state = _mixed(state ^ np.uint64(key))
    return _mixed(state ^ places.astype(np.uint64))


def uniform(seed: int, *keys: int, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give a number from 0 to below 1 for each place; see `bits`."""
    return np.asarray((bits(seed, *keys, places=places) >> np.uint64(11)) * 2.0**-53, np.float64)


def order(seed: int, epoch: int, count: int, *, shards: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Give the order in which the images of an epoch are seen: (count,) int64, every place once.

    Args:
        seed: Of the run.
        epoch: From 1.
        count: How many images there are.
        shards: (count,) the file that each lies in, where they are best read file by file. The files then come in
            another order in each epoch, and images are shuffled as a buffer of `BUFFER` does that is filled from them.
    """
    places = np.arange(count)
    if shards is None:
        return np.argsort(bits(seed, ORDER, epoch, places=places), kind="stable")
    files = bits(seed, ORDER, epoch, 1, places=np.asarray(shards, np.int64))
    stream = np.lexsort((places, shards, files))
    late = BUFFER * uniform(seed, ORDER, epoch, 2, places=stream)
    return np.asarray(stream[np.argsort(places + late, kind="stable")], np.int64)


def _mixed(value: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):  # arithmetic is modulo 2⁶⁴
        mixed = np.asarray(value, np.uint64) + _GOLDEN
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))
