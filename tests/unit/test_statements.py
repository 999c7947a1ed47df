"""Statements found in reports: phrases, negation, and F1 against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ecgbyte_hf.evaluation.statements import StatementList, score_statements
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

THREE = {"ischemia": ["ischemia"], "LBBB": ["left bundle branch block", "lbbb"], "block": ["block"]}


@pytest.fixture(scope="module")
def ours():
    return StatementList.load()


class TestFind:
    @pytest.mark.parametrize(
        "text, expected",
        [
            ("Left bundle-branch block", ["LBBB"]),  # the longest phrase wins
            ("block, and left bundle branch block", ["LBBB", "block"]),
            ("blocks ischemias", []),
            ("no ischemia", []),
            ("No evidence of acute ischemia or LBBB", []),
            ("no ischemia left bundle branch block", ["LBBB"]),
            ("no ischemia, LBBB", ["LBBB"]),
            ("without any of the usual signs of ischemia", ["ischemia"]),  # too far from the negation
            ("ischemia is absent. LBBB", ["LBBB"]),
            ("ischemia not present", []),
            ("cannot rule out ischemia", ["ischemia"]),
            ("can not rule out ischemia", ["ischemia"]),
            ("ischemia cannot be excluded", ["ischemia"]),
            ("ischemia not excluded", ["ischemia"]),
            ("negative for ischemia", []),
            ("no change but ischemia", ["ischemia"]),
            ("Possible ischemia", ["ischemia"]),
            ("", []),
        ],
    )
    def test_phrases_and_negation(self, text, expected):
        assert sorted(StatementList(THREE).find(text)) == sorted(expected)

    @pytest.mark.parametrize(
        "text, expected",
        [
            ("sinus rhythm left type otherwise normal EKG", ["normal ECG", "sinus rhythm"]),
            ("sinus rhythm pathological left type", ["left axis deviation", "sinus rhythm"]),
            (
                "Sinus bradycardia with 1st degree A-V block. Cannot rule out anterior infarct - age undetermined",
                ["anterior infarct", "first degree AV block", "sinus bradycardia"],
            ),
            (
                "RBBB with left anterior fascicular block",
                ["left anterior fascicular block", "right bundle branch block"],
            ),
            ("Atrial fibrillation with PVC(s)", ["atrial fibrillation", "premature ventricular complexes"]),
            ("Incomplete RBBB; no ST-T changes", ["incomplete right bundle branch block"]),
        ],
    )
    def test_our_list(self, ours, text, expected):
        assert sorted(ours.find(text)) == expected

    def test_our_list_finds_each_of_its_phrases(self, ours):
        assert 40 <= len(ours.labels) <= 50
        for phrase, labels in ours._labels_of.items():
            assert len(labels) == 1, phrase  # no phrase of two labels
            assert ours.find(" ".join(phrase)) == labels

    def test_machine_reports_of_mimic(self, ours, test_data):
        import csv

        with open(test_data / "mimic_iv_ecg/machine_measurements.csv", newline="") as file:
            texts = [row[f"report_{n}"] for row in csv.DictReader(file) for n in range(18)]
        texts = [text for text in texts if text.strip()]
        assert np.mean([bool(ours.find(text)) for text in texts]) > 0.9


class TestFiles:
    def test_yaml_and_csv(self, tmp_path):
        (tmp_path / "a.yaml").write_text("ischemia: ischemia\nblock: [block, lbbb]\n")
        (tmp_path / "a.csv").write_text("label,phrase\nischemia,ischemia\nblock,block\nblock,lbbb\n")
        for name in ("a.yaml", "a.csv"):
            found = StatementList.load(tmp_path / name)
            assert found.labels == ["ischemia", "block"] and found.find("LBBB") == {"block"}

    @pytest.mark.parametrize(
        "name, text, message",
        [
            ("a.yaml", "- ischemia", "expected lines `label"),
            ("a.yaml", "a: [b", "not YAML"),
            ("a.yaml", "a: [1]", "quote no, yes and numbers"),
            ("a.yaml", "a: ['.']", "'a' has no phrase, or one without a word"),
            ("a.yaml", "{}", "got no statement"),
            ("a.csv", "name,text\na,b\n", "expected label and phrase"),
        ],
    )
    def test_what_is_none(self, tmp_path, name, text, message):
        (tmp_path / name).write_text(text)
        with pytest.raises(EcgDataError, match=message):
            StatementList.load(tmp_path / name)
        with pytest.raises(EcgDataError, match="cannot read"):
            StatementList.load(tmp_path / "absent.yaml")


def row(ecg, reference, said):
    return {"ecg_id": [ecg], "answer": [reference], "prediction": said}


class TestF1:
    def test_against_scikit_learn(self):
        draw, names = np.random.default_rng(0), ["ischemia", "LBBB", "block", "rare"]
        gold, said = draw.random((80, 4)) < (0.5, 0.3, 0.2, 0.0), draw.random((80, 4)) < 0.4

        def text(chosen):
            return ", ".join(name for name, is_there in zip(names, chosen, strict=True) if is_there)

        rows = [row(n, text(a), text(b)) for n, (a, b) in enumerate(zip(gold, said, strict=True))]
        found = score_statements(rows, StatementList({**THREE, "rare": ["rare"]}), {"model": rows}, n_resamples=200)
        model = found["systems"]["model"]
        assert model["micro_f1"]["value"] == pytest.approx(f1_score(gold, said, average="micro"))
        each = f1_score(gold[:, :3], said[:, :3], average=None)  # nobody has the last one
        assert model["macro_f1"]["value"] == pytest.approx(each.mean())
        assert [one["f1"] for one in model["by_label"].values()] == pytest.approx(list(each))
        for kind in ("micro_f1", "macro_f1"):
            low, high = model[kind]["ci95"]
            assert low < model[kind]["value"] < high < low + 0.3
        assert found["labels"] == {name: int(gold[:, n].sum()) for n, name in enumerate(names[:3])}
        assert found["references_without_statement"] == int((~gold.any(axis=1)).sum())

    def test_by_hand(self):
        rows = [row(1, "ischemia", "no ischemia, LBBB"), row(2, "LBBB", "LBBB"), row(3, "normal", "")]
        other = [{**one, "prediction": one["answer"][0]} for one in rows]
        found = score_statements(rows, StatementList(THREE), {"model": rows, "copy": other}, n_resamples=20)
        model = found["systems"]["model"]
        assert model["micro_f1"]["value"] == 0.5  # one right, one missed, one too many
        assert model["macro_f1"]["value"] == pytest.approx((0 + 2 / 3) / 2)
        assert model["by_label"]["ischemia"] == {"precision": None, "recall": 0.0, "f1": 0.0}
        assert model["by_label"]["LBBB"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3)}
        assert found["systems"]["copy"]["macro_f1"]["value"] == 1.0
        assert found["references_without_statement"] == 1

    def test_references_without_any(self):
        rows = [row(1, "normaler befund", "LBBB")]
        model = score_statements(rows, StatementList(THREE), {"model": rows}, n_resamples=5)["systems"]["model"]
        assert model["macro_f1"] is None and model["micro_f1"]["value"] == 0.0
