"""What a Hub repository needs: configuration, tokenizer, feature extractor, processor; flat files."""
