"""The benchmark of the tokenizer, at a size that takes seconds: what it compares must be comparable."""

import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import bpe_twin
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark" / "tokenizer.py"
NUM_MERGES = 50


def load_script():
    spec = importlib.util.spec_from_file_location("benchmark_tokenizer", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = load_script()

from contest import corpora, report, rows, training  # noqa: E402

# What runs in processes of their own; a module without heavy imports.
CONTESTANTS = """
import os, sys, time
from contest.isolation import CannotDo, PeakMemory

def sleep_long(threads):
    time.sleep(60)

def abort(threads):
    sys.stderr.write("out of luck\\n")
    sys.stderr.flush()
    os.abort()

def refuse(threads):
    raise CannotDo("it has no trainer")

def divide(threads):
    return 1 / 0

def without_package(threads):
    import surely_not_installed

def quick(threads):
    return {"seconds": 0.5, "baseline_bytes": 10, "peak_bytes": 30, "environment": os.environ["RAYON_NUM_THREADS"]}

def fifty_megabytes(threads):
    memory = PeakMemory.start()
    bytearray(50_000_000)
    return {"seconds": 0.0, **memory.report()}
"""


@pytest.fixture(autouse=True, scope="module")
def contestants(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("contestants")
    (folder / "some_contestants.py").write_text(CONTESTANTS)
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))


def measurement(function, contestant="ours", symbols=100, **fields):
    about = {"corpus": "simulated", "records": 1}
    return rows.Measurement(
        "train", contestant, contestant, f"some_contestants:{function}", {}, 1, symbols, about, **fields
    )


@pytest.fixture(scope="module")
def records() -> np.ndarray:
    """Four short records with runs, where counting windows and replacing from the left is easy to get wrong."""
    rng = np.random.default_rng(0)
    return np.repeat(rng.integers(0, 5, (4, 60)), rng.integers(1, 6, 60), axis=1).astype(np.uint8)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return corpora.FreshRecords.make_pool(3, 0, tmp_path_factory.mktemp("pool") / "pool.npy")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the script leaves, with a README beside it."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "README.md").write_text(f"# Title\n\n{report.START}\nold\n{report.END}\n\nThe end.\n")
    patch = pytest.MonkeyPatch()
    patch.setattr(benchmark, "plain_program", lambda: None)
    patch.setattr(sys, "stdout", open(os.devnull, "w"))
    only = ["ours", "plain", "tokenizers_leads", "tiktoken", "ours_greedy", "stock", "plain_python"]
    try:
        code = benchmark.main(
            [
                *("train", "encode", "--records", "4", "--held-out", "2", "--merges", str(NUM_MERGES)),
                *("--threads", "2", "--repeat", "1", "--seconds", "0.01", "--only", *only),
                *("--output", str(folder / "results"), "--readme", str(folder / "README.md")),
            ]
        )
    finally:
        sys.stdout.close()
        patch.undo()
    assert code == 0
    return folder


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results" / "tokenizer.json").read_text())


# ---- the contestants do the same job -------------------------------------------------------------------------------


@pytest.mark.parametrize("max_token_length", [1024, 4])
def test_trainers_learn_what_the_plain_twin_learns(records, tmp_path, max_token_length):
    np.save(tmp_path / "records.npy", records)
    expected = bpe_twin.train(records, NUM_MERGES, max_token_length=max_token_length)
    job = (str(tmp_path / "records.npy"), len(records), len(expected), max_token_length, 1)
    for trainer in (training.ours, training.tokenizers):
        learnt = trainer(*job)
        assert [tuple(pair) for pair in learnt["merges"]] == expected, trainer
        assert learnt["seconds"] > 0 and learnt["peak_bytes"] >= learnt["baseline_bytes"] > 0
        letters = [bytes(symbol + ord("a") for symbol in token).decode() for token in bpe_twin.tokens(expected)]
        assert learnt["tokens"] == letters[26:]


def test_the_corpus_of_the_scale_part_is_learnt_from_its_stream(pool):
    learnt = training.scale(pool, 3, 8, 1024, 1)
    stream = list(corpora.FreshRecords.load(**pool).take(3))
    assert [tuple(pair) for pair in learnt["merges"]] == bpe_twin.train(stream, 8)
    assert learnt["distinct_records"] == 3
    assert learnt["seconds"] + learnt["generator_seconds"] == pytest.approx(learnt["total_seconds"])
    assert 0 < learnt["reading_seconds"] <= learnt["total_seconds"]


