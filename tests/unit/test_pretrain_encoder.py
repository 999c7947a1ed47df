"""Pretraining of encoders: what ECGs are paired with, the trainer, what it keeps and what it refuses."""

import json

import numpy as np
import pytest
import torch
from labelled_ecgs import prepare_labelled
from torch import nn

from ecgbyte_hf import cli
from ecgbyte_hf.data.fingerprints import weights_fingerprint
from ecgbyte_hf.evaluation.system_table import seconds_per_step
from ecgbyte_hf.models.auto import ENCODERS
from ecgbyte_hf.models.contrastive_ecg import contrastive_loss
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError, EncoderError
from ecgbyte_hf.training import pretrain_encoder as module
from ecgbyte_hf.training.encoder_data import EcgSignals, EcgTextCollator, EcgTextDataset
from ecgbyte_hf.training.encoder_texts import LabelNames, default_text_kind, texts_of_split
from ecgbyte_hf.training.pretrain_encoder import (
    EcgEncoderTrainer,
    PretrainOptions,
    even_batches,
    noam_rate,
    pretrain_encoder,
    with_synchronised_batch_norm,
)
from ecgbyte_hf.training.start_encoder import (
    EncoderStart,
    encoder_named,
    encoder_of,
    load_parts,
    start_encoder,
    takes_texts,
    word_tokenizer,
)

NAMES = [encoder.command_name for encoder in ENCODERS]
TINY = EncoderStart(tiny=(16, 1))
QUICK = {"batch_size": 8, "max_steps": 2, "eval_steps": 1, "logging_steps": 1, "use_cpu": True}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare_labelled(tmp_path_factory.mktemp("labelled") / "prepared")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def train(prepared, folder, name="merl-resnet", *, texts=None, start=TINY, **options):
    return pretrain_encoder(
        prepared, folder, encoder_named(name), texts=texts, start=start, options=PretrainOptions(**(QUICK | options))
    )


def weights(folder):
    return load_parts(folder).model.state_dict()


def history(folder):
    return json.loads((folder / "training_log.json").read_text())["history"]


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


# ---- texts -----------------------------------------------------------------------------------------------------


def question(kind, ecg_id, text, answer, *, attribute=None, attribute_type="rate", template_id=7):
    return {
        "question_type": kind,
        "ecg_id": ecg_id,
        "question": text,
        "answer": answer,
        "attribute": attribute,
        "attribute_type": attribute_type,
        "template_id": template_id,
    }


ROWS = [
    question("single-verify", [1], "Fast?", ["yes"], attribute=["tachycardia"]),
    question("single-verify", [1], "MI?", ["no"], attribute=["MI"], template_id=2102, attribute_type="superclass"),
    question("single-verify", [2], "MI?", ["yes"], attribute=["MI"], template_id=2102, attribute_type="superclass"),
    question(
        "single-verify", [2], "Normal?", ["no"], attribute=["NORM"], template_id=2101, attribute_type="superclass"
    ),
    question("single-query", [3], "Which rate?", ["tachycardia", "none"]),
    question("single-query", [3], "Which lead?", ["tachycardia"], attribute_type="lead"),
    question("single-query", [4], "Which?", ["normal ECG"], attribute_type="superclass"),
    question("comparison_consecutive-verify", [1, 5], "Faster?", ["yes"], attribute=["tachycardia"]),
    question("single-verify", [6], "Fast?", ["no"], attribute=["tachycardia"]),
    question("report", [7], "Explain", ["sinus  rhythm"]),
    question("conversation", [7], "And?", ["a pacemaker"]),
]


class OnlyRows:
    """What the texts need of a prepared folder."""

    def questions(self, split):
        assert split == "train"
        return ROWS


def texts(kind):
    return texts_of_split(OnlyRows(), "train", kind)


def test_labels_are_what_verify_questions_ask_about():
    found = texts("labels")
    assert found.parts == {
        1: ("tachycardia",),
        2: ("myocardial infarction",),
        3: ("tachycardia",),  # not as an answer about leads
        4: ("normal ECG",),
    }
    # Of two ECGs at once nothing is learnt; one with no's alone, and one with a report, have no label.
    assert found.ecg_ids == (1, 2, 3, 4, 5, 6, 7) and found.num_without == 3
    assert found.text(2, np.random.default_rng(0)) == "myocardial infarction"


