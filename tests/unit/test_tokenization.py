"""The tokenizer: against its definition, against the stock `tokenizers` library, and against what users do with it."""

import copy
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from transformers import AutoTokenizer, DataCollatorWithPadding

import rust_bpe
from ecgbyte_hf import (
    EcgByteConfig,
    EcgByteFeatureExtractor,
    EcgByteTokenizer,
    EcgCalibration,
    EcgError,
    EcgRecord,
    read_ecg,
)
from ecgbyte_hf.models import tokenization_ecg_byte
from ecgbyte_hf.models.errors_ecg_byte import (
    CalibrationError,
    LeadError,
    SamplingRateError,
    SignalError,
    VocabularyError,
)
from ecgbyte_hf.models.stock_ecg_byte import stock_tokenizer, trie_pattern
from ecgbyte_hf.models.vocabulary_ecg_byte import SPECIAL_TOKENS

LEADS = ("I", "II", "V1")
CALIBRATION = EcgCalibration("percentile", -1.3, 1.3)
WIDTH = 2.6 + 1e-6


def walk(seed: int, samples: int = 200, leads: int = 3) -> np.ndarray:
    """A signal (leads, samples) float32 in mV that moves by at most one bin a sample."""
    steps = np.random.default_rng(seed).integers(-1, 2, (leads, samples))
    return (np.clip(np.cumsum(steps, axis=1), -12, 12) * 0.1).astype(np.float32)


def train(*, num_merges: int = 60, **options) -> EcgByteTokenizer:
    options = {"calibration": CALIBRATION, "leads": LEADS, **options}
    return EcgByteTokenizer.train_from_iterator((walk(seed) for seed in range(4)), num_merges, **options)


@pytest.fixture(scope="module")
def tokenizer() -> EcgByteTokenizer:
    return train()


@pytest.fixture(scope="module")
def tiny() -> EcgByteTokenizer:
    """Ids: a..z 0..25, aa 26, aab 27, pad 28, unk 29, start 30, end 31."""
    return EcgByteTokenizer(merges=[(0, 0), (26, 1)], calibration=CALIBRATION, leads=["II"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- calibration -----------------------------------------------------------------------------------------------


def test_calibration_from_percentiles():
    assert EcgCalibration.from_percentiles(-0.75, 1.25) == EcgCalibration("percentile", -1.25, 1.75)
    assert EcgCalibration.minmax().bounds(np.array([[0.5, -2.0]], dtype=np.float32)) == (-2.0, 0.5)
    assert CALIBRATION.bounds(np.zeros((0, 0))) == (-1.3, 1.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("percentile", float("nan"), 1.0), "finite low and high in mV, got nan and 1.0"),
        (("percentile", -float("inf"), 1.0), "finite"),
        (("percentile",), "got None and None"),
        (("percentile", "-1", "1"), "got '-1' and '1'"),
        (("percentile", 1.0, 1.0), "low < high, got 1.0 and 1.0"),
        (("minmax", -1.0, 1.0), "leave low and high out"),
        (("p1p99", -1.0, 1.0), "unknown calibration 'p1p99'; known: 'percentile', 'minmax'"),
    ],
)
def test_calibration_refused(arguments, message):
    with pytest.raises(CalibrationError, match=message):
        EcgCalibration(*arguments)


def test_percentiles_in_the_wrong_order_refused():
    with pytest.raises(CalibrationError, match="cannot be above"):
        EcgCalibration.from_percentiles(0.5, 0.4)
    with pytest.raises(CalibrationError):
        EcgCalibration.from_percentiles(float("nan"), 0.4)


# ---- vocabulary ------------------------------------------------------------------------------------------------


