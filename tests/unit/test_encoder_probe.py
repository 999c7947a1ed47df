"""What a pretrained encoder knows: retrieval, zero-shot and linear probes, beside chance and a control."""

import json
import math
import shutil
from itertools import combinations

import numpy as np
import pytest
import torch
from labelled_ecgs import prepare_labelled
from sklearn.metrics import roc_auc_score

from ecgbyte_hf import cli
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.evaluation import encoder_probe as module
from ecgbyte_hf.evaluation.encoder_probe import ProbeOptions, chance_recall, probe_encoder, right_ranks
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EncoderError
from ecgbyte_hf.training.pretrain_encoder import PretrainOptions, pretrain_encoder
from ecgbyte_hf.training.start_encoder import EncoderStart, encoder_named, load_parts

QUICK = {"n_resamples": 50}


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_labelled(tmp_path_factory.mktemp("probe") / "prepared")


@pytest.fixture(scope="module")
def encoder(prepared):
    """A small ResNet that has seen the 160 training ECGs with their labels."""
    folder = prepared.folder.with_name("resnet")
    options = PretrainOptions(
        max_steps=60, batch_size=32, schedule="linear", learning_rate=3e-3, warmup_steps=6, eval_steps=30, use_cpu=True
    )
    start = EncoderStart(tiny=(64, 3))
    pretrain_encoder(prepared, folder, encoder_named("merl-resnet"), start=start, options=options)
    return folder


@pytest.fixture(scope="module")
def report(prepared, encoder):
    options = ProbeOptions(zero_shot=True, retrieval=True, control="random", fractions=(0.05, 1.0), **QUICK)
    return probe_encoder(encoder, prepared, prepared.folder.with_name("probe.json"), options)


def test_training_lowers_the_contrastive_loss(encoder):
    history = json.loads((encoder / "training_log.json").read_text())["history"]
    losses = [entry["cross_modal_loss"] for entry in history if "cross_modal_loss" in entry]
    assert losses[-1] < losses[0] - 1.0
    evaluated = [entry["eval_cross_modal_loss"] for entry in history if "eval_loss" in entry]
    assert evaluated[-1] < 2 * math.log(32) - 1.0  # of 32 ECGs that could not be told apart


def test_retrieval_is_far_above_chance(report):
    found, control = (report["systems"][name]["retrieval"] for name in ("encoder", "random"))
    assert found["ecgs"] == 48 and found["ecgs_without_text"] == 0 and 8 <= found["distinct_texts"] <= 16
    for direction in ("ecg_to_text", "text_to_ecg"):
        at_1 = found[direction]["recall"]["1"]
        assert at_1["value"] > at_1["chance"] + 0.3
        assert at_1["ci95"][0] > at_1["chance"]
        assert found[direction]["median_rank"] < found[direction]["chance_median_rank"] / 2
        assert at_1["value"] > control[direction]["recall"]["1"]["value"] + 0.2
        values = [found[direction]["recall"][k]["value"] for k in ("1", "5", "10")]
        assert values == sorted(values)
    assert found["ecg_to_text"]["recall"]["1"]["chance"] == pytest.approx(1 / found["distinct_texts"])


def test_labels_are_found_without_training_and_with(report):
    systems = report["systems"]
    assert systems["encoder"]["zero_shot"]["macro_auc"]["value"] > 0.8
    assert systems["encoder"]["linear"]["1"]["macro_auc"]["value"] > 0.85
    assert abs(systems["random"]["zero_shot"]["macro_auc"]["value"] - 0.5) < 0.25
    assert report["difference"]["zero_shot"]["value"] > 0.15
    assert report["difference"]["zero_shot"]["ci95"][0] > 0.0
    few = systems["encoder"]["linear"]["0.05"]
    assert (few["records"], few["draws"], len(few["c"])) == (8, 3, 3)
    assert few["macro_auc"]["value"] == pytest.approx(np.mean(few["macro_auc"]["each"]))
    assert systems["encoder"]["linear"]["1"]["draws"] == 1 and systems["encoder"]["linear"]["1"]["records"] == 160
    names = ["normal ECG", "myocardial infarction", "ST/T changes", "conduction disturbance", "hypertrophy"]
    assert sorted(few["by_label"]) == sorted(names)
    assert systems["encoder"]["zero_shot"]["prompts"] == {name: [name] for name in names}


