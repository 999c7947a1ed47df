"""Reports on a card are about the very thing that it is about, and stay with it."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ecgbyte_hf import cli
from ecgbyte_hf.data.fingerprints import (
    ecg_tokenizer_fingerprint,
    model_fingerprints,
    text_tokenizer_fingerprint,
    weights_fingerprint,
)
from ecgbyte_hf.evaluation.evaluate import evaluate_predictions
from ecgbyte_hf.evaluation.generate import EcgLanguageModel, generate_answers, make_prompter, report_path
from ecgbyte_hf.evaluation.predictions import asked_model, read_predictions, write_predictions
from ecgbyte_hf.hub.card_sources import REPORTS_FOLDER, CardSources, keep_reports
from ecgbyte_hf.hub.cards import has_own_card, render_card, write_card
from ecgbyte_hf.hub.push import PushOptions, push_folder
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgFileError, EcgHubError
from ecgbyte_hf.provenance import provenance


@pytest.fixture(scope="module")
def answers(lively_llm, small_prepared, tmp_path_factory):
    """Answers of `lively_llm` to the test questions, two tokens each."""
    model = EcgLanguageModel.load(lively_llm)
    rows = small_prepared.questions("test")
    prompter = make_prompter(model, small_prepared, rows)
    output = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    return generate_answers(model, rows, prompter, small_prepared.template_options(), output, max_new_tokens=2)


@pytest.fixture(scope="module")
def report(answers, small_prepared):
    """Their evaluation."""
    path = answers.with_name("report.json")
    evaluate_predictions(small_prepared, answers, controls={}, output=path, with_rule=False, n_resamples=20)
    return path


class TestFingerprints:
    def test_weights_are_the_same_in_other_files(self, tmp_path):
        tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(4, np.float16), "c": np.zeros(0)}
        for name in ("one", "two", "other"):
            (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / "one/model.safetensors", metadata={"format": "pt"})
        for number, name in enumerate(tensors):
            save_file({name: tensors[name]}, tmp_path / f"two/model-{number}.safetensors")
        first = weights_fingerprint(tmp_path / "one")
        assert len(first) == 64 and weights_fingerprint(tmp_path / "two") == first
        for changed in (
            tensors | {"a": np.array([1, 1, 1, 2], np.float16)},
            tensors | {"b": tensors["b"].reshape(3, 2)},
            {"B" if name == "b" else name: value for name, value in tensors.items()},
        ):
            save_file(changed, tmp_path / "other/model.safetensors")
            assert weights_fingerprint(tmp_path / "other") != first
        assert weights_fingerprint(tmp_path) is None

    @pytest.mark.parametrize("cut", [4, 20, -3])
    def test_weights_that_are_cut_short(self, tmp_path, cut):
        save_file({"a": np.ones(9, np.float32)}, tmp_path / "model.safetensors")
        content = (tmp_path / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(content[:cut])
        with pytest.raises(EcgFileError, match=r"model.safetensors: .*save"):
            weights_fingerprint(tmp_path)

    def test_of_a_text_tokenizer(self, small_llm, tmp_path):
        content = json.loads((small_llm / "tokenizer.json").read_text())
        expected = text_tokenizer_fingerprint(small_llm)
        for changes, same in (({"padding": {"x": 1}}, True), ({"added_tokens": []}, False)):
            (tmp_path / "tokenizer.json").write_text(json.dumps(content | changes))
            assert (text_tokenizer_fingerprint(tmp_path) == expected) is same
        assert text_tokenizer_fingerprint(tmp_path / "nowhere") is None

    def test_of_a_model_and_its_adapter(self, lively_llm, small_llm, tmp_path):
        whole, other = model_fingerprints(lively_llm), model_fingerprints(small_llm)
        assert set(whole) == {"weights", "tokenizer", "ecg", "prompt"}
        assert {name for name in whole if whole[name] != other[name]} == {"weights"}
        save_file({"lora": np.ones(2, np.float32)}, tmp_path / "adapter_model.safetensors")
        adapter = model_fingerprints(tmp_path, base=lively_llm)
        assert adapter["base_weights"] == whole["weights"] and adapter["tokenizer"] == whole["tokenizer"]
        assert adapter["weights"] == weights_fingerprint(tmp_path)


class TestEvaluation:
    def test_answers_and_report_say_which_model(self, answers, report, lively_llm):
        expected = model_fingerprints(lively_llm)
        assert json.loads(report_path(answers).read_text())["provenance"]["fingerprints"] == expected
        noted = json.loads(report.read_text())["provenance"]["model"]
        assert noted == {"fingerprints": expected, "view": "true", "perturbations": []}

    def test_a_model_that_was_exchanged_while_it_answered(self, lively_llm, small_prepared, tmp_path, caplog):
        folder = shutil.copytree(lively_llm, tmp_path / "model")
        rows = small_prepared.questions("test")[:1]

        def noted(model):
            output = folder / "answers.jsonl"  # what is written beside the model changes nothing
            prompter = make_prompter(model, small_prepared, rows)
            generate_answers(model, rows, prompter, small_prepared.template_options(), output, max_new_tokens=1)
            return json.loads(report_path(output).read_text())["provenance"]["fingerprints"]

        loaded = EcgLanguageModel.load(folder)
        assert noted(loaded) == noted(loaded) == model_fingerprints(folder)
        assert "were changed" not in caplog.text
        for name in ("model.safetensors", "ecg_byte/ecg_prompt.json", "ecg_byte/preprocessor_config.json"):
            loaded = EcgLanguageModel.load(folder)
            if name == "model.safetensors":
                weights = load_file(folder / name)
                first = min(weights)
                save_file(weights | {first: weights[first] + 1.0}, folder / name)
            else:
                (folder / name).write_text((folder / name).read_text() + " ")
            caplog.clear()
            assert noted(loaded) == {}
            assert "were changed since the model was loaded from there" in caplog.text
            assert asked_model(folder / "answers.jsonl", read_predictions(folder / "answers.jsonl")) is None

    def test_answers_that_somebody_changed(self, answers, tmp_path, caplog):
        shutil.copy(report_path(answers), tmp_path / "answers.report.json")
        rows = read_predictions(answers)
        assert asked_model(tmp_path / "answers.jsonl", rows) is not None
        rows[3] = {**rows[3], "prediction": "better"}
        with caplog.at_level(logging.WARNING):
            assert asked_model(write_predictions(tmp_path / "answers.jsonl", rows), rows) is None
        assert "is the report of other answers than those in" in caplog.text
        (tmp_path / "answers.report.json").unlink()
        assert asked_model(tmp_path / "answers.jsonl", rows) is None

    def test_stands_on_the_card_of_that_model_alone(self, report, lively_llm, small_llm, tmp_path):
        card = render_card(lively_llm, sources=[report])
        weights = weights_fingerprint(lively_llm)[:16]
        assert "## Evaluation" in card and f"shortened, `{weights}`" in card
        with pytest.raises(EcgDataError, match=r"`evaluate` is about another model \(other weights\)"):
            render_card(small_llm, sources=[report])
        folder = shutil.copytree(lively_llm, tmp_path / "copy")
        prompt = json.loads((folder / "ecg_byte/ecg_prompt.json").read_text())
        (folder / "ecg_byte/ecg_prompt.json").write_text(json.dumps(prompt | {"reserve": prompt["reserve"] + 1}))
        with pytest.raises(EcgDataError, match=r"about another model \(other prompt\)"):
            render_card(folder, sources=[report])

    def test_of_an_unknown_model_is_refused(self, report, lively_llm, tmp_path, capsys):
        content = json.loads(report.read_text())
        content["provenance"]["model"] = None
        (tmp_path / "report.json").write_text(json.dumps(content))
        card = [
            "card",
            str(lively_llm),
            "--output",
            str(tmp_path / "card.md"),
            "--from",
            str(tmp_path / "report.json"),
        ]
        assert cli.main(card) == 1
        assert "does not say which model it is about" in capsys.readouterr().err

    def test_of_a_control_or_worse_signals_says_so(self, report, lively_llm, tmp_path):
        content = json.loads(report.read_text())
        content["provenance"]["model"] |= {"view": "question_only", "perturbations": ["noise=0.1", "seed=0"]}
        (tmp_path / "report.json").write_text(json.dumps(content))
        card = render_card(lively_llm, sources=[tmp_path / "report.json"])
        assert "- what the model was shown of the ECG: `question_only`" in card
        assert "- the signals were made worse: noise=0.1, seed=0" in card
        assert "model-index" not in card
        content["provenance"]["model"] |= {"view": "true"}
        (tmp_path / "report.json").write_text(json.dumps(content))
        assert "model-index" not in render_card(lively_llm, sources=[tmp_path / "report.json"])
        card = render_card(lively_llm, sources=[report])
        assert "was shown of the ECG" not in card and "model-index:" in card

    def test_of_a_control_is_no_result_for_the_hub(self, answers, small_prepared, tmp_path, capsys):
        content = json.loads(report_path(answers).read_text())
        content["provenance"]["arguments"]["view"] = "zero_signal"
        (tmp_path / "answers.report.json").write_text(json.dumps(content))
        shutil.copy(answers, tmp_path / "answers.jsonl")
        place = tmp_path / "report.json"
        command = ["evaluate", "--data", str(small_prepared.folder), "--predictions", str(tmp_path / "answers.jsonl")]
        assert cli.main([*command, "--output", str(place), "--model-name", "user/x"]) == 1
        assert "given to zero_signal, not to the ECGs themselves" in capsys.readouterr().err and not place.exists()


class TestOtherReports:
    def test_of_another_tokenizer(self, small_ecg_byte, tmp_path):
        from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor

        training = json.loads((small_ecg_byte / "training.json").read_text())
        assert training["provenance"]["ecg"] == ecg_tokenizer_fingerprint(small_ecg_byte)
        other = tmp_path / "other"
        processor = EcgByteProcessor.from_pretrained(small_ecg_byte)
        processor.tokenizer.lead_boundary = "split"
        processor.save_pretrained(other)
        assert "How well it fits" not in render_card(other)
        with pytest.raises(EcgDataError, match=r"`train-tokenizer` is about another tokenizer \(other ECG token"):
            render_card(other, sources=[small_ecg_byte / "training.json"])
        # As older versions wrote it.
        del training["provenance"]["ecg"]
        (tmp_path / "training.json").write_text(json.dumps(training))
        assert "How well it fits" in render_card(other, sources=[tmp_path / "training.json"])
        (tmp_path / "training.json").write_text(json.dumps(training | {"merges": 59}))
        with pytest.raises(EcgDataError, match="other merges or calibration"):
            render_card(other, sources=[tmp_path / "training.json"])

    def test_rows_of_another_tokenizer(self, small_llm, tmp_path):
        fine = provenance("encode", {}, ecg=model_fingerprints(small_llm)["ecg"])
        for block, fits in ((fine, True), (fine | {"ecg": "0" * 64}, False)):
            (tmp_path / "encode.json").write_text(json.dumps({"splits": {}, "provenance": block}))
            if fits:
                render_card(small_llm, sources=[tmp_path / "encode.json"])
                continue
            with pytest.raises(EcgDataError, match="`encode` is about another model"):
                render_card(small_llm, sources=[tmp_path / "encode.json"])

    def test_of_another_encoder(self, tmp_path):
        from tiny_encoders import resnet_config, seeded

        from ecgbyte_hf import EcgResNetModel

        seeded(EcgResNetModel, resnet_config()).save_pretrained(tmp_path / "encoder")
        score = {"macro_auc": {"value": 0.75, "ci95": [0.5, 1.0], "labels": 5}}
        report = {"split": "test", "systems": {"encoder": {"zero_shot": score}}, "chance": {"macro_auc": 0.5}}
        for weights in (weights_fingerprint(tmp_path / "encoder"), "0" * 64):
            block = provenance("probe-encoder", {}, weights=weights)
            (tmp_path / "probe.json").write_text(json.dumps(report | {"provenance": block}))
            if weights[0] + weights[-1] != "00":
                assert "| zero-shot |" in render_card(tmp_path / "encoder", sources=[tmp_path / "probe.json"])
                continue
            with pytest.raises(EcgDataError, match=r"`probe-encoder` is about another encoder \(other weigh"):
                render_card(tmp_path / "encoder", sources=[tmp_path / "probe.json"])

    @pytest.mark.parametrize("command", ["sft", "pretrain-encoder"])
    def test_the_log_of_another_training(self, command, lively_llm, tmp_path):
        if command == "sft":
            folder = shutil.copytree(lively_llm, tmp_path / "here")
        else:
            from tiny_encoders import resnet_config, seeded

            from ecgbyte_hf import EcgResNetModel

            folder = tmp_path / "here"
            seeded(EcgResNetModel, resnet_config()).save_pretrained(folder)
        given, own = tmp_path / "training_log.json", folder / "training_log.json"

        def card(place=given, **noted):
            block = provenance(command, {"seed": 4711}, **noted)
            place.write_text(json.dumps({"history": [{"step": 2, "loss": 3.25}], "provenance": block}))
            return render_card(folder, sources=[given] if place == given else ())

        here = weights_fingerprint(folder)
        for noted in ({"weights": here}, {"weights": "0" * 64, "merged_weights": here}):
            assert "| seed | 4711 |" in card(**noted)
        for place in (given, own):
            with pytest.raises(EcgDataError, match=rf"`{command}` is about another .* \(other weights\)"):
                card(place, weights="0" * 64)
        own.unlink()
        with pytest.raises(EcgDataError, match=f"the log of `{command}` is of an older version and does not say"):
            card()
        assert "| seed | 4711 |" in card(own)  # of an older version


class TestKept:
    """Reports that were given for a card go on standing on it, and go out with it."""

    @pytest.fixture
    def model(self, lively_llm, tmp_path):
        return shutil.copytree(lively_llm, tmp_path / "model")

    def test_a_later_card_has_them_too(self, model, report):
        options = {"repo_id": "user/name", "license": "llama3.2", "datasets": ["user/rows"]}
        first = write_card(model, **options, sources=[report]).read_text()
        kept = model / REPORTS_FOLDER / "evaluate.json"
        assert json.loads(kept.read_text())["provenance"]["arguments"]["predictions"] == "answers.jsonl"
        assert write_card(model, **options).read_text() == first
        write_card(model, sources=[kept])  # which is there already
        assert [path.name for path in kept.parent.iterdir()] == ["evaluate.json"]

    def test_later_ones_take_their_place(self, model, report, tmp_path):
        for number, name in enumerate(("a", "b", "c")):
            block = provenance("encode", {"seed": number})
            (tmp_path / f"{name}.json").write_text(json.dumps({"splits": {}, "provenance": block}))
        keep_reports(model, [tmp_path / "a.json", tmp_path / "b.json", report])
        names = {"encode.json", "encode.2.json", "evaluate.json"}
        assert {path.name for path in (model / REPORTS_FOLDER).iterdir()} == names
        keep_reports(model, [tmp_path / "c.json"])
        assert {path.name for path in (model / REPORTS_FOLDER).iterdir()} == names - {"encode.2.json"}
        assert json.loads((model / REPORTS_FOLDER / "encode.json").read_text())["provenance"]["arguments"]["seed"] == 2

    def test_are_read_in_the_order_in_which_they_were_given(self, model, tmp_path):
        names = [f"{number}.json" for number in range(12)]
        for number, name in enumerate(names):
            block = provenance("encode", {"seed": number})
            (tmp_path / name).write_text(json.dumps({"splits": {}, "provenance": block}))
        first = write_card(model, sources=[tmp_path / name for name in names]).read_text()
        assert CardSources.find(model).last("encode")["provenance"]["arguments"]["seed"] == 11
        assert write_card(model).read_text() == first

    def test_one_evaluation_is_shown(self, model, report, tmp_path):
        content = json.loads(report.read_text())
        content["exact_match"]["overall"] = 0.015625
        (tmp_path / "other.json").write_text(json.dumps(content))
        with pytest.raises(
            EcgDataError, match=r"2 reports of `evaluate` \(report.json, other.json\), and a card shows"
        ):
            write_card(model, sources=[report, tmp_path / "other.json"])
        assert not (model / REPORTS_FOLDER).exists()
        for name, source in (("a.json", report), ("b.json", tmp_path / "other.json")):
            shutil.copy(source, model / name)
        with pytest.raises(EcgHubError, match=r"README.md: there are 2 reports of `evaluate` \(a.json, b.json\)"):
            push_folder(model, "user/name", dry_run=True)
        for name, is_other in (("b.json", True), ("a.json", False)):
            card = write_card(model, sources=[model / name]).read_text()
            assert ("value: 0.015625" in card) is is_other
            assert write_card(model).read_text() == card  # later ones show the same
        (model / "README.md").write_text("# Mine\n")
        (model / "a.json").write_text(json.dumps(content | {"split": "train"}))
        push_folder(model, "user/name", dry_run=True)  # somebody's own card quotes what it likes

    def test_elsewhere_nothing_is_kept(self, model, report, tmp_path):
        write_card(model, sources=[report], output=tmp_path / "card.md")
        assert not (model / REPORTS_FOLDER).exists()

    def test_what_is_pushed_has_them(self, model, report, monkeypatch):
        write_card(model, repo_id="user/old", license="llama3.2", datasets=["user/rows"], sources=[report])
        log = {"history": [], "provenance": provenance("sft", {"output_dir": str(model), "seed": 7})}
        (model / "training_log.json").write_text(json.dumps(log))
        (model / REPORTS_FOLDER / "notes.json").write_text('{"who": "somebody"}')
        cards = staged_cards(monkeypatch)
        made = push_folder(model, "user/name", PushOptions(), dry_run=True)
        assert f"{REPORTS_FOLDER}/evaluate.json" in made.sizes and "README.md was written" in made.notes
        assert made.left_out[f"{REPORTS_FOLDER}/notes.json"] == "no report of an ecgbyte command"
        (card,) = cards
        assert "## Evaluation" in card and "| seed | 7 |" in card and str(model.parent) not in card
        assert "license: llama3.2" in card and "- user/rows" in card and "user/old" not in card

    def test_a_model_that_was_trained_on_since(self, model, report):
        write_card(model, license="llama3.2", sources=[report])
        weights = load_file(model / "model.safetensors")
        name = min(weights)
        save_file(weights | {name: weights[name] + 1.0}, model / "model.safetensors")
        with pytest.raises(EcgHubError, match=r"README.md: the report of `evaluate` is about another model"):
            push_folder(model, "user/name", dry_run=True)

    def test_a_data_set_s_card_has_the_hash_of_what_goes_out(self, small_prepared, tmp_path, monkeypatch):
        import hashlib

        folder = shutil.copytree(small_prepared.folder, tmp_path / "prepared")
        write_card(folder, repo_id="user/name", license="mit")
        here = hashlib.sha256((folder / "records/part-00000.parquet").read_bytes()).hexdigest()[:16]
        assert f"| `{here}` |" in (folder / "README.md").read_text()
        out: dict[str, str] = {}
        cards = staged_cards(monkeypatch, out, "records/part-00000.parquet")
        push_folder(folder, "user/name", PushOptions(dropped_columns=("patient_id", "name")), dry_run=True)
        (sha256,) = out.values()
        assert f"| `{sha256[:16]}` |" in cards[0] and here not in cards[0]

    def test_of_a_data_set_they_go_with_our_card_alone(self, small_prepared, tmp_path):
        folder = shutil.copytree(small_prepared.folder, tmp_path / "prepared")
        shutil.copy(folder / "report.json", tmp_path / "given.json")
        path = write_card(folder, license="mit", sources=[tmp_path / "given.json"])
        options = PushOptions(dropped_columns=("patient_id", "name"))
        kept = f"{REPORTS_FOLDER}/prepare.json"
        assert kept in push_folder(folder, "user/name", options, dry_run=True).sizes
        path.write_text(path.read_text() + "Mine.\n")
        made = push_folder(folder, "user/name", options, dry_run=True)
        assert kept in made.left_out and kept not in made.sizes

    def test_a_changed_card_is_somebody_s(self, model, monkeypatch):
        path = write_card(model, license="llama3.2")
        assert not has_own_card(path)
        cards = staged_cards(monkeypatch)
        path.write_text(path.read_text().replace("## How to use it", "## How I use it"))
        assert has_own_card(path)
        assert "README.md was written" not in push_folder(model, "user/name", dry_run=True).notes
        assert "## How I use it" in cards[0]


def staged_cards(monkeypatch, hashes=None, name=None) -> list[str]:
    """The cards that are about to go out from here on, and the hash of a file that goes with them."""
    import hashlib

    from ecgbyte_hf.hub import push

    cards: list[str] = []

    def look(stage, *given):
        complete(stage, *given)
        cards.append((stage.folder / "README.md").read_text())
        if name is not None:
            hashes[name] = hashlib.sha256((Path(stage.folder) / name).read_bytes()).hexdigest()

    complete = push._complete_card
    monkeypatch.setattr(push, "_complete_card", look)
    return cards


def test_an_adapter_evaluated_on_another_base(report, lively_llm, tmp_path):
    """Its published copy names a base on the Hub, so the folder that it was trained on is looked at before."""
    folder = shutil.copytree(lively_llm, tmp_path / "adapter")
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    save_file({"lora": np.ones(2, np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(lively_llm)}))
    content = json.loads(report.read_text())
    for weights in (weights_fingerprint(lively_llm), "0" * 64):
        content["provenance"]["model"]["fingerprints"] = {"base_weights": weights}
        (folder / "evaluation.json").write_text(json.dumps(content))
        options = PushOptions(base="someone/llm")
        if weights.strip("0"):
            assert "README.md was written" in push_folder(folder, "someone/x", options, dry_run=True).notes
            continue
        with pytest.raises(EcgHubError, match=r"`evaluate` is about another model \(other base model's weights\)"):
            push_folder(folder, "someone/x", options, dry_run=True)