def test_ids_are_compact(tiny):
    assert tiny.get_vocab() == {
        **{letter: index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz")},
        "aa": 26,
        "aab": 27,
        "<|ecg_pad|>": 28,
        "<|ecg_unk|>": 29,
        "<|ecg_start|>": 30,
        "<|ecg_end|>": 31,
    }
    assert (len(tiny), tiny.vocab_size, tiny.num_ecg_tokens, tiny.num_merges) == (32, 32, 28, 2)
    assert (tiny.pad_token_id, tiny.unk_token_id, tiny.bos_token_id, tiny.eos_token_id) == (28, 29, 30, 31)
    assert sorted(tiny.all_special_ids) == [28, 29, 30, 31]


def test_conversions(tiny):
    assert tiny.convert_tokens_to_ids(["a", "aab", "<|ecg_end|>", "zz", "é"]) == [0, 27, 31, 29, 29]
    assert tiny.convert_tokens_to_ids("aa") == 26
    assert tiny.convert_ids_to_tokens([0, 27, 31]) == ["a", "aab", "<|ecg_end|>"]
    assert tiny.convert_ids_to_tokens(27) == "aab"
    assert tiny.convert_ids_to_tokens([28, 26], skip_special_tokens=True) == ["aa"]
    assert tiny.tokenize("aabXa<|ecg_end|>") == ["aab", "<|ecg_unk|>", "a", "<|ecg_end|>"]
    assert tiny.decode([27, 31, 0]) == "aab<|ecg_end|>a"
    assert tiny.decode(np.array([27, 31, 0]), skip_special_tokens=True) == "aaba"
    assert tiny.decode(26) == "aa"
    assert tiny.batch_decode([[27, 0], [], [28]]) == ["aaba", "", "<|ecg_pad|>"]
    for wrong in (32, -1):
        with pytest.raises(VocabularyError, match=f"id {wrong} is not in the vocabulary of 32 ids"):
            tiny.decode([wrong])


def test_reference_ids(tiny):
    """REFERENCE section 3: ids 97..122 are 'a'..'z', 256 + r is merge r."""
    assert tiny.to_reference_ids([[0, 25], [26, 27]]).tolist() == [[97, 122], [256, 257]]
    assert tiny.from_reference_ids([97, 122, 256, 257]).tolist() == [0, 25, 26, 27]
    assert tiny.to_reference_ids([]).tolist() == tiny.from_reference_ids([]).tolist() == []
    assert tiny.from_reference_ids(tiny.to_reference_ids(np.arange(28))).tolist() == list(range(28))
    for wrong in (28, -1):
        with pytest.raises(VocabularyError, match=rf"only the ids 0\.\.27 have a reference id, got {wrong}"):
            tiny.to_reference_ids([0, wrong])
    for wrong in (0, 96, 123, 255, 258, -1):
        with pytest.raises(VocabularyError, match=rf"97\.\.122 and 256\.\.257 with these merges, got {wrong}"):
            tiny.from_reference_ids([97, wrong])
    with pytest.raises(VocabularyError, match="ids must be integers, got float64"):
        tiny.to_reference_ids([0.5])


# ---- encoding signals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead_boundary", ["cross", "split"])
@pytest.mark.parametrize("algorithm", ["greedy", "bpe"])
def test_signal_is_quantised_flattened_and_encoded(lead_boundary, algorithm):
    tokenizer = train(lead_boundary=lead_boundary, algorithm=algorithm)
    signal = walk(99)
    symbols = np.clip(np.floor(26 * ((signal.astype(np.float64) + 1.3) / WIDTH)), 0, 25).astype(np.uint8)
    encode = tokenizer.bpe.encode_greedy if algorithm == "greedy" else tokenizer.bpe.encode_bpe
    runs = list(symbols) if lead_boundary == "split" else [symbols.reshape(-1)]
    expected = np.concatenate([encode(run) for run in runs]).tolist()
    assert tokenizer(signal) == {"input_ids": expected, "attention_mask": [1] * len(expected)}
    assert tokenizer.encode_signal(signal).tolist() == expected == tokenizer.encode(signal)
    assert tokenizer.decode(expected) == (symbols.reshape(-1) + 97).tobytes().decode()
    cut = tokenizer.encode_signal(signal, samples=50)
    assert cut.tolist() == tokenizer.encode_signal(signal[:, :50]).tolist()


def test_the_same_signal_in_other_clothes(tokenizer):
    import torch

    signal = walk(5)
    expected = tokenizer(signal)["input_ids"]
    spread = np.zeros((3, 400), dtype=np.float32)
    spread[:, ::2] = signal
    others = {
        "float64": signal.astype(np.float64),
        "big-endian": signal.astype(">f4"),
        "long double": signal.astype(np.longdouble),
        "strided": spread[:, ::2],
        "Fortran order": np.asfortranarray(signal),
        "transposed": np.ascontiguousarray(signal.T).T,
        "read-only": np.frombuffer(signal.tobytes(), dtype=np.float32).reshape(3, 200),
        "torch": torch.from_numpy(signal),
        "torch with gradient": torch.from_numpy(signal).requires_grad_(),
        "nested lists": signal.astype(np.float64).tolist(),
    }
    got = {name: tokenizer(other)["input_ids"] for name, other in others.items()}
    assert got == dict.fromkeys(others, expected)


def test_half_precision(tokenizer):
    import torch

    signal = walk(5).astype(np.float16)
    assert tokenizer(signal) == tokenizer(signal.astype(np.float32))
    half = torch.from_numpy(walk(5)).to(torch.bfloat16)
    assert tokenizer(half) == tokenizer(half.float().numpy())


def test_batches(tokenizer):
    import torch

    first, second = walk(1), walk(2)
    expected = [tokenizer(first)["input_ids"], tokenizer(second)["input_ids"]]
    for batch in (
        [first, second],
        (first, second),
        np.stack([first, second]),
        torch.tensor(np.stack([first, second])),
    ):
        assert tokenizer(batch)["input_ids"] == expected
    assert tokenizer([first])["input_ids"] == expected[:1] == tokenizer(first[None])["input_ids"]
    assert tokenizer([first.tolist()])["input_ids"] == expected[:1]
    assert tokenizer([first, "aab"])["input_ids"] == [expected[0], tokenizer("aab")["input_ids"]]
    assert tokenizer([]) == {"input_ids": [], "attention_mask": []}
    assert tokenizer([], padding=True, return_tensors="np")["input_ids"].shape == (0, 0)
    empty = tokenizer(np.zeros((3, 0)), return_tensors="pt")
    assert empty["input_ids"].shape == (1, 0) and empty["input_ids"].dtype == torch.int64


@pytest.mark.parametrize("algorithm", ["greedy", "bpe"])
@pytest.mark.parametrize("lead_boundary", ["cross", "split"])
@pytest.mark.parametrize("calibration", [CALIBRATION, EcgCalibration.minmax()])
def test_a_batch_is_encoded_as_its_signals_are(calibration, lead_boundary, algorithm):
    tokenizer = train(calibration=calibration, lead_boundary=lead_boundary, algorithm=algorithm)
    signals = [walk(seed, samples) * (1 + seed) for seed, samples in enumerate((200, 3, 77, 200, 1))]
    singles = [tokenizer(signal, return_offsets_mapping=True) for signal in signals]
    for num_threads in (1, 2, None):
        ids = tokenizer.encode_signal_batch(iter(signals), num_threads=num_threads)
        assert [row.tolist() for row in ids] == [single["input_ids"] for single in singles]
        assert all(row.dtype == np.uint32 for row in ids)
    assert tokenizer.encode_signal_batch([]) == []
    batch = tokenizer(signals, return_offsets_mapping=True)
    assert all(batch[name] == [single[name] for single in singles] for name in batch)
    for side in ("left", "right"):
        lists = tokenizer(signals, padding=True, return_offsets_mapping=True, padding_side=side)
        arrays_ = tokenizer(signals, padding=True, return_offsets_mapping=True, padding_side=side, return_tensors="np")
        assert arrays_["input_ids"].tolist() == lists["input_ids"]
        assert arrays_["attention_mask"].tolist() == lists["attention_mask"]
        assert [[tuple(pair) for pair in row] for row in arrays_["offset_mapping"].tolist()] == lists["offset_mapping"]


def test_signals_and_strings_in_one_batch(tokenizer):
    items = ["aab", walk(1), "X<|ecg_end|>", walk(2), ""]
    singles = [tokenizer(item, return_offsets_mapping=True) for item in items]
    batch = tokenizer(items, return_offsets_mapping=True)
    assert all(batch[name] == [single[name] for single in singles] for name in batch)


def test_a_batch_is_one_call_of_the_core_and_no_list(tokenizer, monkeypatch):
    """64 calls cost 64 times the threads' start; a list of ids costs as much as encoding them."""
    calls = []

    class Counted:
        def __getattr__(self, name):
            calls.append(name)
            return getattr(core, name)

    core = tokenizer.bpe
    monkeypatch.setattr(tokenizer, "bpe", Counted())
    monkeypatch.setattr(tokenization_ecg_byte, "padded_lists", None)
    tokenizer([walk(seed) for seed in range(64)], padding=True, return_tensors="pt", return_offsets_mapping=True)
    assert calls.count("encode_signal_batch") == 1 and "encode_signal" not in calls
    calls.clear()
    tokenizer(walk(1), return_tensors="np")
    assert calls == ["encode_signal"]


def test_calling_costs_little_more_than_encoding():
    """30,000 samples: 0.02 ms more than the core's 0.2 ms; the bound is loose since other programs run beside."""
    tokenizer = train(leads=["I", "II", "V1"])
    signal = walk(1, 10_000)
    low, high = CALIBRATION.bounds(signal)

    def fastest(call):
        times = []
        for _ in range(30):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    core = fastest(lambda: tokenizer.bpe.encode_signal(signal, low, high))
    assert fastest(lambda: tokenizer(signal, return_tensors="np")) < 2 * core + 1e-3


@pytest.mark.parametrize("calibration", [CALIBRATION, EcgCalibration.minmax()])
def test_the_signal_that_cannot_be_encoded_is_named(calibration):
    tokenizer = train(calibration=calibration)
    good, bad = walk(1), walk(2)
    bad[1, 5:8] = np.nan
    for call in (tokenizer, tokenizer.encode_signal_batch):
        with pytest.raises(SignalError, match=r"^signal 2 \(counted from 0\): the signal holds 3 samples") as caught:
            call([good, good, bad, bad])
        assert caught.value.problems == ("nan",)
        with pytest.raises(SignalError, match=r"^signal 1 \(counted from 0\): expected a signal of shape"):
            call([good, good[:2]])
    for call in (tokenizer, tokenizer.encode_signal):
        with pytest.raises(SignalError, match="^the signal holds 3 samples"):
            call(bad)
    with pytest.raises(SignalError, match="3 samples"):
        tokenizer.encode_signal(bad, samples=2)  # NaN in the part that is left out
    assert len(pickle.loads(pickle.dumps(caught.value)).args) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 9)), r"expected a signal of shape \(3, samples\), got \(2, 9\)"),
        (np.zeros((9, 3)), r"got \(9, 3\)"),
        (np.zeros(9), r"got \(9,\)"),
        (np.zeros((1, 1, 3, 9)), r"got \(1, 1, 3, 9\)"),
        ([np.zeros(9)] * 3, r"got \(9,\)"),
        (np.zeros((3, 9), dtype=np.int16), "floating point in mV, got int16; multiply stored integers by their gain"),
        (np.array([["a"]]), "floating point"),
        ([[0.1, 0.2], [0.1], [0.3]], "expected a signal"),
        (np.array([[0, np.nan, 1], [0, np.inf, 1], [0, 0, 0]]), "2 samples that are NaN or infinite"),
        ([0.1, 0.2], "got list"),
        (b"aab", "got bytes"),
        (7, "got int"),
        (EcgRecord(np.zeros((3, 9)), 250, LEADS), "use EcgByteProcessor"),
    ],
)
def test_refused_input(tokenizer, wrong, message):
    with pytest.raises(SignalError, match=message):
        tokenizer(wrong)