def test_fresh_records_differ_and_come_back(pool):
    stream = corpora.DistinctRecords(corpora.FreshRecords.load(**pool).take(50))
    records = list(stream)
    assert stream.count == 50 and stream.seconds > 0
    again = list(corpora.FreshRecords.load(**pool).take(10))
    np.testing.assert_array_equal(records[:10], again)
    assert all(record.shape == (12 * 2500,) and record.dtype == np.uint8 and record.max() < 26 for record in again)
    other = next(corpora.FreshRecords.load(**{**pool, "seed": 1}).take(1))
    assert (other != again[0]).any()


def test_equal_records_are_counted_once():
    record = np.arange(5, dtype=np.uint8)
    stream = corpora.DistinctRecords([record, record + 1, record])
    assert len(list(stream)) == 3
    assert stream.count == 2


# ---- a row for everybody --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "status", "reason"),
    [
        ("abort", "failed", "signal 6: out of luck"),
        ("refuse", "cannot", "it has no trainer"),
        ("divide", "failed", "ZeroDivisionError: division by zero"),
        ("without_package", "cannot", "surely_not_installed is not installed"),
    ],
)
def test_a_contestant_that_ends_badly_is_a_row_with_the_reason(function, status, reason):
    row, other = rows.run_all(
        [measurement(function), measurement("quick", "other")], repeat=2, repeat_under=9, limit=30
    )
    assert row["status"] == status and reason in row["reason"]
    assert row["runs"] == [] and "seconds" not in row
    assert other["status"] == "ok" and len(other["runs"]) == 2
    table = report.training_table([row, other])
    assert len(table.splitlines()) == 4
    assert f"| ours | 1 | {status} (below) |" in table
    assert reason in report.text_of({"parts": {"train": part_of([row, other])}})


def test_a_contestant_over_the_limit_is_ended():
    start = time.monotonic()
    longer = measurement("quick", symbols=200, is_series=True)
    row, after = rows.run_all([measurement("sleep_long", is_series=True), longer], repeat=2, repeat_under=9, limit=0.5)
    assert time.monotonic() - start < 10
    assert (row["status"], row["reason"]) == ("limit", "over the limit of 0.5 s")
    assert after["status"] == "not run" and "with 100 symbols, over the limit" in after["reason"]
    assert "| ours | 1 | over the limit of 0.5 s |" in report.training_table([row])


def test_medians_and_threads():
    row = rows.run_all([measurement("quick")], repeat=3, repeat_under=9, limit=30)[0]
    assert [run["seconds"] for run in row["runs"]] == [0.5] * 3
    assert (row["seconds"], row["symbols_per_second"], row["environment"]) == (0.5, 200.0, "1")
    slow = rows.run_all([measurement("quick")], repeat=3, repeat_under=0.4, limit=30)[0]
    assert len(slow["runs"]) == 1


def test_memory_is_that_of_the_process_alone():
    ballast = np.ones(200_000_000, dtype=np.uint8)
    row = rows.run_all([measurement("fifty_megabytes")], repeat=1, repeat_under=9, limit=30)[0]
    assert row["peak_bytes"] - row["baseline_bytes"] == pytest.approx(50e6, rel=0.1)
    assert row["peak_bytes"] < ballast.nbytes


# ---- tables ---------------------------------------------------------------------------------------------------------


def part_of(part_rows):
    arguments = {"records": 4, "merges": 50, "repeat": 1, "repeat_under": 20.0, "held_out": 2}
    return {"provenance": {"arguments": arguments}, "machine": {"cpu": "a processor", "cores": 2}, "rows": part_rows}


def cells_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_tables_hold_the_numbers_of_the_result_file(measured):
    parts = results_of(measured)["parts"]
    text = (measured / "results" / "tokenizer.md").read_text()
    table = report.training_table(parts["train"]["rows"])
    assert table in text
    lines = cells_of(table)
    assert [line[0] for line in lines] == [row["label"] for row in parts["train"]["rows"]]
    for row, line in zip(parts["train"]["rows"], lines, strict=True):
        if row["status"] == "ok":
            assert float(line[2]) == pytest.approx(row["runs"][0]["seconds"], rel=0.006)
            assert float(line[3]) == pytest.approx(row["seconds"] / parts["train"]["rows"][0]["seconds"], rel=0.006)
        else:
            assert line[2] == "cannot (below)" and row["reason"] in text
    table = report.encoding_table(parts["encode"]["rows"])
    assert table in text
    for row, line in zip(parts["encode"]["rows"], cells_of(table), strict=True):
        if row["status"] != "ok":
            assert line[2] == "cannot (below)"
            continue
        speed = row["runs"][0]["symbols"] / row["runs"][0]["seconds"]
        assert float(line[2].replace(",", "")) == pytest.approx(speed / 1e6, rel=0.006, abs=0.5e-6)
        assert float(line[3].replace(",", "")) == pytest.approx(30_000 / speed * 1e6, rel=0.006)


