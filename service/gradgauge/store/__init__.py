"""State that outlives a process: PostgreSQL, embedded or by URL, and blobs."""