def test_arguments_that_do_not_apply(tokenizer):
    for options in ({"text_pair": "ab"}, {"is_split_into_words": True}, {"return_overflowing_tokens": True}):
        with pytest.raises(VocabularyError):
            tokenizer("ab", **options)
    with pytest.raises(TypeError, match="does not know the argument sampling_rate"):
        tokenizer(walk(1), sampling_rate=500)
    with pytest.raises(TypeError, match="return_calibraton"):
        tokenizer(walk(1), return_calibraton=True)


# ---- encoding strings ------------------------------------------------------------------------------------------


def test_strings(tiny):
    assert tiny("aabaaa")["input_ids"] == [27, 26, 0]
    assert tiny("")["input_ids"] == []
    assert tiny("aXX\n\U0001f600b")["input_ids"] == [0, 29, 29, 29, 29, 1]
    assert tiny("aa<|ecg_end|>b<|ecg_end")["input_ids"] == [26, 31, 1, 29, 29, 4, 2, 6, 29, 4, 13, 3]
    assert tiny("a<|ecg_end|>", split_special_tokens=True)["input_ids"] == [0, 29, 29, 4, 2, 6, 29, 4, 13, 3, 29, 29]
    assert tiny("ab", add_special_tokens=True)["input_ids"] == [0, 1]


def test_offsets(tiny):
    text = "aabX<|ecg_unk|>aa<|ecg_end|>"
    encoding = tiny(text, return_offsets_mapping=True)
    assert [text[a:b] for a, b in encoding["offset_mapping"]] == ["aab", "X", "<|ecg_unk|>", "aa", "<|ecg_end|>"]
    signal = np.array([[-1.3, -1.3, -1.15, 0.0, -1.3, -1.3]])
    assert tiny(signal, return_offsets_mapping=True)["offset_mapping"] == [(0, 3), (3, 4), (4, 6)]
    cut = tiny(signal, return_offsets_mapping=True, truncation=True, max_length=2)
    assert cut["offset_mapping"] == [(0, 3), (3, 4)]
    padded = tiny([text, "a"], return_offsets_mapping=True, padding=True)
    assert padded["offset_mapping"][1] == [(0, 1), (0, 0), (0, 0), (0, 0), (0, 0)]


# ---- padding, truncation, tensors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "input_ids", "attention_mask"),
    [
        ({}, [[27, 0], [1]], [[1, 1], [1]]),
        ({"padding": True}, [[27, 0], [1, 28]], [[1, 1], [1, 0]]),
        ({"padding": "longest", "padding_side": "left"}, [[27, 0], [28, 1]], [[1, 1], [0, 1]]),
        ({"padding": "max_length", "max_length": 3}, [[27, 0, 28], [1, 28, 28]], [[1, 1, 0], [1, 0, 0]]),
        ({"padding": True, "pad_to_multiple_of": 4}, [[27, 0, 28, 28], [1, 28, 28, 28]], [[1, 1, 0, 0], [1, 0, 0, 0]]),
        ({"truncation": True, "max_length": 1}, [[27], [1]], [[1], [1]]),
        ({"truncation": True, "max_length": 5}, [[27, 0], [1]], [[1, 1], [1]]),
        (
            {"truncation": True, "padding": "max_length", "max_length": 1, "padding_side": "left"},
            [[27], [1]],
            [[1], [1]],
        ),
    ],
)
def test_padding_and_truncation(tiny, options, input_ids, attention_mask):
    assert tiny(["aaba", "b"], **options) == {"input_ids": input_ids, "attention_mask": attention_mask}


def test_truncation_side_and_default_padding_side(tiny):
    tokenizer = copy.deepcopy(tiny)
    tokenizer.truncation_side = tokenizer.padding_side = "left"
    assert tokenizer("aabac", truncation=True, max_length=2)["input_ids"] == [0, 2]
    assert tokenizer(["aaba", "b"], padding=True)["input_ids"] == [[27, 0], [28, 1]]
    left = tokenizer("aabac", truncation=True, max_length=2, return_offsets_mapping=True)
    assert left["offset_mapping"] == [(3, 4), (4, 5)]


