"""The grids of 8-bit numbers that export puts into graphs and that quantization-aware training trains on."""

from .ranges import METHODS, Grid, GrowingHistogram, Histogram, Histograms, Method, Range
from .weights import column_scales, largest_integer, quantized_weights

__all__ = [
    "METHODS",
    "Grid",
    "GrowingHistogram",
    "Histogram",
    "Histograms",
    "Method",
    "Range",
    "column_scales",
    "largest_integer",
    "quantized_weights",
]
