"""Data sets as tensors, and the batches that models and guides are called with."""
