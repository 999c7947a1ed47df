"""Data sets as `datasets` builders, and the prepared folder that training and evaluation read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgHubError

# A new data set is one file with a builder, one test and one line here.
BUILDERS = {
    "ecg_chat": ("ecgbyte_hf.data.ecg_chat", "EcgChat"),
    "ecg_qa": ("ecgbyte_hf.data.ecg_qa", "EcgQa"),
    "mimic_iv_ecg": ("ecgbyte_hf.data.mimic_iv_ecg", "MimicIvEcg"),
    "ptb_xl": ("ecgbyte_hf.data.ptb_xl", "PtbXl"),
    "synthetic": ("ecgbyte_hf.data.synthetic", "Synthetic"),
}

_NOT_OPTIONS = {"name", "version", "data_dir", "data_files", "description", "fingerprint"}


def load_dataset(
    name: str,
    config: str | None = None,
    *,
    split: str | None = None,
    data_dir: str | Path | None = None,
    streaming: bool = False,
    num_proc: int | None = None,
    cache_dir: str | None = None,
    **config_kwargs: Any,
) -> Any:
    """Load one of the paper's data sets from the files you downloaded, or a data set of the Hub.

    Args:
        name: `"ptb_xl"`, `"mimic_iv_ecg"`, `"ecg_qa"`, `"ecg_chat"` or `"synthetic"`; `data/README.md` describes them.
            `USER/NAME` is loaded by `datasets.load_dataset`, which takes all other arguments.
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
        EcgDataError: unknown name or configuration, or files that do not hold the data set.
        EcgHubError: the Hub does not have or give it.

    Example:
        >>> rows = load_dataset("synthetic", "questions", num_records=4, split="train")
        >>> sorted(rows[0])[:3]
        ['answer', 'attribute', 'attribute_type']
    """
    if name not in BUILDERS:
        from ecgbyte_hf.data.hub_folder import is_repo_id

        if is_repo_id(name):
            given = {"streaming": streaming, "num_proc": num_proc, "cache_dir": cache_dir, **config_kwargs}
            folder = None if data_dir is None else str(data_dir)
            return _from_hub(name, config, split=split, data_dir=folder, **given)
        raise EcgDataError(f"unknown data set {name!r}; known: {', '.join(sorted(BUILDERS))}")
    builder = _builder(name, config, data_dir, cache_dir, config_kwargs, cached=not streaming)
    with _own_errors():
        if streaming:
            return _one_split(name, builder.as_streaming_dataset(), split)
        builder.download_and_prepare(num_proc=num_proc)
        return _built(name, builder, split)


def _from_hub(name: str, config: str | None, **options: Any) -> Any:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    from ecgbyte_hf.data.hub_folder import without_tokens

    try:
        return datasets.load_dataset(name, config, **options)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise EcgHubError(
            f"{without_tokens(str(error))} If it is private, log in with `hf auth login` or set HF_TOKEN"
        ) from error


def _builder(
    name: str, config: str | None, data_dir: Any, cache_dir: str | None, options: dict[str, Any], *, cached: bool
) -> Any:
    module, class_name = BUILDERS[name]
    builder_class = getattr(import_module(module), class_name)
    config_class, configs = builder_class.BUILDER_CONFIG_CLASS, list(builder_class.builder_configs)
    if config is None and builder_class.DEFAULT_CONFIG_NAME is None or config is not None and config not in configs:
        raise EcgDataError(f"{name} has no configuration {config!r}; choose one of {', '.join(configs)}")
    known = {field.name for field in fields(config_class)} - _NOT_OPTIONS
    if unknown := sorted(set(options) - known):
        raise EcgDataError(f"{name} has no option {', '.join(unknown)}; known: {', '.join(sorted(known)) or 'none'}")
    if data_dir is not None:
        data_dir = str(data_dir)
        if cached and hasattr(config_class, "source_files"):
            from ecgbyte_hf.data.questions import files_fingerprint

            files = config_class(name=config, data_dir=data_dir, **options).source_files()
            # Part of the cache's name: `datasets` would go on giving the old rows of a changed file.
            options = {**options, "fingerprint": files_fingerprint(files)}
    return builder_class(config_name=config, data_dir=data_dir, cache_dir=cache_dir, **options)


def _built(name: str, builder: Any, split: str | None) -> Any:
    """All splits that have rows, or one, or what a slice such as "train[:100]" names."""
    import datasets

    # `datasets` refuses a split without rows, such as one whose questions are all of other types.
    filled = {part: part for part, info in builder.info.splits.items() if info.num_examples}
    if not filled:
        raise EcgDataError(f"{name} has no rows for these options in {builder.config.data_dir}")
    if split is None:
        return datasets.DatasetDict({part: builder.as_dataset(split=part) for part in filled})
    if split.isidentifier() and split != "all":
        split = _one_split(name, filled, split)
    return builder.as_dataset(split=split)


def _one_split(name: str, splits: Any, split: str | None) -> Any:
    if split is None:
        return splits
    if split not in splits:
        raise EcgDataError(f"{name} has no rows in the split {split!r} here; it has {', '.join(splits)}")
    return splits[split]


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise our own error where `datasets` has wrapped it in one of its own, which says nothing."""
    try:
        yield
    except Exception as error:
        from ecgbyte_hf.data.builder import own_error

        cause = own_error(error)
        if cause is None:
            raise
        raise cause from None
