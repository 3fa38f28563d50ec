"""From bytes or a spec to one checked graph, its layers and its rewrites."""
