"""The analytic engine: moments propagated through the graph, nothing run."""