def test_reports_are_drawn_and_answers_come_in_any_order():
    reports = texts("report")
    assert reports.parts == {7: ("sinus rhythm", "a pacemaker")} and reports.num_without == 6
    assert reports.text(7) == "sinus rhythm"
    assert {reports.text(7, np.random.default_rng(seed)) for seed in range(9)} == {"sinus rhythm", "a pacemaker"}
    answers = texts("answers")
    assert answers.text(1) == "Fast? yes. MI? no."
    assert {answers.text(1, np.random.default_rng(seed)) for seed in range(9)} == {
        answers.text(1),
        "MI? no. Fast? yes.",
    }
    assert answers.text(3) == "Which rate? tachycardia, none. Which lead? tachycardia." and 5 not in answers.parts


def test_kind_of_texts_by_default():
    assert default_text_kind(ROWS) == "report"
    assert default_text_kind(ROWS[:9]) == "labels"
    assert default_text_kind(ROWS[4:7]) == "answers"
    assert len(LabelNames(ROWS)) == 3
    with pytest.raises(EcgDataError, match="got texts 'reports', expected one of report, answers, labels"):
        texts("reports")


def test_a_text_is_drawn_by_seed_epoch_and_ecg_alone(prepared):
    told = texts_of_split(prepared, "train", "answers")
    signals = EcgSignals(prepared, [3, 5])
    data = EcgTextDataset(signals, [5, 3], told, seed=4)
    first = [data[0]["text"], data[1]["text"]]
    assert first == [EcgTextDataset(signals, [5, 3], told, seed=4)[place]["text"] for place in range(2)]
    assert EcgTextDataset(signals, [3], told, seed=4)[0]["text"] == first[1]
    data.set_epoch(1)
    assert [data[0]["text"], data[1]["text"]] != first
    assert EcgTextDataset(signals, [5], told)[0]["text"] == told.text(5)
    assert EcgTextDataset(signals, [5], told, seed=5)[0]["text"] != first[0]


@pytest.mark.parametrize("in_memory", [True, False])
def test_signals_are_those_of_the_folder(prepared, in_memory):
    signals = EcgSignals(prepared, [9, 2], in_memory=in_memory)
    np.testing.assert_array_equal(signals[9], prepared.signal(9))
    batch = EcgTextCollator("input_values")([{"signal": signals[2]}, {"signal": signals[9]}])
    np.testing.assert_array_equal(batch["input_values"][1], prepared.signal(9))
    assert list(batch) == ["input_values"] and batch["input_values"].shape == (2, 2, 200)


def test_words_are_learnt_and_long_texts_cut():
    tokenizer = word_tokenizer(["ST/T changes, Pacemaker", "pacemaker"])
    collator = EcgTextCollator("input_values", tokenizer=tokenizer, max_length=5)
    examples = [{"signal": np.zeros((1, 4), np.float32), "text": text} for text in ("st / t changes", "PACEMAKER new")]
    batch = collator(examples)
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][0]) == ["[CLS]", "st", "/", "t", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(batch["input_ids"][1]) == ["[CLS]", "pacemaker", "[UNK]", "[SEP]", "[PAD]"]
    assert batch["attention_mask"][1].tolist() == [1, 1, 1, 1, 0]


# ---- the loss of repeated texts --------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", ["sum", "mean"])
def test_repeated_texts_do_no_harm(directions):
    """Value and gradient are those of the loss to which all ECGs with the same text are right."""
    generator = torch.Generator().manual_seed(0)
    ecgs, texts = torch.randn(5, 3, generator=generator), torch.randn(3, 3, generator=generator)
    text_of = torch.tensor([0, 1, 0, 2, 0])
    shares = (text_of[:, None] == text_of[None]).float()
    shares = shares / shares.sum(dim=1, keepdim=True)

    def with_shares(ecgs, texts):
        logits = 3.0 * nn.functional.normalize(ecgs) @ nn.functional.normalize(texts).T
        total = sum(nn.functional.cross_entropy(rows, shares) for rows in (logits, logits.T))
        return total if directions == "sum" else total / 2

    found = []
    for loss in (lambda *both: contrastive_loss(*both, 3.0, directions), with_shares):
        leaves = [ecgs.clone().requires_grad_(), texts.clone().requires_grad_()]
        value = loss(leaves[0], leaves[1][text_of])
        found.append([value.detach(), *torch.autograd.grad(value, leaves)])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine, expected)
    assert found[0][1].abs().max() > 0.01 and found[0][2].abs().max() > 0.01


