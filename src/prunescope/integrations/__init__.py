"""Prunescope at home in other people's tools: Hugging Face checkpoints too large for memory, pruned block by block; PyTorch's own masks."""