def test_auc_is_of_the_similarity_with_the_prompt(report, prepared, encoder):
    """Done again by the model itself and scikit-learn."""
    parts = load_parts(encoder)
    ecg_ids = sorted({row["ecg_id"][0] for row in prepared.questions("test")})
    signals = torch.stack([torch.tensor(prepared.signal(ecg_id)) for ecg_id in ecg_ids])
    tokens = parts.tokenizer(["hypertrophy"], return_tensors="pt")
    with torch.no_grad():
        ecgs = parts.model.get_ecg_features(signals)
        text = parts.model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
    truth = {
        row["ecg_id"][0]: row["answer"] == ["yes"] for row in prepared.questions("test") if row["attribute"] == ["HYP"]
    }
    expected = roc_auc_score([truth[ecg_id] for ecg_id in ecg_ids], (ecgs @ text.T)[:, 0])
    assert report["systems"]["encoder"]["zero_shot"]["by_label"]["hypertrophy"] == pytest.approx(expected, abs=1e-3)


def test_files(report, prepared):
    written = json.loads(prepared.folder.with_name("probe.json").read_text())
    assert written["systems"] == report["systems"]
    assert written["provenance"]["arguments"]["seed"] == 0 and len(written["provenance"]["weights"]) == 64
    table = prepared.folder.with_name("probe.md").read_text()
    value = report["systems"]["encoder"]["linear"]["1"]["macro_auc"]["value"]
    assert f"| linear probe, 100 % | 160 | 5 | {value:.3f} (" in table
    assert "| linear probe, 5 % | 8, 3 draws | 5 |" in table and "| 0.500 |" in table
    assert "C of the linear probe was chosen on the whole validation split (32 records), whatever the share" in table
    chosen = [entry["c_chosen_on"] for entry in report["systems"]["encoder"]["linear"].values()]
    assert chosen == [{"split": "validation", "records": 32}] * 2
    assert "| zero-shot | 0 | 5 |" in table and "Retrieval, random: 48 ECGs" in table
    for line in table.splitlines():
        if line.startswith("| "):
            assert len(line.split("|")) == 9


def test_every_encoder_has_the_same_draws_and_no_other_seed(report, prepared, encoder, tmp_path):
    again = probe_encoder(encoder, prepared, tmp_path / "a.json", ProbeOptions(fractions=(0.05,), **QUICK))
    assert again["systems"]["encoder"]["linear"]["0.05"] == report["systems"]["encoder"]["linear"]["0.05"]
    assert again["difference"] is None
    other = probe_encoder(encoder, prepared, tmp_path / "a.json", ProbeOptions(fractions=(0.05,), seed=1, **QUICK))
    assert (
        other["systems"]["encoder"]["linear"]["0.05"]["macro_auc"]["each"]
        != (again["systems"]["encoder"]["linear"]["0.05"]["macro_auc"]["each"])
    )


def test_windows_of_a_record_are_one_in_the_interval(prepared, encoder, tmp_path, monkeypatch):
    seen = {}

    def kept(hits, clusters, **options):
        seen[len(hits)] = list(clusters)
        return 0.0, 1.0

    monkeypatch.setattr(module, "bootstrap_interval", kept)
    windows = WindowedData(prepared.folder, 1.0)
    found = probe_encoder(encoder, windows, tmp_path / "a.json", ProbeOptions(fractions=(), retrieval=True, **QUICK))
    assert found["systems"]["encoder"]["retrieval"]["ecgs"] == 96
    assert seen[96] == [number for number in range(193, 241) for _ in range(2)]


# ---- ranks and chance ------------------------------------------------------------------------------------------


def test_ranks_by_counting():
    rng = np.random.default_rng(3)
    queries, candidates = rng.standard_normal((7, 4)), rng.standard_normal((11, 4))
    candidates[5] = candidates[2]  # as similar to everything
    is_right = rng.uniform(size=(7, 11)) < 0.2
    is_right[:, 2], is_right[:, 5] = True, False
    similar = queries @ candidates.T
    expected = []
    for row, right in zip(similar, is_right, strict=True):
        best = row[right].max()
        expected.append(1 + np.sum(row[~right] > best) + np.sum(row[~right] == best) / 2)
    np.testing.assert_allclose(right_ranks(queries, candidates, is_right), expected)


def test_an_encoder_that_tells_nothing_apart_is_at_chance():
    ranks = right_ranks(np.ones((9, 3)), np.ones((9, 3)), np.eye(9, dtype=bool))
    np.testing.assert_array_equal(ranks, np.full(9, 5.0))


def test_chance_by_listing_all_draws():
    candidates, right = 6, {0, 1}
    for k in (1, 3, 6):
        draws = list(combinations(range(candidates), k))
        hit = np.mean([bool(right & set(draw)) for draw in draws])
        assert chance_recall(np.array([2]), candidates, k) == pytest.approx(hit)
    assert chance_recall(np.array([1, 3]), 4, 10) == 1.0


# ---- prompts and refusals --------------------------------------------------------------------------------------