# ---- training --------------------------------------------------------------------------------------------------


def test_noam_by_its_formula():
    assert noam_rate(1, width=768, warmup_steps=500) == pytest.approx(768**-0.5 * 500**-1.5, rel=1e-12)
    assert noam_rate(500, width=768, warmup_steps=500) == pytest.approx((768 * 500) ** -0.5, rel=1e-12)
    assert noam_rate(2000, width=256, warmup_steps=500, factor=3) == pytest.approx(3 / 16 / 2000**0.5, rel=1e-12)
    # The paper's highest rate of the language model (REFERENCE: 9.882e-4 for d_model 2048).
    assert noam_rate(500, width=2048, warmup_steps=500) == pytest.approx(9.882e-4, rel=1e-4)


def test_noam_is_what_the_trainer_does(prepared, tmp_path):
    train(prepared, tmp_path / "resnet", max_steps=5, warmup_steps=2, noam_factor=0.5, eval_steps=5)
    rates = [entry["learning_rate"] for entry in history(tmp_path / "resnet") if "learning_rate" in entry]
    expected = [noam_rate(step, width=16, warmup_steps=2, factor=0.5) for step in range(1, 6)]
    assert rates == pytest.approx(expected, rel=1e-9)


def test_the_paper_s_width_of_each_encoder():
    widths = {encoder.command_name: module.noam_width(encoder.config()()) for encoder in ENCODERS}
    assert widths["merl-resnet"] == 256
    assert widths["clip"] == widths["vit"] == widths["clip-vit"] == 768


def test_other_schedules(prepared, tmp_path):
    train(prepared, tmp_path / "a", schedule="linear", learning_rate=1e-3, warmup_steps=0, eval_steps=2)
    rates = [entry["learning_rate"] for entry in history(tmp_path / "a") if "learning_rate" in entry]
    assert rates == pytest.approx([1e-3, 5e-4])


@pytest.mark.parametrize("name", NAMES)
def test_every_encoder_is_trained_kept_at_its_best_and_loaded(name, prepared, tmp_path, monkeypatch):
    """The second step is made to look worse, so that all weights of the first must come back."""
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForPreTraining

    evaluate = EcgEncoderTrainer.evaluate

    def evaluated(self, *arguments, **options):
        metrics = evaluate(self, *arguments, **options)
        return metrics | {"eval_loss": metrics["eval_loss"] + 100 * self.state.global_step}

    monkeypatch.setattr(EcgEncoderTrainer, "evaluate", evaluated)
    folder = tmp_path / name
    report = train(prepared, folder, name, schedule="constant", learning_rate=1e-2)
    encoder = encoder_named(name)
    assert encoder_of(folder) == encoder
    entries = history(folder)
    losses = [entry["eval_loss"] for entry in entries if "eval_loss" in entry]
    assert len(losses) == 2
    assert (report["best_step"], report["best_loss"], report["steps"]) == (1, losses[0] + 100, 2)
    kept = weights(folder)
    assert_same_weights(kept, AutoModelForPreTraining.from_pretrained(folder / "checkpoint-1").state_dict())
    last = AutoModelForPreTraining.from_pretrained(folder / "checkpoint-2").state_dict()
    changed = [key for key, value in last.items() if not torch.equal(value, kept[key])]
    assert len(changed) > len(kept) / 2
    assert report["parameters"] >= report["trained_parameters"] > 0
    for entry in entries:
        parts = [value for key, value in entry.items() if key.endswith(("_modal_loss", "reconstruction_loss"))]
        if "loss" in entry or "eval_loss" in entry:
            assert sum(parts) == pytest.approx(entry.get("loss", entry.get("eval_loss")), rel=1e-4)
    _, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    extractor = AutoFeatureExtractor.from_pretrained(folder / "signal" if encoder.takes_images else folder)
    assert (extractor.profile, extractor.sampling_rate, list(extractor.leads)) == ("none", 100, ["I", "V2"])
    if encoder.takes_images:
        pictures = AutoImageProcessor.from_pretrained(folder)
        assert (pictures.num_leads, pictures.size["height"]) == (2, 128)
        assert pictures.image_mean[0] == (0.5 if name == "vit" else pytest.approx(0.4815, abs=1e-3))
    assert (folder / "loss.png").stat().st_size > 1000
    assert (folder / "tokenizer.json").is_file() == takes_texts(load_parts(folder).model)


