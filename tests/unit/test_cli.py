"""Every command: help with an example, YAML, errors of one line, and the whole way in one process."""

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ecgbyte_hf import cli, cli_data, cli_evaluate, cli_language_model
from ecgbyte_hf.models.feature_extraction_ecg_byte import MISSING_LEADS, PROFILES
from ecgbyte_hf.models.leads_ecg_byte import LEAD_PROBLEMS

COMMANDS = (
    "demo",
    "env",
    "read",
    "prepare",
    "train-tokenizer",
    "encode",
    "extend-llm",
    "sft",
    "push",
    "generate",
    "ask",
    "evaluate",
    "compare",
    "plot",
)
HEAVY = ("torch", "transformers", "numpy", "scipy", "datasets", "pyarrow", "matplotlib", "yaml", "tqdm", "rust_bpe")


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    """What is printed on the way out with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


class TestHelp:
    def test_all_commands_are_there(self):
        assert set(COMMANDS) <= set(cli.build_parser()[1])

    @pytest.mark.parametrize("command", sorted(cli.build_parser()[1]))
    def test_shows_an_example_that_the_parser_takes(self, command, capsys):
        with pytest.raises(SystemExit) as caught:
            run(command, "--help")
        assert caught.value.code == 0
        text = capsys.readouterr().out
        examples = text.partition("example:\n")[2].strip().splitlines()
        assert examples and all(line.strip().startswith(f"ecgbyte {command}") for line in examples)
        for line in examples:
            options = cli.build_parser()[0].parse_args(shlex.split(line)[1:])
            assert options.command == command

    def test_every_option_says_what_it_is(self):
        for name, command in cli.build_parser()[1].items():
            assert [action.dest for action in command._actions if not action.help] == [], name

    def test_is_quick_and_imports_nothing_heavy(self):
        script = (
            "import sys, ecgbyte_hf.cli as cli\n"
            "try:\n    cli.main(['--help'])\n"
            f"finally:\n    assert not [name for name in {HEAVY} if name in sys.modules]"
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert finished.returncode == 0, finished.stderr
        assert all(command in finished.stdout for command in COMMANDS)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"`ecgbyte --help` took {used:.2f} s of CPU")  # noqa: T201

    def test_without_a_command(self, capsys):
        assert run() == 2
        assert "Research use only" in capsys.readouterr().out

    def test_version(self, capsys):
        with pytest.raises(SystemExit) as caught:
            run("--version")
        assert caught.value.code == 0 and capsys.readouterr().out.startswith("ecgbyte-hf 0.")

    def test_choices_are_those_of_the_code(self):
        actions = {action.dest: action for action in cli.build_parser()[1]["prepare"]._actions}
        assert tuple(actions["profile"].choices) == PROFILES
        assert tuple(actions["on_problem"].choices) == LEAD_PROBLEMS
        assert tuple(actions["missing_leads"].choices) == MISSING_LEADS


class TestErrors:
    def test_an_unknown_option_names_the_help(self, capsys):
        assert refused(capsys, "env", "--colour", "red") == (
            "ecgbyte env: unknown: --colour red\nTry `ecgbyte env --help`.\n"
        )
        assert "Try `ecgbyte --help`." in refused(capsys, "prepair")
        assert "Try `ecgbyte prepare --help`." in refused(capsys, "prepare", "ecgqa", "--output", "out")

    def test_options_are_not_abbreviated(self, capsys):
        """An option added later would change what a script means; and --conf would be taken and not read."""
        assert "unknown: --conf x" in refused(capsys, "env", "--conf", "x")

    @pytest.mark.parametrize(
        "arguments",
        [
            ("read", "absent_hr"),
            ("train-tokenizer", "--data", "absent", "--output", "out"),
            ("encode", "--data", "absent", "--model", "absent", "--output", "out"),
            ("extend-llm", "--model", "absent", "--tokenizer", "absent", "--output", "out"),
            ("generate", "--model", "absent", "--record", "absent", "--question", "?"),
            ("evaluate", "--data", "absent", "--predictions", "absent", "--output", "out"),
            ("evaluate", "--data", "absent", "--predictions", "absent", "--output", "out.md"),
            ("compare", "--data", "absent", "--first", "a", "--second", "b", "--output", "out"),
            ("plot", "merges", "--tokenizer", "absent", "--record", "absent", "--output", "out.png"),
            ("prepare", "ecg_qa", "--data-dir", "absent", "--signals-dir", "absent", "--output", "out"),
            ("prepare", "synthetic", "--leads", "I", "I", "--output", "out"),
            ("prepare", "synthetic", "--seconds", "0", "--output", "out"),
            ("prepare", "synthetic", "--num-proc", "0", "--output", "out"),
            ("prepare", "synthetic", "--sampling-rate", "-5", "--output", "out"),
        ],
    )
    def test_are_one_line_and_exit_code_1(self, arguments, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert run(*arguments) == 1
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line]
        assert len(lines) == 1 and lines[0].startswith(f"ecgbyte {arguments[0]}: "), captured.err
        assert "Traceback" not in captured.err and captured.out == ""

    def test_an_absent_model_is_named(self, small_ecg_byte, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.chdir(tmp_path)
        absent = tmp_path / "absent"
        assert run("extend-llm", "--model", absent, "--tokenizer", small_ecg_byte, "--output", "out") == 1
        error = capsys.readouterr().err
        assert str(absent) in error and error.count("\n") == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("prepare", "ecg_qa", "--output", "out"), "needs --data-dir"),
            (("encode", "--data", "a", "--output", "b"), "give --model (training rows) or --tokenizer"),
            (("encode", "--data", "a", "--model", "m", "--tokenizer", "t", "--output", "b"), "one of them"),
            (("generate", "--model", "m"), "give --data and --output, or --record and --question"),
            (("generate", "--model", "m", "--data", "d"), "--data needs --output"),
            (("generate", "--model", "m", "--record", "r"), "--record needs --question"),
            (
                (
                    "generate",
                    "--model",
                    "m",
                    "--record",
                    "r",
                    "--question",
                    "?",
                    "--backend",
                    "vllm",
                    "--options-only",
                ),
                "--backend vllm scores no options",
            ),
            (
                ("evaluate", "--data", "d", "--predictions", "p", "--output", "o", "--control", "majority=x"),
                "'majority=x' is not NAME=FILE",
            ),
            (
                ("evaluate", "--data", "d", "--predictions", "p", "--output", "o", "--bertscore-model", "b"),
                "--bertscore-model needs --text-metrics",
            ),
        ],
    )
    def test_wrong_use_is_exit_code_2(self, arguments, message, capsys):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err

    def test_an_interrupt_is_no_traceback(self, monkeypatch, capsys):
        def interrupted(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(cli_evaluate, "_seeds", interrupted)
        assert run("seeds", "report.json", "--output", "seeds.json") == 130
        assert capsys.readouterr().err == "ecgbyte seeds: interrupted\n"

    def test_a_missing_package_names_the_extra(self, monkeypatch, capsys):
        def missing(_):
            raise ImportError("No module named 'matplotlib'")

        monkeypatch.setattr(cli_evaluate, "_seeds", missing)
        assert run("seeds", "report.json", "--output", "seeds.json") == 1
        assert "pip install 'ecgbyte-hf[all]'" in capsys.readouterr().err


class TestConfig:
    @pytest.fixture
    def parsed(self, monkeypatch, tmp_path):
        """The options a command gets from a YAML file and a command line."""

        def parse(text, *arguments, form="--config"):
            (tmp_path / "c.yaml").write_text(text)
            got = []
            for module, name in (
                (cli_data, "_prepare"),
                (cli_evaluate, "_evaluate"),
                (cli_language_model, "_generate"),
            ):
                monkeypatch.setattr(module, name, lambda options: got.append(options) or 0)
            config = ["--config", tmp_path / "c.yaml"] if form == "--config" else [f"--config={tmp_path / 'c.yaml'}"]
            assert run(arguments[0], *config, *arguments[1:]) == 0
            return got[0]

        return parse

    def test_sets_defaults_and_required_options(self, parsed):
        options = parsed(
            "output: out\nsampling-rate: 100\nnum_proc: 2\nleads: [I, II]\non-problem: flat\nprofile: none\n"
            "held-out-fraction: 1e-1\n",
            *("prepare", "synthetic"),
        )
        assert (options.output, options.sampling_rate, options.num_proc) == ("out", 100.0, 2)
        assert (options.leads, options.on_problem, options.profile) == (["I", "II"], ["flat"], "none")
        assert options.held_out_fraction == 0.1 and isinstance(options.sampling_rate, float)
        assert options.records == 1000  # what is not in the file

    @pytest.mark.parametrize("form", ["--config", "--config="])
    def test_the_command_line_wins(self, parsed, form):
        text = "output: file\nseed: 1\nleads: [I, II]\n"
        arguments = ("prepare", "synthetic", "--seed", "2", "--leads", "V1", "--output=line")
        options = parsed(text, *arguments, form=form)
        assert (options.output, options.seed, options.leads) == ("line", 2, ["V1"])

    def test_repeated_options(self, parsed):
        text = "data: d\npredictions: p\noutput: o\ncontrol: [shuffled=a, zero_signal=b]\nno_rule: true\n"
        options = parsed(text, "evaluate")
        assert options.control == ["shuffled=a", "zero_signal=b"] and options.no_rule is True
        assert parsed(text, "evaluate", "--control", "shuffled=c").control == ["shuffled=c"]

    def test_an_empty_file_sets_nothing(self, parsed):
        assert parsed("# nothing\n", "generate", "--model", "m").split == "test"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("sede: 1", "unknown option 'sede'; known: check, data_dir, dataset_config, "),
            ("source: synthetic", "unknown option 'source'"),
            ("config: other.yaml", "unknown option 'config'"),
            ("seed: 1.5", "seed is 1.5, expected int"),
            ("seed: true", "seed is True, expected int"),
            ("seed:", "seed is None, expected int"),
            ("seed: many", "seed: invalid literal"),
            ("seed: -1", "seed: -1 is no seed"),
            ("seed: [1]", r"seed is \[1\], expected int"),
            ("leads: [[I]]", "expected text"),
            ("profile: strong", "profile is 'strong'; known: reference, reference-low, sos, none"),
            ("dataset-config: [ptbxl-template, mimic]", "is 'mimic'; known: ptbxl-template"),
            ("- a\n- b", "expected `option: value` lines"),
            ("a: [", "not YAML"),
        ],
    )
    def test_mistakes_in_it(self, tmp_path, capsys, text, message):
        (tmp_path / "c.yaml").write_text(text)
        error = refused(capsys, "prepare", "synthetic", "--output", tmp_path / "out", "--config", tmp_path / "c.yaml")
        assert re.search(message, error) and "Try `ecgbyte prepare --help`." in error
        assert str(tmp_path / "c.yaml") in error and error.count("\n") == 2

    def test_a_flag_takes_true_or_false(self, tmp_path, capsys):
        (tmp_path / "c.yaml").write_text("no-rule: maybe")
        error = refused(capsys, "evaluate", "--config", tmp_path / "c.yaml")
        assert "no-rule is 'maybe', expected true or false" in error

    def test_an_absent_file(self, tmp_path, capsys):
        assert "No such file" in refused(capsys, "env", "--config", tmp_path / "absent.yaml")
        assert "expected one argument" in refused(capsys, "env", "--config")


class TestCommands:
    """The whole way in one process, from simulated records to a report and a figure."""

    def test_env(self, capsys):
        assert run("env") == 0
        assert f"numpy                {np.__version__}" in capsys.readouterr().out

    def test_read(self, test_data, capsys):
        assert run("read", test_data / "ptbxl/records500/00000/00001_hr") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "00001_hr: 12 leads, 10 s at 500 Hz" and lines[-1] == "problems: none"
        assert [line.split()[0] for line in lines[1:13]][:4] == ["I", "II", "III", "AVR"]
        assert run("read", test_data / "ptbxl/records500/00000/00001_hr", "--leads", "II") == 0
        assert len(capsys.readouterr().out.splitlines()) == 4

    def test_read_a_file_that_states_little(self, tmp_path, capsys):
        path = tmp_path / "ecg.csv"
        path.write_text("0.1,2\n0.2,1\n0.4,-1\n")
        arguments = ("--sampling-rate", "2", "--units", "uV", "--lead-names", "I", "V1")
        assert run("read", path, *arguments) == 0
        assert capsys.readouterr().out.splitlines() == [
            "ecg: 2 leads, 1.5 s at 2 Hz",
            "  I         0.000 to   0.000 mV",
            "  V1       -0.001 to   0.002 mV",
            "format: text (uV)",
            "problems: amplitude",
        ]
        assert run("read", path, *arguments, "--format", "edf") == 1
        assert run("read", path, *arguments[2:]) == 1
        assert "states no sampling rate, and nothing is guessed" in capsys.readouterr().err

    def test_read_derived_leads(self, test_data, capsys):
        assert run("read", test_data / "ood/ge_muse/musePHI_muse_ecg1.xml") == 0
        assert capsys.readouterr().out.splitlines()[-3:] == [
            "format: muse (uV)",
            "derived from I and II: III, aVR, aVL, aVF",
            "problems: none",
        ]

    def test_the_whole_way(self, tmp_path, capsys):
        folder = tmp_path
        prepared, ecg_byte, llm, rows = (folder / name for name in ("prepared", "ecg-byte", "llm", "rows"))
        assert (
            run(
                *("prepare", "synthetic", "--records", 20, "--leads", "I", "II", "--sampling-rate", 100),
                *("--seconds", 5, "--seed", 1, "--output", prepared),
            )
            == 0
        )
        out = capsys.readouterr().out
        assert "20 records in" in out and "train: 270 questions, 0 without their record" in out
        assert "shared by train/test: 0 ECGs, 0 patients" in out

        assert run("train-tokenizer", "--data", prepared, "--num-merges", 40, "--output", ecg_byte) == 0
        assert "round trip          100.0 % of records come back exactly" in capsys.readouterr().out

        assert run("encode", "--data", prepared, "--tokenizer", ecg_byte, "--output", folder / "ids") == 0
        assert capsys.readouterr().out.startswith("20 records, ")

        assert (
            run(
                *(
                    "extend-llm",
                    "--tiny-from",
                    prepared,
                    "--tokenizer",
                    ecg_byte,
                    "--max-length",
                    256,
                    "--reserve",
                    16,
                ),
                *("--output", llm),
            )
            == 0
        )
        assert "68 tokens added" in capsys.readouterr().out

        assert run("encode", "--data", prepared, "--model", llm, "--output", rows) == 0
        out = capsys.readouterr().out
        assert "train: 270 questions in 270 rows" in out and "no text was cut" in out
        assert sorted(path.name for path in rows.iterdir()) == ["encode.json", "train.parquet", "validation.parquet"]

        answers = {}
        for view in ("true", "shuffled", "zero_signal", "question_only"):
            answers[view] = folder / f"{view}.jsonl"
            code = run(
                *("generate", "--model", llm, "--data", prepared, "--split", "train", "--view", view),
                *("--max-new-tokens", 2, "--batch-size", 90, "--output", answers[view]),
            )
            assert code == 0
        assert "270 answers in" in (out := capsys.readouterr().out) and "cut off at --max-new-tokens" in out

        controls = [part for view in list(answers)[1:] for part in ("--control", f"{view}={answers[view]}")]
        assert (
            run(
                *("evaluate", "--data", prepared, "--predictions", answers["true"], *controls, "--resamples", 20),
                *("--no-rule", "--text-metrics", "--model-name", "m", "--output", folder / "report.json"),
            )
            == 0
        )
        table = capsys.readouterr().out
        assert "were cut off at max_new_tokens" in table and "question_only" in table.splitlines()[0]
        report = json.loads((folder / "report.json").read_text())
        assert report["exact_match"]["n"] == 270 and report["split"] == "train" and "rule" not in report
        assert report["text_metrics"]["shuffled"]["n"] == 270 and "BLEU-4 per answer" in table
        assert "| BLEU-4 per answer | 270 |" in (folder / "report.md").read_text()
        assert "  name: synthetic\n" in (folder / "report.model_index.yaml").read_text()

        files = ("--first", answers["shuffled"], "--second", answers["true"], "--output", folder / "comparison.json")
        assert run("compare", "--data", prepared, *files, "--resamples", 20) == 0
        assert capsys.readouterr().out.splitlines()[2].startswith("all ")
        overall = json.loads((folder / "comparison.json").read_text())["overall"]
        assert (overall["n"], overall["second"]) == (270, report["exact_match"]["overall"])

        self.one_file(folder, prepared, ecg_byte, llm, capsys)

    @staticmethod
    def one_file(folder, prepared, ecg_byte, llm, capsys):
        """One question about one WFDB file, and its figure."""
        import wfdb

        from ecgbyte_hf.data.prepared import PreparedData

        wfdb.wrsamp(
            "one",
            fs=100,
            units=["mV", "mV"],
            sig_name=["II", "I"],
            p_signal=PreparedData(prepared).signal(3)[::-1].T.astype(np.float64),
            fmt=["16", "16"],
            adc_gain=[1000.0, 1000.0],
            baseline=[0, 0],
            write_dir=str(folder),
        )
        record = folder / "one"
        assert (
            run(
                *(
                    "generate",
                    "--model",
                    llm,
                    "--record",
                    record,
                    "--question",
                    "Is it regular?",
                    "--max-new-tokens",
                    2,
                )
            )
            == 0
        )
        assert capsys.readouterr().out.endswith("\n")
        for extra, name in (((), "whole.png"), (("--seconds", 2), "part.svg")):
            output = folder / name
            assert run("plot", "merges", "--tokenizer", ecg_byte, "--record", record, *extra, "--output", output) == 0
            assert output.stat().st_size > 10_000

    def test_prepare_says_what_it_refused(self, test_data, tmp_path, capsys):
        """A record's file is gone, and a patient is in no table."""
        ecgqa, signals = tmp_path / "ecgqa", tmp_path / "signals"
        item = {
            "template_id": 1,
            "question_id": 1,
            "question_type": "single-verify",
            "attribute_type": "noise",
            "question": "Noise?",
            "answer": ["no"],
            "attribute": None,
        }
        for split, ecg_ids in (("train", [1, 2, 3]), ("test", [4])):
            (ecgqa / "ptbxl/template" / split).mkdir(parents=True)
            items = [{**item, "sample_id": ecg_id, "ecg_id": [ecg_id]} for ecg_id in ecg_ids]
            (ecgqa / "ptbxl/template" / split / "0.json").write_text(json.dumps(items))
        shutil.copy(test_data / "ecg_qa/ecgqa/ptbxl/answers_for_each_template.csv", ecgqa / "ptbxl")
        (signals / "records500/00000").mkdir(parents=True)
        for name in ("00001_hr", "00002_hr", "00004_hr"):
            for ending in (".hea", ".dat"):
                shutil.copy(test_data / f"ptbxl/records500/00000/{name}{ending}", signals / "records500/00000")
        os.truncate(signals / "records500/00000/00002_hr.dat", 1000)
        (signals / "ptbxl_database.csv").write_text("ecg_id,patient_id\n1,5\n2,6\n3,7\n")
        code = run(
            *("prepare", "ecg_qa", "--data-dir", ecgqa, "--signals-dir", signals, "--output", tmp_path / "out"),
            *("--seconds", 2, "--num-proc", 2),
        )
        assert code == 0
        out = capsys.readouterr().out
        assert "2 records in" in out and ", 1 refused" in out
        assert "00002_hr" in out.split("refused: ")[1].splitlines()[0]
        assert "train: 1 questions, 2 without their record" in out
        assert "test: the patient of 1 ECGs is unknown, so they are not checked" in out
