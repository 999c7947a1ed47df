"""Sharing on the Hugging Face Hub: cards, conversion, push."""
