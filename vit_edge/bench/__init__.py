"""Measures model files on this device: their stages, throughput, memory and start, several against each other.

It needs what the runtime needs, and nothing else.
"""

from .chart import FORMATS, require_format, save_chart
from .load import Times
from .measure import Row, Setting, Step, measure
from .pictures import Pictures, made_pictures, pictures_in
from .run import Plan, Report, describe_device, run
from .start import Start, measure_starts
from .sweep import Sweep, candidates, sweep_threads

__all__ = [
    "FORMATS",
    "Pictures",
    "Plan",
    "Report",
    "Row",
    "Setting",
    "Start",
    "Step",
    "Sweep",
    "Times",
    "candidates",
    "describe_device",
    "made_pictures",
    "measure",
    "measure_starts",
    "pictures_in",
    "require_format",
    "run",
    "save_chart",
    "sweep_threads",
]
