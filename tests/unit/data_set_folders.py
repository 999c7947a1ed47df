"""Small folders in the layouts of PTB-XL and MIMIC-IV-ECG, with records of random integers."""

import csv

import numpy as np

LEADS = "I II III AVR AVL AVF V1 V2 V3 V4 V5 V6".split()
REPORT_COLUMNS = [f"report_{number}" for number in range(18)]
INTERVALS = "rr_interval p_onset p_end qrs_onset qrs_end t_end p_axis qrs_axis t_axis".split()

STATEMENTS = [
    {"": "NORM", "diagnostic": "1.0", "diagnostic_class": "NORM", "diagnostic_subclass": "NORM"},
    {"": "IMI", "diagnostic": "1.0", "diagnostic_class": "MI", "diagnostic_subclass": "IMI"},
    {"": "ASMI", "diagnostic": "1.0", "diagnostic_class": "MI", "diagnostic_subclass": "AMI"},
    {"": "NST_", "diagnostic": "1.0", "form": "1.0", "diagnostic_class": "STTC", "diagnostic_subclass": "NST_"},
    {"": "ABQRS", "form": "1.0"},
    {"": "SR", "rhythm": "1.0"},
]


def write_table(path, rows, columns=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_record(path, samples, rate, *, gain="1000.0(0)/mV", leads=LEADS, storage="16"):
    """A WFDB record of integers (leads, samples), with the sums that its header states."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{path.name} {len(samples)} {rate} {samples.shape[1]}"]
    for lead, channel in zip(leads, samples.astype(np.int64), strict=True):
        total = int(channel.sum()) % 65536
        lines.append(f"{path.name}.dat {storage} {gain} 16 0 {channel[0]} {total} 0 {lead}")
    path.with_name(path.name + ".hea").write_text("\n".join(lines) + "\n")
    samples.T.astype("<i2" if storage == "16" else "<i4").tofile(path.with_name(path.name + ".dat"))


def ptb_xl_row(ecg_id, **changes):
    return {
        "ecg_id": ecg_id,
        "patient_id": f"{ecg_id % 7 + 100}.0",
        "age": "56.0",
        "sex": "1",
        "device": "CS-12   E",
        "report": f"sinusrhythmus {ecg_id}",
        "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
        "validated_by_human": "True",
        "strat_fold": ecg_id % 10 + 1,
        "filename_lr": f"records100/00000/{ecg_id:05d}_lr",
        "filename_hr": f"records500/00000/{ecg_id:05d}_hr",
    } | changes


def make_ptb_xl(folder, num_records=20, *, rate=100, seconds=10, rows=None):
    """A folder of PTB-XL with records at one rate; its signals by ECG."""
    rows = [ptb_xl_row(ecg_id) for ecg_id in range(1, num_records + 1)] if rows is None else rows
    write_table(folder / "ptbxl_database.csv", rows)
    write_table(folder / "scp_statements.csv", STATEMENTS, ["", *sorted({k for s in STATEMENTS for k in s} - {""})])
    draw, signals = np.random.default_rng(0), {}
    for row in rows:
        signals[row["ecg_id"]] = draw.integers(-3000, 3000, (12, rate * seconds), dtype=np.int16)
        path = row["filename_lr" if rate == 100 else "filename_hr"]
        write_record(folder / path, signals[row["ecg_id"]], rate)
    return signals


def mimic_rows(study, subject, **changes):
    """The lines of a study in the record list and in the measurements."""
    path = f"files/p{subject // 10000}/p{subject}/s{study}/{study}"
    listed = {"subject_id": subject, "study_id": study, "file_name": study, "ecg_time": "2127-03-15", "path": path}
    measured = {"subject_id": subject, "study_id": study, "cart_id": 7, "ecg_time": "2127-03-15"}
    measured |= dict.fromkeys(REPORT_COLUMNS, "") | {"report_0": "Sinus rhythm.", "report_2": "Normal ECG, all of it"}
    measured |= {"bandwidth": "0.005-150 Hz", "filtering": ""} | dict.fromkeys(INTERVALS, 400) | {"p_onset": 29999}
    return listed, measured | changes


def make_mimic(folder, num_records=20, *, signals=False, studies=None):
    """A folder of MIMIC-IV-ECG, its measurements in the opposite order."""
    pairs = studies or [mimic_rows(40_000_000 + n, 10_000_000 + n // 2) for n in range(num_records)]
    write_table(folder / "record_list.csv", [listed for listed, _ in pairs])
    write_table(folder / "machine_measurements.csv", [measured for _, measured in reversed(pairs)])
    draw = np.random.default_rng(1)
    for listed, _ in pairs if signals else ():
        write_record(folder / listed["path"], draw.integers(-900, 900, (12, 5000), dtype=np.int16), 500, gain="200")
