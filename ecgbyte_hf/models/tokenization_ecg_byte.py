"""ECG-Byte: a byte-pair encoding of the 12-lead ECG as a Hugging Face tokenizer.

A signal in mV is quantised to 26 symbols, flattened lead after lead and encoded by longest match over a vocabulary of
merges learnt from ECGs (Han et al., "ECG-Byte", arXiv:2412.14373). Quantising, training and encoding are done in Rust
(`rust_bpe`); no Python string or list stands between an array and its ids.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizer
from transformers.tokenization_utils_base import AddedToken, PaddingStrategy, TruncationStrategy
from transformers.utils import logging

from .batches_ecg_byte import mask_array, mask_lists, padded_array, padded_lists
from .calibration_ecg_byte import EcgCalibration, is_finite_number
from .configuration_ecg_byte import EcgByteConfig
from .errors_ecg_byte import CalibrationError, EcgError, LeadError, SamplingRateError, SignalError, VocabularyError
from .inputs_ecg_byte import as_batch, as_ids, as_signal, as_signals, check_finite, numbered
from .leads_ecg_byte import REFERENCE_LEADS
from .stock_ecg_byte import stock_tokenizer
from .vocabulary_ecg_byte import (
    ALGORITHMS,
    ALPHABET,
    ECG_BYTE_FILE,
    LEAD_BOUNDARIES,
    SPECIAL_TOKENS,
    check_choice,
    check_count,
    checked_leads,
    checked_rate,
    ecg_byte_json,
    read_ecg_byte_file,
    read_json_object,
    remove_if_there,
    stored_model_type,
    write_whole,
)

try:
    import rust_bpe
except ImportError:  # a Hub copy of this file can be read without the core; using it names what is missing
    rust_bpe = None  # type: ignore[assignment]

logger = logging.get_logger(__name__)

PREPROCESSOR_FILE = "preprocessor_config.json"
STOCK_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"
# Ids of the paper's released tokenizers: 0..255 are the bytes, of which only 'a'..'z' occur, and 256 + r is merge r.
REFERENCE_FIRST_SYMBOL = ord("a")
REFERENCE_FIRST_MERGE = 256


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
            stored = read_ecg_byte_file(ecg_byte_file)
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
        check_choice(f"{where}lead_boundary", lead_boundary, LEAD_BOUNDARIES)
        check_choice(f"{where}algorithm", algorithm, ALGORITHMS)

        self.bpe = _bpe_of(merges, where or "merges: ")
        self.calibration = cast(EcgCalibration, calibration)
        self.sampling_rate = checked_rate(sampling_rate, where)
        self.leads = checked_leads(leads, where)
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
        ids = as_ids(ids)
        self._check_ecg_ids(ids, "have a reference id")
        offset = np.where(ids < len(ALPHABET), REFERENCE_FIRST_SYMBOL, REFERENCE_FIRST_MERGE - len(ALPHABET))
        return ids + offset

    def from_reference_ids(self, ids: Any) -> np.ndarray:
        """The inverse of `to_reference_ids`.

        Raises:
            VocabularyError: an id is one of the reference's dead byte ids, or out of range.
        """
        ids = as_ids(ids)
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
        check_count("num_merges", num_merges, 0)
        if max_token_length is not None:
            check_count("max_token_length", max_token_length, 2)
        if num_threads is not None:
            check_count("num_threads", num_threads, 1)
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
                with numbered("record", number):
                    signal = as_signal(record, len(untrained.leads))
                    check_finite(signal)
                    bounds = calibration.bounds(signal)
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
        signal = as_signal(signal, len(self.leads))
        low, high = self.calibration.bounds(signal)
        if samples is not None:
            check_finite(signal)  # in the part that is left out, too
            signal = signal[:, :samples]
        return self._encode_one(signal, low, high)

    def _encode_one(self, signal: np.ndarray, low: float, high: float) -> np.ndarray:
        try:
            return self.bpe.encode_signal(signal, low, high, **self._signal_options)
        except ValueError as error:
            check_finite(signal)
            raise SignalError(str(error)) from error

    def encode_signal_batch(self, signals: Iterable[Any], *, num_threads: int | None = None) -> list[np.ndarray]:
        """`encode_signal` of each signal, in one call of the Rust core.

        Args:
            signals: Float arrays (leads, samples) in mV, of the same or of different lengths.
            num_threads: Threads of the core; `None` for all. The ids do not depend on it.

        Raises:
            SignalError: as `encode_signal`; the message has the number of the signal.
        """
        checked = as_signals(signals, len(self.leads))
        return self._encode_checked(checked, self._bounds_of(checked), num_threads)

    @property
    def _signal_options(self) -> dict[str, Any]:
        return {"algorithm": self.algorithm, "lead_boundary": self.lead_boundary}

    def _bounds_of(self, signals: Sequence[np.ndarray]) -> list[tuple[float, float]]:
        bounds = []
        for number, signal in enumerate(signals):
            with numbered("signal", number):
                bounds.append(self.calibration.bounds(signal))
        return bounds

    def _encode_checked(
        self, signals: Sequence[np.ndarray], bounds: Sequence[tuple[float, float]], num_threads: int | None = None
    ) -> list[np.ndarray]:
        if not signals:
            return []
        lows, highs = zip(*bounds, strict=True)
        try:
            return self.bpe.encode_signal_batch(signals, lows, highs, num_threads=num_threads, **self._signal_options)
        except ValueError as error:
            for number, signal in enumerate(signals):
                with numbered("signal", number):
                    check_finite(signal)
            raise SignalError(str(error)) from error

    def encode_symbols(self, letters: str) -> np.ndarray:
        """Ids (tokens,) uint32 of a string of symbols; a character that is no symbol becomes `<|ecg_unk|>`."""
        return self._encode_texts([letters], split_special_tokens=True)[0][0]

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self._tokens[index] for index in self.encode_symbols(text).tolist()]

    def _encode_texts(self, texts: Sequence[str], split_special_tokens: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids of strings, and the characters that each id stands for; the core gets all runs of symbols at once."""
        runs: list[np.ndarray] = []
        pieces_of: list[list[tuple[np.ndarray, np.ndarray] | None]] = []  # None: the next run
        for text in texts:
            pieces: list[tuple[np.ndarray, np.ndarray] | None] = []
            for piece in self._split_at_added_tokens(text, split_special_tokens):
                if piece in self._added_tokens_encoder and not split_special_tokens:
                    added = np.array([self._added_tokens_encoder[piece]], dtype=np.uint32)
                    pieces.append((added, np.array([len(piece)])))
                    continue
                for run in _symbol_runs(piece):
                    if isinstance(run, int):
                        pieces.append((np.full(run, self._unknown_id, dtype=np.uint32), np.ones(run, dtype=np.int64)))
                    else:
                        runs.append(run)
                        pieces.append(None)
            pieces_of.append(pieces)
        encoded = iter(self._encode_runs(runs))
        result = []
        for pieces in pieces_of:
            whole = [piece if piece is not None else next(encoded) for piece in pieces]
            if len(whole) == 1:
                result.append(whole[0])
            else:
                ids = np.concatenate([np.zeros(0, dtype=np.uint32), *(piece[0] for piece in whole)])
                result.append((ids, np.concatenate([np.zeros(0, dtype=np.int64), *(piece[1] for piece in whole)])))
        return result

    def _split_at_added_tokens(self, text: str, split_special_tokens: bool) -> list[str]:
        # Looking for an added token in 30,000 letters takes 10 us, the trie's walk over them 5 ms.
        if split_special_tokens or not any(token in text for token in self._added_tokens_encoder):
            return [text]
        return cast(list[str], self.tokens_trie.split(text))

    def _encode_runs(self, runs: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        is_greedy = self.algorithm == "greedy"
        if len(runs) == 1:
            encode = self.bpe.encode_greedy if is_greedy else self.bpe.encode_bpe
            encoded = [encode(runs[0])]
        else:
            encoded = (self.bpe.encode_greedy_batch if is_greedy else self.bpe.encode_bpe_batch)(runs)
        return [(ids, self._token_lengths[ids]) for ids in encoded]

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
        items, is_batch = as_batch(text)
        if return_calibration and any(isinstance(item, str) for item in items):
            raise CalibrationError("return_calibration needs signals in mV; symbols have no low and high")
        side = padding_side or self.padding_side
        if side not in ("left", "right"):
            raise ValueError(f"padding_side should be 'left' or 'right', got {side!r}")

        ids, lengths, bounds = self._encode_items(items, is_batch, split_special_tokens)
        rows: dict[str, tuple[list[np.ndarray], Any]] = {"input_ids": (ids, self.pad_token_id)}
        if return_offsets_mapping:
            rows["offset_mapping"] = (self._offsets_of(ids, lengths), 0)
        if return_special_tokens_mask:
            rows["special_tokens_mask"] = ([(row >= self.num_ecg_tokens).astype(np.int64) for row in ids], 1)
        cut = max_length if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE else None
        if cut is not None:
            from_left = self.truncation_side == "left"
            rows = {name: ([_cut(row, cut, from_left) for row in all_], fill) for name, (all_, fill) in rows.items()}
        elif verbose:
            for row in ids:
                self._eventual_warn_about_too_long_sequence(row, None, verbose)  # type: ignore[arg-type]

        kept = [len(row) for row in rows["input_ids"][0]]
        widths = _padded_widths(kept, padding_strategy, max_length, pad_to_multiple_of)
        wants_mask = return_attention_mask or return_attention_mask is None
        if return_tensors is None:
            columns: dict[str, Any] = {}
            for name, (all_, fill) in rows.items():
                filler = (fill, fill) if name == "offset_mapping" else fill
                columns[name] = padded_lists(all_, widths, filler, side)
            if wants_mask:
                columns["attention_mask"] = mask_lists(kept, widths, side)
            if return_calibration:
                columns["calibration"] = [list(pair) for pair in bounds]
            if return_length:
                columns["length"] = widths
            return BatchEncoding(columns if is_batch else {name: values[0] for name, values in columns.items()})

        if len(set(widths)) > 1:
            raise ValueError(
                "sequences of different lengths cannot become one tensor; pass padding=True (or truncation=True and "
                "max_length=...)"
            )
        width = widths[0] if widths else 0
        arrays = {name: padded_array(all_, width, fill, side) for name, (all_, fill) in rows.items()}
        if wants_mask:
            arrays["attention_mask"] = mask_array(kept, width, side)
        if return_calibration:
            arrays["calibration"] = np.array(bounds, dtype=np.float64).reshape(-1, 2)
        if return_length:
            arrays["length"] = np.array(widths, dtype=np.int64)
        return _as_tensors(arrays, return_tensors)

    def _encode_items(
        self, items: Sequence[Any], is_batch: bool, split_special_tokens: bool
    ) -> tuple[list[np.ndarray], list[np.ndarray | None], list[tuple[float, float]]]:
        """Ids of signals and strings; the characters of each string's ids; (low, high) of each signal."""
        if not is_batch and not isinstance(items[0], str):
            signal = as_signal(items[0], len(self.leads))
            bounds = self.calibration.bounds(signal)
            return [self._encode_one(signal, *bounds)], [None], [bounds]
        texts = [item for item in items if isinstance(item, str)]
        signals = as_signals((item for item in items if not isinstance(item, str)), len(self.leads))
        all_bounds = self._bounds_of(signals)
        from_signals = iter(self._encode_checked(signals, all_bounds))
        from_texts = iter(self._encode_texts(texts, split_special_tokens))
        ids, lengths = [], []
        for item in items:
            encoded = next(from_texts) if isinstance(item, str) else (next(from_signals), None)
            ids.append(encoded[0])
            lengths.append(encoded[1])
        return ids, lengths, all_bounds

    def _offsets_of(self, ids: Sequence[np.ndarray], lengths: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """(tokens, 2) int64 of each row: the samples, or characters, that each token stands for."""
        pairs = zip(ids, lengths, strict=True)
        return [_spans_of(self._token_lengths[row] if known is None else known) for row, known in pairs]

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
        if not (is_finite_number(low) and is_finite_number(high) and low <= high):
            raise CalibrationError(f"expected finite low <= high in mV, got {low!r} and {high!r}")
        ids = as_ids(ids).reshape(-1)
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
        centres = low + (np.arange(len(ALPHABET)) + 0.5) / len(ALPHABET) * (high - low + 1e-6)
        return centres.take(symbols).reshape(rows, -1)

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
        ids = as_ids(ids).reshape(-1)
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
            remove_if_there(os.path.join(save_directory, prefix + STOCK_FILE))
        paths = []
        for name, content in contents.items():
            paths.append(os.path.join(save_directory, prefix + name))
            write_whole(paths[-1], content)
        config_path = os.path.join(save_directory, CONFIG_FILE)
        model_type = stored_model_type(config_path)
        if model_type in (None, EcgByteConfig.model_type):
            EcgByteConfig(vocab_size=self.vocab_size).save_pretrained(save_directory)
            paths.append(config_path)
        else:
            logger.warning(
                f"{config_path} is of a model of type {model_type!r} and was left as it is; to load the ECG tokenizer "
                "by itself, save it in a subfolder such as ecg_byte"
            )
        return tuple(paths)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the ids of a record: `ecg_byte.json` and how records are cleaned."""
        text = self._ecg_byte_json() + (self.preprocessor_json or "")
        return hashlib.sha256(text.encode()).hexdigest()

    def _ecg_byte_json(self) -> str:
        return ecg_byte_json(
            algorithm=self.algorithm,
            lead_boundary=self.lead_boundary,
            sampling_rate=self.sampling_rate,
            leads=self.leads,
            calibration=self.calibration,
            merges=self.bpe.merges,
        )


_SYMBOL_RUNS = re.compile(r"[a-z]+|[^a-z]+")


def _symbol_runs(text: str) -> Iterator[np.ndarray | int]:
    """The runs of symbols in a string, uint8, and for what lies between them the number of characters."""
    if text.isascii():
        symbols = np.frombuffer(text.encode("ascii"), dtype=np.uint8) - REFERENCE_FIRST_SYMBOL
        if (symbols < len(ALPHABET)).all():
            if text:
                yield symbols
            return
    for run in _SYMBOL_RUNS.findall(text):
        if run[0] in ALPHABET:
            yield np.frombuffer(run.encode("ascii"), dtype=np.uint8) - REFERENCE_FIRST_SYMBOL
        else:
            yield len(run)


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
    spans = np.empty((len(lengths), 2), dtype=np.int64)
    np.cumsum(lengths, out=spans[:, 1])
    np.subtract(spans[:, 1], lengths, out=spans[:, 0])
    return spans


def _cut(row: np.ndarray, length: int, from_left: bool) -> np.ndarray:
    if len(row) <= length:
        return row
    return row[len(row) - length :] if from_left else row[:length]


def _padded_widths(
    lengths: list[int], strategy: PaddingStrategy, max_length: int | None, multiple: int | None
) -> list[int]:
    """The tokens of each row after padding."""
    if strategy == PaddingStrategy.DO_NOT_PAD:
        return lengths
    target = max(lengths, default=0) if strategy == PaddingStrategy.LONGEST else int(max_length or 0)
    if multiple:
        target = -(-target // multiple) * multiple
    return [max(target, length) for length in lengths]


def _as_tensors(arrays: dict[str, np.ndarray], return_tensors: Any) -> BatchEncoding:
    kind = getattr(return_tensors, "value", return_tensors)
    if kind == "np":
        return BatchEncoding(arrays)
    if kind == "pt":
        import torch

        return BatchEncoding({name: torch.from_numpy(array) for name, array in arrays.items()})
    return BatchEncoding(arrays, tensor_type=return_tensors)


def _preprocessor_json(path: str | os.PathLike[str] | None, feature_extractor: Any) -> str | None:
    if feature_extractor is not None:
        return str(feature_extractor.to_json_string())
    if path is None:
        return None
    return read_json_object(path)[0]
