"""What of a data set's expected tree is there: looked at before hours of work, without reading a signal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgbyte_hf.data.ecg_chat import EcgChatConfig
from ecgbyte_hf.data.ecg_qa import SOURCES, SPLITS, VERSIONS
from ecgbyte_hf.data.mimic_iv_ecg import read_record_paths
from ecgbyte_hf.data.ptb_xl import main_table, read_records
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError


@dataclass(frozen=True)
class Finding:
    """One part of a data set's tree.

    Attributes:
        part: Its file or folder, relative to the data set's.
        found: How many are there: of records, those with all their files.
        expected: How many there should be; None where nothing says it.
        needed: Whether nothing can be read without it.
        problem: What is wrong with it, and what to do; empty if nothing is.
    """

    part: str
    found: int
    expected: int | None
    needed: bool
    problem: str = ""

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return not self.problem and (self.found >= self.expected if self.expected is not None else self.found > 0)

    def __str__(self) -> str:
        absent = "MISSING" if self.needed else "absent"
        state = "ok" if self.complete else "incomplete" if self.found else absent
        count = f"{self.found}" if self.expected is None else f"{self.found} of {self.expected}"
        return f"{state:<10} {self.part}: {count}" + (f" ({self.problem})" if self.problem else "")


def check_data_set(name: str, data_dir: str | Path, **options: Any) -> list[Finding]:
    """Say what of a data set is there.

    Args:
        name: `"ptb_xl"`, `"mimic_iv_ecg"`, `"ecg_qa"` or `"ecg_chat"`.
        data_dir: Its folder.
        options: What changes what is read: `metadata` and `sampling_rate` (PTB-XL), `record_list` (MIMIC-IV-ECG),
            `configs` (ECG-QA; all by default), `file` (ECG-Chat).

    Raises:
        EcgDataError: an unknown data set, or a folder that is not there. What is in the folder makes no error.

    Example:
        >>> print(*check_lines(check_data_set("ecg_chat", "."))[0])
        MISSING    pretrain_mimic.json: 0 of 1
    """
    checks: dict[str, Callable[..., list[Finding]]] = {
        "ecg_chat": _check_ecg_chat,
        "ecg_qa": _check_ecg_qa,
        "mimic_iv_ecg": _check_mimic_iv_ecg,
        "ptb_xl": _check_ptb_xl,
    }
    if name not in checks:
        raise EcgDataError(f"unknown data set {name!r}; these have files to check: {', '.join(checks)}")
    root = Path(data_dir)
    if not root.is_dir():
        raise EcgDataError(f"{root} is no folder; name the one with the downloaded files")
    return checks[name](root, **options)


def check_lines(findings: Iterable[Finding]) -> tuple[list[str], bool]:
    """The findings as lines for people, and whether everything that is needed is there."""
    findings = list(findings)
    return [str(finding) for finding in findings], all(one.complete for one in findings if one.needed)


def _check_ptb_xl(root: Path, metadata: Sequence[str] = (), sampling_rate: int | None = None) -> list[Finding]:
    try:
        table = main_table(root)
        records = read_records([table, *(root / path for path in metadata)])
    except EcgError as error:
        return [Finding("ptbxl_database.csv", 0, None, True, str(error))]
    findings = [Finding(table.name, len(records), None, True)]
    folders = (("records500", "filename_hr"), ("records100", "filename_lr"))
    some = any((root / folder).is_dir() for folder, _ in folders)  # One of the two rates is enough.
    if table.name == "ptbxl_database.csv":
        findings.append(Finding("scp_statements.csv", 1, 1, True))  # Without it the records could not be read.
        reports = sum(record["report"] is not None for record in records)
        findings.append(Finding("reports", reports, len(records), False))
    for folder, column in folders:
        if sampling_rate is None:
            needed = not some or (root / folder).is_dir()
        else:
            needed = folder == f"records{sampling_rate}"
        findings.append(_count_records(root, folder, [record[column] for record in records], needed))
    return findings


def _check_mimic_iv_ecg(root: Path, record_list: str = "record_list.csv") -> list[Finding]:
    measurements = int((root / "machine_measurements.csv").is_file())
    try:
        paths = read_record_paths(root / record_list)
    except EcgError as error:
        return [
            Finding(record_list, 0, None, True, str(error)),
            Finding("machine_measurements.csv", measurements, 1, True),
        ]
    return [
        Finding(record_list, len(paths), None, True),
        Finding("machine_measurements.csv", measurements, 1, True),
        _count_records(root, "files", [path for path, _ in paths.values()]),
    ]


def _check_ecg_qa(root: Path, configs: Sequence[str] | None = None) -> list[Finding]:
    findings = []
    wanted = [f"{source}-{version}" for source in SOURCES for version in VERSIONS] if configs is None else configs
    for source in SOURCES:
        if not any(name.startswith(f"{source}-") for name in wanted):
            continue
        lists = [f"{split}_ecgs.tsv" for split in SPLITS]
        for file, needed in (("answers_for_each_template.csv", True), *((name, False) for name in lists)):
            findings.append(Finding(f"{source}/{file}", int((root / source / file).is_file()), 1, needed))
        for version in VERSIONS:
            if f"{source}-{version}" not in wanted:
                continue
            for split in SPLITS:
                files = sum(1 for _ in (root / source / version / split).glob("*.json"))
                findings.append(Finding(f"{source}/{version}/{split}/*.json", files, None, True))
    return findings


def _check_ecg_chat(root: Path, file: str = EcgChatConfig.file) -> list[Finding]:
    return [Finding(file, int((root / file).is_file()), 1, True)]


def _count_records(root: Path, part: str, paths: Sequence[str], needed: bool = True) -> Finding:
    """How many records have both of their files."""
    found = sum(all(os.path.isfile(f"{root}/{path}{ending}") for ending in (".hea", ".dat")) for path in paths)
    return Finding(part, found, len(paths), needed, "" if found == len(paths) else "files of the table")
