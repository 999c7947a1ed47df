"""Names, orders and problems of the leads: the one place where these facts are."""

from collections.abc import Sequence

import numpy as np

from .errors_ecg_byte import LeadError

#: Order of the leads in the ECG-Byte paper and in everything a model sees.
REFERENCE_LEADS = ("I", "II", "III", "aVL", "aVR", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
#: Order in which clinicians read them, for figures.
CLINICAL_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

#: Limb lead -> (a, b) with lead = a * I + b * II, exact by Einthoven's law and Goldberger's definitions.
LIMB_LEADS_FROM_I_AND_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}

#: Problems that `lead_problems` can find, in the order of its answer.
LEAD_PROBLEMS = ("nan", "flat", "amplitude")
#: Peak to peak, mV: the largest of the 12 leads must lie in this range. Outside, the gain or the unit is wrong: a gain
#: 1,000 times too high (PTB's S0001 in the PhysioNet/CinC 2020 collection) gives 0.003 mV, volts or microvolts read
#: as millivolts are as far off.
AMPLITUDE_RANGE = (0.05, 50.0)
#: Peak to peak, mV, up to which a lead is flat: a constant that went through floating-point arithmetic still is one,
#: and no recorder resolves a nanovolt.
FLAT_PEAK_TO_PEAK = 1e-6

_CANONICAL = {name.lower(): name for name in REFERENCE_LEADS}


def canonical_lead_name(name: str) -> str:
    """Return the usual spelling of a lead's name.

    Case, a leading word "lead" and the prefix of ISO/IEEE 11073 codes ("MDC_ECG_LEAD_") do not matter. The name of
    any other channel comes back stripped and otherwise unchanged.

    >>> [canonical_lead_name(name) for name in ("AVR", "lead avr", "MDC_ECG_LEAD_AVR", " v1", "Vx ")]
    ['aVR', 'aVR', 'aVR', 'V1', 'Vx']
    """
    stripped = str(name).strip()
    key = stripped.lower()
    for prefix in ("mdc_ecg_lead_", "lead"):
        if key.startswith(prefix):
            key = key[len(prefix) :].strip(" _-:")
            break
    return _CANONICAL.get(key, stripped)


def order_leads(lead_names: Sequence[str], wanted: Sequence[str] = REFERENCE_LEADS) -> list[int]:
    """Return where each wanted lead is among the names of a record, by name and never by position.

    Args:
        lead_names: the record's names, in the order of its channels. Channels that are not wanted may be there.
        wanted: the leads to find, in the order to return them.

    Returns:
        one index into `lead_names` for each wanted lead.

    Raises:
        LeadError: a wanted lead is missing, or is there more than once.

    >>> order_leads(["i", "ii", "AVR", "AVL"], ["II", "aVL", "aVR"])
    [1, 3, 2]
    """
    places: dict[str, list[int]] = {}
    for index, name in enumerate(lead_names):
        places.setdefault(canonical_lead_name(name).lower(), []).append(index)
    keys = [canonical_lead_name(name).lower() for name in wanted]
    if len(set(keys)) < len(keys):
        raise LeadError(f"The wanted leads name one lead twice: got {list(wanted)}, expected every lead once.")
    got = ", ".join(str(name) for name in lead_names) or "none"
    missing = [str(name) for name, key in zip(wanted, keys, strict=True) if key not in places]
    if missing:
        raise LeadError(
            f"Missing lead {', '.join(missing)}: got the leads {got}, expected {', '.join(map(str, wanted))}. "
            "Give a record that has them, or ask for the leads that it has with `leads=`."
        )
    twice = [str(name) for name, key in zip(wanted, keys, strict=True) if len(places[key]) > 1]
    if twice:
        raise LeadError(
            f"Lead {', '.join(twice)} is there more than once: got the leads {got}, expected each once. "
            "Remove or rename the surplus channel: which of them is meant cannot be known."
        )
    return [places[key][0] for key in keys]


def lead_problems(signal: np.ndarray, lead_names: Sequence[str]) -> dict[str, str]:
    """Find what makes a signal unfit for use, as problem name -> description.

    - "nan": a sample is NaN or infinite.
    - "flat": a lead has one value throughout (a lead with no finite sample counts as "nan" only).
    - "amplitude": the largest peak to peak of the 12 leads lies outside `AMPLITUDE_RANGE`. Channels that are not
      among the 12 leads do not count, and a signal with none of them, or all of them flat, has no such problem.

    Args:
        signal: (leads, samples), mV.
        lead_names: one name for each row of `signal`.
    """
    finite = np.isfinite(signal)
    has_values = finite.any(axis=1)
    if has_values.all() and finite.all():
        peak_to_peak = np.ptp(signal, axis=1)
    else:
        high = np.where(finite, signal, -np.inf).max(axis=1, initial=-np.inf)
        low = np.where(finite, signal, np.inf).min(axis=1, initial=np.inf)
        peak_to_peak = np.subtract(high, low, out=np.zeros_like(high), where=has_values)
    found = {}

    not_finite = np.count_nonzero(~finite, axis=1)
    if not_finite.any():
        counts = [f"{n} in {name}" for name, n in zip(lead_names, not_finite, strict=True) if n]
        found["nan"] = f"NaN or infinite samples ({', '.join(counts)})"

    flat = has_values & (peak_to_peak <= FLAT_PEAK_TO_PEAK)
    if flat.any():
        names = [str(name) for name, is_flat in zip(lead_names, flat, strict=True) if is_flat]
        found["flat"] = f"flat leads ({', '.join(names)})"

    standard = np.array([canonical_lead_name(name) in CLINICAL_LEADS for name in lead_names], dtype=bool)
    heights = peak_to_peak[standard & has_values & ~flat]
    if heights.size and not AMPLITUDE_RANGE[0] <= heights.max() <= AMPLITUDE_RANGE[1]:
        found["amplitude"] = (
            f"largest peak to peak {heights.max():.4g} mV, not in {AMPLITUDE_RANGE[0]:g} to {AMPLITUDE_RANGE[1]:g} mV"
        )
    return found
