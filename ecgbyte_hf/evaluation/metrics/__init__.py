"""Metrics as modules of Hugging Face `evaluate`: each a folder that `evaluate.load` reads from disk."""
