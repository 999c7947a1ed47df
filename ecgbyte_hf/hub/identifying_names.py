"""Whether a column, a key or an element is named as something that tells who a patient is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

# Direct identifiers, as data sets of recordings and the HIPAA rule of 18 name them; without case and underscores.
_IDENTIFYING = frozenset(
    "patientid patient patientname patientnumber patients subjectid subject subjectname subjects name firstname "
    "lastname surname givenname familyname fullname birthdate dateofbirth birthday dob patientbirthdate mrn "
    "medicalrecordnumber hadmid stayid ssn socialsecuritynumber nationalid insurancenumber phone phonenumber "
    "telephone email emailaddress address streetaddress postcode zipcode".split()
)
# The same as words of longer names; `patients_name` is two of them.
_IDENTIFYING_WORDS = frozenset(
    "mrn birth birthday dob ssn zip postal postcode fax ip phone telephone email address account surname hadm pid nom "
    "physician doctor serial pat passport insurance".split()
)
_OF_A_NAME = frozenset("first last middle given family full maiden mother father".split())
# What may be said of a patient: `patient_age`, `num_patients`.
_HARMLESS_OF_PATIENTS = frozenset("age sex gender height weight num count".split())
_WHEN = frozenset("date time datetime timestamp".split())
_WHEN_IT_WAS = frozenset("recording acquisition admission discharge death".split())
# In JSON of ours `name` is that of a metric or a class; in a table of records it is the patient's, or a file's.
_NOT_IN_JSON = frozenset({"name", "subject", "patient", "address", "email"})


def identifies(name: str) -> bool:
    """Whether a column or a key is named as something that tells who a patient is.

    Example:
        >>> [name for name in ("ecg_id", "PatientsName", "patient_age", "subject_id_hash") if identifies(name)]
        ['PatientsName', 'subject_id_hash']
    """
    words = set(words_of(name))
    if _plain(name) in _IDENTIFYING or words & _IDENTIFYING_WORDS:
        return True
    if any(word.startswith("patient") or re.match(r"subject(?!iv)|persons?$", word) for word in words):
        return not words & _HARMLESS_OF_PATIENTS
    is_name = bool(words & {"name", "names"} and words & _OF_A_NAME)
    return is_name or bool(words & _WHEN and words & _WHEN_IT_WAS) or words >= {"medical", "record"}


def words_of(name: str) -> list[str]:
    """A name's words, which `_`, `-`, `.`, spaces, digits or capitals divide; at least one."""
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return [word.lower() for word in found] or [name]


@lru_cache(maxsize=4096)
def identifies_in_json(key: str) -> bool:
    """The same of a key in JSON, or of an element in XML."""
    return _plain(key) not in _NOT_IN_JSON and identifies(key)


def is_identifying_entry(key: str, entry: Any) -> bool:
    """Whether an entry of an object tells who a patient is, by its key, and is not empty or a mere count.

    Example:
        >>> [is_identifying_entry(*one) for one in (("patient_id", 7), ("patients", 7), ("patients", {"17": 1}))]
        [True, False, True]
    """
    if not identifies_in_json(key):
        return False
    # A number under `patients` counts them, under `patient_id` it is one; so are the keys of an object.
    is_number = isinstance(entry, (int, float)) and not isinstance(entry, bool)
    is_one = is_number and not words_of(key)[-1].endswith("s")
    is_by_patient = isinstance(entry, dict) and any(name.isdigit() for name in entry)
    return bool(entry) and (is_one or is_by_patient or isinstance(entry, (list, str)))


def is_date(name: str) -> bool:
    """Whether a name says that there are dates or times.

    Example:
        >>> is_date("ecg_time"), is_date("times_seen")
        (True, False)
    """
    return bool(set(words_of(name)) & _WHEN)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
