"""Training from a prepared folder: what is learnt from, what is measured, and what is held in memory."""

import json
import shutil
import signal as signals_of_unix
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import rust_bpe
from ecgbyte_hf import cli
from ecgbyte_hf.data.calibration import percentile_calibration
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer, EcgCalibration
from ecgbyte_hf.training.train_tokenizer import tokenizer_report, train_tokenizer


@pytest.fixture
def opened(small_prepared):
    return PreparedData(small_prepared.folder)


def merges(folder):
    return EcgByteTokenizer.from_pretrained(folder).bpe.merges.tolist()


class TestTraining:
    def test_learns_from_the_training_records_alone(self, opened, tmp_path):
        report = train_tokenizer(opened, tmp_path, num_merges=60)
        assert opened.records.groups_read == 3 + 3 + 2  # calibration, training, and 2 of 3 hold the 4 others
        train_ids = opened.train_ecg_ids()
        calibration = percentile_calibration((ecg_id, opened.signal(ecg_id)) for ecg_id in train_ids)
        symbols = [
            rust_bpe.quantize(opened.signal(n), calibration.low, calibration.high).reshape(-1) for n in train_ids
        ]
        assert merges(tmp_path) == rust_bpe.train(symbols, 60, max_token_length=1024).tolist()
        assert (report["records_trained_on"], report["records"], report["held_out"]) == (36, 4, True)
        assert report["calibration"] == {"method": "percentile", "low": calibration.low, "high": calibration.high}
        tokenizer = EcgByteTokenizer.from_pretrained(tmp_path)
        assert report["longest_token"] == tokenizer.bpe.token_lengths.max() and report["merges"] == 60
        assert set(report["seconds"]) == {"calibrate", "train", "measure"}
        assert report == json.loads((tmp_path / "training.json").read_text())

    def test_other_percentiles(self, opened, tmp_path):
        bounds = {}
        for name, given in (("usual", {}), ("wide", {"percentiles": (0.1, 99.9)})):
            report = train_tokenizer(opened, tmp_path / name, num_merges=20, **given)
            bounds[name] = report["calibration"]
            assert report["provenance"]["arguments"]["percentiles"] == list(given.get("percentiles", (1.0, 99.0)))
        assert bounds["wide"]["low"] < bounds["usual"]["low"] < bounds["usual"]["high"] < bounds["wide"]["high"]
        calibration = EcgByteTokenizer.from_pretrained(tmp_path / "wide").calibration
        assert (calibration.low, calibration.high) == (bounds["wide"]["low"], bounds["wide"]["high"])

    def test_max_records_and_seed(self, opened, tmp_path):
        reports = [
            train_tokenizer(opened, tmp_path / str(number), num_merges=60, max_records=10, seed=seed)
            for number, seed in enumerate((0, 0, 1))
        ]
        assert {report["records_trained_on"] for report in reports} == {10}
        assert merges(tmp_path / "0") == merges(tmp_path / "1") != merges(tmp_path / "2")
        # A record that was not drawn is not held out: its patient may be that of a drawn one.
        assert {report["records"] for report in reports} == {4}

    def test_minmax_needs_no_pass_for_the_calibration(self, opened, tmp_path):
        report = train_tokenizer(opened, tmp_path, num_merges=60, calibration="minmax")
        assert opened.records.groups_read == 3 + 2
        assert report["clipped"] == 0.0 and report["calibration"]["low"] is None

    def test_signals_are_not_kept(self, opened, tmp_path, monkeypatch):
        """The trainer is given a generator, and each signal once."""
        given = []

        def counting(records, num_merges, **options):
            assert iter(records) is records
            given.extend(id(record) for record in records)
            raise KeyboardInterrupt

        monkeypatch.setattr(EcgByteTokenizer, "train_from_iterator", counting)
        with pytest.raises(KeyboardInterrupt):
            train_tokenizer(opened, tmp_path, num_merges=60)
        assert len(given) == 36


class TestMeasuring:
    @pytest.mark.parametrize("calibration", [EcgCalibration("percentile", -0.4, 0.4), EcgCalibration.minmax()])
    def test_against_one_record_at_a_time(self, calibration, opened):
        signals = [signal for _, signal in opened.iter_signals()]
        tokenizer = EcgByteTokenizer.train_from_iterator(
            signals, 100, calibration=calibration, sampling_rate=100, leads=["I", "aVF"]
        )
        ids = [tokenizer.encode_signal(signal) for signal in signals]
        bounds = [calibration.bounds(signal) for signal in signals]
        own = calibration.method == "minmax"
        errors, clipped = [], 0
        for signal, row, (low, high) in zip(signals, ids, bounds, strict=True):
            decoded = tokenizer.decode_signal(row, **({"low": low, "high": high} if own else {}))
            exact = signal.astype(np.float64)
            clipped += int(((exact < low) | (exact > high)).sum())
            errors.append(np.abs(decoded - np.clip(exact, low, high)).max())
        assert tokenizer_report(tokenizer, iter(signals), num_threads=2) == {
            "records": 40,
            "compression": 80_000 / sum(map(len, ids)),
            "tokens_per_ecg": sum(map(len, ids)) / 40,
            "vocabulary_used": len(set(np.concatenate(ids).tolist())) / 126,
            "round_trip": 1.0,
            "clipped": clipped / 80_000,
            "half_bin_mv": max((high - low + 1e-6) / 52 for low, high in bounds),
            "max_error_mv": max(errors),
        }
        assert (clipped > 0) != own

    def test_a_round_trip_that_fails_is_counted(self, opened, monkeypatch):
        signals = [signal for _, signal in opened.iter_signals()]
        tokenizer = EcgByteTokenizer(calibration=EcgCalibration.minmax(), sampling_rate=100, leads=["I", "aVF"])
        real = tokenizer.encode_signal_batch

        def wrong(batch, **options):
            ids = real(batch, **options)
            ids[3][7] = (ids[3][7] + 1) % 26
            return ids

        monkeypatch.setattr(tokenizer, "encode_signal_batch", wrong)
        assert tokenizer_report(tokenizer, signals)["round_trip"] == 39 / 40

    def test_no_records(self):
        report = tokenizer_report(EcgByteTokenizer(calibration=EcgCalibration.minmax()), [])
        assert report["records"] == 0 and report["compression"] == 0.0


