"""Systems side by side, on files made for the purpose: values by hand, and files that do not belong together."""

import copy
import json

import pytest

from ecgbyte_hf import cli
from ecgbyte_hf.evaluation.system_table import (
    SystemRuns,
    compare_systems,
    plot_systems,
    seconds_per_step,
    systems_lines,
    systems_markdown,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

ALL = {"majority": 0.4, "question_only": 0.45, "zero_signal": 0.35, "shuffled": 0.3}


def report(name, overall, low, *, controls=ALL, data="abc"):
    """`low`: lower end of the interval of the difference to the best control."""
    best = max(controls, key=lambda control: controls[control])
    difference = overall - controls[best]
    return {
        "split": "test",
        "exact_match": {
            "overall": overall,
            "n": 10,
            "ci95": [overall - 0.05, overall + 0.05],
            "by_type": {"single-verify": {"value": overall}},
            "by_attribute": {"rate": {"value": overall + 0.1}, "st": {"value": overall - 0.1}},
        },
        "controls": {control: {"overall": value} for control, value in controls.items()},
        "best_control": best,
        "difference_to_best_control": {"value": difference, "ci95": [low, 2 * difference - low]},
        "provenance": {
            "data_hash": {"test": data},
            "arguments": {"predictions": "answers.jsonl", "predictions_hash": f"{name} {overall}"},
        },
    }


def training(loss=1.0, rate=1e-3, *, steps=600, runtime=70.0, trainable=1000, report=None, **arguments):
    given = {"max_steps": steps, "num_train_epochs": 3, "per_device_train_batch_size": 8}
    given |= {"gradient_accumulation_steps": 1, "learning_rate": rate, "resume_from_checkpoint": None}
    return {
        "history": [
            {"loss": 2.0, "step": 50},
            {"eval_loss": 9.0, "eval_runtime": 4.0, "step": 300},
            {"eval_loss": loss, "eval_runtime": 6.0, "step": steps},
            {"train_runtime": runtime, "step": steps},
        ],
        "parameters": {"trainable": trainable, "all": 2000},
        "provenance": {"arguments": given | arguments},
        "report": report or {},
    }


@pytest.fixture
def files(tmp_path):
    """Write files; the name of each is its order."""
    count = iter(range(100))

    def write(*contents):
        paths = [tmp_path / f"{next(count)}.json" for _ in contents]
        for path, content in zip(paths, contents, strict=True):
            path.write_text(json.dumps(content))
        return paths

    return write


@pytest.fixture
def systems(files):
    """The first is above its controls with both seeds, the second with one of them only."""
    return {
        "tokens": SystemRuns(
            files(report("tokens", 0.8, 0.3), report("tokens", 0.9, 0.4)),
            files(training(), training(0.9)),
            (),
            files(training(1.0, 1e-3), training(1.2, 3e-3)),
        ),
        "clip": SystemRuns(
            files(report("clip", 0.5, 0.01), report("clip", 0.46, -0.02)),
            files(training(rate=3e-3, runtime=40.0, trainable=500), training(rate=3e-3, runtime=22.0, trainable=500)),
            files(training(steps=300, runtime=30.0, report={"trained_parameters": 70_000})),
            files(training(1.6, 1e-3), training(1.5, 3e-3)),
        ),
    }


def test_by_hand(systems, tmp_path):
    found = compare_systems(systems, output=tmp_path / "systems.json")
    assert found == json.loads((tmp_path / "systems.json").read_text())
    assert (found["split"], found["n"], found["n_seeds"]) == ("test", 10, 2)
    assert found["budget"]["max_steps"] == 600 and found["budget"]["per_device_train_batch_size"] == 8
    tokens, clip = found["systems"]["tokens"], found["systems"]["clip"]
    assert tokens["exact_match"]["mean"] == pytest.approx(0.85) and tokens["exact_match"]["values"] == [0.8, 0.9]
    # t with one degree of freedom is 12.706; the standard error of 0.8 and 0.9 is 0.05.
    assert tokens["exact_match"]["ci95"] == pytest.approx([0.85 - 12.7062 * 0.05, 0.85 + 12.7062 * 0.05], rel=1e-4)
    assert tokens["difference_to_best_control"]["values"] == pytest.approx([0.35, 0.45])
    assert tokens["difference_to_first"] is None
    assert clip["difference_to_first"]["values"] == pytest.approx([-0.3, -0.44])
    assert clip["by_attribute"] == pytest.approx({"rate": 0.58, "st": 0.38})
    assert clip["controls"] == pytest.approx(ALL) and clip["best_controls"] == ["question_only"] * 2
    assert tokens["seconds_per_step"] == pytest.approx(0.1)  # 70 s, 10 of them validation, 600 steps
    assert clip["seconds_per_step"] == pytest.approx((30 + 12) / 2 / 600)
    assert tokens["pretraining"] is None
    assert clip["pretraining"] == {
        "steps": 300,
        "seconds_per_step": pytest.approx(20 / 300),
        "trainable": 70_000,
    }
    (header, *lines), _ = systems_lines(found)
    assert [line[header.index("parameters before")] for line in lines] == ["–", "70,000"]
    assert (tokens["learning_rate"], clip["learning_rate"]) == (1e-3, 3e-3)
    assert clip["parameters"] == {"trainable": 500, "all": 2000}
    assert clip["tried"] == [
        {"learning_rate": 1e-3, "eval_loss": 1.6},
        {"learning_rate": 3e-3, "eval_loss": 1.5},
    ]


def test_a_system_that_does_not_beat_its_controls_is_marked(systems, tmp_path):
    found = compare_systems(systems, output=tmp_path / "systems.json")
    assert found["systems"]["tokens"]["doubts"] == []
    assert found["systems"]["clip"]["doubts"] == ["run 2 less question_only: +1.0 (-2.0 to +4.0)"]
    (header, first, second), remarks = systems_lines(found)
    place = header.index("above every control")
    assert (first[place], second[place]) == ("yes", "**no**")
    assert remarks == [
        "clip is not above every control, which is a fault until shown otherwise: run 2 less question_only: +1.0 "
        "(-2.0 to +4.0)"
    ]
    bars = [patch for patch in plot_systems(found).axes[0].patches if patch.get_height()]
    assert [bar.get_height() for bar in bars] == pytest.approx([85, 48])
    assert [bar.get_hatch() for bar in bars] == [None, "//"]


def test_a_control_that_is_missing_is_a_doubt(files, tmp_path):
    three = {name: value for name, value in ALL.items() if name != "zero_signal"}
    runs = {"only": SystemRuns(files(report("only", 0.9, 0.4, controls=three)))}
    found = compare_systems(runs, output=tmp_path / "systems.json")
    assert found["systems"]["only"]["doubts"] == ["its run was not compared with zero_signal"]


def test_one_seed_has_the_interval_by_ecg(files, tmp_path):
    runs = {name: SystemRuns(files(report(name, score, 0.2))) for name, score in (("one", 0.8), ("other", 0.75))}
    found = compare_systems(runs, output=tmp_path / "systems.json")
    match = found["systems"]["one"]["exact_match"]
    assert match["ci95"] == [0.75, 0.8500000000000001] and match["sd"] is None
    (header, first, second), _ = systems_lines(found)
    line = dict(zip(header, second, strict=True))
    assert dict(zip(header, first, strict=True))["95 % by ECG"] == "75.0 to 85.0"
    assert (line["exact match"], line["less first"]) == ("75.0", "-5.0")
    assert line["less best control"] == "+30.0 (+20.0 to +40.0)"
    assert (line["parameters trained"], line["s per step"], line["learning rate"]) == ("–", "–", "–")
    assert len(plot_systems(found).axes[0].lines) == 4  # an interval and a control each


def test_markdown(systems, tmp_path):
    text = systems_markdown(compare_systems(systems, output=tmp_path / "systems.json"))
    lines = text.splitlines()
    assert lines[2].startswith("| system | exact match | 95 % of seeds | majority | question_only |")
    clip = [cell.strip() for cell in lines[5].strip("|").split("|")]
    assert clip[:2] == ["clip", "48.0"] and clip[-5:] == ["500", "70,000", "0.035", "0.0667", "0.003"]
    assert "10 questions of split test, 2 training seeds." in text
    assert "600 steps, batches of 8 rows, the learning rate of the lowest validation loss out of 0.001, 0.003" in text
    assert "| clip | 58.0 | 38.0 |" in text and "clip is not above every control" in text


def test_seconds_of_a_training_that_went_on_are_unknown():
    assert seconds_per_step(training()) == pytest.approx(0.1)
    assert seconds_per_step(training(resume_from_checkpoint="true")) is None
    assert seconds_per_step(training(resume=True)) is None
    unfinished = training()
    del unfinished["history"][-1]
    assert seconds_per_step(unfinished) is None


def test_logs_that_tell_nothing(systems, files, tmp_path):
    log = training()
    log["history"] = log["history"][:1]
    silent = changed(systems, "clip", tried=files(log))
    with pytest.raises(EcgDataError, match="no validation loss; train with --eval_strategy steps"):
        compare_systems(silent, output=tmp_path / "out.json")
    for wrong in (files({"a": 1})[0], tmp_path / "absent.json"):
        with pytest.raises(EcgDataError, match="no training_log.json of a finished training"):
            compare_systems(changed(systems, "clip", trainings=[wrong]), output=tmp_path / "out.json")


# ---- what does not belong together -----------------------------------------------------------------------------


def changed(systems, name, **changes):
    return {**systems, name: SystemRuns(**{**vars(systems[name]), **changes})}


def test_other_questions(systems, files, tmp_path):
    other = changed(systems, "clip", reports=files(*(report("clip", s, 0.1, data="xyz") for s in (0.6, 0.7))))
    with pytest.raises(EcgDataError, match=r"reports of clip and tokens differ in data \(hash\)"):
        compare_systems(other, output=tmp_path / "out.json")


def test_other_number_of_seeds(systems, tmp_path):
    fewer = changed(systems, "clip", reports=systems["clip"].reports[:1])
    with pytest.raises(EcgDataError, match="1 reports of clip and 2 of tokens, expected as many"):
        compare_systems(fewer, output=tmp_path / "out.json")
    twice = changed(systems, "clip", reports=[systems["clip"].reports[0]] * 2)
    with pytest.raises(EcgDataError, match="same run twice"):
        compare_systems(twice, output=tmp_path / "out.json")


@pytest.mark.parametrize("change", [{"steps": 500}, {"per_device_train_batch_size": 16}, {"num_train_epochs": 5}])
def test_other_budget(change, systems, files, tmp_path):
    longer = changed(systems, "clip", trainings=files(training(**change)))
    with pytest.raises(EcgDataError, match="a training of clip has .* of tokens; expected the same budget"):
        compare_systems(longer, output=tmp_path / "out.json")


def test_other_learning_rates(systems, files, tmp_path):
    once = changed(systems, "clip", tried=systems["clip"].tried[:1])
    with pytest.raises(EcgDataError, match=r"clip was tried with the learning rates \[0.001\] and tokens with"):
        compare_systems(once, output=tmp_path / "out.json")
    others = changed(systems, "clip", tried=files(training(rate=1e-3), training(rate=1e-2)))
    with pytest.raises(EcgDataError, match="expected the same tuning"):
        compare_systems(others, output=tmp_path / "out.json")


def test_no_report(tmp_path):
    for runs in ({}, {"clip": SystemRuns([])}):
        with pytest.raises(EcgDataError, match="without a report"):
            compare_systems(runs, output=tmp_path / "out.json")


# ---- the command -----------------------------------------------------------------------------------------------


def options_of(systems):
    named = {"report": "reports", "training": "trainings", "pretraining": "pretrainings", "tried": "tried"}
    return [
        word
        for name, runs in systems.items()
        for option, kind in named.items()
        for path in getattr(runs, kind)
        for word in (f"--{option}", f"{name}={path}")
    ]


def test_command(systems, tmp_path, capsys):
    output = tmp_path / "out" / "systems.json"
    assert cli.main(["systems", *options_of(systems), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert "| tokens | 85.0 |" in said and "systems.png" in said
    assert output.with_suffix(".md").read_text() in said
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    expected = compare_systems(systems, output=tmp_path / "again.json")
    found = json.loads(output.read_text())
    for one in (expected, found):
        one.pop("provenance")
    assert found == expected
    assert found["order"] == ["tokens", "clip"] and list(found["systems"]) == ["clip", "tokens"]
    assert systems_lines(found) == systems_lines(expected)


def test_command_refuses(systems, tmp_path, capsys):
    output = ["--output", str(tmp_path / "out.json")]
    assert cli.main(["systems", *output]) == 1
    assert "got no --report" in capsys.readouterr().err
    assert cli.main(["systems", "--report", "clip", *output]) == 1
    assert "got --report 'clip', expected NAME=FILE" in capsys.readouterr().err
    assert cli.main(["systems", *options_of(systems), "--tried", "vit=log.json", *output]) == 1
    assert "got --tried of vit, of which there is no --report" in capsys.readouterr().err
    assert cli.main(["systems", *options_of(systems), "--output", str(tmp_path / "out.md")]) == 1
    assert "choose a name with .json" in capsys.readouterr().err
    assert not (tmp_path / "out.md").exists()


def test_reports_are_not_changed(systems, tmp_path):
    before = copy.deepcopy([json.loads(path.read_text()) for path in systems["clip"].reports])
    compare_systems(systems, output=tmp_path / "out.json")
    assert [json.loads(path.read_text()) for path in systems["clip"].reports] == before
