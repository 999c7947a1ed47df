"""What a Hub repository needs: configuration, tokenizer, feature extractor, processor, encoders; flat files."""