@pytest.mark.parametrize("name", ["merl-resnet", "vit"])
def test_a_broken_off_training_goes_on_bit_for_bit(name, prepared, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    given = {"epochs": 2, "max_steps": -1, "batch_size": 60, "eval_steps": 1, "name": name}
    given |= {"schedule": "constant", "learning_rate": 1e-3}
    texts_kind = "answers" if name == "merl-resnet" else None
    train(prepared, whole, texts=texts_kind, **given)
    step = EcgEncoderTrainer.training_step

    def killed(self, *arguments, **options):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    monkeypatch.setattr(EcgEncoderTrainer, "training_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(prepared, broken, texts=texts_kind, **given)
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not (broken / "training_log.json").is_file() and (broken / "checkpoint-3").is_dir()
    with pytest.raises(EcgDataError, match="checkpoints of one; go on from the newest with --resume"):
        train(prepared, broken, texts=texts_kind, **given)
    with pytest.raises(EcgDataError, match="was begun otherwise: seed 0 there and 1 here"):
        train(prepared, broken, texts=texts_kind, resume=True, seed=1, **given)
    torch.manual_seed(99)
    report = train(prepared, broken, texts=texts_kind, resume=True, **given)
    assert report["steps"] == 4
    assert_same_weights(weights(whole), weights(broken))
    first, second = (
        [
            {name: value for name, value in entry.items() if name != "eval_runtime"}
            for entry in history(folder)
            if "train_runtime" not in entry
        ]
        for folder in (broken, whole)
    )
    assert first == second


def test_a_checkpoint_whose_writing_was_broken_off_is_passed_over(prepared, tmp_path, caplog):
    folder, given = tmp_path / "out", {"schedule": "constant", "learning_rate": 1e-3}
    train(prepared, folder, **given)
    kept = weights(folder)
    (folder / "checkpoint-2" / "trainer_state.json").unlink()
    assert train(prepared, folder, resume=True, **given)["steps"] == 2
    assert "checkpoint-2 was passed over: it has no whole trainer_state.json" in caplog.text
    assert_same_weights(kept, weights(folder))
    for number in (1, 2):
        (folder / f"checkpoint-{number}" / "trainer_state.json").write_text('{"epoch":')
    with pytest.raises(EcgDataError, match="no checkpoint to go on from; leave --resume out"):
        train(prepared, folder, resume=True, **given)
    # What was killed at its first checkpoint is begun again, and nothing has to be deleted for it.
    (folder / "training_log.json").unlink()
    assert train(prepared, folder, **given)["steps"] == 2


def test_the_time_of_validation_is_no_time_of_training(prepared, tmp_path):
    train(prepared, tmp_path / "out")
    log = json.loads((tmp_path / "out" / "training_log.json").read_text())
    spent = [entry["eval_runtime"] for entry in log["history"] if "eval_loss" in entry]
    (total,) = [entry["train_runtime"] for entry in log["history"] if "train_runtime" in entry]
    assert log["provenance"]["weights"] == weights_fingerprint(tmp_path / "out")
    assert len(spent) == 2 and all(0 < one < total for one in spent)
    assert seconds_per_step(log) == pytest.approx((total - sum(spent)) / 2)


def test_fewer_validation_ecgs_than_processes_are_refused(prepared, tmp_path, monkeypatch):
    """Of 32 ECGs to validate on, 40 processes have not one each; the 160 to train on would do."""
    monkeypatch.setattr(module.TrainingArguments, "world_size", property(lambda self: 40))
    with pytest.raises(EcgDataError, match="there are 32 ECGs to validate on, fewer than the 40 processes"):
        train(prepared, tmp_path / "out", batch_size=2)


def test_ecgs_of_other_splits_are_never_trained_on(tmp_path, monkeypatch):
    """A training question about ECGs 161 (validation) and 200 (test) must not bring them in, nor their texts."""
    numbers = {"train": [*range(1, 33), 161, 200], "validation": range(161, 169), "test": range(193, 209)}
    prepared = prepare_labelled(tmp_path / "prepared", splits=numbers)
    seen = {}

    class Watched(EcgTextDataset):
        def __init__(self, signals, ecg_ids, *arguments, seed=None):
            seen["validation" if seed is None else "train"] = self.asked = set()
            super().__init__(signals, ecg_ids, *arguments, seed=seed)

        def __getitem__(self, place):
            self.asked.add(self.ecg_ids[place])
            return super().__getitem__(place)

    monkeypatch.setattr(module, "EcgTextDataset", Watched)
    report = train(prepared, tmp_path / "out", max_steps=4, eval_steps=4)
    assert seen == {"train": set(range(1, 33)), "validation": set(range(161, 169))}
    assert report["ecgs"]["train"] == {"used": 32, "without_text": 0, "in_other_splits": 2}
    assert report["ecgs"]["validation"] == {"used": 8, "without_text": 0}


def test_ecgs_without_text_are_counted_and_one_that_takes_none_has_all(tmp_path):
    def change(row):
        return None if row["ecg_id"][0] <= 40 and row["answer"] == ["yes"] else row

    prepared = prepare_labelled(tmp_path / "prepared", change=change, splits={"train": range(1, 81)})
    report = train(prepared, tmp_path / "a")
    assert report["ecgs"] == {"train": {"used": 40, "without_text": 40, "in_other_splits": 0}}
    assert report["best_step"] is None  # no validation: the last step
    assert_same_weights(weights(tmp_path / "a"), weights(tmp_path / "a" / "checkpoint-2"))
    assert train(prepared, tmp_path / "b", "vit")["ecgs"]["train"]["used"] == 80


def test_validation_loss_is_of_all_ecgs_in_even_batches(prepared, tmp_path):
    """32 ECGs in batches of at most 24: two of 16."""
    train(prepared, tmp_path / "a", batch_size=24, eval_steps=2)
    parts = load_parts(tmp_path / "a")
    told = texts_of_split(prepared, "validation", "labels", LabelNames(prepared.questions("train")))
    collator = EcgTextCollator("input_values", tokenizer=parts.tokenizer, max_length=64)
    data = EcgTextDataset(EcgSignals(prepared, told.ecg_ids), sorted(told.parts), told)
    with torch.no_grad():
        losses = [parts.model(**collator([data[place] for place in part])).loss for part in (range(16), range(16, 32))]
    logged = [entry["eval_loss"] for entry in history(tmp_path / "a") if "eval_loss" in entry]
    assert logged == pytest.approx([float(sum(losses) / 2)], rel=1e-5)
    assert [len(part) for part in even_batches(10, 4)] == [4, 3, 3] and len(even_batches(4, 4)) == 1


def test_batch_norm_is_synchronised_on_several_gpus_alone():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    for num_processes, device in ((1, "cuda"), (2, "cpu")):
        assert type(with_synchronised_batch_norm(network, num_processes, torch.device(device))[0]) is nn.BatchNorm1d
    changed = with_synchronised_batch_norm(network, 2, torch.device("cuda"))
    assert type(changed[0]) is nn.SyncBatchNorm
    assert changed.state_dict().keys() == network.state_dict().keys()


def test_mixed_precision_and_accumulation_train(prepared, tmp_path):
    report = train(prepared, tmp_path / "a", precision="bf16", gradient_accumulation=2)
    assert report["steps"] == 2
    parts = load_parts(tmp_path / "a")
    assert {value.dtype for key, value in parts.model.state_dict().items() if "num_batches" not in key} == {
        torch.float32
    }


# ---- where the weights come from -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["merl-resnet", "clip"])
def test_a_text_is_embedded_the_same_with_padding_and_alone(prepared, name):
    words = ["normal ECG", "hypertrophy, myocardial infarction"]
    parts = start_encoder(encoder_named(name), prepared, lambda: words, TINY)
    collator = EcgTextCollator("input_values", tokenizer=parts.tokenizer, max_length=parts.max_text_length)
    model = parts.model.eval()
    with torch.no_grad():
        alone, both = (model.get_text_features(**collator.tokens(part)) for part in (words[:1], words))
        other = model.get_text_features(**collator.tokens(["hypertrophy ECG"]))
    torch.testing.assert_close(alone[0], both[0], rtol=1e-4, atol=1e-5)
    assert (alone - other).abs().max() > 1e-2


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    """Tiny CLIP, ViT and BERT with a tokenizer, in folders as repositories of the Hub are."""
    from tiny_encoders import BERT, CLIP, VIT
    from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, ViTConfig, ViTModel

    path = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(**CLIP)).save_pretrained(path / "clip")
    ViTModel(ViTConfig(**VIT)).save_pretrained(path / "vit")
    BertModel(BertConfig(**BERT)).save_pretrained(path / "bert")
    for name in ("clip", "bert"):
        word_tokenizer(["normal ECG, hypertrophy"]).save_pretrained(path / name)
    return path


def test_weights_come_from_folders(prepared, backbones, tmp_path):
    def made(name, **options):
        return start_encoder(encoder_named(name), prepared, list, EncoderStart(**options))

    clip, vit = str(backbones / "clip"), str(backbones / "vit")
    both = made("clip-vit", init_from=(clip, vit))
    alone = made("clip", init_from=(clip,), max_text_length=12), made("vit", init_from=(vit,))
    for parts, ours in zip(alone, (both.model.encoder.clip, both.model.encoder.vit), strict=True):
        assert_same_weights(parts.model.encoder.state_dict(), ours.state_dict())
    assert alone[0].tokenizer("hypertrophy")["input_ids"] == both.tokenizer("hypertrophy")["input_ids"]
    assert (alone[0].max_text_length, alone[0].image_processor.size["height"], alone[1].tokenizer) == (12, 32, None)


def test_a_frozen_tower_stays_and_a_pretrained_encoder_goes_on(prepared, backbones, tmp_path):
    bert = str(backbones / "bert")
    with pytest.raises(EncoderError, match="got texts of 64 tokens, expected 3 to the text tower's 16"):
        train(prepared, tmp_path / "a", start=EncoderStart(text_model=bert, depth=18, max_text_length=64))
    start = EncoderStart(text_model=bert, depth=18)
    report = train(prepared, tmp_path / "a", start=start, schedule="constant", learning_rate=1e-2)
    assert report["parameters"] > report["trained_parameters"] > 3_800_000
    from transformers import AutoModel

    before = AutoModel.from_pretrained(bert).state_dict()
    assert_same_weights(before, load_parts(tmp_path / "a").model.text_model.state_dict())
    train_text = EncoderStart(text_model=bert, max_text_length=9, depth=18, train_text=True)
    thawed = start_encoder(encoder_named("merl-resnet"), prepared, list, train_text)
    assert all(parameter.requires_grad for parameter in thawed.model.parameters())
    again = EncoderStart(init_from=(str(tmp_path / "a"),))
    goes_on = start_encoder(encoder_named("merl-resnet"), prepared, list, again)
    assert_same_weights(goes_on.model.state_dict(), weights(tmp_path / "a"))
    assert goes_on.max_text_length == 16
    assert goes_on.tokenizer.get_vocab() == load_parts(tmp_path / "a").tokenizer.get_vocab()


def test_a_configuration_makes_random_weights(prepared):
    settings = {"block": "basic", "blocks": [1], "base_channels": 8, "embedding_size": 8}
    settings["text_config"] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    start = EncoderStart(settings=settings, max_text_length=20)
    parts = start_encoder(encoder_named("merl-resnet"), prepared, lambda: ["normal ECG"], start)
    assert (parts.model.config.num_leads, parts.model.config.num_samples) == (2, 200)
    assert parts.model.config.text_config.vocab_size == len(parts.tokenizer) == 6
    assert not parts.model.config.freeze_text
    with pytest.raises(EncoderError, match="for 12 leads and the prepared records have 2"):
        start = EncoderStart(settings=settings | {"num_leads": 12}, max_text_length=20)
        start_encoder(encoder_named("merl-resnet"), prepared, lambda: ["normal ECG"], start)


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        (
            "clip",
            {"tiny": (16, 1), "init_from": ("a",)},
            "got --tiny, --init-from: each of them says what",
        ),
        ("clip", {"text_model": "bert"}, "clip has no text tower of its own choice"),
        ("vit", {"text_model": "bert"}, "vit has no text tower of its own choice"),
        ("clip", {"depth": 18}, "--depth is that of merl-resnet"),
        ("merl-resnet", {"depth": 18, "tiny": (16, 1)}, "--depth is that of merl-resnet"),
        ("clip", {"tokenizer": "x"}, "--tokenizer is for random weights"),
        ("vit", {"tiny": (16, 1), "train_text": True}, "the text tower of vit is always trained, or there is none"),
        ("merl-resnet", {"tiny": (16, 1), "image_mode": "resize"}, "merl-resnet takes the signal and no picture"),
        ("clip", {"tiny": (20, 1)}, "got --tiny-size 20 1, expected a multiple of 16"),
        ("merl-resnet", {"init_from": ("no-folder",)}, "no-folder holds no merl-resnet; its text tower is chosen by"),
        (
            "clip-vit",
            {"init_from": ("a",)},
            "got --init-from a, expected 2 such as openai/clip-vit",
        ),
        ("clip", {"tiny": (16, 1), "max_text_length": 2}, "got texts of 2 tokens, expected 3 to"),
    ],
)
def test_starts_that_cannot_be(prepared, name, start, message):
    with pytest.raises(EncoderError, match=message):
        start_encoder(encoder_named(name), prepared, lambda: ["normal ECG"], EncoderStart(**start))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "noam", "learning_rate": 1e-3}, "--learning-rate belongs to the other schedules"),
        ({"schedule": "cosine"}, "--lr-scheduler cosine needs --learning-rate"),
        ({"schedule": "sine"}, "got the schedule 'sine' and precision 'no', expected one of noam, linear"),
        ({"precision": "int4"}, "precision 'int4'"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"warmup_steps": 0}, "got --warmup-steps 0, expected at least 1 for Noam"),
        ({"batch_size": 1}, "got --batch-size 1, expected at least 2"),
        ({"eval_steps": 0}, "got --eval-steps 0, expected at least 1"),
        ({"batch_size": 200}, "there are 160 ECGs to train on, fewer than the 200 of a batch"),
        ({"resume": True}, "has no checkpoint to go on from; leave --resume out"),
    ],
)
def test_options_that_cannot_be(prepared, tmp_path, options, message):
    with pytest.raises(EcgError, match=message):
        train(prepared, tmp_path / "a", **options)
    assert not (tmp_path / "a" / "model.safetensors").exists()