def test_optional_columns(tiny):
    encoding = tiny(
        ["aa<|ecg_end|>", "b"], padding=True, return_special_tokens_mask=True, return_length=True,
        return_attention_mask=False, padding_side="left",
    )  # fmt: skip
    assert encoding == {"input_ids": [[26, 31], [28, 1]], "special_tokens_mask": [[0, 1], [1, 0]], "length": [2, 2]}
    assert tiny("aab", return_length=True)["length"] == 1


@pytest.mark.parametrize("kind", ["np", "pt"])
def test_tensors(tiny, kind):
    encoding = tiny(
        ["aaba", "b"],
        padding=True,
        return_tensors=kind,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_length=True,
    )
    module = {"np": "numpy", "pt": "torch"}[kind]
    for values in encoding.values():
        assert type(values).__module__ == module and str(values.dtype).endswith("int64")
    assert encoding["input_ids"].tolist() == [[27, 0], [1, 28]]
    assert encoding["offset_mapping"].tolist() == [[[0, 3], [3, 4]], [[0, 1], [0, 0]]]
    assert encoding["length"].tolist() == [2, 2]
    assert tiny("aab", return_tensors=kind)["input_ids"].shape == (1, 1)
    with pytest.raises(ValueError, match="pass padding=True"):
        tiny(["aaba", "b"], return_tensors=kind)


def test_calibration_is_returned():
    tokenizer = EcgByteTokenizer(calibration=EcgCalibration.minmax(), leads=["II"])
    signals = [np.array([[0.5, -2.0]], dtype=np.float32), np.array([[1.0, 1.0]], dtype=np.float32)]
    encoding = tokenizer(signals, return_calibration=True)
    assert encoding["calibration"] == [[-2.0, 0.5], [1.0, 1.0]]
    assert encoding["input_ids"] == [[25, 0], [0, 0]]
    arrays_ = tokenizer(signals, return_calibration=True, return_tensors="np")
    assert arrays_["calibration"].tolist() == [[-2.0, 0.5], [1.0, 1.0]]
    with pytest.raises(CalibrationError, match="symbols have no low and high"):
        tokenizer("ab", return_calibration=True)


def test_pad_takes_its_own_output(tokenizer):
    rows = [tokenizer(walk(1, 60)), tokenizer(walk(2, 20))]
    direct = tokenizer([walk(1, 60), walk(2, 20)], padding=True)
    assert tokenizer.pad(rows, padding=True) == direct
    arrays_ = [{name: np.asarray(values) for name, values in row.items()} for row in rows]
    assert tokenizer.pad(arrays_, return_tensors="np")["input_ids"].tolist() == direct["input_ids"]
    collated = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8)(rows)
    assert collated["input_ids"].shape[1] % 8 == 0
    assert collated["input_ids"][:, : len(direct["input_ids"][0])].tolist() == direct["input_ids"]
    assert collated["attention_mask"].sum(dim=1).tolist() == [len(row["input_ids"]) for row in rows]


def test_tensors_go_through_a_model(tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=8, n_layer=1, n_head=1, use_cache=False)
    batch = tokenizer([walk(1, 30), walk(2, 20)], padding=True, return_tensors="pt")
    logits = GPT2LMHeadModel(config)(**batch).logits
    assert logits.shape == (*batch["input_ids"].shape, len(tokenizer))


# ---- decoding signals ------------------------------------------------------------------------------------------


def test_bin_centres_come_back_exactly(tokenizer):
    symbols = np.random.default_rng(0).integers(0, 26, (3, 500))
    centres = -1.3 + (symbols + 0.5) / 26 * WIDTH
    assert np.array_equal(tokenizer.decode_signal(tokenizer(centres)["input_ids"]), centres)
    narrow = tokenizer(centres.astype(np.float32), return_tensors="pt")["input_ids"]
    assert np.array_equal(tokenizer.decode_signal(narrow), centres)


@settings(max_examples=int(os.environ.get("ECGBYTE_EXAMPLES", "100")), deadline=None)
@given(arrays.arrays(np.float64, st.tuples(st.just(3), st.integers(1, 30)), elements=st.floats(-1.3, 1.3)))
def test_decoding_error_is_at_most_half_a_bin(tokenizer, signal):
    decoded = tokenizer.decode_signal(tokenizer(signal)["input_ids"])
    assert np.abs(decoded - signal).max() <= WIDTH / 52 * (1 + 1e-12)


@settings(max_examples=int(os.environ.get("ECGBYTE_EXAMPLES", "100")), deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.just(1), st.integers(1, 30)), elements=st.floats(-50, 50, width=32)))
def test_minmax_decodes_with_the_records_own_range(signal):
    tokenizer = EcgByteTokenizer(calibration=EcgCalibration.minmax(), leads=["II"])
    encoding = tokenizer(signal, return_calibration=True)
    low, high = encoding["calibration"]
    decoded = tokenizer.decode_signal(encoding["input_ids"], low=low, high=high)
    assert np.abs(decoded - signal).max() <= (high - low + 1e-6) / 52 + 1e-12


