"""The rule control: measurements of simulated and real recordings, and the questions they answer."""

import csv
import importlib
import json

import numpy as np
import pytest

from ecgbyte_hf.data.simulator import simulate_records
from ecgbyte_hf.evaluation.rules import (
    NUMERIC_FEATURES,
    EcgMeasurements,
    ecg_class,
    feature_range,
    find_beats,
    measure_ecg,
    rule_answer,
)
from ecgbyte_hf.evaluation.scoring import question_options, read_template_options, score_rows, summarise
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, LeadError, SamplingRateError, SignalError

ALL_NORMAL = EcgMeasurements(
    heart_rate_bpm=75.0,
    rr_s=0.8,
    rr_cv=0.02,
    p_duration_ms=100.0,
    pr_ms=160.0,
    qrs_ms=90.0,
    qt_ms=380.0,
    qtc_ms=425.0,
    qrs_width_ms=90.0,
)


def pulses(rate_bpm=60.0, sampling_rate=100, seconds=10.0, sign=1.0):
    """Beats of one narrow Gaussian (30 ms across at half height) and a slow T wave."""
    times = np.arange(int(seconds * sampling_rate)) / sampling_rate
    signal = np.zeros_like(times)
    for beat in np.arange(0.5, seconds, 60.0 / rate_bpm):
        signal += np.exp(-0.5 * ((times - beat) / 0.0127) ** 2) + 0.2 * np.exp(
            -0.5 * ((times - beat - 0.3) / 0.05) ** 2
        )
    return (sign * signal).astype(np.float32)


