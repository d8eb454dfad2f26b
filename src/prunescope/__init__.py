"""prunescope: prune any PyTorch network and see what it does to accuracy, size, speed and the flow of information."""

__version__ = "0.1.0"
