"""EcgLlmProcessor: recordings to placeholders and what the encoder reads, saved and loaded."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from ecgbyte_hf import EcgByteFeatureExtractor, EcgImageProcessor, EcgLlmProcessor
from ecgbyte_hf.data.encoder_prompts import Placeholders
from ecgbyte_hf.models.errors_ecg_byte import EncoderError, LeadError, SignalError
from ecgbyte_hf.models.processing_ecg_llm import part_settings
from ecgbyte_hf.training.tiny_llm import _text_tokenizer

LEADS = ["I", "aVF"]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = _text_tokenizer(["Is the rhythm regular? yes no"] * 5, 300)
    tokenizer.add_tokens(["<|ecg_start|>", "<|ecg|>", "<|ecg_end|>"])
    return tokenizer


def make(tokenizer, **settings) -> EcgLlmProcessor:
    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=100, leads=LEADS)
    return EcgLlmProcessor(extractor, tokenizer, **settings)


def record(seed: int = 0, samples: int = 400, leads=("aVF", "I")):
    """With the leads in another order than the processor's."""
    signal = np.random.default_rng(seed).normal(size=(len(leads), samples)).astype(np.float32)
    return SimpleNamespace(signal=signal, sampling_rate=100, lead_names=leads)


def ids_of(tokenizer, *texts):
    return tokenizer.convert_tokens_to_ids(list(texts))


def test_an_ecg_is_written_as_start_places_and_end(tokenizer):
    processor = make(tokenizer, num_ecg_tokens=3)
    one = record()
    made = processor("<|ecg|>\nIs it regular?", one, return_tensors="pt")
    start, place, end = ids_of(tokenizer, "<|ecg_start|>", "<|ecg|>", "<|ecg_end|>")
    assert made["input_ids"][0, 1:6].tolist() == [start, place, place, place, end]
    assert made["input_ids"][0, 0] == tokenizer.bos_token_id
    assert made["ecg_values"].dtype == torch.float32
    # Leads by name.
    assert torch.equal(made["ecg_values"], torch.from_numpy(one.signal[::-1].copy())[None])


def test_ecgs_of_a_batch_are_in_the_order_of_their_places(tokenizer):
    processor = make(tokenizer)
    records = [record(seed) for seed in range(3)]
    made = processor(["<|ecg|><|ecg|> alike?", "<|ecg|> regular?"], records, padding=True, return_tensors="pt")
    assert (made["input_ids"] == ids_of(tokenizer, "<|ecg|>")[0]).sum(dim=1).tolist() == [2, 1]
    assert torch.equal(made["ecg_values"][2, 1], torch.from_numpy(records[2].signal[0]))
    assert "ecg_values" not in processor("no ECG")
    lengths = processor("<|ecg|><|ecg|>", [record(samples=400), record(samples=300)])["ecg_values"]
    assert [tuple(values.shape) for values in lengths] == [(2, 400), (2, 300)]


def test_a_picture_is_that_of_the_image_processor(tokenizer):
    picture = EcgImageProcessor(size=16, num_leads=2)
    processor = make(tokenizer, picture=picture)
    one = record()
    expected = picture(np.stack([one.signal[1], one.signal[0]]), return_tensors="pt")["pixel_values"]
    assert torch.equal(processor("<|ecg|>", one)["ecg_values"], expected)


@pytest.mark.parametrize("picture", [None, EcgImageProcessor(size=16, num_leads=2, image_mean=[0.1, 0.2, 0.3])])
def test_a_folder_holds_all_of_it(picture, tokenizer, tmp_path):
    processor = make(tokenizer, picture=picture, num_ecg_tokens=5)
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    kept = json.loads((tmp_path / "processor_config.json").read_text())
    assert kept["auto_map"] == {"AutoProcessor": "processing_ecg_llm.EcgLlmProcessor"}
    for name in ("processing_ecg_llm.py", "feature_extraction_ecg_byte.py", "image_processing_ecg.py"):
        assert (tmp_path / name).is_file()
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is EcgLlmProcessor and loaded.num_ecg_tokens == 5
    assert Placeholders.of(loaded) == Placeholders.of(processor)
    assert part_settings(loaded.feature_extractor.to_dict()) == part_settings(processor.feature_extractor.to_dict())
    assert loaded.tokenizer.get_vocab() == tokenizer.get_vocab()
    assert (loaded.picture is None) == (picture is None)
    one = record()
    first, second = (each("<|ecg|> regular?", one, return_tensors="pt") for each in (processor, loaded))
    assert first.keys() == second.keys() == {*processor.model_input_names} & set(first.keys())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_does_not_go_together_is_refused(tokenizer):
    processor = make(tokenizer)
    with pytest.raises(EncoderError, match=r"Got 1 places <\|ecg\|> and 0 ECGs"):
        processor("<|ecg|>")
    with pytest.raises(EncoderError, match=r"Got 0 places <\|ecg\|> and 1 ECGs"):
        processor("nothing", record())
    with pytest.raises(SignalError, match="expected records with signal"):
        processor("<|ecg|>", [np.zeros((2, 400))])
    with pytest.raises(LeadError):
        processor("<|ecg|>", record(leads=("I", "II")))
    plain = _text_tokenizer(["a"], 300)
    with pytest.raises(EncoderError, match=r"Got a tokenizer without <\|ecg_start\|>"):
        make(plain)
