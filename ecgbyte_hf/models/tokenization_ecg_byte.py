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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizer
from transformers.tokenization_utils_base import AddedToken, PaddingStrategy, TruncationStrategy
from transformers.utils import logging

from .configuration_ecg_byte import EcgByteConfig
from .errors_ecg_byte import CalibrationError, EcgError, LeadError, SamplingRateError, SignalError, VocabularyError
from .leads_ecg_byte import REFERENCE_LEADS

try:
    import rust_bpe
except ImportError:  # a Hub copy of this file can be read without the core; using it names what is missing
    rust_bpe = None  # type: ignore[assignment]

logger = logging.get_logger(__name__)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
ECG_BYTE_FILE = "ecg_byte.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
STOCK_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"
FORMAT_VERSION = 1
# Ids of the paper's released tokenizers: 0..255 are the bytes, of which only 'a'..'z' occur, and 256 + r is merge r.
REFERENCE_FIRST_SYMBOL = ord("a")
REFERENCE_FIRST_MERGE = 256
PERCENTILE_MARGIN_MV = 0.5
LEAD_BOUNDARIES = ("cross", "split")
ALGORITHMS = ("greedy", "bpe")
# The last four ids of every vocabulary. A user may give a role to another token (`tokenizer.pad_token = ...`), as with
# any tokenizer, but no id moves by that.
SPECIAL_TOKENS = {
    "pad_token": "<|ecg_pad|>",
    "unk_token": "<|ecg_unk|>",
    "bos_token": "<|ecg_start|>",
    "eos_token": "<|ecg_end|>",
}


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
        """Check the ends."""
        if self.method == "minmax":
            if self.low is not None or self.high is not None:
                raise CalibrationError("calibration 'minmax' takes each record's own range; leave low and high out")
        elif self.method != "percentile":
            raise CalibrationError(f"unknown calibration {self.method!r}; known: 'percentile', 'minmax'")
        elif not (_is_finite_number(self.low) and _is_finite_number(self.high)):
            raise CalibrationError(f"calibration needs finite low and high in mV, got {self.low!r} and {self.high!r}")
        elif cast(float, self.low) >= cast(float, self.high):
            raise CalibrationError(f"calibration needs low < high, got {self.low} and {self.high} mV")

    @classmethod
    def from_percentiles(cls, p1: float, p99: float) -> EcgCalibration:
        """The paper's interval: half a millivolt beyond the corpus' 1st and 99th percentile (both in mV)."""
        if p1 > p99:
            raise CalibrationError(f"the 1st percentile cannot be above the 99th, got {p1} and {p99} mV")
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
    Tokens that a user adds come after them. Strings of symbols are encoded as one run: with `lead_boundary="split"`,
    encode each lead's string by itself.

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
        VocabularyError: the file or the merges are malformed, or a folder holds files of different tokenizers.
        CalibrationError: the calibration is malformed.
        SamplingRateError: the sampling rate is not positive, or not the feature extractor's.
        LeadError: the leads are not different names, or not the feature extractor's.

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
        """Check and keep the arguments; all of them are in the folder that `save_pretrained` writes."""
        if rust_bpe is None:
            raise ImportError("EcgByteTokenizer needs its Rust core; install it with `pip install ecgbyte-rust-bpe`")
        where = ""
        if ecg_byte_file is not None:
            if merges is not None or calibration is not None:
                raise VocabularyError("give either ecg_byte_file or merges and calibration, not both")
            where = f"{os.fspath(ecg_byte_file)}: "
            stored = _read_ecg_byte_file(ecg_byte_file)
            merges, calibration = stored["merges"], stored["calibration"]
            sampling_rate, leads = stored["sampling_rate"], stored["leads"]
            lead_boundary, algorithm = stored["lead_boundary"], stored["algorithm"]
        elif calibration is None and "name_or_path" in kwargs:
            raise VocabularyError(
                f"{kwargs['name_or_path']}: there is no {ECG_BYTE_FILE}, so this is not the complete folder of an "
                "ECG-Byte tokenizer; save or download it again"
            )
        elif not isinstance(calibration, EcgCalibration):
            raise CalibrationError(f"expected calibration=EcgCalibration(...), got {calibration!r}")
        _check_choice(f"{where}lead_boundary", lead_boundary, LEAD_BOUNDARIES)
        _check_choice(f"{where}algorithm", algorithm, ALGORITHMS)

        self.bpe = _bpe_of(merges, where or "merges: ")
        self.calibration = cast(EcgCalibration, calibration)
        self.sampling_rate = _checked_rate(sampling_rate, where)
        self.leads = _checked_leads(leads, where)
        self.lead_boundary = lead_boundary
        self.algorithm = algorithm
        self.preprocessor_json = _preprocessor_json(preprocessor_file, feature_extractor)
        if self.preprocessor_json is not None:
            from_file = preprocessor_file is not None and feature_extractor is None
            where_cleaned = f"{os.fspath(cast(str, preprocessor_file))}: " if from_file else ""
            self._check_cleaning(json.loads(self.preprocessor_json), where_cleaned)

        # The tokens' letters are one decoded string cut at the token lengths: no call per token.
        symbols = self.bpe.decode(np.arange(self.bpe.vocab_size, dtype=np.uint32))
        letters = (symbols + REFERENCE_FIRST_SYMBOL).astype(np.uint8).tobytes().decode("ascii")
        self._token_lengths = self.bpe.token_lengths.astype(np.int64)
        ends = np.cumsum(self._token_lengths).tolist()
        self._tokens = [letters[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self._tokens += SPECIAL_TOKENS.values()
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        for role, token in SPECIAL_TOKENS.items():
            if kwargs.get(role) is None:
                kwargs[role] = token
        kwargs.setdefault("special_tokens_pattern", "none")
        kwargs.setdefault("model_max_length", int(1e30))
        super().__init__(**kwargs)
        # Where a folder was loaded from is no property of the tokenizer: saved again it must be the same folder.
        for transient in ("is_local", "local_files_only"):
            self.init_kwargs.pop(transient, None)
        self._check_added_tokens(where)

    def _check_added_tokens(self, where: str) -> None:
        """Refuse a tokenizer_config.json that belongs to another vocabulary than ecg_byte.json."""
        for index, token in self._added_tokens_decoder.items():
            if (index < len(self._tokens) or token.content in self._ids) and self._ids.get(token.content) != index:
                raise VocabularyError(
                    f"{where}the added token {token.content!r} has id {index} in tokenizer_config.json, which does "
                    f"not agree with the {self.num_merges} merges; the files are of different tokenizers"
                )
        if sorted({*range(len(self._tokens)), *self._added_tokens_decoder}) != list(range(len(self))):
            raise VocabularyError(
                f"{where}the ids of the added tokens leave a gap; the files are of different tokenizers"
            )

    def check_cleaning(self, feature_extractor: Mapping[str, Any]) -> None:
        """Refuse the configuration of a feature extractor whose output this tokenizer was not made for.

        Args:
            feature_extractor: What `preprocessor_config.json` holds.

        Raises:
            SamplingRateError: its output rate is not `sampling_rate`.
            LeadError: its leads are not `leads`, or in another order.
            EcgError: its profile is not the one that is saved with this tokenizer.
        """
        self._check_cleaning(feature_extractor, "")

    def _check_cleaning(self, feature_extractor: Mapping[str, Any], where: str) -> None:
        rate, leads = feature_extractor.get("sampling_rate"), feature_extractor.get("leads")
        if rate is not None and rate != self.sampling_rate:
            raise SamplingRateError(
                f"{where}the feature extractor gives {rate} Hz, the tokenizer expects {self.sampling_rate} Hz; train "
                "the tokenizer on what this feature extractor returns"
            )
        if leads is not None and tuple(leads) != self.leads:
            raise LeadError(
                f"{where}the feature extractor gives the leads {', '.join(leads)}, the tokenizer expects "
                f"{', '.join(self.leads)}; train the tokenizer on what this feature extractor returns"
            )
        known = json.loads(self.preprocessor_json).get("profile") if self.preprocessor_json is not None else None
        profile = feature_extractor.get("profile")
        if known is not None and profile is not None and profile != known:
            raise EcgError(
                f"{where}the feature extractor cleans with the profile {profile!r}, the tokenizer was made for "
                f"{known!r}; use the feature extractor in the tokenizer's folder, or train a tokenizer for {profile!r}"
            )

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

    @property
    def _unknown_id(self) -> int:
        """Id of a character that is no symbol: always that of `<|ecg_unk|>`, as in the stock tokenizer.json."""
        return self._ids[SPECIAL_TOKENS["unk_token"]]

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add tokens after the last id; refuse those that would change what an ECG becomes."""
        for token in new_tokens or []:
            text = str(token)
            if text and not text.strip(ALPHABET):
                raise VocabularyError(
                    f"cannot add {text!r}: the letters a to z are samples, so a string would get other ids than its "
                    "signal; use other characters, such as <|name|>"
                )
            if isinstance(token, AddedToken) and (token.lstrip or token.rstrip or token.single_word):
                raise VocabularyError(f"cannot add {text!r} with lstrip, rstrip or single_word: an ECG has no words")
        return super()._add_tokens(new_tokens, special_tokens=special_tokens)

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, self._unknown_id)

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
        ids = _as_ids(ids)
        self._check_ecg_ids(ids, "have a reference id")
        offset = np.where(ids < len(ALPHABET), REFERENCE_FIRST_SYMBOL, REFERENCE_FIRST_MERGE - len(ALPHABET))
        return ids + offset

    def from_reference_ids(self, ids: Any) -> np.ndarray:
        """The inverse of `to_reference_ids`.

        Raises:
            VocabularyError: an id is one of the reference's dead byte ids, or out of range.
        """
        ids = _as_ids(ids)
        is_merge = ids >= REFERENCE_FIRST_MERGE
        compact = ids - np.where(is_merge, REFERENCE_FIRST_MERGE - len(ALPHABET), REFERENCE_FIRST_SYMBOL)
        dead = ~is_merge & ((compact < 0) | (compact >= len(ALPHABET)))
        if dead.any() or (compact >= self.num_ecg_tokens).any():
            wrong = ids[dead | (compact >= self.num_ecg_tokens)].reshape(-1)[0]
            last = REFERENCE_FIRST_MERGE + self.num_merges - 1
            raise VocabularyError(f"the reference's ids are 97..122 and 256..{last} with these merges, got {wrong}")
        return compact

    def _check_ecg_ids(self, ids: np.ndarray, what: str) -> None:
        wrong = ids[(ids < 0) | (ids >= self.num_ecg_tokens)].reshape(-1)
        if wrong.size:
            raise VocabularyError(f"only the ids 0..{self.num_ecg_tokens - 1} {what}, got {wrong[0]}")

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
            max_token_length: Longest token in samples, at least 2; `None` for no limit. The stock `tokenizer.json`
                needs one: its regular expression fails where more than about 2,000 tokens begin with one another.
            sampling_rate: Hz of the records.
            leads: Lead names in the order of a record's rows.
            algorithm: Encoding of the new tokenizer, `"greedy"` or `"bpe"`.
            feature_extractor: The `EcgByteFeatureExtractor` that cleaned the records; saved with the tokenizer.
            num_threads: Threads of the Rust core; `None` for all. The merges do not depend on it.
            progress: Called with (merges done, merges wanted).

        Returns:
            The trained tokenizer. Highest count first, ties to the smallest pair of ids, records are boundaries: the
            same result on any machine.

        Raises:
            SignalError: a record of wrong shape or dtype, or with NaN or infinity; the message has its number.
            CalibrationError, VocabularyError, SamplingRateError, LeadError: an argument that cannot be; said before
                the first record is read.
        """
        _check_count("num_merges", num_merges, 0)
        if max_token_length is not None:
            _check_count("max_token_length", max_token_length, 2)
        if num_threads is not None:
            _check_count("num_threads", num_threads, 1)
        # Every other argument is checked by the tokenizer itself, before hours of training.
        settings: dict[str, Any] = {
            "calibration": calibration,
            "sampling_rate": sampling_rate,
            "leads": leads,
            "lead_boundary": lead_boundary,
            "algorithm": algorithm,
            "feature_extractor": feature_extractor,
        }
        untrained = cls(**settings)

        def symbol_records() -> Iterator[np.ndarray]:
            for number, record in enumerate(records):
                try:
                    signal = _as_signal(record, len(untrained.leads))
                    bounds = calibration.bounds(signal)
                except SignalError as error:
                    raise SignalError(f"record {number} (counted from 0): {error}", error.problems) from error
                symbols = rust_bpe.quantize(signal, *bounds, num_symbols=len(ALPHABET))
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
        return cls(merges=merges, **settings)

    # ---- encoding ---------------------------------------------------------------------------------------------

    def encode_signal(self, signal: Any, *, samples: int | None = None) -> np.ndarray:
        """Ids (tokens,) uint32 of one signal, without any wrapping.

        Args:
            signal: Float array (leads, samples) in mV, cleaned, at `sampling_rate`, rows in the order of `leads`.
            samples: Encode only the first so many samples of each lead. The bins of calibration `"minmax"` are
                still those of the whole signal.

        Raises:
            SignalError: wrong shape or dtype, NaN or infinity.
        """
        signal = _as_signal(signal, len(self.leads))
        low, high = self.calibration.bounds(signal)
        return self._encode_with(signal[:, :samples], low, high)

    def _encode_with(self, signal: np.ndarray, low: float, high: float) -> np.ndarray:
        try:
            return self.bpe.encode_signal(
                signal,
                low,
                high,
                algorithm=cast(Any, self.algorithm),
                lead_boundary=cast(Any, self.lead_boundary),
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
                parts.append(np.full(len(run), self._unknown_id, dtype=np.uint32))
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint32)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self._tokens[index] for index in self.encode_symbols(text).tolist()]

    def _encode_text(self, text: str, split_special_tokens: bool) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a string, and the characters that each stands for."""
        # Looking for an added token in 30,000 letters takes 10 us, the trie's walk over them 5 ms.
        if split_special_tokens or not any(token in text for token in self._added_tokens_encoder):
            pieces = [text]
        else:
            pieces = self.tokens_trie.split(text)
        parts, lengths = [], []
        for piece in pieces:
            if piece in self._added_tokens_encoder and not split_special_tokens:
                parts.append(np.array([self._added_tokens_encoder[piece]], dtype=np.uint32))
                lengths.append(np.array([len(piece)]))
            else:
                parts.append(self.encode_symbols(piece))
                lengths.append(self._num_samples(parts[-1]))
        return np.concatenate(parts), np.concatenate(lengths)

    def _num_samples(self, ids: np.ndarray) -> np.ndarray:
        """Samples of each token; an unknown character counts as one."""
        if not ids.size or ids.max() < self.num_ecg_tokens:
            return self._token_lengths[ids]
        lengths = np.ones(len(ids), dtype=np.int64)
        is_ecg = ids < self.num_ecg_tokens
        lengths[is_ecg] = self._token_lengths[ids[is_ecg]]
        return lengths

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
        unknown = [name for name, value in kwargs.items() if value is not None and value is not False]
        if unknown:
            raise TypeError(f"EcgByteTokenizer does not know the argument {', '.join(unknown)}; remove it")
        items, is_batch = _as_batch(text)
        cut = max_length if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE else None
        columns: dict[str, list[Any]] = {"input_ids": []}
        wanted = {
            "offset_mapping": return_offsets_mapping,
            "special_tokens_mask": return_special_tokens_mask,
            "calibration": return_calibration,
        }
        columns.update({name: [] for name, is_wanted in wanted.items() if is_wanted})
        lengths: np.ndarray | None
        for item in items:
            if isinstance(item, str):
                if return_calibration:
                    raise CalibrationError("return_calibration needs signals in mV; symbols have no low and high")
                ids, lengths = self._encode_text(item, split_special_tokens)
            else:
                signal = _as_signal(item, len(self.leads))
                bounds = self.calibration.bounds(signal)
                ids = self._encode_with(signal, *bounds)
                lengths = self._num_samples(ids) if return_offsets_mapping else None
            kept = slice(None)
            if cut is not None and len(ids) > cut:
                kept = slice(len(ids) - cut, None) if self.truncation_side == "left" else slice(None, cut)
            columns["input_ids"].append(ids[kept].astype(np.int64))
            if lengths is not None and return_offsets_mapping:
                columns["offset_mapping"].append(_spans_of(lengths)[kept])
            if return_special_tokens_mask:
                columns["special_tokens_mask"].append((ids[kept] >= self.num_ecg_tokens).astype(np.int64))
            if return_calibration:
                columns["calibration"].append(np.array(bounds))
        if verbose and cut is None:
            for ids in columns["input_ids"]:
                self._eventual_warn_about_too_long_sequence(ids, None, verbose)
        wants_mask = return_attention_mask or return_attention_mask is None
        self._pad_columns(columns, padding_strategy, max_length, pad_to_multiple_of, padding_side, wants_mask)
        if return_length:
            columns["length"] = [len(ids) for ids in columns["input_ids"]]
        return self._to_encoding(columns, is_batch, return_tensors)

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
        if side not in ("left", "right"):
            raise ValueError(f"padding_side should be 'left' or 'right', got {side!r}")
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
        if columns["input_ids"]:
            arrays = {name: np.stack([np.asarray(v) for v in rows]) for name, rows in columns.items()}
        else:
            arrays = {name: np.zeros((0, 0), dtype=np.int64) for name in columns}
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
            ids: Integers (tokens,); padding, start, end and tokens that a user added are left out.
            low: Lower end in mV; only for calibration `"minmax"`, where the record's own must be given
                (`tokenizer(signal, return_calibration=True)` returns it).
            high: Upper end in mV, likewise.
            num_leads: Number of rows; the number of `leads` by default.

        Returns:
            Float64 (leads, samples); the error is at most half a bin, (high - low + 1e-6) / 52, inside the range.

        Raises:
            CalibrationError: the range is not known.
            SignalError: the samples do not divide evenly among the leads (the ids were cut).
            VocabularyError: an id is not of this vocabulary, or stands for an unknown character.
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
        if not (_is_finite_number(low) and _is_finite_number(high) and low <= high):
            raise CalibrationError(f"expected finite low <= high in mV, got {low!r} and {high!r}")
        ids = _as_ids(ids).reshape(-1)
        wrong = ids[(ids < 0) | (ids >= len(self)) | (ids == self._unknown_id)]
        if wrong.size:
            raise VocabularyError(
                f"id {wrong[0]} stands for no sample of this tokenizer; expected 0..{self.num_ecg_tokens - 1}, "
                "padding, start or end"
            )
        symbols = self.bpe.decode(ids[ids < self.num_ecg_tokens].astype(np.uint32))
        rows = len(self.leads) if num_leads is None else num_leads
        if rows < 1:
            raise SignalError(f"a signal has at least one lead, got num_leads={rows}")
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
            List of (lead name, first sample, sample after the last), in order; empty for padding, (0, 0).

        Raises:
            SignalError: the offset does not lie within the signal.

        Example:
            >>> tokenizer = EcgByteTokenizer(calibration=EcgCalibration("percentile", -1.0, 1.0), leads=["I", "II"])
            >>> tokenizer.lead_spans((3, 6), num_samples=4)
            [('I', 3, 4), ('II', 0, 2)]
        """
        start, stop = int(offset[0]), int(offset[1])
        if not 0 <= start <= stop <= len(self.leads) * num_samples:
            raise SignalError(
                f"offset ({start}, {stop}) does not lie within {len(self.leads)} leads of {num_samples} samples"
            )
        spans = []
        while start < stop:
            lead, first = divmod(start, num_samples)
            last = min(num_samples, first + stop - start)
            spans.append((self.leads[lead], first, last))
            start += last - first
        return spans

    def ecg_text(self, ids: Any) -> str:
        """The ECG as a language model's tokenizer reads it: `<|ecg_start|><|ecg_17|>...<|ecg_end|>`.

        Args:
            ids: Integers (tokens,) below `num_ecg_tokens`: language models know no other `<|ecg_i|>`.

        Raises:
            VocabularyError: another id, such as padding.
        """
        ids = _as_ids(ids).reshape(-1)
        self._check_ecg_ids(ids, "are written as ECG text")
        body = "".join([f"<|ecg_{index}|>" for index in ids.tolist()])
        return f"{self.bos_token}{body}{self.eos_token}"

    # ---- saving -----------------------------------------------------------------------------------------------

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write `ecg_byte.json`, the stock `tokenizer.json`, `config.json` and the feature extractor's file.

        A `config.json` of another model is left alone: it would not load any more. Without `config.json` of our own,
        `AutoTokenizer` may not know the folder; save into a subfolder, such as `ecg_byte`.

        Returns:
            The paths written.
        """
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        contents = {ECG_BYTE_FILE: self._ecg_byte_json()}
        if self.preprocessor_json is not None:
            contents[PREPROCESSOR_FILE] = self.preprocessor_json
        try:
            contents[STOCK_FILE] = stock_tokenizer(self).to_str(pretty=False) + "\n"
        except VocabularyError as error:
            logger.warning(f"{save_directory} is saved without {STOCK_FILE}, so it needs ecgbyte_hf to load: {error}")
            _remove_if_there(os.path.join(save_directory, prefix + STOCK_FILE))
        paths = []
        for name, content in contents.items():
            paths.append(os.path.join(save_directory, prefix + name))
            _write_whole(paths[-1], content)
        config_path = os.path.join(save_directory, CONFIG_FILE)
        model_type = _stored_model_type(config_path)
        if model_type in (None, EcgByteConfig.model_type):
            EcgByteConfig(vocab_size=self.vocab_size).save_pretrained(save_directory)
            paths.append(config_path)
        else:
            logger.warning(
                f"{config_path} is of a model of type {model_type!r} and was left as it is; to load the ECG tokenizer "
                "by itself, save it in a subfolder such as ecg_byte"
            )
        return tuple(paths)

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


_SYMBOL_RUNS = re.compile(r"[a-z]+|[^a-z]+")


def _check_choice(name: str, got: Any, known: tuple[str, ...]) -> None:
    if not isinstance(got, str) or got not in known:
        raise VocabularyError(f"{name}: got {got!r}, expected one of {', '.join(known)}")


def _check_count(name: str, got: Any, least: int) -> None:
    if isinstance(got, bool) or not isinstance(got, (int, np.integer)) or got < least:
        raise VocabularyError(f"{name}: got {got!r}, expected an integer of at least {least}")


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)


def _checked_rate(rate: Any, where: str) -> float:
    if isinstance(rate, bool) or not _is_finite_number(rate) or rate <= 0:
        raise SamplingRateError(f"{where}sampling_rate: got {rate!r}, expected a positive number of Hz")
    return int(rate) if float(rate).is_integer() else float(rate)


def _checked_leads(leads: Any, where: str) -> tuple[str, ...]:
    names = () if isinstance(leads, str) or not isinstance(leads, Iterable) else tuple(leads)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise LeadError(f"{where}leads: got {leads!r}, expected a list of different lead names")
    return names


def _bpe_of(merges: Any, where: str) -> rust_bpe.Bpe:
    try:
        table = np.asarray([] if merges is None else merges)
        if table.size == 0:
            table = np.zeros((0, 2), dtype=np.uint32)
        return rust_bpe.Bpe(table, num_symbols=len(ALPHABET))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise VocabularyError(f"{where}{error}") from error


def _spans_of(lengths: np.ndarray) -> np.ndarray:
    """(tokens, 2) int64: where tokens of these lengths start and stop, one after the other."""
    stops = np.cumsum(lengths)
    return np.stack([stops - lengths, stops], axis=1)


def _as_ids(ids: Any) -> np.ndarray:
    """`ids` as an int64 array of any shape, or a VocabularyError; a float is no id."""
    array = ids.detach().cpu().numpy() if hasattr(ids, "detach") else np.asarray(ids)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise VocabularyError(f"ids must be integers, got {array.dtype}")
    return array.astype(np.int64, copy=False)


def _as_signal(item: Any, num_leads: int) -> np.ndarray:
    """`item` as a float32 or float64 array (leads, samples), or a SignalError that says what is wrong."""
    if hasattr(item, "detach"):  # a torch tensor, without importing torch; numpy has no bfloat16
        item = item.detach().cpu()
        item = item.float() if str(item.dtype) == "torch.bfloat16" else item
        signal = item.numpy()
    elif hasattr(item, "signal"):
        raise SignalError(
            f"expected a cleaned signal of shape ({num_leads}, samples), got a record; clean it with "
            "EcgByteFeatureExtractor.clean(record), or use EcgByteProcessor"
        )
    else:
        try:
            signal = np.asarray(item)
        except ValueError as error:
            raise SignalError(f"expected a signal of shape ({num_leads}, samples): {error}") from error
    if signal.dtype.kind != "f":
        raise SignalError(
            f"a signal must be floating point in mV, got {signal.dtype}; multiply stored integers by their gain"
        )
    if signal.dtype not in (np.float32, np.float64):  # half and long double precision, foreign byte order
        signal = signal.astype(np.float64 if signal.dtype.itemsize >= 8 else np.float32)
    if signal.ndim != 2 or signal.shape[0] != num_leads:
        raise SignalError(
            f"expected a signal of shape ({num_leads}, samples), got {signal.shape}", problems=("shape",)
        )
    finite = np.isfinite(signal)
    if not finite.all():
        count = finite.size - int(np.count_nonzero(finite))
        raise SignalError(f"the signal holds {count} samples that are NaN or infinite", problems=("nan",))
    return signal


def _as_batch(text: Any) -> tuple[list[Any], bool]:
    """What to encode, one by one, and whether it came as a batch."""
    if isinstance(text, str):
        return [text], False
    if hasattr(text, "ndim"):
        return (list(text), True) if text.ndim == 3 else ([text], False)
    if hasattr(text, "signal"):
        return [text], False
    if isinstance(text, Sequence) and not isinstance(text, (bytes, bytearray)):
        first = text[0] if len(text) else None
        if isinstance(first, (list, tuple)) and not (len(first) and isinstance(first[0], (list, tuple))):
            return [text], False  # a signal as nested lists, as `datasets` returns it without a format
        if not isinstance(first, (bool, int, float)):
            return list(text), True
    raise SignalError(
        f"expected a signal (leads, samples), a batch of signals, or strings of symbols; got {type(text).__name__}"
    )


def _preprocessor_json(path: str | os.PathLike[str] | None, feature_extractor: Any) -> str | None:
    if feature_extractor is not None:
        return str(feature_extractor.to_json_string())
    if path is None:
        return None
    return _read_json_object(path)[0]


def _read_json_object(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The text of a JSON file, and the object in it."""
    try:
        # Not through an OSError: transformers would replace it by one that names no file.
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
        content = json.loads(text)
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{path}: not a JSON file ({error}); save or download it again") from error
    if not isinstance(content, dict):
        raise VocabularyError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return text, content


def _read_ecg_byte_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What ecg_byte.json holds, with the calibration as an `EcgCalibration`."""
    stored = _read_json_object(path)[1]
    wanted = {"version", "alphabet", "algorithm", "lead_boundary", "sampling_rate", "leads", "calibration", "merges"}
    if "version" in stored and stored["version"] != FORMAT_VERSION:
        raise VocabularyError(
            f"{path}: version {stored['version']!r}; this ecgbyte_hf reads version {FORMAT_VERSION}; upgrade "
            "ecgbyte-hf"
        )
    if not wanted <= stored.keys():
        raise VocabularyError(
            f"{path}: not an ECG-Byte vocabulary; missing {', '.join(sorted(wanted - stored.keys()))}"
        )
    if stored["alphabet"] != ALPHABET:
        raise VocabularyError(f"{path}: alphabet {stored['alphabet']!r}, expected {ALPHABET!r}")
    if not isinstance(stored["merges"], list):
        raise VocabularyError(f"{path}: merges: expected a list of pairs, got {type(stored['merges']).__name__}")
    calibration = stored["calibration"]
    if not isinstance(calibration, dict) or not {"method"} <= calibration.keys() <= {"method", "low", "high"}:
        raise CalibrationError(f"{path}: calibration: expected method, low and high, got {calibration!r}")
    try:
        stored["calibration"] = EcgCalibration(**calibration)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    return stored


def _write_whole(path: str, content: str) -> None:
    """Write beside and rename: a killed job leaves the old file or the new one, never half of one."""
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(beside, "w", encoding="utf-8", newline="\n") as file:
            file.write(content)
        os.replace(beside, path)
    except BaseException:
        _remove_if_there(beside)
        raise


def _remove_if_there(path: str) -> None:
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def _stored_model_type(path: str) -> str | None:
    """The model type in a config.json; None without one."""
    try:
        with open(path, encoding="utf-8") as file:
            return str(json.load(file).get("model_type", "unknown"))
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError):
        return "unknown"


def stock_tokenizer(tokenizer: EcgByteTokenizer) -> Any:
    """The same vocabulary for the stock `tokenizers` library, with the same ids for any string.

    This is what `AutoTokenizer` loads where `ecgbyte_hf` is not installed. Greedy: a WordLevel model behind a Split
    pre-tokenizer whose regular expression is the vocabulary's trie; it matches the longest token, and any other single
    character, which becomes `<|ecg_unk|>`. Rank order: the library's own BPE. The letters alone cannot tell where a
    lead ends, so with `lead_boundary="split"` encode each lead by itself there.

    Raises:
        VocabularyError: the regular expression nests too deeply, when some 2,000 tokens begin with one another.
    """
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import BPE, WordLevel
    from tokenizers.pre_tokenizers import Split

    unknown = SPECIAL_TOKENS["unk_token"]
    words = tokenizer._tokens[: tokenizer.num_ecg_tokens]
    if tokenizer.algorithm == "greedy":
        stock = Tokenizer(WordLevel(dict(tokenizer._ids), unk_token=unknown))
        try:
            stock.pre_tokenizer = Split(Regex(rf"{trie_pattern(words)}|[\s\S]"), "isolated")
        except Exception as error:  # the library raises no narrower class
            raise VocabularyError(
                f"its regular expression cannot be built ({error}); lower max_token_length"
            ) from error
    else:
        merges = [(words[left], words[right]) for left, right in tokenizer.bpe.merges.tolist()]
        stock = Tokenizer(BPE(dict(tokenizer._ids), merges, unk_token=unknown))
    stock.decoder = Fuse()
    stock.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS.values()])
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
