"""Every file of `ood/`, recordings of other makers that a user may bring: what `read_ecg` gives, or why it refuses.

Values are compared here for WFDB with a second reading of header and bytes; for the other formats in
`tests/unit/test_read_<format>.py`, with the vendor's library or a second reading of the bytes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

from ecgbyte_hf.models.errors_ecg_byte import EcgError, EcgFileError, LeadError, SamplingRateError, UnitError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.models.leads_ecg_byte import CLINICAL_LEADS
from ecgbyte_hf.signal.records import read_ecg


@dataclass(frozen=True)
class Gives:
    """A record of this shape, rate and problems; `given` is what the caller must say, without which it is refused."""

    shape: tuple[int, int]
    rate: float
    problems: tuple[str, ...] = ()
    format: str = "wfdb"
    given: dict[str, Any] = field(default_factory=dict)
    derived: tuple[str, ...] = ()
    #: What cleaning refuses it for, where it is not a problem of the record.
    too_few_leads: bool = False


@dataclass(frozen=True)
class Refuses:
    """A refusal of this class; with these leads alone the file can be read."""

    error: type[EcgError]
    message: str
    leads: tuple[str, ...] = ()


def few(leads: int, samples: int = 5000, rate: float = 500.0) -> Gives:
    return Gives((leads, samples), rate, too_few_leads=True)


TEN_SECONDS = Gives((12, 5000), 500.0)
FLAT = Gives((12, 5000), 500.0, ("flat",))
TELL = {"sampling_rate": 500, "lead_names": CLINICAL_LEADS}
TABLE: dict[str, Gives | Refuses] = {
    "aecg/FDA_Example_aECG.xml": Gives((12, 5000), 500.0, format="aecg"),
    "aecg/LIRYC_hl7aecg_100hz.xml": Gives((12, 1000), 100.0, format="aecg"),
    "chapman_ningbo/JS11438": FLAT,
    "chapman_ningbo/JS20000": TEN_SECONDS,
    "chapman_ningbo/JS20001": TEN_SECONDS,
    "chapman_ningbo/JS20004": FLAT,
    "chapman_ningbo/JS20008": FLAT,
    "cpsc2018_cinc2020/A0001": Gives((12, 7500), 500.0),
    "cpsc2018_cinc2020/A0002": TEN_SECONDS,
    "cpsc2018_cinc2020/A0005": Gives((12, 12500), 500.0),
    "cpsc2018_extra_cinc2020/Q0001": TEN_SECONDS,
    "cpsc2018_extra_cinc2020/Q0006": Gives((12, 11500), 500.0),
    "cpsc2018_original_mat/A1980.mat": Gives((12, 5000), 500.0, format="mat", given={**TELL, "units": "mV"}),
    "dicom/waveform_ecg.dcm": Gives((12, 10000), 1000.0, format="dicom"),
    "few_leads/100_3chan": few(3, 999, 360.0),
    "few_leads/a103l": Refuses(UnitError, "channel 'PLETH' is in 'NU'", leads=("II", "V")),
    "ge_muse/musePHI_muse_ecg1.xml": Gives((12, 5000), 500.0, format="muse", derived=("III", "aVR", "aVL", "aVF")),
    "georgia/E07500": TEN_SECONDS,
    "georgia/E07501": TEN_SECONDS,
    "incart_257hz_header_only/I0001": Refuses(EcgFileError, "the signal file that I0001.hea names is missing"),
    "ludb/1": TEN_SECONDS,
    "ludb/2": TEN_SECONDS,
    "mat_plain/example_ecg.mat": Gives((12, 5000), 500.0, format="mat", given={**TELL, "units": "mV"}),
    "philips_sierra/129DYPRG.XML": Gives((12, 5500), 500.0, format="sierra"),
    "ptb_1000hz/S0001": Gives((12, 38400), 1000.0, ("amplitude",)),
    "ptb_1000hz/s0010_re": Gives((15, 38400), 1000.0),
    "ptb_1000hz/s0010_re.xyz": Refuses(EcgFileError, "the file is of no known format"),
    "ptbxl_cinc2021_mat/HR00001": TEN_SECONDS,
    "ptbxl_cinc2021_mat/HR06000": TEN_SECONDS,
    "ptbxl_cinc2021_mat/HR06001": TEN_SECONDS,
    "ptbxl_cinc2021_mat/HR06009": TEN_SECONDS,
    "reduced_leads/four_leads/HR06000": few(4),
    "reduced_leads/four_leads/JS20000": few(4),
    "reduced_leads/six_leads/HR06000": few(6),
    "reduced_leads/six_leads/JS20000": few(6),
    "reduced_leads/three_leads/HR06000": few(3),
    "reduced_leads/three_leads/JS20000": few(3),
    "reduced_leads/two_leads/HR06000": few(2),
    "reduced_leads/two_leads/JS20000": few(2),
    "scp/ECGToolkit_Example.scp": Gives((12, 5000), 500.0, format="scp"),
    "text/testing_ecg.txt": Gives((12, 5000), 500.0, format="text", given={**TELL, "units": "uV"}),
}
#: With these a record's name stands for its header and signal file alike.
WFDB_SUFFIXES = (".hea", ".dat", ".mat")


def key_of(path: Path, folder: Path) -> str:
    """Return the row of the table for a file: its own path, or the WFDB record's that it belongs to."""
    name = path.relative_to(folder).as_posix()
    is_part_of_record = path.suffix in WFDB_SUFFIXES and path.with_suffix(".hea").is_file()
    return name.removesuffix(path.suffix) if is_part_of_record else name


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_table_names_every_file_and_no_other(test_data):
    folder = test_data / "ood"
    assert {key_of(path, folder) for path in files(folder)} == set(TABLE)