class TestMeasure:
    @pytest.mark.parametrize("rate", [45.0, 60.0, 100.0, 150.0])
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    @pytest.mark.parametrize("sampling_rate", [100, 250, 500])
    def test_rate_of_a_known_signal(self, rate, sign, sampling_rate):
        measured = measure_ecg(pulses(rate, sampling_rate, sign=sign)[np.newaxis], sampling_rate, intervals=False)
        assert measured.heart_rate_bpm == pytest.approx(rate, rel=0.01)
        assert measured.rr_s == pytest.approx(60.0 / rate, rel=0.01)
        assert measured.rr_cv < 0.02 and measured.problem is None
        assert measured.qt_ms is None

    def test_beats_are_where_they_were_put(self):
        beats = find_beats(pulses(60.0, 500)[np.newaxis])
        assert np.abs(beats / 500.0 - (0.5 + np.arange(10))).max() <= 0.01

    def test_simulated_twelve_leads(self):
        leads = ("I", "II", "III", "aVL", "aVR", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
        right = {"rate": 0, "rhythm": 0, "qrs_width": 0}
        for _, labels, signal in simulate_records(60, seed=77, sampling_rate=100.0):
            measured = measure_ecg(signal, 100, leads, intervals=False)
            for attribute in right:
                right[attribute] += ecg_class(attribute, measured) == getattr(labels, attribute)
        assert right["rate"] >= 59 and right["rhythm"] >= 58 and right["qrs_width"] >= 56

    def test_simulated_lead_ii_at_100_hz(self):
        right = {"rate": 0, "rhythm": 0, "qrs_width": 0}
        for _, labels, signal in simulate_records(60, seed=78, sampling_rate=100.0, leads=("II",)):
            assert signal.shape == (1, 1000) and signal.dtype == np.float32
            measured = measure_ecg(signal, 100, ["II"], intervals=False)
            for attribute in right:
                right[attribute] += ecg_class(attribute, measured) == getattr(labels, attribute)
        # An axis near -30 or 150 degrees leaves next to no QRS complex in lead II.
        assert right["rate"] >= 46 and right["rhythm"] >= 46 and right["qrs_width"] >= 38

    def test_intervals_of_a_simulated_record(self):
        pytest.importorskip("neurokit2")
        signal = next(
            x for _, labels, x in simulate_records(50, seed=1, leads=("II",)) if labels.axis == "normal axis"
        )
        measured = measure_ecg(signal, 500)
        assert measured.problem is None
        assert 40 < measured.p_duration_ms < 180 and 60 < measured.pr_ms < 300
        assert 30 < measured.qrs_ms < 200 and 250 < measured.qt_ms < 600
        assert measured.qtc_ms == pytest.approx(measured.qt_ms / measured.rr_s**0.5)

    @pytest.mark.parametrize(
        ("signal", "problem"),
        [
            (np.zeros(1000), "flat lead"),
            (np.full(1000, 3.5), "flat lead"),
            (np.full(1000, np.nan), "NaN"),
            (np.where(np.arange(1000) == 500, np.inf, 0.0), "NaN"),
            (pulses()[:150], "1.50 s long"),
            (pulses()[:0], "0.00 s long"),
            (np.random.default_rng(0).normal(size=1000), "0 beats"),
            (np.random.default_rng(0).normal(size=1000).cumsum(), "0 beats"),
            (np.arange(1000.0), "0 beats"),
            (np.where(np.arange(1000) == 500, 1.0, 0.0), "0 beats"),
        ],
    )
    def test_what_cannot_be_measured_is_none_and_says_why(self, signal, problem):
        pytest.importorskip("neurokit2")
        measured = measure_ecg(signal, 100)
        assert problem in measured.problem
        assert measured == EcgMeasurements(problem=measured.problem)

    def test_neurokit_failing_leaves_rate_and_rhythm(self, monkeypatch):
        neurokit = pytest.importorskip("neurokit2")

        def fail(*args, **kwargs):
            raise ZeroDivisionError("integer division or modulo by zero")

        monkeypatch.setattr(neurokit, "ecg_delineate", fail)
        measured = measure_ecg(pulses(), 100)
        assert measured.problem == "NeuroKit2 found no waves (ZeroDivisionError)"
        assert measured.heart_rate_bpm == pytest.approx(60.0, rel=0.01) and measured.qt_ms is None

    def test_lead_ii_is_found_by_name(self):
        both = np.stack([np.zeros(1000, np.float32), pulses()])
        assert measure_ecg(both, 100, ["I", "ii"], intervals=False).problem is None
        assert measure_ecg(both, 100, ["II", "I"], intervals=False).problem == "flat lead"

    def test_refusals(self):
        two = np.zeros((2, 1000))
        with pytest.raises(LeadError, match="without names"):
            measure_ecg(two, 100, intervals=False)
        with pytest.raises(LeadError, match="3 lead names for 2"):
            measure_ecg(two, 100, ["I", "II", "III"], intervals=False)
        with pytest.raises(LeadError, match="II"):
            measure_ecg(two, 100, ["V1", "V2"], intervals=False)
        for rate in (0, 20, -5, float("nan"), float("inf"), None):
            with pytest.raises(SamplingRateError, match="sampling rate"):
                measure_ecg(pulses(), rate, intervals=False)
        with pytest.raises(SignalError, match="shape"):
            measure_ecg(np.zeros((1, 2, 3)), 100, intervals=False)

    def test_without_neurokit_the_extra_is_named_and_the_rest_works(self, monkeypatch):
        def absent(name, *args, **kwargs):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        monkeypatch.setattr(importlib, "import_module", absent)
        with pytest.raises(ImportError, match=r'pip install "ecgbyte-hf\[rules\]"'):
            measure_ecg(pulses(), 100)
        assert measure_ecg(pulses(), 100, intervals=False).heart_rate_bpm == pytest.approx(60.0, rel=0.01)


def row(attribute_type, question_type, template, text="", attribute=None, ecgs=1):
    return {
        "sample_id": 1,
        "template_id": template,
        "question_type": question_type,
        "attribute_type": attribute_type,
        "question": text,
        "ecg_id": list(range(1, ecgs + 1)),
        "attribute": attribute,
    }


class TestClasses:
    @pytest.mark.parametrize(
        ("attribute", "field", "value", "expected"),
        [
            ("rate", "heart_rate_bpm", 59.9, "bradycardia"),
            ("rate", "heart_rate_bpm", 60.0, "normal rate"),
            ("rate", "heart_rate_bpm", 100.0, "normal rate"),
            ("rate", "heart_rate_bpm", 100.1, "tachycardia"),
            ("rhythm", "rr_cv", 0.08, "regular"),
            ("rhythm", "rr_cv", 0.081, "irregular"),
            ("qrs_width", "qrs_width_ms", 119.9, "narrow"),
            ("qrs_width", "qrs_width_ms", 120.0, "wide"),
            ("rate", "heart_rate_bpm", None, None),
            ("axis", "heart_rate_bpm", 60.0, None),
            ("st", "heart_rate_bpm", 60.0, None),
        ],
    )
    def test_thresholds(self, attribute, field, value, expected):
        assert ecg_class(attribute, EcgMeasurements(**{field: value})) == expected

    def test_query_verify_and_choose(self):
        fast = EcgMeasurements(heart_rate_bpm=130.0)
        rates = ["bradycardia", "normal rate", "tachycardia"]
        assert rule_answer(row("rate", "single-query", 1001), rates, [fast]) == "tachycardia"
        for asked, expected in (("tachycardia", "yes"), ("bradycardia", "no")):
            verify = row("rate", "single-verify", 1101, attribute=[asked])
            assert rule_answer(verify, ["no", "yes"], [fast]) == expected
        choose = row("rate", "single-choose", 1201)
        assert rule_answer(choose, ["bradycardia", "none", "tachycardia"], [fast]) == "tachycardia"
        assert rule_answer(choose, ["bradycardia", "none", "normal rate"], [fast]) == "none"
        assert rule_answer(choose, ["bradycardia", "normal rate"], [fast]) is None

    def test_does_not_apply(self):
        assert rule_answer(row("axis", "single-query", 1005), ["normal axis"], [ALL_NORMAL]) is None
        assert rule_answer(row("scp_code", "single-verify", 1), ["no", "yes"], [ALL_NORMAL]) is None
        assert rule_answer(row("rate", "single-query", 1001), ["tachycardia"], [EcgMeasurements()]) is None
        assert rule_answer(row("rate", "single-verify", 1101), ["no", "yes"], [ALL_NORMAL]) is None

    def test_one_measurement_for_each_ecg(self):
        with pytest.raises(EcgDataError, match="2 ECGs and got 1"):
            rule_answer(row("rate", "single-query", 1001, ecgs=2), ["tachycardia"], [ALL_NORMAL])


class TestNumericFeatures:
    FEATURES = ["none", *NUMERIC_FEATURES]
    RANGES = ["above the normal range", "below the normal range", "none", "within the normal range"]

    @pytest.mark.parametrize("feature", NUMERIC_FEATURES)
    def test_bounds_belong_to_the_normal_range(self, feature):
        field, (low, high) = NUMERIC_FEATURES[feature]
        for value, expected in ((low, "within"), (high, "within"), (low - 0.01, "below"), (high + 0.01, "above")):
            assert feature_range(feature, EcgMeasurements(**{field: value})) == expected
        assert feature_range(feature, EcgMeasurements()) is None

    def test_single(self):
        slow = EcgMeasurements(rr_s=1.2, qt_ms=400.0)
        for word, expected in (("above", "yes"), ("within", "no"), ("below", "no")):
            text = f"Does the rr interval of this ECG fall {word} the normal range?"
            for attribute in (None, [f"{word} the normal range of rr interval"]):
                verify = row("numeric_feature", "single-verify", 39, text, attribute)
                assert rule_answer(verify, ["no", "yes"], [slow]) == expected
        query = row("numeric_feature", "single-query", 41, "What range does the rr interval of this ECG fall in?")
        assert rule_answer(query, self.RANGES, [slow]) == "above the normal range"
        choose = row("numeric_feature", "single-choose", 40, "Which, below the ... rr interval ... within?")
        assert rule_answer(choose, ["below the normal range", "none", "within the normal range"], [slow]) == "none"
        which = row("numeric_feature", "single-query", 42, "What numeric features fall within the normal range?")
        assert rule_answer(which, self.FEATURES, [slow]) == "qt interval"
        assert rule_answer(which, self.FEATURES, [EcgMeasurements(rr_s=1.2)]) == "none"
        assert rule_answer(which, self.FEATURES, [EcgMeasurements()]) is None

    def test_not_measured_or_unclear(self):
        verify = row("numeric_feature", "single-verify", 39, "Does the p duration fall above the normal range?")
        assert rule_answer(verify, ["no", "yes"], [EcgMeasurements(rr_s=0.8)]) is None
        unclear = row("numeric_feature", "single-verify", 39, "Is the p duration usual?")
        assert rule_answer(unclear, ["no", "yes"], [ALL_NORMAL]) is None
        unknown = row("numeric_feature", "single-query", 43, "rr interval?")
        assert rule_answer(unknown, self.RANGES, [ALL_NORMAL]) is None

    @pytest.mark.parametrize(
        ("templates", "first", "second"),
        [((54, 68), 1.2, 0.8), ((55, 69), 0.8, 1.2), ((56, 70), 1.2, 0.5)],
    )
    def test_changes(self, templates, first, second):
        pair = [EcgMeasurements(rr_s=first, qt_ms=400.0), EcgMeasurements(rr_s=second, qt_ms=400.0)]
        for template in (54, 55, 56, 68, 69, 70):
            query = row("numeric_feature", "comparison_irrelevant-query", template, ecgs=2)
            expected = "rr interval" if template in templates else "none"
            assert rule_answer(query, self.FEATURES, pair) == expected
        offset = {54: 50, 55: 51, 56: 52}[templates[0]]
        for template in (50, 51, 52, 53, 64, 65, 66, 67):
            text = "Compared to the first ECG, has the rr interval of the second ECG become normal?"
            verify = row("numeric_feature", "comparison_irrelevant-verify", template, text, ecgs=2)
            expected = "yes" if template in (offset, offset + 14) else "no"
            assert rule_answer(verify, ["no", "yes"], pair) == expected


def read_ptbxl(test_data, ecg_id):
    wfdb = pytest.importorskip("wfdb")
    record = wfdb.rdrecord(str(test_data / f"ptbxl/records500/{ecg_id // 1000 * 1000:05d}/{ecg_id:05d}_hr"))
    return record.p_signal.T, record.fs, record.sig_name


def test_rule_answers_most_of_ecg_qas_numeric_comparisons(test_data):
    """In sample: the landmarks and bounds were found on these questions (module docstring)."""
    pytest.importorskip("neurokit2")
    options = read_template_options(test_data / "ecg_qa/ecgqa/ptbxl/answers_for_each_template.csv")
    files = sorted((test_data / "ecg_qa/ecgqa/ptbxl/paraphrased").rglob("*.json"))
    items = [item for path in files for item in json.loads(path.read_text(encoding="utf-8"))]
    items = [item for item in items if item["attribute_type"] == "numeric_feature"]
    measured = {
        ecg: measure_ecg(*read_ptbxl(test_data, ecg)) for ecg in sorted({e for item in items for e in item["ecg_id"]})
    }
    assert len(items) == 100 and all(one.problem is None for one in measured.values())
    for item in items:
        item["options"] = question_options(item, options)
        item["prediction"] = rule_answer(item, item["options"], [measured[ecg] for ecg in item["ecg_id"]])
    assert summarise(score_rows(items), n_resamples=100)["exact_match"]["overall"] >= 0.6
    agreement = {
        name: np.mean([(name in item["answer"]) == (name in item["prediction"]) for item in items])
        for name in NUMERIC_FEATURES
    }
    assert agreement["rr interval"] == 1.0
    assert agreement["qt interval"] >= 0.98 and agreement["qt corrected"] >= 0.97
    assert agreement["p duration"] >= 0.93 and agreement["qrs duration"] >= 0.87 and agreement["pr interval"] >= 0.75


def test_plausible_on_real_records(test_data):
    pytest.importorskip("neurokit2")
    for ecg in (46, 81, 264, 323):
        measured = measure_ecg(*read_ptbxl(test_data, ecg))
        assert 40 < measured.heart_rate_bpm < 160 and measured.problem is None
        assert measured.heart_rate_bpm * measured.rr_s == pytest.approx(60.0, rel=0.1)
        assert 60 <= measured.qrs_width_ms <= 160 and 200 < measured.qt_ms < 550
        assert 60 < measured.p_duration_ms < 160 and 50 < measured.pr_ms < 260


def test_agrees_with_the_machine_on_mimic(test_data):
    wfdb = pytest.importorskip("wfdb")
    folder = test_data / "mimic_iv_ecg"
    with (folder / "machine_measurements.csv").open(newline="", encoding="utf-8") as file:
        machine = {line["study_id"]: line for line in csv.DictReader(file)}
    rr_errors, width_errors = [], []
    for header in sorted(folder.rglob("s*/*.hea")):
        line = machine.get(header.stem)
        if line is None:
            continue
        onset, end, rr = (float(line[name]) for name in ("qrs_onset", "qrs_end", "rr_interval"))
        record = wfdb.rdrecord(str(header.with_suffix("")))
        measured = measure_ecg(record.p_signal.T, record.fs, record.sig_name, intervals=False)
        if measured.problem is None and 0 < rr < 29999:
            rr_errors.append(abs(60000.0 / measured.heart_rate_bpm - rr))
        if measured.qrs_width_ms is not None and 0 < onset < end < 29999:
            width_errors.append(abs(measured.qrs_width_ms - (end - onset)))
    assert len(rr_errors) >= 60 and len(width_errors) >= 60
    assert np.median(rr_errors) < 12 and np.median(width_errors) <= 6


@pytest.mark.parametrize(
    ("column", "code", "attribute", "expected"),
    [
        ("rhythm", "AFIB", "rhythm", "irregular"),
        ("rhythm", "STACH", "rate", "tachycardia"),
        ("rhythm", "SBRAD", "rate", "bradycardia"),
        ("sub_class", "CLBBB", "qrs_width", "wide"),
        ("super_class", "NORM", "qrs_width", "narrow"),
    ],
)
def test_agrees_with_cardiologists_at_100_hz(test_data, column, code, attribute, expected):
    wfdb = pytest.importorskip("wfdb")
    with (test_data / "ptbxl100/labels.csv").open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line[column] == f"['{code}']"][:25]
    assert len(lines) == 25
    found = []
    for line in lines:
        record = wfdb.rdrecord(str(test_data / "ptbxl100" / line["filename_lr"]))
        measured = measure_ecg(record.p_signal.T, record.fs, record.sig_name, intervals=False)
        found.append(ecg_class(attribute, measured))
    assert found.count(expected) >= 23, found