def test_decode_signal_refuses(tokenizer):
    ids = tokenizer(walk(1, 10))["input_ids"]
    assert tokenizer.decode_signal([tokenizer.bos_token_id, *ids, tokenizer.pad_token_id]).shape == (3, 10)
    assert tokenizer.decode_signal(ids, num_leads=1).shape == (1, 30)
    assert tokenizer.decode_signal([]).shape == (3, 0)
    with pytest.raises(SignalError, match="4 samples do not divide among 3 leads: the ids were cut"):
        tokenizer.decode_signal([0, 1, 2, 3])
    with pytest.raises(SignalError, match="num_leads=0"):
        tokenizer.decode_signal(ids, num_leads=0)
    with pytest.raises(CalibrationError, match="fixed by this tokenizer"):
        tokenizer.decode_signal(ids, low=-1.0, high=1.0)
    for wrong in (-100, len(tokenizer), tokenizer.unk_token_id):
        with pytest.raises(VocabularyError, match=f"id {wrong} stands for no sample"):
            tokenizer.decode_signal([0, wrong, 1, 2])
    with pytest.raises(VocabularyError, match="integers"):
        tokenizer.decode_signal([0.0, 1.0, 2.0])
    minmax = EcgByteTokenizer(calibration=EcgCalibration.minmax(), leads=["II"])
    with pytest.raises(CalibrationError, match="pass the low and high"):
        minmax.decode_signal([0, 1])
    for low, high in ((1.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(CalibrationError, match="finite low <= high"):
            minmax.decode_signal([0, 1], low=low, high=high)


def test_lead_spans(tokenizer):
    assert tokenizer.lead_spans((0, 4), num_samples=4) == [("I", 0, 4)]
    assert tokenizer.lead_spans((3, 9), num_samples=4) == [("I", 3, 4), ("II", 0, 4), ("V1", 0, 1)]
    assert tokenizer.lead_spans((12, 12), num_samples=4) == tokenizer.lead_spans((0, 0), num_samples=4) == []
    for wrong in ((-1, 2), (3, 2), (11, 13)):
        with pytest.raises(SignalError, match="does not lie within 3 leads of 4 samples"):
            tokenizer.lead_spans(wrong, num_samples=4)
    with pytest.raises(SignalError):
        tokenizer.lead_spans((0, 1), num_samples=0)


def test_spans_cover_every_sample_once(tokenizer):
    signal = walk(8, 50)
    counts = {lead: np.zeros(50, dtype=int) for lead in LEADS}
    for offset in tokenizer(signal, return_offsets_mapping=True)["offset_mapping"]:
        for lead, first, last in tokenizer.lead_spans(offset, num_samples=50):
            counts[lead][first:last] += 1
    assert all((covered == 1).all() for covered in counts.values())


def test_ecg_text(tiny):
    assert tiny.ecg_text(np.array([27, 0], dtype=np.uint32)) == "<|ecg_start|><|ecg_27|><|ecg_0|><|ecg_end|>"
    assert tiny.ecg_text([]) == "<|ecg_start|><|ecg_end|>"
    for wrong in (28, -1):
        with pytest.raises(VocabularyError, match=rf"only the ids 0\.\.27 are written as ECG text, got {wrong}"):
            tiny.ecg_text([0, wrong])


# ---- training --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead_boundary", ["cross", "split"])
def test_training_is_that_of_the_core_on_any_thread_count(lead_boundary):
    symbols = [rust_bpe.quantize(walk(seed), -1.3, 1.3) for seed in range(4)]
    records = [row for record in symbols for row in (record if lead_boundary == "split" else [record.reshape(-1)])]
    expected = rust_bpe.train(records, 60, max_token_length=1024).tolist()
    for num_threads in (1, 2, None):
        tokenizer = train(lead_boundary=lead_boundary, num_threads=num_threads)
        assert tokenizer.bpe.merges.tolist() == expected and len(expected) == 60


def test_no_token_spans_two_leads_with_split():
    """Leads of different levels: 'm' in lead I, 'n' in lead II, so "mn" can only come from the boundary."""
    record = np.array([[-0.05] * 3, [0.05] * 3])
    options = {"calibration": CALIBRATION, "leads": ["I", "II"]}
    split = EcgByteTokenizer.train_from_iterator([record] * 5, 10, lead_boundary="split", **options)
    cross = EcgByteTokenizer.train_from_iterator([record] * 5, 10, lead_boundary="cross", **options)
    assert [token for token in split.get_vocab() if "mn" in token] == []
    assert "mmmnnn" in cross.get_vocab() and len(cross(record)["input_ids"]) == 1
    spans = split(record, return_offsets_mapping=True)["offset_mapping"]
    assert spans == [(0, 3), (3, 6)]


def test_split_encoding_stops_at_the_lead_even_with_crossing_tokens():
    tokenizer = EcgByteTokenizer(
        merges=[(12, 12), (13, 13), (26, 27)], calibration=CALIBRATION, leads=["I", "II"], lead_boundary="split"
    )
    record = np.array([[-0.05] * 2, [0.05] * 2])
    assert tokenizer(record)["input_ids"] == [26, 27]
    assert tokenizer(tokenizer.decode([26, 27]))["input_ids"] == [28]


def test_max_token_length():
    flat = [np.zeros((3, 400), dtype=np.float32)]
    options = {"calibration": CALIBRATION, "leads": LEADS}
    lengths = EcgByteTokenizer.train_from_iterator(flat, 50, max_token_length=64, **options).bpe.token_lengths
    assert lengths.max() == 64
    unlimited = EcgByteTokenizer.train_from_iterator(flat, 50, max_token_length=None, **options)
    assert unlimited.bpe.token_lengths.max() == 1200
    assert train(num_merges=0).num_merges == 0


def test_progress_is_told():
    told = []
    train(progress=lambda done, wanted: told.append((done, wanted)))
    assert told[0] == (0, 60) and told[-1] == (60, 60)


def test_minmax_training_uses_each_records_range():
    records = [walk(seed) * scale for seed, scale in ((1, 0.1), (1, 1.0), (1, 10.0))]
    options = {"calibration": EcgCalibration.minmax(), "leads": LEADS}
    ids = [EcgByteTokenizer.train_from_iterator(records, 30, **options)(record)["input_ids"] for record in records]
    assert ids[1] == ids[2]


def test_records_that_cannot_be_trained_on():
    good = walk(1)
    options = {"calibration": CALIBRATION, "leads": LEADS}
    for wrong, message in ((good[:2], "got \\(2, 200\\)"), (good * np.nan, "NaN"), (good.astype(int), "int64")):
        with pytest.raises(SignalError, match=f"record 2 \\(counted from 0\\): .*{message}"):
            EcgByteTokenizer.train_from_iterator(iter([good, good, wrong]), 5, **options)
    with pytest.raises(SignalError, match=r"record 0 .*minimum"):
        EcgByteTokenizer.train_from_iterator([np.zeros((3, 0))], 5, leads=LEADS, calibration=EcgCalibration.minmax())

    def broken():
        yield good
        raise LeadError("from the reader")

    with pytest.raises(LeadError, match="from the reader"):
        EcgByteTokenizer.train_from_iterator(broken(), 5, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_merges": -1}, VocabularyError, "num_merges: got -1, expected an integer of at least 0"),
        ({"num_merges": 3.5}, VocabularyError, "num_merges: got 3.5"),
        ({"max_token_length": 1}, VocabularyError, "max_token_length: got 1, expected an integer of at least 2"),
        ({"num_threads": 0}, VocabularyError, "num_threads: got 0"),
        ({"lead_boundary": "none"}, VocabularyError, "lead_boundary: got 'none', expected one of cross, split"),
        ({"algorithm": "unigram"}, VocabularyError, "algorithm: got 'unigram', expected one of greedy, bpe"),
        ({"calibration": "minmax"}, CalibrationError, "expected calibration=EcgCalibration"),
        ({"calibration": None}, CalibrationError, "got None"),
        ({"sampling_rate": 0}, SamplingRateError, "got 0, expected a positive number of Hz"),
        ({"sampling_rate": float("nan")}, SamplingRateError, "got nan"),
        ({"leads": "II"}, LeadError, "got 'II'"),
        ({"leads": ["I", "II", "I"]}, LeadError, "different lead names"),
        ({"leads": []}, LeadError, "different lead names"),
    ],
)
def test_training_arguments_are_checked_before_the_first_record(options, error, message):
    def untouched():
        raise AssertionError("a record was read")
        yield

    options = {"num_merges": 5, "calibration": CALIBRATION, "leads": LEADS, **options}
    with pytest.raises(error, match=message):
        EcgByteTokenizer.train_from_iterator(untouched(), **options)


def test_a_feature_extractor_that_gives_something_else_is_refused():
    with pytest.raises(SamplingRateError, match="gives 500 Hz, the tokenizer expects 250 Hz"):
        train(feature_extractor=EcgByteFeatureExtractor(sampling_rate=500, leads=LEADS))
    with pytest.raises(LeadError, match="expects I, II, V1"):
        train(feature_extractor=EcgByteFeatureExtractor())


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ([(0, 27)], "merges: .*27"),
        ([(0, -1)], "merges: "),
        ([(0, 0), (0, 0)], "merges: "),
        ([(0, 0), (0, 26), (26, 0)], "merges: "),
        ([(0, 1, 2)], "merges: "),
        ([(0.0, 1.0)], "merges: "),
        ([(0, 1), (2,)], "merges: "),
        ([(0, 2**70)], "merges: "),
        ("ab", "merges: "),
    ],
)
def test_merges_that_are_no_vocabulary(merges, message):
    with pytest.raises(VocabularyError, match=message):
        EcgByteTokenizer(merges=merges, calibration=CALIBRATION)


