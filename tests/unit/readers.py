"""What the tests of the readers share."""

import dataclasses

import numpy as np
import pytest

from ecgbyte_hf.signal.records import EcgRecord, read_ecg

GIVEN = {"sampling_rate": 500, "units": "mV"}
#: Identity that no record may hold.
SECRETS = ("Doe", "Jane", "JD4711", "19510203", "1951")


def refuse(path, error, message, **given):
    """Expect one refusal, of this very class, that names the file."""
    with pytest.raises(error, match=message) as caught:
        read_ecg(path, **given)
    assert type(caught.value) is error
    assert str(path.name) in str(caught.value)
    return caught.value


def everything(record: EcgRecord) -> str:
    """All that a record says, but the samples."""
    return repr({**dataclasses.asdict(record), "signal": None}) + repr(record)


def assert_anonymous(record: EcgRecord, secrets=SECRETS) -> None:
    said = everything(record)
    assert not [secret for secret in secrets if secret in said]


def some_ecg(num_leads: int = 2, num_samples: int = 20, seed: int = 0) -> np.ndarray:
    """Integers as a recorder stores them, (leads, samples)."""
    walk = np.random.default_rng(seed).integers(-90, 90, size=(num_leads, num_samples))
    return np.cumsum(walk, axis=1).astype(np.int16)
