"""The folder for `evaluate.load`; the metric is in `ecg_text_metrics.py`."""