def test_everybody_did_the_same_job(measured):
    parts = results_of(measured)["parts"]
    by_name = {(row["contestant"], row["threads"]): row for row in parts["train"]["rows"]}
    assert set(by_name) == {(name, 1) for name in ("ours", "plain", "tokenizers_leads", "tiktoken")} | {
        (name, 2) for name in ("ours", "tokenizers_leads")
    }
    assert by_name["ours", 2]["same_merges"] is True and by_name["ours", 2]["same_vocabulary"] == 1.0
    assert by_name["tokenizers_leads", 1]["same_vocabulary"] > 0.9
    assert "cargo is not installed" in by_name["plain", 1]["reason"]
    encoded = {row["contestant"]: row for row in parts["encode"]["rows"]}
    for name in ("ours_greedy", "stock", "plain_python"):
        assert encoded[name]["same_ids"] is True, name
    if encoded["tiktoken"]["status"] == "ok":
        assert encoded["tiktoken"]["same_ids"] is True
    else:
        assert "tiktoken is not installed" in encoded["tiktoken"]["reason"]


def test_the_result_file_says_where_it_comes_from(measured):
    for part in results_of(measured)["parts"].values():
        assert part["provenance"]["arguments"]["merges"] == NUM_MERGES
        assert part["provenance"]["versions"]["numpy"] == np.__version__
        assert part["machine"]["cores"] >= 1 and part["machine"]["cpu"]
        corpus = part["corpora"]["simulated"]
        assert corpus["distinct_records"] == corpus["all_records"] == 6
        assert (corpus["records"], corpus["symbols"]) == (4, 120_000)
    assert str(measured) not in (measured / "results" / "tokenizer.json").read_text()


def test_the_figure_is_drawn(measured):
    assert (measured / "results" / "tokenizer.png").read_bytes().startswith(b"\x89PNG")


def test_the_readme_is_replaced_between_its_markers_and_only_there(measured, capsys):
    readme = measured / "README.md"
    first = readme.read_text()
    assert first.startswith(f"# Title\n\n{report.START}\n") and first.endswith(f"\n{report.END}\n\nThe end.\n")
    assert "\nold\n" not in first and "](results/tokenizer.png)" in first
    file = measured / "results" / "tokenizer.json"
    stored = file.read_text()
    benchmark.main(["--from-json", str(file), "--readme", str(readme), "--output", str(measured / "results")])
    assert readme.read_text() == first
    assert file.read_text() == stored
    assert "ours, `rust_bpe.train`" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", report.START, f"{report.END}\n{report.START}", f"{report.START}{report.END}" * 2]
)
def test_a_readme_without_its_markers_is_left_alone(text, tmp_path):
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(ValueError, match="expected one line <!-- benchmark:start -->"):
        benchmark.main(["train", "--readme", str(tmp_path / "README.md"), "--output", str(tmp_path)])
    assert (tmp_path / "README.md").read_text() == text


def test_other_merges_are_not_called_the_same():
    def row(contestant):
        return {"part": "train", "contestant": contestant, "symbols": 9}

    both = [row("ours"), row("other")]
    rows._compare_vocabularies(
        both, [{"tokens": ["ab", "abc"], "merges": [[0, 1], [26, 2]]}, {"tokens": ["ab", "bc"], "merges": None}]
    )
    assert (both[1]["same_vocabulary"], both[1]["learnt"]) == (0.5, 2)
    assert "same_merges" not in both[1] and report._agreement(both[1]) == "50.0 %"


def test_names_in_the_figure_keep_their_distance_and_order():
    heights = np.log10(report._spread([5.0, 1.0, 1.1, 1.2, 300.0], 0.1))
    assert np.diff(np.sort(heights)).min() > 0.099
    assert list(np.argsort(heights, stable=True)) == [1, 2, 3, 0, 4]
