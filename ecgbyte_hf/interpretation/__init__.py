"""Looking at what the tokens are."""