def test_prompts_replace_names_and_answers_are_asked_for(prepared, encoder, tmp_path):
    prompts = {"hypertrophy": ["hypertrophy", "myocardial infarction"], "normal ECG": "hypertrophy"}
    options = ProbeOptions(fractions=(), zero_shot=True, prompts=prompts, **QUICK)
    found = probe_encoder(encoder, prepared, tmp_path / "a.json", options)["systems"]["encoder"]["zero_shot"]
    assert found["prompts"]["hypertrophy"] == prompts["hypertrophy"] and found["prompts"]["normal ECG"] == [
        "hypertrophy"
    ]
    plain = probe_encoder(encoder, prepared, tmp_path / "b.json", ProbeOptions(fractions=(), zero_shot=True, **QUICK))
    plain = plain["systems"]["encoder"]["zero_shot"]
    assert found["by_label"]["normal ECG"] != plain["by_label"]["normal ECG"]
    assert found["by_label"]["ST/T changes"] == plain["by_label"]["ST/T changes"]
    asked = shutil.copytree(encoder, tmp_path / "asked")
    log = json.loads((asked / "training_log.json").read_text())
    log["report"]["texts"] = "answers"
    (asked / "training_log.json").write_text(json.dumps(log))
    found = probe_encoder(asked, prepared, tmp_path / "c.json", ProbeOptions(fractions=(), zero_shot=True, **QUICK))
    assert found["systems"]["encoder"]["zero_shot"]["prompts"]["hypertrophy"] == [
        "Does this ECG show hypertrophy? yes."
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": ()}, "nothing is to be measured"),
        ({"fractions": (0.0, 1.0)}, "expected shares above 0 and at most 1"),
        ({"draws": 0}, "and 0 draws"),
        ({"control": "zero"}, "got the control 'zero', expected 'random' or none"),
        ({"batch_size": 0}, "got batches of 0"),
        ({"split": "dev"}, "has no split 'dev'"),
        ({"split": "train"}, "160 ECGs of the split train are in training too"),
        (
            {"zero_shot": True, "prompts": {"fever": "hot"}},
            "got prompts for fever, which no training question",
        ),
        ({"zero_shot": True, "prompts": {"hypertrophy": []}}, "expected a text or a list of texts"),
        (
            {"fractions": (), "retrieval": True, "texts": "report"},
            "0 ECGs of the split test .* have a text of",
        ),
    ],
)
def test_options_that_cannot_be(prepared, encoder, tmp_path, options, message):
    with pytest.raises(EcgDataError, match=message):
        probe_encoder(encoder, prepared, tmp_path / "a.json", ProbeOptions(**({"n_resamples": 5} | options)))
    assert not (tmp_path / "a.json").exists()


def test_encoders_that_cannot_be(prepared, encoder, tmp_path):
    other = prepare_labelled(tmp_path / "other", splits={"train": range(1, 33), "test": range(33, 41)})
    options = PretrainOptions(max_steps=1, batch_size=8, use_cpu=True)
    vit = tmp_path / "vit"
    pretrain_encoder(other, vit, encoder_named("vit"), start=EncoderStart(tiny=(16, 1)), options=options)
    with pytest.raises(EncoderError, match="vit has no text tower, so that there is no zero-shot"):
        probe_encoder(vit, prepared, tmp_path / "a.json", ProbeOptions(retrieval=True))
    # The probe itself needs no text. There is no validation split, so that C is not chosen.
    found = probe_encoder(vit, other, tmp_path / "a.json", ProbeOptions(fractions=(1.0,), **QUICK))
    linear = found["systems"]["encoder"]["linear"]["1"]
    assert linear["c"] == [1e-2] and linear["c_chosen_on"] is None
    assert "C of the linear probe is 0.01: there is no validation split" in (tmp_path / "a.md").read_text()
    changed = shutil.copytree(encoder, tmp_path / "changed")
    settings = json.loads((changed / "preprocessor_config.json").read_text())
    (changed / "preprocessor_config.json").write_text(json.dumps(settings | {"sampling_rate": 50}))
    with pytest.raises(EcgDataError, match="sampling_rate is 100 here and 50 there; prepare it so"):
        probe_encoder(changed, prepared, tmp_path / "b.json")


def test_the_command(prepared, encoder, tmp_path, capsys):
    command = ["probe-encoder", "--encoder", str(encoder), "--data", str(prepared.folder), "--resamples", "20"]
    assert cli.main([*command, "--output", str(tmp_path / "a.json"), "--fractions", "--retrieval"]) == 0
    assert "| ECG to text |" in capsys.readouterr().out
    assert cli.main([*command, "--output", str(tmp_path / "a.json"), "--prompts", "p.json"]) == 2
    assert "--prompts needs --zero-shot" in capsys.readouterr().err
    assert cli.main([*command, "--output", str(tmp_path / "a.md")]) == 1
    assert "choose a name with .json" in capsys.readouterr().err
