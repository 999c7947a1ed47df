"""The benchmark of new rows: what it counts, that it goes on where it was, and that its tables say what was found."""

import importlib.util
import json
import os
from pathlib import Path
from unittest.mock import patch

import pytest

# TRL still sets the older name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark" / "new_rows.py"


def load_script():
    spec = importlib.util.spec_from_file_location("benchmark_new_rows", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # The script sets the number of threads, and that it is offline, for its own process.
    with patch.dict(os.environ):
        spec.loader.exec_module(module)
    return module


benchmark = load_script()


def run_of(init, arm, seed, correct, rate=2e-3):
    return {
        "init": init,
        "arm": arm,
        "seed": seed,
        "learning_rate": rate,
        "exact_match": correct.count("1") / len(correct),
        "by_type": {"single-query": correct.count("1") / len(correct)},
        "by_attribute": {"st": 0.25},
        "correct": correct,
        "ecg_id": [20, 20, 40, 40],
    }


RUNS = [
    run_of("mean", "frozen:9", 0, "0001"),
    run_of("mean", "trained:5", 0, "1001"),
    run_of("spread", "frozen:9", 0, "0111"),
    run_of("spread", "trained:5", 0, "1111", rate=4e-3),
    run_of("mean", "frozen:9", 1, "0010"),
    run_of("mean", "trained:5", 1, "0110"),
    run_of("spread", "frozen:9", 1, "1111"),
    run_of("spread", "trained:5", 1, "1111", rate=4e-3),
]


class TestSummary:
    def test_mean_and_deviation_over_the_seeds(self):
        arms = {(arm["init"], arm["arm"]): arm for arm in benchmark.summary_of(RUNS)["arms"]}
        assert len(arms) == 4
        assert arms["spread", "frozen:9"]["mean"] == pytest.approx(0.875)
        assert arms["spread", "frozen:9"]["sd"] == pytest.approx(0.25 / 2**0.5)
        assert arms["mean", "trained:5"]["values"] == {"0": 0.5, "1": 0.5}
        assert arms["mean", "frozen:9"]["by_type"] == {"single-query": 0.25}

    def test_differences_are_of_arms_that_differ_in_one_thing(self):
        differences = benchmark.summary_of(RUNS)["differences"]
        found = {(tuple(entry["first"]), tuple(entry["second"])): entry for entry in differences}
        assert set(found) == {
            (("mean", "frozen:9"), ("mean", "trained:5")),
            (("spread", "frozen:9"), ("spread", "trained:5")),
            (("mean", "frozen:9"), ("spread", "frozen:9")),
            (("mean", "trained:5"), ("spread", "trained:5")),
        }
        frozen = found[("mean", "frozen:9"), ("spread", "frozen:9")]
        assert frozen["value"] == pytest.approx(0.625)
        assert frozen["by_seed"] == pytest.approx([0.5, 0.75])
        # ECG 20 gains 0.75, ECG 40 0.5: the bounds of two ECGs drawn with replacement.
        assert frozen["ci95"] == pytest.approx([0.5, 0.75])

    def test_other_seeds_are_no_pairs(self):
        with pytest.raises(ValueError, match="other seeds"):
            benchmark.difference_of(RUNS[:1], RUNS[6:7])

    def test_the_learning_rate_that_does_best_and_the_lower_of_equal_ones(self):
        tried = [{"exact_match": value, "learning_rate": rate} for value, rate in ((0.5, 1), (0.7, 4), (0.7, 2))]
        assert benchmark.best_rate(tried) == 2


def results():
    tried = {"tuning": [], "runs": RUNS, "summary": benchmark.summary_of(RUNS)}
    arguments = {
        "inits": ["mean", "spread"],
        "seeds": [0, 1],
        "learning_rates": [2e-3, 4e-3],
        "arms": ["frozen:9", "trained:5"],
        "batch_size": 8,
    }
    setting = {"test_questions": 4, "test_ecgs": 2, "tokens_per_ecg": 64.6, "ecg_tokens": 726, "rank": 16}
    return {
        "provenance": {"arguments": arguments},
        "setting": {**setting, "validation_questions": 6},
        "controls": {"majority": {"exact_match": 0.5}, "question_only": {"exact_match": 0.25}},
        **tried,
    }


class TestTelling:
    def test_the_table_has_what_was_found(self):
        text = benchmark.text_of(results())
        assert "4 questions about 2 unseen simulated ECGs (lead II, 3 s at 100 Hz, 65 tokens of a vocabulary" in text
        assert "(of 0.002, 0.004)" in text and "majority answers 50.0" in text
        line = next(line for line in text.splitlines() if "`spread`" in line)
        assert line == "| spread like the old rows (`spread`) | 87.5 (17.7) | 0.002 | 100.0 (0.0) | 0.004 |"
        assert "| rows begin as | rows frozen, 9 steps | rate | rows trained, 5 steps | rate |" in text
        assert "| mean | spread | +62.5 (17.7), +50.0 to +75.0 | +50.0 (0.0), +50.0 to +50.0 |" in text
        assert "| rows frozen, 9 steps | rows trained, 5 steps | +25.0 (0.0), +0.0 to +50.0 | +12.5 (17.7)," in text

    def test_again_from_the_result_file(self, tmp_path, capsys):
        (tmp_path / "new_rows.json").write_text(json.dumps(results()))
        assert benchmark.main(["--from-json", str(tmp_path / "new_rows.json")]) == 0
        assert (tmp_path / "new_rows.md").read_text() == capsys.readouterr().out == benchmark.text_of(results())
        assert (tmp_path / "new_rows.png").stat().st_size > 10_000

    @pytest.mark.parametrize("arm", ["frozen", "warm:3", "trained:x"])
    def test_an_arm_is_rows_and_steps(self, arm, capsys):
        with pytest.raises(SystemExit):
            benchmark.main(["--work", "a", "--arms", arm])
        assert "expected frozen:STEPS or trained:STEPS" in capsys.readouterr().err

    def test_either_work_or_a_result_file(self):
        for arguments in ([], ["--work", "a", "--from-json", "b"]):
            with pytest.raises(SystemExit):
                benchmark.main(arguments)


ARGUMENTS = (
    *("--records", "40", "--merges", "30", "--base-steps", "1", "--arms", "frozen:1", "trained:2"),
    *("--seeds", "0", "--batch-size", "2", "--learning-rates", "0.002", "--inits", "waveform"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a measurement leaves."""
    folder = tmp_path_factory.mktemp("new-rows")
    assert benchmark.main([*ARGUMENTS, "--work", str(folder / "work"), "--output", str(folder)]) == 0
    return folder


@pytest.mark.slow
class TestMeasuring:
    """One step of training: everything runs, nothing is learnt."""

    def test_every_arm_is_there(self, folder):
        found = json.loads((folder / "new_rows.json").read_text())
        assert [(run["init"], run["arm"], run["split"]) for run in found["runs"]] == [
            ("waveform", "frozen:1", "test"),
            ("waveform", "trained:2", "test"),
        ]
        assert all(len(run["correct"]) == 8 for run in found["runs"])
        assert found["ecg_id"] == [20] * 4 + [40] * 4
        assert found["setting"]["test_questions"] == 8 and found["setting"]["test_ecgs"] == 2
        assert found["controls"]["question_only"]["arm"] == "question-only:2"
        adapters = {
            arm: json.loads((folder / f"work/arms/waveform-{arm}-0.002-0/adapter_config.json").read_text())
            for arm in ("frozen-1", "trained-2")
        }
        assert not adapters["frozen-1"]["trainable_token_indices"]
        assert len(adapters["trained-2"]["trainable_token_indices"]) == found["setting"]["ecg_tokens"] + 2

    def test_finished_arms_are_not_trained_again(self, folder, monkeypatch):
        def no_training(*_, **__):
            raise AssertionError("trained again")

        monkeypatch.setattr(benchmark.Bench, "_train", no_training)
        before = json.loads((folder / "new_rows.json").read_text())
        assert benchmark.main([*ARGUMENTS, "--work", str(folder / "work"), "--output", str(folder)]) == 0
        assert json.loads((folder / "new_rows.json").read_text())["runs"] == before["runs"]

    def test_a_folder_of_another_benchmark_is_refused(self, folder):
        with pytest.raises(SystemExit, match="'merges': 30.*choose another folder"):
            benchmark.main([*ARGUMENTS, "--merges", "7", "--work", str(folder / "work")])
