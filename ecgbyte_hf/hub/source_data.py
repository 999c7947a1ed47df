"""Licences of the data sets that models, tokenizers and rows are made of, as their owners state them.

Facts and addresses, no legal advice: what follows from a licence for weights or rows is for the reader to judge.
"""

from __future__ import annotations

from dataclasses import dataclass

from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


@dataclass(frozen=True)
class SourceData:
    """A data set that something was made of.

    Attributes:
        name: Its name and version.
        url: Where it is described; `None` where nobody else owns it.
        license_id: The Hub's name of its licence; `None` where its owners state none.
        license_name: The licence in words.
        license_url: Its text.
        citation: What its owners ask to be cited.
        sharing: What its licence says about passing on what was made of it.
    """

    name: str
    url: str | None
    license_id: str | None
    license_name: str
    license_url: str | None
    citation: str
    sharing: str


PTB_XL = SourceData(
    name="PTB-XL 1.0.3",
    url="https://physionet.org/content/ptb-xl/1.0.3/",
    license_id="cc-by-4.0",
    license_name="Creative Commons Attribution 4.0",
    license_url="https://creativecommons.org/licenses/by/4.0/",
    citation=(
        "Wagner, P., Strodthoff, N., Bousseljot, R., Samek, W., Schaeffter, T.: PTB-XL, a large publicly available "
        "electrocardiography dataset. PhysioNet, https://doi.org/10.13026/kfzx-aw45"
    ),
    sharing="What is made of it may be shared with the authors named, a link to the licence, and changes indicated.",
)
MIMIC_IV_ECG = SourceData(
    name="MIMIC-IV-ECG 1.0",
    url="https://physionet.org/content/mimic-iv-ecg/1.0/",
    license_id="odbl",
    license_name="Open Data Commons Open Database License 1.0",
    license_url="https://opendatacommons.org/licenses/odbl/1-0/",
    citation=(
        "Gow, B., Pollard, T., Nathanson, L. A., and others: MIMIC-IV-ECG: Diagnostic Electrocardiogram Matched "
        "Subset. PhysioNet, https://doi.org/10.13026/4nqg-sb35"
    ),
    sharing=(
        "A database derived from it, such as its records or rows about them, is shared under the same licence and "
        "with its notices; a work produced from it names the database and its licence. Whether weights are the one "
        "or the other is not settled here: read the licence. Its recordings and machine measurements are open; the "
        "notes and the tables of MIMIC-IV that it can be linked to are for credentialed users and may not be shared."
    ),
)
ECG_QA = SourceData(
    name="ECG-QA",
    url="https://github.com/Jwoo5/ecg-qa",
    license_id="cc-by-4.0",
    license_name="Creative Commons Attribution 4.0",
    license_url="https://creativecommons.org/licenses/by/4.0/",
    citation=(
        "Oh, J., Lee, G., Bae, S., Kwon, J., Choi, E.: ECG-QA: A Comprehensive Question Answering Dataset Combined "
        "With Electrocardiogram. https://arxiv.org/abs/2306.15681"
    ),
    sharing="What is made of it may be shared with the authors named, a link to the licence, and changes indicated.",
)
ECG_CHAT = SourceData(
    name="ECG-Chat",
    url="https://github.com/YubaoZhao/ECG-Chat",
    license_id=None,
    license_name="no licence of its conversations is known here",
    license_url=None,
    citation="Zhao, Y., and others: ECG-Chat. https://github.com/YubaoZhao/ECG-Chat",
    sharing="Ask its authors before you share its conversations or rows that hold them.",
)
SIMULATED = SourceData(
    name="simulated ECGs",
    url=None,
    license_id=None,
    license_name="made by ecgbyte_hf's own simulator; no person's data",
    license_url=None,
    citation="",
    sharing="No licence of others applies.",
)


def source_data(source: str | None) -> tuple[SourceData, ...]:
    """The data sets behind the `source` that a prepared folder's report names; none for what is not known.

    Example:
        >>> [one.name for one in source_data("ecg_qa ptbxl-template ptbxl-paraphrased")]
        ['PTB-XL 1.0.3', 'ECG-QA']
    """
    kind, _, rest = (source or "").partition(" ")
    if kind == "ecg_qa":
        recordings = [data for word, data in (("ptbxl", PTB_XL), ("mimic-iv-ecg", MIMIC_IV_ECG)) if word in rest]
        return (*recordings, ECG_QA)
    known = {
        "ptb_xl": (PTB_XL,),
        "mimic_iv_ecg": (MIMIC_IV_ECG,),
        "ecg_chat": (MIMIC_IV_ECG, ECG_CHAT),
        "synthetic": (SIMULATED,),
    }
    return known.get(kind, ())


def data_set_license(sources: tuple[SourceData, ...], given: str | None) -> str | None:
    """The Hub's name of the licence of rows that are made of these data sets.

    Args:
        sources: What they are made of.
        given: What the user wants.

    Raises:
        EcgDataError: rows of a database whose licence has to stay are to have another one.
    """
    stated = [one.license_id for one in sources]
    if "odbl" in stated:
        if given not in (None, "odbl"):
            raise EcgDataError(
                f"got the licence {given!r} for rows of MIMIC-IV-ECG, expected odbl: a database derived from it is "
                "shared under its own licence"
            )
        return None if None in stated and given is None else "odbl"
    if given is not None or not stated or None in stated:
        return given
    return stated[0]
