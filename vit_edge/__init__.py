"""Take a Vision Transformer from PyTorch to a small device, fast and provably intact."""

__version__ = "0.1.0"