@pytest.mark.parametrize("key", TABLE)
def test_each_file(test_data, key):
    """Each file of a record, such as its header and its signal, gives the same."""
    folder = test_data / "ood"
    for path in (path for path in files(folder) if key_of(path, folder) == key):
        expected = TABLE[key]
        if isinstance(expected, Refuses):
            with pytest.raises(expected.error, match=expected.message) as caught:
                read_ecg(path)
            assert type(caught.value) is expected.error
            if expected.leads:
                assert read_ecg(path, leads=expected.leads).lead_names == expected.leads
        else:
            check_record(path, expected)


def check_record(path: Path, expected: Gives) -> None:
    """Compare a record with its row of the table, and see that cleaning takes it or says why not."""
    if expected.given:
        with pytest.raises(SamplingRateError, match="no sampling rate and no lead names and no units"):
            read_ecg(path)
    record = read_ecg(path, **expected.given)
    source = record.source
    assert (record.signal.shape, record.sampling_rate, record.problems) == (
        expected.shape,
        expected.rate,
        expected.problems,
    )
    assert (source["format"], tuple(source.get("derived_leads", ()))) == (expected.format, expected.derived)
    assert len(source["units"]) == len(source["gains"]) == len(record.lead_names) == len(record.signal)
    extractor = EcgByteFeatureExtractor("none", on_problem=expected.problems)
    if expected.too_few_leads:
        with pytest.raises(LeadError, match="Missing lead"):
            extractor.clean(record)
        extractor = EcgByteFeatureExtractor("none", missing_leads="zero")
        assert extractor.clean(record, return_lead_mask=True)[1].sum() == expected.shape[0]
    else:
        assert extractor.clean(record).shape == (12, round(record.signal.shape[1] * 250 / record.sampling_rate))
    if expected.format == "wfdb":
        np.testing.assert_allclose(record.signal, plain_wfdb(path.with_suffix("")), rtol=1e-12, atol=1e-12)


def plain_wfdb(path: Path) -> np.ndarray:
    """Decode a record of format 16 by header(5) and signal(5) with `numpy` alone, others with `wfdb`; mV."""
    lines = [line for line in path.with_suffix(".hea").read_text().splitlines() if line and line[0] != "#"]
    num_samples = int(lines[0].split()[3])
    described = [line.split() for line in lines[1:]]
    if any(not words[1].startswith("16") for words in described):
        return wfdb.rdrecord(str(path)).p_signal.T
    rows = []
    for name in dict.fromkeys(words[0] for words in described):
        channels = [words for words in described if words[0] == name]
        offset = int((channels[0][1].split("+") + ["0"])[1])
        content = np.fromfile(path.with_name(name), dtype="<i2", offset=offset)
        for place, channel in enumerate(channels):
            gain, _, rest = channel[2].partition("/")[0].partition("(")
            # Without a baseline in brackets it is the ADC zero.
            baseline = int(rest.strip(")")) if rest else int(channel[4])
            stored = content[: num_samples * len(channels)].reshape(num_samples, len(channels))[:, place]
            rows.append((stored.astype(float) - baseline) / float(gain))
    return np.array(rows)
