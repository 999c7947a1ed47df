"""What `scripts/benchmark/tokenizer.py` measures, and how."""
