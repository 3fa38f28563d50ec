"""Fixes applied to a copy of the graph and measured there."""
