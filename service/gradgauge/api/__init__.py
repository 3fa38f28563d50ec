"""The HTTP service: REST under /v1, and pages for people at /."""
