"""How far a model's logits are from a reference's, as a share of their spread."""

import numpy as np
from numpy.typing import NDArray


def relative_drift(reference: NDArray[np.float32], model: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give |model - reference| / |reference - its mean| of each image, Euclidean norms over the classes.

    Args:
        reference: (images, classes) float32 logits of the reference.
        model: (images, classes) float32 logits of the model.

    Returns:
        (images,) float64, at least 0; NaN where the model answered NaN.
    """
    distance = model.astype(np.float64) - reference
    spread = np.linalg.norm(reference - reference.mean(axis=1, keepdims=True, dtype=np.float64), axis=1)
    drift: NDArray[np.float64] = np.linalg.norm(distance, axis=1) / np.maximum(
        spread, np.finfo(np.float32).tiny
    )
    return drift
