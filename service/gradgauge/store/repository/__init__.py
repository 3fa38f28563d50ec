"""All queries, by noun. What a caller asks for is filtered by its project, without exception."""
