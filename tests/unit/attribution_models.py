"""A tiny model that reads simulated ECGs of a known finding, for the tests of attributions."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from ecgbyte_hf.data.local_findings import QUESTION, local_st_shift
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.data.simulator import ST_SHIFTS
from ecgbyte_hf.interpretation.reading import Reading
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.training.extend_llm import extend_llm
from ecgbyte_hf.training.tiny_llm import make_tiny_llama

LEADS = ("II", "V2")
RATE = 100


def record(number: int, seconds: float = 2.0):
    return local_st_shift(number, leads=LEADS, duration=seconds, sampling_rate=RATE)


def make_model(folder: Path) -> Path:
    """An untrained Llama with larger weights, so that its attention is not even; the folder `extend_llm` wrote."""
    extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=RATE, leads=list(LEADS))
    tokenizer = EcgByteTokenizer.train_from_iterator(
        [record(number).signal for number in range(1, 20)],
        60,
        calibration=EcgCalibration("percentile", -1.0, 2.0),
        sampling_rate=RATE,
        leads=LEADS,
        feature_extractor=extractor,
        num_threads=1,
    )
    prompt = EcgPrompt(max_length=192, reserve=16)
    texts = [prompt.render("", QUESTION) + prompt.render_answer([answer]) for answer in ST_SHIFTS]
    shape = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "text_vocab_size": 300}
    make_tiny_llama(folder / "base", texts, **shape)
    processor = EcgByteProcessor(feature_extractor=extractor, tokenizer=tokenizer)
    made = extend_llm(str(folder / "base"), processor, folder / "model", prompt=prompt).folder
    model = AutoModelForCausalLM.from_pretrained(made)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
    model.save_pretrained(made)
    return made


def bare_reading(num_tokens: int = 23, ecg: tuple[int, int] = (2, 15), answer: int = 19, vocab: int = 50) -> Reading:
    """A reading of random ids: one lead, two samples per ECG token."""
    count = ecg[1] - ecg[0]
    stops = 2 * np.arange(1, count + 1)
    return Reading(
        signal=np.zeros((1, 2 * count), np.float32),
        leads=("II",),
        sampling_rate=100.0,
        question="?",
        answer="!",
        is_given=True,
        ids=np.random.default_rng(0).integers(3, vocab, num_tokens),
        ecg_start=ecg[0],
        ecg_ids=np.zeros(count, dtype=np.int64),
        offsets=np.stack([stops - 2, stops], axis=1),
        answer_start=answer,
        words=(),
        seconds=1.0,
    )