# ---- saving and loading ----------------------------------------------------------------------------------------


def test_saved_again_is_the_same_folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "a")
    loaded = EcgByteTokenizer.from_pretrained(tmp_path / "a")
    loaded(walk(1), padding=True, return_tensors="np")
    loaded.save_pretrained(tmp_path / "b")
    AutoTokenizer.from_pretrained(tmp_path / "b", token="hf_secret", local_files_only=True).save_pretrained(
        tmp_path / "c"
    )
    loaded.save_pretrained(tmp_path / "b")
    files = contents(tmp_path / "a")
    assert sorted(files) == ["config.json", "ecg_byte.json", "tokenizer.json", "tokenizer_config.json"]
    assert files == contents(tmp_path / "b") == contents(tmp_path / "c")
    assert str(tmp_path) not in b"".join(files.values()).decode()
    assert json.loads(files["config.json"])["model_type"] == EcgByteConfig.model_type == "ecg_byte"
    assert json.loads(files["config.json"])["vocab_size"] == 90


@pytest.mark.parametrize(
    "options",
    [
        {"calibration": EcgCalibration.minmax()},
        {"lead_boundary": "split", "algorithm": "bpe", "sampling_rate": 500.0},
        {"sampling_rate": 360.5},
        {"num_merges": 0},
    ],
)
def test_everything_that_decides_the_ids_is_in_the_folder(options, tmp_path):
    tokenizer = train(**options)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for name in ("calibration", "sampling_rate", "leads", "lead_boundary", "algorithm"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded(walk(7)) == tokenizer(walk(7))
    assert type(loaded.sampling_rate) is type(tokenizer.sampling_rate)


def test_fingerprint(tmp_path):
    """The same for a saved and loaded tokenizer; another one when anything that decides the ids is different."""
    tokenizer = train()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint and len(loaded.fingerprint) == 64
    others = [
        train(num_merges=59),
        train(algorithm="bpe"),
        train(lead_boundary="split"),
        train(sampling_rate=500),
        train(calibration=EcgCalibration("percentile", -1.3, 1.4)),
        train(feature_extractor=EcgByteFeatureExtractor(profile="none", leads=LEADS)),
        train(feature_extractor=EcgByteFeatureExtractor(profile="reference", leads=LEADS)),
    ]
    assert len({tokenizer.fingerprint, *(other.fingerprint for other in others)}) == 8


def test_what_the_file_holds(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "ecg_byte.json").read_text()) == {
        "version": 1,
        "alphabet": "abcdefghijklmnopqrstuvwxyz",
        "algorithm": "greedy",
        "lead_boundary": "cross",
        "sampling_rate": 250,
        "leads": ["II"],
        "calibration": {"method": "percentile", "low": -1.3, "high": 1.3},
        "merges": [[0, 0], [26, 1]],
    }


def test_the_feature_extractor_stays_with_the_tokenizer(tmp_path):
    tokenizer = train(feature_extractor=EcgByteFeatureExtractor(profile="none", leads=LEADS))
    tokenizer.save_pretrained(tmp_path / "a")
    AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    extractor = EcgByteFeatureExtractor.from_pretrained(tmp_path / "b")
    assert (extractor.profile, extractor.leads) == ("none", list(LEADS))


@pytest.fixture
def warnings_logged(monkeypatch):
    messages: list[str] = []
    monkeypatch.setattr(tokenization_ecg_byte.logger, "warning", messages.append)
    return messages


