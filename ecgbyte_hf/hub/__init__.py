"""Sharing on the Hugging Face Hub: what is pushed, and what is checked before."""
