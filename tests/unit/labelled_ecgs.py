"""A prepared folder of ECGs whose labels can be seen in the signal, for tests of encoders."""

import numpy as np

from ecgbyte_hf.data.label_questions import label_questions, label_template_options
from ecgbyte_hf.data.preparation import RecordSource, prepare
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

LEADS = ("I", "V2")
SPLITS = {"train": range(1, 161), "validation": range(161, 193), "test": range(193, 241)}
RATE, SAMPLES = 100, 200


def draw_record(rng):
    """Noise of two leads, 2 s at 100 Hz; each label is a wave of its own, and a record without any is normal."""
    time = np.arange(SAMPLES) / RATE
    signal = 0.1 * rng.standard_normal((2, SAMPLES))
    labels = []
    for label, lead, frequency in (("MI", 0, 3), ("STTC", 0, 11), ("CD", 1, 5), ("HYP", 1, 17)):
        if rng.uniform() < 0.45:
            signal[lead] += np.sin(2 * np.pi * (frequency * time + rng.uniform()))
            labels.append(label)
    return signal.astype(np.float32), labels or ["NORM"]


def prepare_labelled(folder, *, splits=SPLITS, change=lambda row: row):
    """240 records asked about the five superclasses one by one; `change` may give a question another form."""
    rng = np.random.default_rng(11)
    drawn = {number: draw_record(rng) for number in range(1, 241)}
    questions = {
        split: [
            changed
            for row in label_questions(
                [{"ecg_id": number, "superclass": drawn[number][1]} for number in numbers], ["superclass"]
            )
            if (changed := change(row)) is not None
        ]
        for split, numbers in splits.items()
    }
    return prepare(
        (
            RecordSource(number, None, f"p{number}", signal, float(RATE), LEADS)
            for number, (signal, _) in drawn.items()
        ),
        questions,
        folder,
        feature_extractor=EcgByteFeatureExtractor(profile="none", sampling_rate=RATE, leads=LEADS),
        template_options=label_template_options(["superclass"]),
        duration=SAMPLES / RATE,
        arguments={},
    )
