"""The sampled engine: the graph run and differentiated by torch."""