def test_data_that_cannot_be(prepared, tmp_path):
    with pytest.raises(EcgDataError, match="has no training ECG with a text of the kind 'report'"):
        train(prepared, tmp_path / "a", texts="report")
    with pytest.raises(EcgDataError, match="vit learns from ECGs alone; leave --texts out"):
        train(prepared, tmp_path / "a", "vit", texts="labels")
    with pytest.raises(EncoderError, match="got the encoder 'resnet', expected one of merl-resnet, clip"):
        encoder_named("resnet")
    with pytest.raises(EncoderError, match="holds no config.json, expected an encoder"):
        load_parts(tmp_path)
    untaught = prepare_labelled(tmp_path / "test", splits={"test": range(1, 9)})
    with pytest.raises(EcgDataError, match="has no training split; it has test"):
        train(untaught, tmp_path / "a")


def test_several_gpus_in_one_process_are_refused(tmp_path):
    from types import SimpleNamespace

    with pytest.raises(EcgError, match="one process sees 2 GPUs; start one for each: `torchrun --nproc-per-node 2"):
        EcgEncoderTrainer(nn.Linear(1, 1), SimpleNamespace(n_gpu=2))


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command(prepared, tmp_path, capsys):
    command = ["pretrain-encoder", "--encoder", "merl-resnet", "--data", str(prepared.folder), "--tiny"]
    command += ["--batch-size", "16", "--max-steps", "1", "--eval-steps", "1", "--window-seconds", "1", "--cpu"]
    assert cli.main([*command, "--output", str(tmp_path / "a"), "--tiny-size", "16", "2"]) == 0
    said = capsys.readouterr().out
    # Two windows of 1 s of each record are two ECGs.
    assert "merl-resnet: 320 ECGs with texts of the kind 'labels', 1 steps" in said
    assert "kept: step 1, validation loss" in said
    assert "the learning rate was still rising at the end; give fewer --warmup-steps than 500" in said
    log = json.loads((tmp_path / "a" / "training_log.json").read_text())
    arguments = log["provenance"]["arguments"]
    assert (arguments["window_seconds"], arguments["tiny"], log["report"]["texts"]) == (1.0, [16, 2], "labels")
    assert load_parts(tmp_path / "a").model.config.num_samples == 100
    assert cli.main([*command, "--output", str(tmp_path / "a")]) == 1
    assert "holds an encoder, or checkpoints of one" in capsys.readouterr().err
    assert cli.main([*command[:5], "--output", str(tmp_path / "b"), "--tiny-size", "16", "2"]) == 2
    assert "--tiny-size needs --tiny" in capsys.readouterr().err
    (tmp_path / "empty.json").write_text("[]")
    failed = [*command[:5], "--output", str(tmp_path / "b"), "--model-config", str(tmp_path / "empty.json")]
    assert cli.main(failed) == 1
    assert "holds no JSON object" in capsys.readouterr().err