class TestCommand:
    def test_closing_summary(self, small_prepared, tmp_path, capsys):
        command = ("train-tokenizer", "--data", small_prepared.folder, "--num-merges", 60, "--output", tmp_path)
        assert cli.main([str(part) for part in command]) == 0
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        report = json.loads((tmp_path / "training.json").read_text())
        assert lines[0].startswith("60 merges from 36 records in ") and lines[0].endswith(f"saved in {tmp_path}")
        assert lines[1].startswith("  amplitude range     ") and lines[1].endswith(" mV in 26 bins")
        assert lines[2] == f"  longest token       {report['longest_token']} samples"
        assert lines[3] == "on 4 held-out records:"
        assert lines[4].startswith(f"  compression         {report['compression']:.2f} samples per token, ")
        assert lines[5] == "  round trip          100.0 % of records come back exactly"
        assert f"largest error       {report['max_error_mv']:.4f} mV" in lines[6]
        assert lines[7].endswith(" % of samples")
        assert lines[8] == f"  vocabulary in use   {100 * report['vocabulary_used']:.1f} %"
        assert lines[9] == f"all of this is in {tmp_path / 'training.json'}"
        for name in ("calibrate", "read", "merges", "measure"):
            assert f"{name}: 100%" in captured.err

    def test_percentiles(self, small_prepared, tmp_path, capsys):
        command = ["train-tokenizer", "--data", str(small_prepared.folder), "--num-merges", "20"]
        wide = [*command, "--percentiles", "0.1", "99.9", "--output"]
        assert cli.main([*wide, str(tmp_path / "wide")]) == 0
        given = json.loads((tmp_path / "wide" / "training.json").read_text())["provenance"]["arguments"]
        assert given["percentiles"] == [0.1, 99.9]
        assert cli.main([*wide, str(tmp_path / "own"), "--calibration", "minmax"]) == 2
        assert "--percentiles has no meaning with --calibration minmax" in capsys.readouterr().err
        assert cli.main([*command, "--percentiles", "99", "1", "--output", str(tmp_path / "wrong")]) == 1
        assert "expected 0 <= lower < upper <= 100" in capsys.readouterr().err

    def test_a_damaged_file_is_one_line(self, small_prepared, tmp_path, capsys):
        folder = shutil.copytree(small_prepared.folder, tmp_path / "copy")
        path = folder / "records" / "part-00000.parquet"
        content = bytearray(path.read_bytes())
        place = pq.ParquetFile(path).metadata.row_group(1).column(4).data_page_offset
        content[place : place + 400] = b"\xff" * 400
        path.write_bytes(content)
        command = ("train-tokenizer", "--data", folder, "--num-merges", 60, "--output", tmp_path / "out")
        assert cli.main([str(part) for part in command]) == 1
        error = capsys.readouterr().err
        assert "ecgbyte train-tokenizer: " in error and "part-00000.parquet cannot be read" in error
        assert "Traceback" not in error and not (tmp_path / "out").exists()

    SCRIPT = """
import sys
from ecgbyte_hf import cli
from ecgbyte_hf.models.tokenization_ecg_byte import EcgByteTokenizer

real = EcgByteTokenizer.train_from_iterator

def forever(records, num_merges, **options):
    def again():
        signals = list(records)
        print("going", flush=True)
        for _ in range(20_000):  # some seconds, 1.4 GB of symbols
            yield from signals
        sys.exit("nobody interrupted")
    return real(again(), num_merges, **options)

EcgByteTokenizer.train_from_iterator = forever
sys.exit(cli.main(sys.argv[1:]))
"""

    def test_an_interrupt_ends_it(self, small_prepared, tmp_path):
        command = (
            "train-tokenizer",
            "--data",
            small_prepared.folder,
            "--num-merges",
            60,
            "--output",
            tmp_path / "out",
        )
        arguments = [sys.executable, "-c", self.SCRIPT, *map(str, command)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "going\n"
            process.send_signal(signals_of_unix.SIGINT)
            error = process.communicate(timeout=60)[1]
        assert process.returncode == 130 and "ecgbyte train-tokenizer: interrupted" in error
        assert "Traceback" not in error and not (tmp_path / "out").exists()

    def test_no_training_records(self, opened, tmp_path, monkeypatch):
        monkeypatch.setattr(opened, "train_ecg_ids", list)
        with pytest.raises(EcgDataError, match="has no training records"):
            train_tokenizer(opened, tmp_path, num_merges=60)
