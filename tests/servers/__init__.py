"""Cameras' servers that tests start as processes of their own; `tests.streams` is how they are used."""
