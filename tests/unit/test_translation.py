"""Translation of reports by a tiny random Marian model, and what is kept of it."""

import io
import json
import sqlite3

import pytest
from data_set_folders import make_ptb_xl

import ecgbyte_hf
from ecgbyte_hf.data.translation import ReportTranslator
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

REPORTS = [
    "sinusrhythmus normales ekg",
    "sinusrhythmus periphere niederspannung",
    "vorhofflimmern lagetyp normal",
    "unvollstaendiger rechtsschenkelblock",
    *(f"sinusrhythmus {number}" for number in range(1, 21)),
]


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """The folder of a random Marian model with a tokenizer learnt from the reports."""
    import sentencepiece
    import torch
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    folder = tmp_path_factory.mktemp("marian")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(REPORTS * 5), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    known = [pieces.id_to_piece(index) for index in range(pieces.get_piece_size())]
    names = ["</s>", "<unk>", *(piece for piece in known if piece not in ("<s>", "</s>", "<unk>")), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    MarianTokenizer(
        source_spm=str(folder / "source.spm"),
        target_spm=str(folder / "target.spm"),
        vocab=str(folder / "vocab.json"),
        model_max_length=64,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    pad = len(names) - 1
    config = MarianConfig(
        vocab_size=len(names),
        decoder_vocab_size=len(names),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        pad_token_id=pad,
        eos_token_id=0,
        decoder_start_token_id=pad,
        forced_eos_token_id=0,
        init_std=1.0,  # With the usual 0.02 the answer would not depend on the text.
    )
    model = MarianMTModel(config)
    model.generation_config.max_length = 12
    model.save_pretrained(folder)
    return folder


def refuse_to_load(*arguments):
    raise AssertionError("the model was loaded")


def test_order_repeats_and_batches(marian, tmp_path):
    texts = [*REPORTS, *REPORTS[:3], REPORTS[0]]
    one = ReportTranslator(marian, tmp_path / "a", batch_size=1, device="cpu").translate(texts)
    many = ReportTranslator(marian, tmp_path / "b", batch_size=7, device="cpu").translate(texts)
    assert one == many and len(one) == len(texts)
    assert one[: len(REPORTS)] + [*one[:3], one[0]] == one
    assert len(set(one)) > 3 and all(isinstance(text, str) for text in one)
    assert ReportTranslator(marian, tmp_path / "b").translate([]) == []


def test_nothing_is_translated_twice(marian, tmp_path, monkeypatch):
    first = ReportTranslator(marian, tmp_path, device="cpu").translate(REPORTS)
    monkeypatch.setattr(ReportTranslator, "_load", refuse_to_load)
    assert ReportTranslator(marian, tmp_path).translate(REPORTS[::-1]) == first[::-1]
    with pytest.raises(AssertionError, match="was loaded"):
        ReportTranslator(marian, tmp_path).translate([*REPORTS, "new"])


def test_broken_off_it_goes_on(marian, tmp_path, monkeypatch):
    whole = ReportTranslator(marian, tmp_path / "whole", device="cpu").translate(REPORTS)
    translate = ReportTranslator._translate

    def break_off(self, texts):
        for count, batch in enumerate(translate(self, texts)):
            if count == 2:
                raise KeyboardInterrupt
            yield batch

    translator = ReportTranslator(marian, tmp_path / "part", batch_size=4, device="cpu")
    monkeypatch.setattr(ReportTranslator, "_translate", break_off)
    with pytest.raises(KeyboardInterrupt):
        translator.translate(REPORTS)
    missing = []

    def spy(self, texts):
        missing.extend(texts)
        return translate(self, texts)

    monkeypatch.setattr(ReportTranslator, "_translate", spy)
    assert translator.translate(REPORTS) == whole
    assert len(missing) == len(REPORTS) - 8


def test_another_model_in_the_same_place(marian, tmp_path):
    import shutil

    import torch
    from transformers import MarianMTModel

    folder = tmp_path / "model"
    shutil.copytree(marian, folder)
    first = ReportTranslator(folder, tmp_path, device="cpu").translate(REPORTS)
    model = MarianMTModel.from_pretrained(folder)
    with torch.no_grad():
        model.final_logits_bias += torch.randn(model.final_logits_bias.shape, generator=torch.manual_seed(1)) * 5
    model.save_pretrained(folder)
    assert ReportTranslator(folder, tmp_path, device="cpu").translate(REPORTS) != first


def test_a_missing_package_names_the_extra(marian, tmp_path, monkeypatch):
    import transformers

    def lack(*arguments, **options):
        raise ImportError("requires the SentencePiece library")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lack)
    with pytest.raises(EcgDataError, match=r'pip install "ecgbyte-hf\[translate\]" \(requires the SentencePiece'):
        ReportTranslator(marian, tmp_path).translate(["a"])


def test_what_cannot_be_used(marian, tmp_path):
    with pytest.raises(EcgDataError, match="has 1[0-9]* tokens, expected at most 64"):
        ReportTranslator(marian, tmp_path, device="cpu").translate(["sinusrhythmus " * 100])
    with pytest.raises(EcgDataError, match="cannot load the translation model .*absent'.*Download it with"):
        ReportTranslator(tmp_path / "absent", tmp_path).translate(["a"])
    with pytest.raises(EcgDataError, match="got the batch size 0"):
        ReportTranslator(marian, tmp_path, batch_size=0)
    with pytest.raises(EcgDataError, match="cannot use the device 'abacus'"):
        ReportTranslator(marian, tmp_path, device="abacus").translate(["a"])
    (tmp_path / "file").write_text("")
    with pytest.raises(EcgDataError, match="cannot use the translations kept in"):
        ReportTranslator(marian, tmp_path / "file").translate(["a"])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/translations.sqlite3").write_text("no database, but long enough to be read as one" * 50)
    with pytest.raises(EcgDataError, match="cannot use the translations kept in .*remove the file"):
        ReportTranslator(marian, tmp_path / "damaged").translate(["a"])


def test_reports_of_ptb_xl(marian, tmp_path):
    make_ptb_xl(tmp_path / "ptb-xl")
    options = {"data_dir": tmp_path / "ptb-xl", "translate": True, "translation_model": str(marian)}
    metadata = ecgbyte_hf.load_dataset("ptb_xl", "metadata", **options)
    questions = ecgbyte_hf.load_dataset("ptb_xl", "reports", **options)
    for split, rows in metadata.items():
        expected = ReportTranslator(marian).translate(rows["report"][:])
        assert rows["report_en"][:] == expected
        assert rows["report"][0] == f"sinusrhythmus {rows['ecg_id'][0]}"
        assert questions[split]["answer"][:] == [[text] for text in expected]
    plain = ecgbyte_hf.load_dataset("ptb_xl", "metadata", data_dir=tmp_path / "ptb-xl", split="train")
    assert "report_en" not in plain.features


def test_the_cache_is_one_table(marian, tmp_path):
    ReportTranslator(marian, tmp_path, device="cpu").translate(REPORTS[:2])
    with sqlite3.connect(tmp_path / "translations.sqlite3") as database:
        rows = database.execute("SELECT model, text, translation FROM translations").fetchall()
    assert len(rows) == 2 and all(model.startswith(str(marian)) and len(text) == 64 for model, text, _ in rows)
    assert not any(report in row for report in REPORTS for row in rows)
