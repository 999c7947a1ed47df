"""The range of the amplitude bins."""

import tracemalloc

import numpy as np
import pytest

from ecgbyte_hf.data.calibration import CalibrationSample, percentile_calibration
from ecgbyte_hf.models.errors_ecg_byte import CalibrationError


def calibrate(signals, **settings):
    return percentile_calibration(enumerate(signals), **settings)


def test_percentiles_with_half_a_millivolt_on_either_side():
    signals = [np.linspace(-1.0, 1.0, 1001).reshape(7, 143), np.linspace(-1.0, 1.0, 1001).reshape(1, -1)]
    bounds = calibrate(signals)
    assert bounds.method == "percentile"
    assert (bounds.low, bounds.high) == pytest.approx((-0.98 - 0.5, 0.98 + 0.5), abs=1e-9)


def test_every_record_counts_the_same_however_long():
    # The second record is 50 times longer. With all its values p99 would be near 3 instead of 2.
    short, long = np.full((1, 2000), 1.0), np.concatenate([np.full(99_000, 2.0), np.full(1_000, 3.0)])[None]
    bounds = calibrate([short, long], per_record=2000)
    assert bounds.low == pytest.approx(1.0 - 0.5) and bounds.high == pytest.approx(2.5)
    # ... and nothing is decided by the first records alone.
    late = calibrate([np.zeros((1, 5000))] * 50 + [np.full((1, 5000), 5.0)] * 50, num_values=100_000)
    assert late.high == pytest.approx(5.5)


def test_the_draw_is_without_replacement_and_seeded():
    signal = np.random.default_rng(0).normal(size=(2, 10_000))
    first, again, other = (calibrate([signal], per_record=500, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    whole = np.percentile(signal, [1, 99])
    exact = calibrate([signal], per_record=signal.size)
    assert (exact.low + 0.5, exact.high - 0.5) == pytest.approx(tuple(whole), abs=1e-12)


def test_values_in_memory_are_bounded_and_records_still_count_the_same():
    """A third of the records at 1 mV, a third at 2, a third at 3: so it stays when most of the draws are dropped."""
    levels = (np.full((2, 500), level + 0.001 * (index % 7)) for index in range(999) for level in [1 + index % 3])
    peak = 0
    tracemalloc.start()
    bounds = calibrate(levels, num_values=3000, per_record=500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 999 * 500 * 8 / 4
    assert (bounds.low, bounds.high) == pytest.approx((0.5, 3.5), abs=0.01)
    # With fewer values than records, one of each.
    assert calibrate((np.full((1, 9), float(n)) for n in range(101)), num_values=10).high == 99.5


def test_what_is_kept_is_a_uniform_part_of_each_record():
    ramp = np.linspace(0.0, 1.0, 4096)[None]
    bounds = calibrate([ramp] * 64, num_values=20_000)
    assert (bounds.low + 0.5, bounds.high - 0.5) == pytest.approx((0.01, 0.99), abs=0.005)


def test_other_percentiles():
    ramp = np.linspace(-1.0, 1.0, 4001)[None]
    bounds = calibrate([ramp], percentiles=(0.1, 99.5))
    assert (bounds.low, bounds.high) == pytest.approx((-0.998 - 0.5, 0.99 + 0.5), abs=1e-9)
    for wrong in ((99, 1), (5, 5), (-1, 99), (1, 100.5), (float("nan"), 99)):
        with pytest.raises(CalibrationError, match="expected 0 <= lower < upper <= 100"):
            calibrate([ramp], percentiles=wrong)


def test_no_records():
    with pytest.raises(CalibrationError, match="no records"):
        calibrate([])


class TestParts:
    """The draw does not depend on the order of the records, nor on how they were divided."""

    RECORDS = {number: np.random.default_rng(number).normal(number, 1, (2, 700)) for number in range(60)}

    @staticmethod
    def sample(numbers, **changes):
        made = CalibrationSample(**{"num_values": 2000, "per_record": 512, "seed": 5, **changes})
        for number in numbers:
            made.add(number, TestParts.RECORDS[number])
        return made

    @pytest.mark.parametrize("num_values", [50, 2000, 100_000])
    def test_any_order_and_any_division(self, num_values):
        whole = self.sample(range(60), num_values=num_values).calibration()
        shuffled = np.random.default_rng(0).permutation(60).tolist()
        assert self.sample(shuffled, num_values=num_values).calibration() == whole
        for cuts in ([1, 59], [30], [7, 8, 50]):
            parts = np.split(np.array(shuffled), cuts)
            merged = self.sample([], num_values=num_values)
            for part in parts:
                merged.merge(self.sample(part.tolist(), num_values=num_values))
            assert merged.calibration() == whole

    def test_another_seed_draws_otherwise(self):
        assert self.sample(range(60)).calibration() != self.sample(range(60), seed=6).calibration()

    def test_a_record_counts_once(self):
        with pytest.raises(CalibrationError, match="record 3 was drawn from twice"):
            self.sample([3, 4, 3])
        with pytest.raises(CalibrationError, match="record 4 was drawn from twice"):
            self.sample([3, 4]).merge(self.sample([4]))

    def test_other_settings_cannot_be_merged(self):
        with pytest.raises(CalibrationError, match="expected the same"):
            self.sample([1]).merge(self.sample([2], seed=6))
