"""`ecgbyte plot`: records of files and of prepared folders, the figures and the numbers beside them, refusals."""

import json
import shlex

import numpy as np
import pytest

from ecgbyte_hf import cli, cli_plot
from ecgbyte_hf.data.prepared import PreparedData
from ecgbyte_hf.interpretation import paper


def run(*arguments):
    return cli.main(["plot", *map(str, arguments)])


@pytest.fixture(scope="module")
def recording(small_prepared, tmp_path_factory):
    """Record 3 as a text file, with its lines exchanged."""
    path = tmp_path_factory.mktemp("recording") / "three.csv"
    signal = PreparedData(small_prepared.folder).signal(3)[::-1]
    np.savetxt(path, signal.T, delimiter=",", header="aVF,I", comments="")
    return path


FILE = ("--sampling-rate", 100, "--units", "mV")


class TestFigures:
    def test_ecg(self, recording, small_prepared, tmp_path, capsys):
        assert run("ecg", "--record", recording, *FILE, "--output", tmp_path / "a.svg") == 0
        assert capsys.readouterr().out == f"saved {tmp_path / 'a.svg'}\n"
        data = ("--data", small_prepared.folder, "--record", 3)
        assert run("ecg", *data, "--seconds", 2, "--output", tmp_path / "b.svg") == 0
        for name in ("a", "b"):
            content = (tmp_path / f"{name}.svg").read_text()
            assert 'id="trace-I-0"' in content and 'id="trace-aVF-1"' in content

    def test_resolution(self, recording, tmp_path):
        output = tmp_path / "a.png"
        sizes = []
        for dpi in ((), ("--dpi", 127)):
            assert run("ecg", "--record", recording, *FILE, "--seconds", 1, *dpi, "--output", output) == 0
            sizes.append(int.from_bytes(output.read_bytes()[16:20], "big"))
        assert sizes[0] == pytest.approx(2 * sizes[1], abs=2)

    def test_merges(self, recording, small_prepared, small_ecg_byte, tmp_path):
        tokenizer = ("--tokenizer", small_ecg_byte)
        assert run("merges", *tokenizer, "--record", recording, *FILE, "--output", tmp_path / "a.svg") == 0
        data = ("--data", small_prepared.folder, "--record", 3)
        assert run("merges", *tokenizer, *data, "--title", "three", "--output", tmp_path / "b.svg") == 0
        shapes = [(tmp_path / f"{name}.svg").read_text().partition('id="tokens-I-0"')[2] for name in "ab"]
        assert shapes[0] and len(shapes[0]) == pytest.approx(len(shapes[1]), rel=0.02)  # one ECG, two ways
        assert run("merges", *tokenizer, "--token", 80, "--levels", 2, "--output", tmp_path / "c.pdf") == 0
        assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF")

    def test_usage(self, small_prepared, small_ecg_byte, tmp_path, capsys):
        data = ("--data", small_prepared.folder, "--window-seconds", 5, "--merges", 0, 60)
        assert run("usage", "--tokenizer", small_ecg_byte, *data, "--output", tmp_path / "u.png") == 0
        one = json.loads((tmp_path / "u.json").read_text())["data_sets"]["prepared"]
        assert (one["records"], [point["merges"] for point in one["by_merges"]]) == (8, [0, 60])
        assert one["splits"]["train"] == {"ecgs": 72, "seen_by_tokenizer": "yes"}
        out = capsys.readouterr().out
        numbers = f"8 ECGs, {one['tokens'] / 8:.0f} tokens per ECG, {one['compression']:.2f} samples"
        assert f"prepared, held-out records (the tokenizer never saw them): {numbers}" in out
        assert f"{one['coverage']['used']} of 86 ids in use" in out
        assert (tmp_path / "u.png").read_bytes().startswith(b"\x89PNG")
        split = ("--split", "train", "--output", tmp_path / "t.png")
        assert run("usage", "--tokenizer", small_ecg_byte, *data, *split) == 0
        one = json.loads((tmp_path / "t.json").read_text())["data_sets"]["prepared"]
        assert (one["records"], one["split"], one["seen_by_tokenizer"]) == (72, "train", "yes")

    def test_decode(self, small_prepared, small_ecg_byte, tmp_path, capsys):
        data = ("--data", small_prepared.folder, "--record", 3, "--leads", "I")
        assert run("decode", "--tokenizer", small_ecg_byte, *data, "--output", tmp_path / "d.svg") == 0
        numbers = json.loads((tmp_path / "d.json").read_text())
        assert set(numbers["by_lead"]) == {"I", "aVF"} and numbers["samples"] == 2000
        assert numbers["provenance"]["arguments"]["record"] == "3" and numbers["provenance"]["tokenizer"]
        out = capsys.readouterr().out
        assert f"largest error {numbers['max_error_mv']:.4f} mV" in out and "has the cleaned signal alone" in out
        content = (tmp_path / "d.svg").read_text()
        assert 'id="decoded-I"' in content and 'id="decoded-aVF"' not in content and 'id="original-I"' not in content


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "give what to draw: ecg, merges, usage, decode or attention"),
            (("ecg", "--record", "absent", "--output", "a.png"), "there is no such recording"),
            (("ecg", "--record", "x", "--output", "a.png", "--dpi", "5"), "got 5 dots per inch, expected 20 to 1200"),
            (("ecg", "--record", "absent", "--output", "a.txt"), "expected a name that ends in .png, .svg, .pdf"),
            (("ecg", "--record", "x", "--data", "PREPARED", "--output", "a.png"), "expected the number of one of"),
            (("ecg", "--record", "99", "--data", "PREPARED", "--output", "a.png"), "holds no record 99"),
            (
                ("ecg", "--record", "3", "--data", "PREPARED", "--units", "mV", "--output", "a.png"),
                "--units is about a file",
            ),
            (("merges", "--tokenizer", "TOKENIZER", "--output", "a.png"), "give --record (its tokens) or --token"),
            (
                ("merges", "--tokenizer", "TOKENIZER", "--token", "3", "--record", "r", "--output", "a.png"),
                "one of them",
            ),
            (
                ("merges", "--tokenizer", "TOKENIZER", "--record", "r", "--levels", "3", "--output", "a.png"),
                "--levels needs --token",
            ),
            (("merges", "--tokenizer", "TOKENIZER", "--token", "86", "--output", "a.png"), "an id from 0 to 85"),
            (("merges", "--tokenizer", "absent", "--token", "3", "--output", "a.png"), "absent is not there"),
            (("usage", "--tokenizer", "TOKENIZER", "--data", "absent", "--output", "u.png"), "make it with `ecgbyte"),
            (
                ("usage", "--tokenizer", "TOKENIZER", "--data", "PREPARED", "--data", "PREPARED", "--output", "u.png"),
                "expected each folder once",
            ),
            (
                ("usage", "--tokenizer", "TOKENIZER", "--data", "PREPARED", "--split", "no", "--output", "u.png"),
                "it has held-out, all, test, train, validation",
            ),
            (
                (
                    "usage",
                    "--tokenizer",
                    "TOKENIZER",
                    "--output",
                    "u.png",
                    *(f"--data a{n}" for n in range(7)),
                ),
                "got 7 data sets for one figure",
            ),
        ],
    )
    def test_are_one_line_and_leave_nothing(
        self, arguments, message, small_prepared, small_ecg_byte, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.chdir(tmp_path)
        places = {"PREPARED": str(small_prepared.folder), "TOKENIZER": str(small_ecg_byte)}
        words = [word for argument in arguments for word in argument.split(" ")]
        assert run(*[places.get(word, word) for word in words]) == 1
        error = capsys.readouterr().err
        assert message in error and error.startswith("ecgbyte plot: ") and error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_cleaned_otherwise(self, small_ecg_byte, tmp_path, capsys):
        from ecgbyte_hf.data.sources import prepare_synthetic
        from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor

        extractor = EcgByteFeatureExtractor(profile="none", sampling_rate=50, leads=["I", "aVF"])
        prepare_synthetic(tmp_path / "other", feature_extractor=extractor, num_records=8)
        data = ("--data", tmp_path / "other", "--record", 1)
        assert run("merges", "--tokenizer", small_ecg_byte, *data, "--output", tmp_path / "a.png") == 1
        assert "was not prepared for this tokenizer: sampling_rate is 50" in capsys.readouterr().err


class TestParser:
    def figures(self):
        (action,) = [one for one in cli.build_parser()[1]["plot"]._actions if one.dest == "figure"]
        return action.choices

    def test_every_figure_shows_an_example_and_every_option_says_what_it_is(self):
        parsers = self.figures()
        assert list(parsers) == ["ecg", "merges", "usage", "decode", "attention"]
        for name, parser in parsers.items():
            assert [action.dest for action in parser._actions if not action.help] == []
            for line in parser.epilog.partition("example:\n")[2].strip().splitlines():
                options = cli.build_parser()[0].parse_args(shlex.split(line)[1:])
                assert (options.command, options.figure) == ("plot", name)

    def test_layouts_are_those_of_the_paper(self):
        assert cli_plot.LAYOUTS == paper.LAYOUTS

    def test_options_from_yaml(self, recording, tmp_path):
        file = tmp_path / "c.yaml"
        file.write_text(
            f"record: {recording}\nsampling-rate: 100\nunits: mV\nspeed: 50\noutput: {tmp_path / 'a.svg'}\n"
        )
        assert run("ecg", "--config", file, "--seconds", 2) == 0
        assert "trace-I-0" in (tmp_path / "a.svg").read_text()

    def test_a_wrong_option_in_yaml(self, tmp_path, capsys):
        (tmp_path / "c.yaml").write_text("layuot: rows\n")
        with pytest.raises(SystemExit) as caught:
            run("merges", "--config", tmp_path / "c.yaml", "--tokenizer", "t", "--token", 3, "--output", "a.png")
        error = capsys.readouterr().err
        assert caught.value.code == 2 and "unknown option 'layuot'; known: data, dpi, format" in error
        assert "Try `ecgbyte plot merges --help`." in error
