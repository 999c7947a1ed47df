"""From a language model to one that reads ECG tokens."""
