"""aimd: the node daemon that lets several AI models share AMD Instinct GPUs."""

__version__ = "0.1.0"
