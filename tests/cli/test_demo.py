"""``vit-edge demo``: the whole road from images to answers, for real."""

from vit_edge.cli import demo as _  # noqa: F401
