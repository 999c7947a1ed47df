"""Names, order and problems of the leads; the family of errors."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgbyte_hf.models import errors_ecg_byte
from ecgbyte_hf.models.errors_ecg_byte import EcgError, LeadError, SignalError
from ecgbyte_hf.models.leads_ecg_byte import (
    CLINICAL_LEADS,
    REFERENCE_LEADS,
    canonical_lead_name,
    lead_problems,
    order_leads,
)


def test_orders():
    assert REFERENCE_LEADS == ("I", "II", "III", "aVL", "aVR", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert CLINICAL_LEADS == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.mark.parametrize("lead", REFERENCE_LEADS)
@pytest.mark.parametrize("spelling", ["{}", " {} ", "lead {}", "Lead_{}", "MDC_ECG_LEAD_{}", "LEAD{}"])
@pytest.mark.parametrize("case", [str, str.lower, str.upper])
def test_every_spelling_of_a_lead_is_known(lead, spelling, case):
    assert canonical_lead_name(spelling.format(case(lead))) == lead


@pytest.mark.parametrize("name", ["vx", "PLETH", "MLII", "V7", "MDC_ECG_LEAD_V7", "lead", "", "IV"])
def test_other_names_come_back_unchanged(name):
    assert canonical_lead_name(f" {name} ") == name


@given(st.text(max_size=30))
def test_canonical_names_are_final(name):
    assert canonical_lead_name(canonical_lead_name(name)) == canonical_lead_name(name)


@given(st.permutations(CLINICAL_LEADS), st.lists(st.sampled_from(["vx", "PLETH", "V7"]), unique=True))
def test_leads_are_found_wherever_they_are(names, others):
    names = [*others, *[name.upper() for name in names]]
    indexes = order_leads(names, REFERENCE_LEADS)
    assert [names[index] for index in indexes] == [name.upper() for name in REFERENCE_LEADS]


def test_ptb_xl_and_mimic_orders():
    ptb_xl = "I II III AVR AVL AVF V1 V2 V3 V4 V5 V6".split()
    mimic = "I II III aVR aVF aVL V1 V2 V3 V4 V5 V6".split()
    assert order_leads(ptb_xl) == [0, 1, 2, 4, 3, 5, 6, 7, 8, 9, 10, 11]
    assert order_leads(mimic) == [0, 1, 2, 5, 3, 4, 6, 7, 8, 9, 10, 11]


def test_missing_leads_are_named():
    with pytest.raises(LeadError, match=r"Missing lead aVL, V6: got the leads I, II, PLETH, expected I, aVL, V6"):
        order_leads(["I", "II", "PLETH"], ["I", "aVL", "V6"])
    with pytest.raises(LeadError, match="got the leads none"):
        order_leads([], ["I"])


def test_a_lead_that_is_there_twice_is_refused_only_if_wanted():
    with pytest.raises(LeadError, match=r"Lead aVR is there more than once: got the leads aVR, I, lead AVR"):
        order_leads(["aVR", "I", "lead AVR"], ["aVR"])
    assert order_leads(["aVR", "I", "lead AVR"], ["I"]) == [1]
    with pytest.raises(LeadError, match="name one lead twice"):
        order_leads(["I", "II"], ["I", "i"])


def _waves(num_leads: int = 12) -> np.ndarray:
    return np.sin(np.arange(num_leads)[:, None] + np.arange(400) / 20)


def test_a_good_signal_has_no_problem():
    assert lead_problems(_waves(), CLINICAL_LEADS) == {}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_by_lead(value):
    signal = _waves()
    signal[1, 5:8] = value
    signal[11] = value
    assert lead_problems(signal, CLINICAL_LEADS) == {"nan": "NaN or infinite samples (3 in II, 400 in V6)"}


@pytest.mark.parametrize("level", [0.0, 0.1, -7.3])
def test_flat_leads_are_named(level):
    signal = _waves()
    signal[2] = level
    signal[3] = level + 1e-9 * np.sin(np.arange(400))
    signal[4, 10:] = np.nan
    signal[4, :10] = level
    found = lead_problems(signal, CLINICAL_LEADS)
    assert found["flat"] == "flat leads (III, aVR, aVL)"
    assert set(found) == {"nan", "flat"}


@pytest.mark.parametrize(("largest", "is_problem"), [(0.049, True), (0.051, False), (49.9, False), (50.1, True)])
def test_amplitude_is_that_of_the_largest_of_the_12_leads(largest, is_problem):
    signal = _waves(14) * 1e-3
    signal[3] = np.linspace(0, largest, 400)
    signal[12:] *= 1e6
    names = (*CLINICAL_LEADS, "vx", "resp")
    assert set(lead_problems(signal, names)) == ({"amplitude"} if is_problem else set())


def test_other_channels_and_flat_signals_have_no_amplitude_problem():
    assert lead_problems(_waves(2) * 1e6, ("vx", "resp")) == {}
    assert set(lead_problems(np.zeros((12, 400)), CLINICAL_LEADS)) == {"flat"}


def _error_classes() -> list[type[EcgError]]:
    classes = [value for value in vars(errors_ecg_byte).values() if isinstance(value, type)]
    return [value for value in classes if issubclass(value, EcgError)]


@pytest.mark.parametrize("error_class", _error_classes())
def test_errors_are_value_errors_and_survive_a_process_border(error_class):
    error = pickle.loads(pickle.dumps(error_class("got, expected, what to do")))
    assert type(error) is error_class
    assert isinstance(error, ValueError)
    assert str(error) == "got, expected, what to do"


def test_problems_survive_a_process_border():
    error = pickle.loads(pickle.dumps(SignalError("message", problems=("nan", "flat"))))
    assert (str(error), error.problems) == ("message", ("nan", "flat"))