def test_a_models_config_is_not_overwritten(tiny, tmp_path, warnings_logged):
    """A Trainer saves its tokenizer into the model's folder."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tiny.save_pretrained(tmp_path)
    assert len(warnings_logged) == 1 and "of a model of type 'llama' and was left as it is" in warnings_logged[0]
    assert (tmp_path / "config.json").read_text() == '{"model_type": "llama"}'
    assert EcgByteTokenizer.from_pretrained(tmp_path)("aab")["input_ids"] == [27]


def test_no_file_is_left_beside(tiny, tmp_path, monkeypatch):
    tiny.save_pretrained(tmp_path)
    before = contents(tmp_path)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        tiny.save_vocabulary(str(tmp_path))
    assert contents(tmp_path) == before


def test_too_long_for_a_stock_file(tmp_path, warnings_logged):
    """Each token is the one before and one more letter: nested 2,600 deep, which the stock library refuses."""
    merges = [(0, 0), *((index, 0) for index in range(26, 26 + 2600))]
    tokenizer = EcgByteTokenizer(merges=merges, calibration=CALIBRATION, leads=LEADS)
    with pytest.raises(VocabularyError, match="lower max_token_length"):
        stock_tokenizer(tokenizer)
    (tmp_path / "tokenizer.json").write_text("of another tokenizer")
    tokenizer.save_pretrained(tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    assert len(warnings_logged) == 1 and "is saved without tokenizer.json" in warnings_logged[0]
    assert len(AutoTokenizer.from_pretrained(tmp_path)("a" * 2602)["input_ids"]) == 1


def test_roles_given_to_other_tokens_move_no_id(tiny, tmp_path):
    tokenizer = copy.deepcopy(tiny)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "a")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert loaded.pad_token_id == 31 and loaded.get_vocab() == tiny.get_vocab()
    assert loaded(["aab", ""], padding=True)["input_ids"] == [[27], [31]]
    loaded.save_pretrained(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    renamed = EcgByteTokenizer.from_pretrained(tmp_path / "a", unk_token="<unk>", pad_token="<pad>")
    assert renamed("X")["input_ids"] == [29] and renamed.pad_token_id == 33 and renamed.decode([31]) == "<|ecg_end|>"


def test_tokens_of_a_user(tiny, tmp_path):
    tokenizer = copy.deepcopy(tiny)
    assert tokenizer.add_tokens(["<|beat|>", "<|beat|>", "<|pause|>"]) == 2
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<|noise|>"]}) == 1
    assert (len(tokenizer), tokenizer.vocab_size) == (35, 32)
    text = "aab<|beat|>X<|noise|>aa<|pause|>"
    assert tokenizer(text)["input_ids"] == [27, 32, 29, 34, 26, 33]
    assert tokenizer.decode([27, 32, 34]) == "aab<|beat|><|noise|>"
    assert tokenizer.decode_signal([27, 32, 34]).shape == (1, 3)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert [text[a:b] for a, b in offsets] == ["aab", "<|beat|>", "X", "<|noise|>", "aa", "<|pause|>"]
    tokenizer.save_pretrained(tmp_path / "a")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a")
    assert loaded(text) == tokenizer(text) and len(loaded) == 35
    assert 34 in loaded.all_special_ids
    loaded.save_pretrained(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(tiny) == 32


def test_tokens_that_would_change_an_ecg_are_refused(tiny):
    from transformers import AddedToken

    tokenizer = copy.deepcopy(tiny)
    for wrong in ("qrs", "aab", AddedToken("b")):
        with pytest.raises(VocabularyError, match="the letters a to z are samples"):
            tokenizer.add_tokens([wrong])
    with pytest.raises(VocabularyError, match="an ECG has no words"):
        tokenizer.add_tokens([AddedToken("<|x|>", lstrip=True)])
    assert tokenizer.get_vocab() == tiny.get_vocab()


# ---- malformed folders -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    return tmp_path


def changed(folder, **values):
    path = folder / "ecg_byte.json"
    stored = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({name: value for name, value in stored.items() if value != "REMOVED"}))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"version": 2}, VocabularyError, "version 2; this ecgbyte_hf reads version 1; upgrade"),
        ({"version": None}, VocabularyError, "version None"),
        ({"version": "REMOVED", "leads": "REMOVED"}, VocabularyError, "missing leads, version"),
        ({"alphabet": "abc"}, VocabularyError, "alphabet 'abc'"),
        ({"algorithm": "unigram"}, VocabularyError, "algorithm: got 'unigram'"),
        ({"algorithm": ["greedy"]}, VocabularyError, "algorithm"),
        ({"lead_boundary": None}, VocabularyError, "lead_boundary: got None"),
        ({"merges": [[0, 0], [28, 1]]}, VocabularyError, "28"),
        ({"merges": [[0, 0], [1]]}, VocabularyError, "inhomogeneous"),
        ({"merges": [["a", "b"]]}, VocabularyError, "ecg_byte.json: "),
        ({"merges": {"a": 1}}, VocabularyError, "expected a list of pairs, got dict"),
        ({"merges": [[0, 0], [0, 0]]}, VocabularyError, "ecg_byte.json: "),
        ({"calibration": {"method": "percentile", "low": float("nan"), "high": 1}}, CalibrationError, "got nan and 1"),
        ({"calibration": {"method": "percentile", "low": 1}}, CalibrationError, "got 1 and None"),
        ({"calibration": {"method": "percentile", "p1": 1}}, CalibrationError, "expected method, low and high"),
        ({"calibration": [-1, 1]}, CalibrationError, "expected method, low and high"),
        ({"calibration": {"method": "minmax", "low": -1, "high": 1}}, CalibrationError, "leave low and high out"),
        ({"sampling_rate": "250"}, SamplingRateError, "got '250'"),
        ({"sampling_rate": -250}, SamplingRateError, "got -250"),
        ({"leads": "II"}, LeadError, "got 'II'"),
        ({"leads": [2]}, LeadError, "different lead names"),
    ],
)
def test_malformed_file_is_named(folder, values, error, message):
    changed(folder, **values)
    with pytest.raises(error) as caught:
        AutoTokenizer.from_pretrained(folder)
    assert str(caught.value).startswith(f"{folder / 'ecg_byte.json'}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b'{"version": 1, "al', b"", b"\xff\xfe{}", b"[1]", b"[" * 100_000])
@pytest.mark.parametrize("name", ["ecg_byte.json", "preprocessor_config.json"])
def test_file_that_is_no_json_is_named(folder, content, name):
    (folder / name).write_bytes(content)
    with pytest.raises(VocabularyError, match=f"{name}: (not a JSON file|expected a JSON object)"):
        AutoTokenizer.from_pretrained(folder)


def test_every_truncation_is_noticed(folder):
    path = folder / "ecg_byte.json"
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(EcgError, match="ecg_byte.json"):
            EcgByteTokenizer.from_pretrained(folder)


def test_missing_file_is_named(folder):
    (folder / "ecg_byte.json").unlink()
    with pytest.raises((VocabularyError, OSError), match=str(folder)):
        AutoTokenizer.from_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(VocabularyError, match="there is no ecg_byte.json"):
        AutoTokenizer.from_pretrained(folder)


def test_files_of_different_tokenizers(folder, tokenizer, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    tokenizer.save_pretrained(other)
    shutil.copy(other / "tokenizer_config.json", folder)
    with pytest.raises(VocabularyError, match="the files are of different tokenizers"):
        AutoTokenizer.from_pretrained(folder)


def test_preprocessor_of_another_rate(folder):
    EcgByteFeatureExtractor(sampling_rate=500, leads=["II"]).save_pretrained(folder)
    with pytest.raises(SamplingRateError, match=r"preprocessor_config.json: .*gives 500 Hz"):
        AutoTokenizer.from_pretrained(folder)


# ---- copies and other processes --------------------------------------------------------------------------------


def test_copies(tokenizer):
    signal = walk(3)
    for twin in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert twin(signal) == tokenizer(signal)
        twin.add_tokens(["<|x|>"])
        assert (len(twin), len(tokenizer)) == (91, 90)


def test_datasets_map_in_two_processes(tokenizer, tmp_path, monkeypatch):
    import datasets
    from datasets.fingerprint import Hasher

    signals = [walk(seed, 30) for seed in range(6)]
    before = Hasher.hash(tokenizer)
    table = datasets.Dataset.from_dict({"ecg": [signal.tolist() for signal in signals]})
    datasets.disable_progress_bars()
    try:
        mapped = table.map(
            lambda row: tokenizer(row["ecg"]), num_proc=2, cache_file_name=str(tmp_path / "mapped.arrow")
        )
    finally:
        datasets.enable_progress_bars()
    assert mapped["input_ids"][:] == [tokenizer(signal)["input_ids"] for signal in signals]
    assert Hasher.hash(tokenizer) == before == Hasher.hash(copy.deepcopy(tokenizer))


# ---- the stock library on the same folder ----------------------------------------------------------------------


def test_trie_pattern():
    assert trie_pattern(["a", "ab", "abcd", "b"]) == "a(?:b(?:cd)?)?|b"
    assert trie_pattern(["b", "a", "abcx", "abcy"]) == "b|a(?:bc(?:x|y))?"


FALLBACK = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ecgbyte_hf", "rust_bpe"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from transformers import AutoTokenizer
answers = []
for folder, texts in json.load(open(sys.argv[1])):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoding = tokenizer(texts, return_offsets_mapping=True)
    answers.append({
        "class": type(tokenizer).__name__,
        "size": len(tokenizer),
        "special": [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id],
        "input_ids": encoding["input_ids"],
        "offsets": encoding["offset_mapping"],
        "decoded": tokenizer.batch_decode(encoding["input_ids"]),
        "clean": tokenizer.batch_decode(encoding["input_ids"], skip_special_tokens=True),
        "padded": tokenizer(texts[:6], padding=True, max_length=9, truncation=True)["input_ids"],
    })
assert not {"ecgbyte_hf", "rust_bpe"} & set(sys.modules)
json.dump(answers, open(sys.argv[2], "w"))
"""


