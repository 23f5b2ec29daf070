"""The one place that knows where the shared model and images are."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("VIT_EDGE_SHARED", Path(__file__).parents[2] / "shared"))
"""The folder with the real model and images; the environment variable VIT_EDGE_SHARED names another place."""

needs_shared = pytest.mark.skipif(
    not (SHARED / "models").is_dir(), reason=f"needs the shared model and images, absent at {SHARED}"
)
"""Mark a test that needs the real model and images: it skips by name without them, and never with them."""
