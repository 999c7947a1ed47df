"""Generating answers, scoring them, and the controls they are compared with."""
