"""Recordings: what one is, and reading one from a file."""
