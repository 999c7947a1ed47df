"""ECG-Byte: a byte-pair encoding of the 12-lead ECG as a Hugging Face tokenizer.

A signal in mV is quantised to 26 symbols, flattened lead after lead and encoded by longest match over a vocabulary of
merges learnt from ECGs (Han et al., "ECG-Byte", arXiv:2412.14373). Quantising, training and encoding are done in Rust
(`rust_bpe`); no Python string or list stands between an array and its ids.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizer
from transformers.tokenization_utils_base import AddedToken, PaddingStrategy, TruncationStrategy

from .configuration_ecg_byte import EcgByteConfig
from .errors_ecg_byte import CalibrationError, SignalError, VocabularyError
from .leads_ecg_byte import REFERENCE_LEADS

try:
    import rust_bpe
except ImportError:  # a Hub copy of this file can be read without the core; using it names what is missing
    rust_bpe = None  # type: ignore[assignment]

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
ECG_BYTE_FILE = "ecg_byte.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
STOCK_FILE = "tokenizer.json"
FORMAT_VERSION = 1
# Ids of the paper's released tokenizers: 0..255 are the bytes, of which only 'a'..'z' occur, and 256 + r is merge r.
REFERENCE_FIRST_SYMBOL = ord("a")
REFERENCE_FIRST_MERGE = 256
PERCENTILE_MARGIN_MV = 0.5
LEAD_BOUNDARIES = ("cross", "split")
ALGORITHMS = ("greedy", "bpe")


@dataclass(frozen=True)
class EcgCalibration:
    """The interval of mV that the 26 symbols divide.

    Args:
        method: `"percentile"` (one interval for all records) or `"minmax"` (every record's own minimum and maximum).
        low: Lower end in mV; `None` for `"minmax"`.
        high: Upper end in mV; `None` for `"minmax"`.

    Raises:
        CalibrationError: the ends are missing, not finite, or not in order.

    Example:
        >>> EcgCalibration.from_percentiles(-0.75, 1.25)
        EcgCalibration(method='percentile', low=-1.25, high=1.75)
    """

    method: str
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.method == "minmax":
            if self.low is not None or self.high is not None:
                raise CalibrationError("calibration 'minmax' takes each record's own range; leave low and high out")
        elif self.method != "percentile":
            raise CalibrationError(f"unknown calibration {self.method!r}; known: 'percentile', 'minmax'")
        elif self.low is None or self.high is None or not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise CalibrationError(f"calibration needs finite low and high in mV, got {self.low} and {self.high}")
        elif self.low >= self.high:
            raise CalibrationError(f"calibration needs low < high, got {self.low} and {self.high} mV")

    @classmethod
    def from_percentiles(cls, p1: float, p99: float) -> EcgCalibration:
        """The paper's interval: half a millivolt beyond the corpus' 1st and 99th percentile (both in mV)."""
        return cls("percentile", float(p1) - PERCENTILE_MARGIN_MV, float(p99) + PERCENTILE_MARGIN_MV)

    @classmethod
    def minmax(cls) -> EcgCalibration:
        """Every record's own minimum and maximum, as the released tokenizers of the paper were made."""
        return cls("minmax")

    def bounds(self, signal: np.ndarray) -> tuple[float, float]:
        """The (low, high) in mV that apply to `signal` (leads, samples)."""
        if self.low is not None and self.high is not None:
            return self.low, self.high
        if signal.size == 0:
            raise SignalError("an empty signal has no minimum and maximum; calibration 'minmax' needs samples")
        return float(signal.min()), float(signal.max())


class EcgByteTokenizer(PreTrainedTokenizer):
    """ECG-Byte as a `PreTrainedTokenizer`.

    Ids are compact: 26 symbols, then the merges, then `<|ecg_pad|>`, `<|ecg_unk|>`, `<|ecg_start|>`, `<|ecg_end|>`.
    No special token is added by encoding; `ecg_text` puts start and end around the ECG of a language model's prompt.

    Args:
        ecg_byte_file: Path of `ecg_byte.json`; given by `from_pretrained`.
        preprocessor_file: Path of the feature extractor's `preprocessor_config.json`, kept with the tokenizer since
            ids depend on how a signal was cleaned; given by `from_pretrained`.
        merges: Integers (merges, 2) of token ids, instead of `ecg_byte_file`.
        calibration: The interval of mV that the symbols divide, instead of `ecg_byte_file`.
        sampling_rate: Hz that signals must have.
        leads: Lead names in the order of a signal's rows.
        lead_boundary: `"cross"` lets a token span two leads (the paper), `"split"` makes every lead a boundary.
        algorithm: `"greedy"` (longest match, the paper) or `"bpe"` (merges in rank order).
        feature_extractor: The `EcgByteFeatureExtractor` whose output this tokenizer expects; its configuration is
            saved with the tokenizer.

    Raises:
        VocabularyError: the file or the merges are malformed.
        CalibrationError: the calibration is malformed.

    Example:
        >>> import numpy as np
        >>> tokenizer = EcgByteTokenizer(
        ...     merges=[(0, 0)], calibration=EcgCalibration("percentile", -1.0, 1.0), leads=["II"]
        ... )
        >>> tokenizer(np.array([[-1.0, -1.0, 0.5]], dtype=np.float32))["input_ids"]
        [26, 19]
        >>> tokenizer.decode([26, 19])
        'aat'
    """

    vocab_files_names = {"ecg_byte_file": ECG_BYTE_FILE, "preprocessor_file": PREPROCESSOR_FILE}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self,
        ecg_byte_file: str | os.PathLike[str] | None = None,
        preprocessor_file: str | os.PathLike[str] | None = None,
        *,
        merges: Any = None,
        calibration: EcgCalibration | None = None,
        sampling_rate: float = 250,
        leads: Sequence[str] = REFERENCE_LEADS,
        lead_boundary: str = "cross",
        algorithm: str = "greedy",
        feature_extractor: Any = None,
        **kwargs: Any,
    ) -> None:
        if rust_bpe is None:
            raise ImportError("EcgByteTokenizer needs its Rust core; install it with `pip install ecgbyte-rust-bpe`")
        if ecg_byte_file is not None:
            if merges is not None or calibration is not None:
                raise VocabularyError("give either ecg_byte_file or merges and calibration, not both")
            stored = _read_ecg_byte_file(ecg_byte_file)
            merges, calibration = stored["merges"], EcgCalibration(**stored["calibration"])
            sampling_rate, leads = stored["sampling_rate"], stored["leads"]
            lead_boundary, algorithm = stored["lead_boundary"], stored["algorithm"]
        elif calibration is None:
            raise CalibrationError("a new EcgByteTokenizer needs calibration=EcgCalibration(...)")
        _check_choice("lead_boundary", lead_boundary, LEAD_BOUNDARIES)
        _check_choice("algorithm", algorithm, ALGORITHMS)

        merge_table = np.asarray([] if merges is None else merges)
        merge_table = merge_table.reshape(0, 2) if merge_table.size == 0 else merge_table
        try:
            self.bpe = rust_bpe.Bpe(merge_table, num_symbols=len(ALPHABET))
        except (ValueError, KeyError, TypeError) as error:
            raise VocabularyError(f"{ecg_byte_file or 'merges'}: {error}") from error
        self.calibration = calibration
        self.sampling_rate = sampling_rate
        self.leads = tuple(leads)
        self.lead_boundary = lead_boundary
        self.algorithm = algorithm
        self.preprocessor_json = _preprocessor_json(preprocessor_file, feature_extractor)

        # The tokens' letters are one decoded string cut at the token lengths: no call per token.
        symbols = self.bpe.decode(np.arange(self.bpe.vocab_size, dtype=np.uint32))
        letters = (symbols + REFERENCE_FIRST_SYMBOL).astype(np.uint8).tobytes().decode("ascii")
        ends = np.cumsum(self.bpe.token_lengths, dtype=np.int64).tolist()
        self._tokens = [letters[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        specials = {
            "pad_token": "<|ecg_pad|>",
            "unk_token": "<|ecg_unk|>",
            "bos_token": "<|ecg_start|>",
            "eos_token": "<|ecg_end|>",
        }
        special_tokens = {key: kwargs.pop(key, None) or text for key, text in specials.items()}
        self._tokens += [str(text) for text in special_tokens.values()]
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            raise VocabularyError("the special tokens must differ from one another and from every token's letters")
        kwargs.setdefault("special_tokens_pattern", "none")
        kwargs.setdefault("model_max_length", int(1e30))
        super().__init__(**special_tokens, **kwargs)
        # Where a folder was loaded from is no property of the tokenizer: saved again it must be the same folder.
        for transient in ("is_local", "local_files_only"):
            self.init_kwargs.pop(transient, None)

    # ---- vocabulary -------------------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """Number of ids: symbols, merges and the four special tokens."""
        return len(self._tokens)

    @property
    def num_ecg_tokens(self) -> int:
        """Number of ids that stand for samples: symbols and merges."""
        return self.bpe.vocab_size

    @property
    def num_merges(self) -> int:
        """Number of merges."""
        return self.bpe.num_merges

    def get_vocab(self) -> dict[str, int]:
        """The letters of every token, and the special tokens, to their ids."""
        return {**self._ids, **self._added_tokens_encoder}

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, self._ids[str(self.unk_token)])

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index < len(self._tokens):
            raise VocabularyError(f"id {index} is not in the vocabulary of {len(self._tokens)} ids")
        return self._tokens[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The tokens' letters, joined."""
        return "".join(tokens)

    def to_reference_ids(self, ids: Any) -> np.ndarray:
        """Ids of the paper's released code: symbol k is 97 + k, merge r is 256 + r.

        Args:
            ids: Integers of any shape, below `num_ecg_tokens`.

        Raises:
            VocabularyError: an id is a special token or out of range.
        """
        ids = np.asarray(ids, dtype=np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.num_ecg_tokens:
            raise VocabularyError(f"only ids below {self.num_ecg_tokens} have a reference id, got up to {ids.max()}")
        offset = np.where(ids < len(ALPHABET), REFERENCE_FIRST_SYMBOL, REFERENCE_FIRST_MERGE - len(ALPHABET))
        return ids + offset

    def from_reference_ids(self, ids: Any) -> np.ndarray:
        """The inverse of `to_reference_ids`.

        Raises:
            VocabularyError: an id is one of the reference's dead byte ids, or out of range.
        """
        ids = np.asarray(ids, dtype=np.int64)
        is_merge = ids >= REFERENCE_FIRST_MERGE
        compact = ids - np.where(is_merge, REFERENCE_FIRST_MERGE - len(ALPHABET), REFERENCE_FIRST_SYMBOL)
        dead = ~is_merge & ((compact < 0) | (compact >= len(ALPHABET)))
        if dead.any() or (compact >= self.num_ecg_tokens).any():
            raise VocabularyError("the reference's ids are 97..122 and 256.. up to the last merge; got another one")
        return compact

    # ---- training ---------------------------------------------------------------------------------------------

    @classmethod
    def train_from_iterator(
        cls,
        records: Iterable[Any],
        num_merges: int,
        *,
        calibration: EcgCalibration,
        lead_boundary: str = "cross",
        max_token_length: int | None = 1024,
        sampling_rate: float = 250,
        leads: Sequence[str] = REFERENCE_LEADS,
        algorithm: str = "greedy",
        feature_extractor: Any = None,
        num_threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> EcgByteTokenizer:
        """Learn a vocabulary from cleaned signals.

        Args:
            records: Iterable of float arrays (leads, samples) in mV; read once, a generator will do.
            num_merges: Number of merges to learn; fewer only when no pair is left.
            calibration: The interval of mV that the symbols divide.
            lead_boundary: `"cross"` or `"split"`: whether a token may span two leads.
            max_token_length: Longest token in samples; `None` for no limit. The stock `tokenizer.json` needs one:
                its regular expression nests, and fails at about 3,000 letters.
            sampling_rate: Hz of the records.
            leads: Lead names in the order of a record's rows.
            algorithm: Encoding of the new tokenizer, `"greedy"` or `"bpe"`.
            feature_extractor: The `EcgByteFeatureExtractor` that cleaned the records; saved with the tokenizer.
            num_threads: Threads of the Rust core; `None` for all. The merges do not depend on it.
            progress: Called with (merges done, merges wanted).

        Returns:
            The trained tokenizer. Highest count first, ties to the smallest pair of ids, records are boundaries: the
            same result on any machine.
        """
        if rust_bpe is None:
            raise ImportError("training needs the Rust core; install it with `pip install ecgbyte-rust-bpe`")
        _check_choice("lead_boundary", lead_boundary, LEAD_BOUNDARIES)

        def symbol_records() -> Iterable[np.ndarray]:
            for record in records:
                signal = _as_signal(record, len(leads))
                symbols = rust_bpe.quantize(signal, *calibration.bounds(signal), num_symbols=len(ALPHABET))
                if lead_boundary == "split":
                    yield from symbols
                else:
                    yield symbols.reshape(-1)

        merges = rust_bpe.train(
            symbol_records(),
            num_merges,
            num_symbols=len(ALPHABET),
            max_token_length=max_token_length,
            num_threads=num_threads,
            progress=progress,
        )
        return cls(
            merges=merges,
            calibration=calibration,
            sampling_rate=sampling_rate,
            leads=leads,
            lead_boundary=lead_boundary,
            algorithm=algorithm,
            feature_extractor=feature_extractor,
        )

    # ---- encoding ---------------------------------------------------------------------------------------------

    def encode_signal(self, signal: Any) -> np.ndarray:
        """Ids (tokens,) uint32 of one signal, without any wrapping.

        Args:
            signal: Float array (leads, samples) in mV, cleaned, at `sampling_rate`, rows in the order of `leads`.

        Raises:
            SignalError: wrong shape or dtype, NaN or infinity.
        """
        signal = _as_signal(signal, len(self.leads))
        low, high = self.calibration.bounds(signal)
        return self._encode_with(signal, low, high)

    def _encode_with(self, signal: np.ndarray, low: float, high: float) -> np.ndarray:
        try:
            return self.bpe.encode_signal(
                signal, low, high, algorithm=self.algorithm, lead_boundary=self.lead_boundary
            )
        except ValueError as error:
            raise SignalError(str(error)) from error

    def encode_symbols(self, letters: str) -> np.ndarray:
        """Ids (tokens,) uint32 of a string of symbols; a character that is no symbol becomes `<|ecg_unk|>`."""
        encode = self.bpe.encode_greedy if self.algorithm == "greedy" else self.bpe.encode_bpe
        parts = []
        for run in _SYMBOL_RUNS.findall(letters):
            if run[0] in ALPHABET:
                parts.append(encode(np.frombuffer(run.encode("ascii"), dtype=np.uint8) - REFERENCE_FIRST_SYMBOL))
            else:
                parts.append(np.array([self.unk_token_id], dtype=np.uint32))
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint32)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self._tokens[index] for index in self.encode_symbols(text).tolist()]

    def _encode_one(self, item: Any, split_special_tokens: bool) -> tuple[np.ndarray, tuple[float, float] | None]:
        if isinstance(item, str):
            pieces = [item] if split_special_tokens else self.tokens_trie.split(item)
            parts = [
                np.array([self._added_tokens_encoder[piece]], dtype=np.uint32)
                if piece in self._added_tokens_encoder and not split_special_tokens
                else self.encode_symbols(piece)
                for piece in pieces
            ]
            ids = parts[0] if len(parts) == 1 else np.concatenate([*parts, np.zeros(0, dtype=np.uint32)])
            return ids, None
        signal = _as_signal(item, len(self.leads))
        low, high = self.calibration.bounds(signal)
        return self._encode_with(signal, low, high), (low, high)

    def _encode_plus(  # type: ignore[override]
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        split_special_tokens: bool = False,
        return_calibration: bool = False,
        **kwargs: Any,
    ) -> BatchEncoding:
        if text_pair is not None or is_split_into_words:
            raise VocabularyError("an ECG is one sequence: text_pair and is_split_into_words do not apply")
        if return_overflowing_tokens or return_token_type_ids:
            raise VocabularyError("return_overflowing_tokens and return_token_type_ids are not supported")
        items, is_batch = _as_batch(text)
        encoded = [self._encode_one(item, split_special_tokens) for item in items]
        cut = max_length if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE else None
        columns: dict[str, list[Any]] = {"input_ids": []}
        for ids, bounds in encoded:
            kept = slice(None)
            if cut is not None and len(ids) > cut:
                kept = slice(len(ids) - cut, None) if self.truncation_side == "left" else slice(None, cut)
            columns["input_ids"].append(ids[kept].astype(np.int64))
            if return_offsets_mapping:
                columns.setdefault("offset_mapping", []).append(self._offsets(ids)[kept])
            if return_special_tokens_mask:
                columns.setdefault("special_tokens_mask", []).append((ids[kept] >= self.num_ecg_tokens).astype(int))
            if return_length:
                columns.setdefault("length", []).append(len(ids[kept]))
            if return_calibration:
                if bounds is None:
                    raise CalibrationError("return_calibration needs signals in mV; symbols have no low and high")
                columns.setdefault("calibration", []).append(np.array(bounds))
        if verbose and cut is None:
            for ids in columns["input_ids"]:
                self._eventual_warn_about_too_long_sequence(ids, None, verbose)
        wants_mask = return_attention_mask or return_attention_mask is None
        self._pad_columns(columns, padding_strategy, max_length, pad_to_multiple_of, padding_side, wants_mask)
        return self._to_encoding(columns, is_batch, return_tensors)

    def _offsets(self, ids: np.ndarray) -> np.ndarray:
        """(start, stop) of each token in the flattened signal or string; special tokens count their characters."""
        lengths = np.ones(len(ids), dtype=np.int64)
        ecg = ids < self.num_ecg_tokens
        lengths[ecg] = self.bpe.token_lengths[ids[ecg]]
        for index in np.flatnonzero(~ecg & (ids != self.unk_token_id)):
            lengths[index] = len(self._convert_special_id(int(ids[index])))
        stops = np.cumsum(lengths)
        return np.stack([stops - lengths, stops], axis=1)

    def _convert_special_id(self, index: int) -> str:
        added = self._added_tokens_decoder.get(index)
        return added.content if isinstance(added, AddedToken) else self._convert_id_to_token(index)

    def _pad_columns(
        self,
        columns: dict[str, list[Any]],
        strategy: PaddingStrategy,
        max_length: int | None,
        multiple: int | None,
        side: str | None,
        wants_mask: bool,
    ) -> None:
        rows = columns["input_ids"]
        lengths = [len(ids) for ids in rows]
        if strategy == PaddingStrategy.DO_NOT_PAD:
            target = None
        else:
            target = max(lengths, default=0) if strategy == PaddingStrategy.LONGEST else int(max_length or 0)
            if multiple:
                target = -(-target // multiple) * multiple
        side = side or self.padding_side
        if wants_mask:
            columns["attention_mask"] = [np.ones(length, dtype=np.int64) for length in lengths]
        if target is None:
            return
        fills = {"input_ids": self.pad_token_id, "attention_mask": 0, "special_tokens_mask": 1, "offset_mapping": 0}
        for name, fill in fills.items():
            if name not in columns:
                continue
            for row, values in enumerate(columns[name]):
                missing = max(target - lengths[row], 0)
                before, after = (missing, 0) if side == "left" else (0, missing)
                widths = [(before, after)] + [(0, 0)] * (values.ndim - 1)
                columns[name][row] = np.pad(values, widths, constant_values=fill)

    def _to_encoding(self, columns: dict[str, list[Any]], is_batch: bool, return_tensors: Any) -> BatchEncoding:
        if return_tensors is None:
            lists = {name: [getattr(v, "tolist", lambda v=v: v)() for v in rows] for name, rows in columns.items()}
            if "offset_mapping" in lists:
                lists["offset_mapping"] = [[tuple(pair) for pair in row] for row in lists["offset_mapping"]]
            return BatchEncoding(lists if is_batch else {name: rows[0] for name, rows in lists.items()})
        if len({len(ids) for ids in columns["input_ids"]}) > 1:
            raise ValueError(
                "sequences of different lengths cannot become one tensor; pass padding=True (or truncation=True and "
                "max_length=...)"
            )
        arrays = {name: np.stack([np.asarray(v) for v in rows]) for name, rows in columns.items()}
        kind = getattr(return_tensors, "value", return_tensors)
        if kind == "np":
            return BatchEncoding(arrays)
        if kind == "pt":
            import torch

            return BatchEncoding({name: torch.from_numpy(array) for name, array in arrays.items()})
        return BatchEncoding(arrays, tensor_type=return_tensors)

    # ---- decoding ---------------------------------------------------------------------------------------------

    def decode_signal(
        self, ids: Any, *, low: float | None = None, high: float | None = None, num_leads: int | None = None
    ) -> np.ndarray:
        """The signal that ids stand for, in mV at the centres of the bins.

        Args:
            ids: Integers (tokens,); special tokens are left out.
            low: Lower end in mV; only for calibration `"minmax"`, where the record's own must be given
                (`tokenizer(signal, return_calibration=True)` returns it).
            high: Upper end in mV, likewise.
            num_leads: Number of rows; the number of `leads` by default.

        Returns:
            Float64 (leads, samples); the error is at most half a bin, (high - low) / 52, inside the range.

        Raises:
            CalibrationError: the range is not known.
            SignalError: the samples do not divide evenly among the leads (the ids were cut).
        """
        if self.calibration.method == "percentile":
            if low is not None or high is not None:
                raise CalibrationError("low and high are fixed by this tokenizer's calibration; leave them out")
            low, high = self.calibration.low, self.calibration.high
        if low is None or high is None:
            raise CalibrationError(
                "this tokenizer takes each record's own range: pass the low and high that "
                "tokenizer(signal, return_calibration=True) returned"
            )
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        symbols = self.bpe.decode(ids[ids < self.num_ecg_tokens].astype(np.uint32))
        rows = len(self.leads) if num_leads is None else num_leads
        if len(symbols) % rows:
            raise SignalError(
                f"{len(symbols)} samples do not divide among {rows} leads: the ids were cut; cut the signal in time "
                "before encoding instead"
            )
        centres = (symbols.astype(np.float64) + 0.5) / len(ALPHABET)
        return (low + centres * (high - low + 1e-6)).reshape(rows, -1)

    def lead_spans(self, offset: tuple[int, int], num_samples: int) -> list[tuple[str, int, int]]:
        """The parts of leads that one token covers.

        Args:
            offset: (start, stop) in the flattened signal, from `return_offsets_mapping=True`.
            num_samples: Samples per lead of the encoded signal.

        Returns:
            List of (lead name, first sample, sample after the last), in order.

        Example:
            >>> tokenizer = EcgByteTokenizer(calibration=EcgCalibration("percentile", -1.0, 1.0), leads=["I", "II"])
            >>> tokenizer.lead_spans((3, 6), num_samples=4)
            [('I', 3, 4), ('II', 0, 2)]
        """
        start, stop = offset
        spans = []
        while start < stop:
            lead, first = divmod(start, num_samples)
            if lead >= len(self.leads):
                raise SignalError(f"offset {offset} lies beyond {len(self.leads)} leads of {num_samples} samples")
            last = min(num_samples, first + stop - start)
            spans.append((self.leads[lead], first, last))
            start += last - first
        return spans

    def ecg_text(self, ids: Any) -> str:
        """The ECG as a language model's tokenizer reads it: `<|ecg_start|><|ecg_17|>...<|ecg_end|>`."""
        body = "".join([f"<|ecg_{index}|>" for index in np.asarray(ids).tolist()])
        return f"{self.bos_token}{body}{self.eos_token}"

    # ---- saving -----------------------------------------------------------------------------------------------

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write `ecg_byte.json`, the stock `tokenizer.json`, `config.json` and the feature extractor's file.

        Returns:
            The paths written.
        """
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        contents = {ECG_BYTE_FILE: self._ecg_byte_json(), STOCK_FILE: stock_tokenizer(self).to_str(pretty=False) + "\n"}
        if self.preprocessor_json is not None:
            contents[PREPROCESSOR_FILE] = self.preprocessor_json
        paths = []
        for name, content in contents.items():
            path = os.path.join(save_directory, prefix + name)
            with open(path, "w", encoding="utf-8", newline="\n") as file:
                file.write(content)
            paths.append(path)
        EcgByteConfig(vocab_size=self.vocab_size).save_pretrained(save_directory)
        return (*paths, os.path.join(save_directory, "config.json"))

    def _ecg_byte_json(self) -> str:
        stored = {
            "version": FORMAT_VERSION,
            "alphabet": ALPHABET,
            "algorithm": self.algorithm,
            "lead_boundary": self.lead_boundary,
            "sampling_rate": self.sampling_rate,
            "leads": list(self.leads),
            "calibration": {
                "method": self.calibration.method,
                "low": self.calibration.low,
                "high": self.calibration.high,
            },
            "merges": [],
        }
        head = json.dumps(stored, indent=2)
        pairs = ",\n".join(f"    [{left}, {right}]" for left, right in self.bpe.merges.tolist())
        return head.replace('"merges": []', f'"merges": [\n{pairs}\n  ]' if pairs else '"merges": []') + "\n"


_SYMBOL_RUNS = re.compile(r"[a-z]+|[^a-z]", re.DOTALL)


def _check_choice(name: str, got: str, known: tuple[str, ...]) -> None:
    if got not in known:
        raise VocabularyError(f"unknown {name} {got!r}; known: {', '.join(known)}")


def _as_signal(item: Any, num_leads: int) -> np.ndarray:
    """`item` as a float32 or float64 array (leads, samples), or a SignalError that says what is wrong."""
    signal = item.detach().cpu().numpy() if hasattr(item, "detach") else np.asarray(item)
    if signal.dtype == np.float16:
        signal = signal.astype(np.float32)
    if signal.dtype not in (np.float32, np.float64):
        raise SignalError(
            f"a signal must be floating point in mV, got {signal.dtype}; multiply stored integers by their gain"
        )
    if signal.ndim != 2 or signal.shape[0] != num_leads:
        raise SignalError(f"expected a signal of shape ({num_leads}, samples), got {signal.shape}")
    if not np.isfinite(signal).all():
        raise SignalError(f"the signal holds {int((~np.isfinite(signal)).sum())} samples that are NaN or infinite")
    return signal


def _as_batch(text: Any) -> tuple[list[Any], bool]:
    if isinstance(text, str):
        return [text], False
    if hasattr(text, "ndim"):
        return (list(text), True) if text.ndim == 3 else ([text], False)
    if isinstance(text, (list, tuple)) and not any(isinstance(item, (int, float)) for item in text):
        return list(text), True
    raise SignalError(
        f"expected a signal (leads, samples), a batch of signals, or strings of symbols; got {type(text).__name__}"
    )


def _preprocessor_json(path: str | os.PathLike[str] | None, feature_extractor: Any) -> str | None:
    if feature_extractor is not None:
        return str(feature_extractor.to_json_string())
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def _read_ecg_byte_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            stored = json.load(file)
    except json.JSONDecodeError as error:
        raise VocabularyError(f"{path}: not a JSON file ({error})") from error
    wanted = {"version", "alphabet", "algorithm", "lead_boundary", "sampling_rate", "leads", "calibration", "merges"}
    if not isinstance(stored, dict) or not wanted <= stored.keys():
        missing = wanted - stored.keys() if isinstance(stored, dict) else wanted
        raise VocabularyError(f"{path}: not an ECG-Byte vocabulary; missing {', '.join(sorted(missing))}")
    if stored["version"] != FORMAT_VERSION or stored["alphabet"] != ALPHABET:
        raise VocabularyError(
            f"{path}: version {stored['version']} with alphabet {stored['alphabet']!r}; this ecgbyte_hf reads "
            f"version {FORMAT_VERSION} with {ALPHABET!r}; upgrade ecgbyte-hf"
        )
    return stored


def stock_tokenizer(tokenizer: EcgByteTokenizer) -> Any:
    """The same vocabulary for the stock `tokenizers` library, equal to greedy encoding.

    A WordLevel model behind a Split pre-tokenizer whose regular expression is the vocabulary's trie: it matches the
    longest token, and any other single character, which becomes `<|ecg_unk|>`. This is what `AutoTokenizer` loads
    where `ecgbyte_hf` is not installed. The letters alone cannot tell where a lead ends, so with
    `lead_boundary="split"` encode each lead by itself there.
    """
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split

    stock = Tokenizer(WordLevel(dict(tokenizer._ids), unk_token=str(tokenizer.unk_token)))
    words = tokenizer._tokens[: tokenizer.num_ecg_tokens]
    stock.pre_tokenizer = Split(Regex(rf"{trie_pattern(words)}|[\s\S]"), "isolated")
    stock.decoder = Fuse()
    special = (tokenizer.pad_token, tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token)
    stock.add_special_tokens([AddedToken(str(token), special=True, normalized=False) for token in special])
    return stock


def trie_pattern(words: Sequence[str]) -> str:
    """A regular expression that matches the longest of `words` at a position.

    Example:
        >>> trie_pattern(["a", "ab", "abcd", "b"])
        'a(?:b(?:cd)?)?|b'
    """
    children: list[dict[str, int]] = [{}]
    is_word = [False]
    for word in words:
        node = 0
        for letter in word:
            if letter not in children[node]:
                children[node][letter] = len(children)
                children.append({})
                is_word.append(False)
            node = children[node][letter]
        is_word[node] = True
    # A child always has a larger number than its parent, so one pass from the end builds the pattern bottom-up,
    # without recursion: words of a thousand letters would exceed Python's limit.
    patterns = [""] * len(children)
    for node in range(len(children) - 1, 0, -1):
        branches = [letter + patterns[child] for letter, child in children[node].items()]
        if not branches:
            continue
        if is_word[node]:
            patterns[node] = f"(?:{'|'.join(branches)})?"
        else:
            patterns[node] = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
        for child in children[node].values():
            patterns[child] = ""
    return "|".join(letter + patterns[child] for letter, child in children[0].items())
