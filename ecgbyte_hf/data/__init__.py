"""Data sets as `datasets` builders, and the prepared folder that training and evaluation read."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

# A new data set is one file with a builder, one test and one line here.
BUILDERS = {
    "ecg_qa": ("ecgbyte_hf.data.ecg_qa", "EcgQa"),
    "synthetic": ("ecgbyte_hf.data.synthetic", "Synthetic"),
}


def load_dataset(
    name: str,
    config: str | None = None,
    *,
    split: str | None = None,
    data_dir: str | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    **config_kwargs: Any,
) -> Any:
    """Load one of the paper's data sets from the files you downloaded.

    Args:
        name: `"ecg_qa"` or `"synthetic"`.
        config: Configuration of the builder, such as `"ptbxl-paraphrased"`.
        split: One split; all of them by default.
        data_dir: The folder with the downloaded files.
        streaming: Read on the fly instead of building a cache.
        num_proc: Processes that build the cache.
        cache_dir: Where the cache lies; the Hugging Face default otherwise.
        config_kwargs: Further fields of the builder's configuration.

    Returns:
        A `datasets.Dataset`, or a `DatasetDict` (`Iterable...` when streaming).

    Raises:
        EcgDataError: unknown name, or a folder that does not hold the data set.

    Example:
        >>> rows = load_dataset("synthetic", "questions", num_records=4, split="train")
        >>> sorted(rows[0])[:3]
        ['answer', 'attribute', 'attribute_type']
    """
    if name not in BUILDERS:
        raise EcgDataError(f"unknown data set {name!r}; known: {', '.join(sorted(BUILDERS))}")
    module, class_name = BUILDERS[name]
    builder_class = getattr(import_module(module), class_name)
    if data_dir is not None:
        config_kwargs["fingerprint"] = builder_class.fingerprint(data_dir)
    builder = builder_class(config_name=config, data_dir=data_dir, cache_dir=cache_dir, **config_kwargs)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset(split=split)
