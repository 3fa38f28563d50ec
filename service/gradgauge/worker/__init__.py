"""The child process that runs an analysis, and who starts it."""