def odd_strings(seed: int, specials: tuple[str, ...], count: int) -> list[str]:
    """Strings of random letters, and of what does not belong into an ECG."""
    rng = random.Random(seed)
    pieces = [*specials, *SPECIAL_TOKENS.values(), "<|ecg_", "<|", "|>", "e\u0301", "\u2028", "\x00", "\r\n"]
    pieces += list("AQ0 \n\téß心\U0001f600")
    texts = ["", "a", "z", "m" * 30_000, "a" * 1023, "a" * 1025, "A", "\n", "é", *pieces]
    for _ in range(count):
        letters = "abcdefghijklmnopqrstuvwxyz"[: rng.choice([1, 2, 5, 26])]
        runs = ["".join(rng.choices(letters, k=rng.randrange(40))) for _ in range(rng.randrange(1, 5))]
        texts.append("".join(run + rng.choice(pieces) for run in runs) if rng.random() < 0.6 else "".join(runs))
    return texts


def check_fallback(cases: list[tuple[EcgByteTokenizer, list[str]]], tmp_path: Path) -> int:
    """Save, encode in an interpreter without our packages, and compare; the number of strings compared."""
    for number, (tokenizer, _) in enumerate(cases):
        tokenizer.save_pretrained(tmp_path / str(number))
    request, answer = tmp_path / "request.json", tmp_path / "answer.json"
    request.write_text(json.dumps([(str(tmp_path / str(number)), texts) for number, (_, texts) in enumerate(cases)]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", FALLBACK, str(request), str(answer)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count = 0
    for got, (tokenizer, texts) in zip(json.loads(answer.read_text()), cases, strict=True):
        assert got["class"] == "TokenizersBackend" and got["size"] == len(tokenizer)
        ids = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
        assert got["special"] == ids
        ours = tokenizer(texts, return_offsets_mapping=True)
        decoded = tokenizer.batch_decode(ours["input_ids"])
        clean = tokenizer.batch_decode(ours["input_ids"], skip_special_tokens=True)
        for index, text in enumerate(texts):
            assert got["input_ids"][index] == ours["input_ids"][index], text[:200]
            assert [tuple(pair) for pair in got["offsets"][index]] == ours["offset_mapping"][index], text[:200]
            assert (got["decoded"][index], got["clean"][index]) == (decoded[index], clean[index]), text[:200]
        assert got["padded"] == tokenizer(texts[:6], padding=True, max_length=9, truncation=True)["input_ids"]
        count += len(texts)
    return count


def test_without_our_package_the_stock_library_gives_the_same_ids(test_data, tmp_path):
    """Real ECGs with 3,500 merges and tokens of up to 1,024 letters; both algorithms; tokens of a user."""
    extractor = EcgByteFeatureExtractor(profile="none", on_problem=("nan", "flat", "amplitude"))
    paths = sorted((test_data / "ptbxl" / "records500").rglob("*.hea"))[:14]
    signals = [extractor.clean(read_ecg(path.with_suffix(""))) for path in paths]
    calibration = EcgCalibration.from_percentiles(*np.percentile(np.concatenate(signals, axis=None), [1, 99]))
    flat = [np.zeros((12, 2500), dtype=np.float32)] * 2
    options = {"calibration": calibration, "feature_extractor": extractor}
    greedy = EcgByteTokenizer.train_from_iterator([*signals[:8], *flat], 3500, **options)
    assert greedy.num_merges == 3500 and greedy.bpe.token_lengths.max() == 1024
    bpe = EcgByteTokenizer.train_from_iterator(signals[:4], 500, algorithm="bpe", **options)
    beat = np.tile(signals[0][:, 500:1500], 2)
    thousand = EcgByteTokenizer.train_from_iterator([beat] * 3, 6000, max_token_length=1000, **options)
    assert thousand.bpe.token_lengths.max() == 1000
    thousand.add_tokens(["<|beat|>", "<|pause|>"])
    thousand.add_special_tokens({"additional_special_tokens": ["<|noise|>"]})

    records = [(rust_bpe.quantize(s, calibration.low, calibration.high) + 97).tobytes().decode() for s in signals]
    assert {len(record) for record in records} == {30_000}
    rng = random.Random(0)
    windows = []
    for _ in range(1000):
        record, start = rng.choice(records), rng.randrange(30_000)
        windows.append(record[start : start + rng.randrange(1, 700)])
    cases = [
        (greedy, [*records, *windows, *odd_strings(1, (), 400)]),
        (bpe, [*records[:2], *windows[:100], *odd_strings(2, (), 200)]),
        (thousand, [*records[:2], *windows[:100], *odd_strings(3, ("<|beat|>", "<|noise|>"), 200)]),
    ]
    assert check_fallback(cases, tmp_path) > 2000


@pytest.mark.parametrize("algorithm", ["greedy", "bpe"])
def test_stock_tokenizer_on_random_vocabularies(algorithm):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        symbols = [rng.integers(0, rng.integers(1, 6), 300).astype(np.uint8) for _ in range(3)]
        merges = rust_bpe.train(symbols, 120)
        tokenizer = EcgByteTokenizer(merges=merges, calibration=CALIBRATION, leads=["II"], algorithm=algorithm)
        stock = stock_tokenizer(tokenizer)
        for text in odd_strings(seed, (), 20):
            assert stock.encode(text).ids == tokenizer(text)["input_ids"], (seed, text[:200])
