"""Gradient-flow analysis of neural networks before training."""
