"""The processor, and the budget in time that makes an ECG fit into a prompt."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer

from ecgbyte_hf import (
    EcgByteFeatureExtractor,
    EcgByteProcessor,
    EcgByteTokenizer,
    EcgCalibration,
    EcgError,
    EcgRecord,
    read_ecg,
)
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, LeadError, SamplingRateError, SignalError
from ecgbyte_hf.models.processing_ecg_byte import encode_within_budget

LEADS = ("I", "II", "V1")
CALIBRATION = EcgCalibration("percentile", -1.3, 1.3)
MODES = [(boundary, algorithm) for boundary in ("cross", "split") for algorithm in ("greedy", "bpe")]


def walk(seed: int, samples: int) -> np.ndarray:
    """A signal (3, samples) float32 in mV that moves by at most one bin a sample."""
    steps = np.random.default_rng(seed).integers(-1, 2, (3, samples))
    return (np.clip(np.cumsum(steps, axis=1), -12, 12) * 0.1).astype(np.float32)


def train(boundary: str = "cross", algorithm: str = "greedy", **options) -> EcgByteTokenizer:
    options = {"calibration": CALIBRATION, "leads": LEADS, **options}
    records = [walk(seed, 400) for seed in range(5)]
    return EcgByteTokenizer.train_from_iterator(records, 150, lead_boundary=boundary, algorithm=algorithm, **options)


@pytest.fixture(scope="module")
def tokenizers() -> dict[tuple[str, str], EcgByteTokenizer]:
    return {mode: train(*mode) for mode in MODES}


def record(seed: int, samples: int = 300, rate: float = 250) -> EcgRecord:
    signal = walk(seed, samples)
    return EcgRecord(signal[[2, 0, 1]], rate, ("V1", "I", "II"), name=f"record {seed}")


@pytest.fixture(scope="module")
def processor(tokenizers) -> EcgByteProcessor:
    return EcgByteProcessor(EcgByteFeatureExtractor(profile="none", leads=LEADS), tokenizers["cross", "greedy"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ---- the budget ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(mode))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(100, 10_000))
def test_the_longest_duration_that_fits(tokenizers, mode, seed):
    """For each budget, against the ids of every duration."""
    tokenizer, signal = tokenizers[mode], walk(seed, 60)
    durations = [tokenizer.encode_signal(signal[:, :samples]) for samples in range(61)]
    for budget in range(len(durations[1]) + 2, len(durations[60]) + 4):
        fits = [samples for samples in range(61) if len(durations[samples]) + 2 <= budget]
        (ids,), (kept,) = encode_within_budget(tokenizer, [signal], budget)
        assert kept == max(fits)
        assert ids.tolist() == durations[kept].tolist()


def test_a_longer_cut_may_take_fewer_ids():
    """Where bisection is wrong: 7 samples of "aaaaaaaa" are aaaa aa a, 3 ids, and 8 are one."""
    tokenizer = EcgByteTokenizer(merges=[(0, 0), (26, 26), (27, 27)], calibration=CALIBRATION, leads=["II"])
    signal = np.full((1, 9), -1.3)
    counts = [len(tokenizer.encode_signal(signal, samples=samples)) for samples in range(10)]
    assert counts == [0, 1, 1, 2, 1, 2, 2, 3, 1, 2]
    kept = [encode_within_budget(tokenizer, [signal], share + 2)[1] for share in (1, 2, 3)]
    assert kept == [[8], [9], [9]]


def test_nothing_is_cut_when_it_fits(tokenizers):
    tokenizer, signals = tokenizers["cross", "greedy"], [walk(7, 80), walk(8, 50)]
    whole = [tokenizer.encode_signal(signal).tolist() for signal in signals]
    enough = 2 * (max(map(len, whole)) + 2)
    for budget in (None, enough, enough + 1, 10**9):
        ids, kept = encode_within_budget(tokenizer, signals, budget)
        assert ([part.tolist() for part in ids], kept) == (whole, [80, 50])
    assert encode_within_budget(tokenizer, signals, enough - 1)[1] != [80, 50]


def test_two_signals_share_equally(tokenizers):
    tokenizer, signals = tokenizers["split", "greedy"], [walk(7, 80), walk(8, 200)]
    ids, kept = encode_within_budget(tokenizer, signals, 61)
    alone = [encode_within_budget(tokenizer, [signal], 30) for signal in signals]
    assert kept == [alone[0][1][0], alone[1][1][0]]
    assert [part.tolist() for part in ids] == [alone[0][0][0].tolist(), alone[1][0][0].tolist()]
    assert sum(len(part) + 2 for part in ids) <= 61


def test_all_leads_keep_the_same_duration(tokenizers):
    tokenizer, signal = tokenizers["cross", "greedy"], walk(9, 200)
    (ids,), (kept,) = encode_within_budget(tokenizer, [signal], 40)
    assert 0 < kept < 200
    decoded = tokenizer.decode_signal(ids)
    assert decoded.shape == (3, kept) and np.abs(decoded - signal[:, :kept]).max() <= 0.05 + 1e-6


def test_minmax_keeps_the_bins_of_the_whole_signal():
    tokenizer = train(calibration=EcgCalibration.minmax())
    signal = walk(9, 200)
    signal[0, -1] = 5.0
    (ids,), (kept,) = encode_within_budget(tokenizer, [signal], 30)
    decoded = tokenizer.decode_signal(ids, low=float(signal.min()), high=5.0)
    assert kept < 200 and np.abs(decoded - signal[:, :kept]).max() <= (5.0 - signal.min()) / 52 + 1e-6


def test_a_budget_that_holds_nothing(tokenizers):
    tokenizer = EcgByteTokenizer(calibration=CALIBRATION, leads=LEADS)
    assert encode_within_budget(tokenizer, [walk(1, 9)], 5)[1] == [1]
    for budget in (4, 2, 0, -5):
        with pytest.raises(BudgetError, match="does not hold one sample of 3 leads; raise the maximum length"):
            encode_within_budget(tokenizer, [walk(1, 9)], budget)
    with pytest.raises(BudgetError):
        encode_within_budget(tokenizer, [walk(1, 9)] * 2, 9)
    assert encode_within_budget(tokenizer, [], 9) == ([], [])


def test_real_ecgs_within_a_budget(test_data):
    extractor = EcgByteFeatureExtractor(profile="none", on_problem=("nan", "flat", "amplitude"))
    paths = sorted((test_data / "ptbxl" / "records500").rglob("*.hea"))[:6]
    signals = [extractor.clean(read_ecg(path.with_suffix(""))) for path in paths]
    calibration = EcgCalibration.from_percentiles(*np.percentile(np.concatenate(signals, axis=None), [1, 99]))
    for boundary in ("cross", "split"):
        tokenizer = EcgByteTokenizer.train_from_iterator(
            signals[1:], 2000, calibration=calibration, lead_boundary=boundary
        )
        counts = [len(tokenizer.encode_signal(signals[0], samples=samples)) for samples in range(2501)]
        for share in (100, 900):
            assert counts[-1] > share
            longest = max(samples for samples in range(2501) if counts[samples] <= share)
            assert encode_within_budget(tokenizer, signals[:1], share + 2)[1] == [longest]


# ---- the processor ---------------------------------------------------------------------------------------------


def test_records_are_ordered_by_lead_and_encoded(processor):
    tokenizer = processor.tokenizer
    one = processor(record(11))
    assert one == tokenizer(walk(11, 300))
    both = processor([record(11), record(12)], padding=True, return_tensors="np")
    expected = tokenizer([walk(11, 300), walk(12, 300)], padding=True, return_tensors="np")
    assert both["input_ids"].tolist() == expected["input_ids"].tolist()
    assert processor([record(11)])["input_ids"] == [one["input_ids"]]
    assert processor([])["input_ids"] == []
    assert processor.decode(one["input_ids"]) == tokenizer.decode(one["input_ids"])
    assert processor.batch_decode([one["input_ids"]]) == [tokenizer.decode(one["input_ids"])]
    assert processor.model_input_names == ["input_ids", "attention_mask"]


def test_ecg_text(processor):
    first, second = (processor(record(seed))["input_ids"] for seed in (11, 12))
    block = "<|ecg_start|>{}<|ecg_end|>"
    texts = [block.format("".join(f"<|ecg_{index}|>" for index in ids)) for ids in (first, second)]
    assert processor.ecg_text(record(11)) == texts[0]
    assert processor.ecg_text([record(11), record(12)]) == texts[0] + texts[1]
    cut = processor.ecg_text([record(11), record(12)], max_tokens=80)
    assert cut.count("<|ecg_start|>") == cut.count("<|ecg_end|>") == 2
    assert 60 < cut.count("<|") <= 80
    with pytest.raises(BudgetError):
        processor.ecg_text(record(11), max_tokens=2)


def test_what_is_no_record(processor):
    for wrong in ("00001_hr", walk(1, 300), [walk(1, 300)], ["00001_hr"], None, Path("00001_hr")):
        for call in (processor, processor.ecg_text):
            with pytest.raises(SignalError, match="expected a record .* or a list of them; .*read_ecg"):
                call(wrong)


def test_saved_again_is_the_same_folder(processor, tmp_path):
    processor.save_pretrained(tmp_path / "a")
    loaded = AutoProcessor.from_pretrained(tmp_path / "a")
    assert type(loaded) is EcgByteProcessor
    assert loaded(record(11)) == processor(record(11))
    loaded.save_pretrained(tmp_path / "b")
    EcgByteProcessor.from_pretrained(str(tmp_path / "b")).save_pretrained(tmp_path / "b")
    files = contents(tmp_path / "a")
    assert files == contents(tmp_path / "b")
    assert sorted(files) == [
        "config.json",
        "ecg_byte.json",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert json.loads(files["preprocessor_config.json"])["profile"] == "none"


def test_the_tokenizer_saved_by_itself_brings_the_feature_extractor(tmp_path):
    tokenizer = train()
    EcgByteProcessor(EcgByteFeatureExtractor(profile="none", leads=LEADS), tokenizer).save_pretrained(tmp_path / "a")
    AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "b")
    assert (type(extractor), extractor.profile) == (EcgByteFeatureExtractor, "none")


def test_two_that_do_not_fit_are_refused(tokenizers):
    tokenizer = tokenizers["cross", "greedy"]
    with pytest.raises(SamplingRateError, match="gives 500 Hz, the tokenizer expects 250 Hz"):
        EcgByteProcessor(EcgByteFeatureExtractor(sampling_rate=500, leads=LEADS), tokenizer)
    with pytest.raises(LeadError, match="gives the leads I, V1, II, the tokenizer expects I, II, V1"):
        EcgByteProcessor(EcgByteFeatureExtractor(leads=("I", "V1", "II")), tokenizer)
    cleaned = train(feature_extractor=EcgByteFeatureExtractor(profile="reference", leads=LEADS))
    with pytest.raises(EcgError, match="cleans with the profile 'none', the tokenizer was made for 'reference'"):
        EcgByteProcessor(EcgByteFeatureExtractor(profile="none", leads=LEADS), cleaned)


def test_a_malformed_vocabulary_is_named(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    (tmp_path / "ecg_byte.json").write_text("{")
    with pytest.raises(EcgError, match=r"ecg_byte\.json: not a JSON file"):
        AutoProcessor.from_pretrained(tmp_path)
