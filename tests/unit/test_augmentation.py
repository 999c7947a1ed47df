"""Random changes of training signals."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecgbyte_hf import cli
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError
from ecgbyte_hf.training.augmentation import Augmentation

SIGNAL = np.random.default_rng(0).normal(size=(4, 4000)).astype(np.float32)


def augmentation(*changes, seed=0):
    return Augmentation(changes, sampling_rate=100, seed=seed)


def test_the_draw_is_of_the_record_and_the_seed():
    before = SIGNAL.copy()
    one = augmentation("gain=2", "noise=0.1")
    assert np.array_equal(one(7, SIGNAL), one(7, SIGNAL)) and np.array_equal(SIGNAL, before)
    assert not np.array_equal(one(7, SIGNAL), one(8, SIGNAL))
    assert not np.array_equal(one(7, SIGNAL), augmentation("gain=2", "noise=0.1", seed=1)(7, SIGNAL))
    assert one(7, SIGNAL).dtype == np.float32
    assert str(one) == "gain=2 noise=0.1"


def test_gains_are_even_on_a_logarithmic_scale():
    change = augmentation("gain=2")
    factors = np.array([change(number, SIGNAL)[0, 0] / SIGNAL[0, 0] for number in range(400)])
    assert 0.5 <= factors.min() < 0.52 and 1.92 < factors.max() <= 2.0
    assert abs(np.log(factors).mean()) < 0.06 and (factors < 1).mean() == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize(("change", "largest"), [("noise=0.2", 0.2), ("wander=0.2", 0.2 / np.sqrt(2))])
def test_noise_and_wander_are_from_nothing_up_to_so_much(change, largest):
    deviations = [float(np.std(augmentation(change)(number, SIGNAL) - SIGNAL)) for number in range(60)]
    assert min(deviations) < 0.1 * largest and 0.9 * largest < max(deviations) < 1.03 * largest


def test_leads_are_dropped():
    flat = [int((~augmentation("drop=2")(number, SIGNAL).any(axis=1)).sum()) for number in range(60)]
    assert set(flat) == {0, 1, 2}
    with pytest.raises(LeadError, match="expected fewer"):
        for number in range(60):
            augmentation("drop=4")(number, SIGNAL)


@pytest.mark.parametrize("change", ["swap=ra-la", "gain=0.5", "noise", "noise=-1", "drop=1.5", "hum=1"])
def test_what_is_no_augmentation(change):
    with pytest.raises(EcgDataError, match="expected"):
        augmentation(change)


def test_the_training_rows_alone_are_changed(small_prepared, small_llm, tmp_path):
    rows = {}
    for name, given in (("plain", []), ("augmented", ["--augment", "gain=3"])):
        command = ["encode", "--data", small_prepared.folder, "--model", small_llm, "--output", tmp_path / name]
        assert cli.main([str(part) for part in [*command, *given]]) == 0
        rows[name] = {
            split: pq.read_table(tmp_path / name / f"{split}.parquet").to_pylist() for split in ("train", "validation")
        }
        told = json.loads((tmp_path / name / "encode.json").read_text())["provenance"]["arguments"]["augmentation"]
        assert told == (given[1] if given else None)
    assert rows["plain"]["validation"] == rows["augmented"]["validation"]
    pairs = list(zip(rows["plain"]["train"], rows["augmented"]["train"], strict=True))
    assert all(old["completion"] == new["completion"] for old, new in pairs)
    assert sum(old["prompt"] != new["prompt"] for old, new in pairs) > 0.9 * len(pairs)
