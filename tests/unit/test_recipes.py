"""The recipes: what the paper's says, what `trl sft` can read of them, and the chain of commands at a tiny size.

That each of them trains is in test_sft.py.
"""

import json
import os
import subprocess
import threading
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from peft import get_peft_model
from transformers import AutoModelForCausalLM, get_scheduler
from trl import get_peft_config

from ecgbyte_hf import cli
from ecgbyte_hf.evaluation.perturbations import Perturbation
from ecgbyte_hf.evaluation.signal_baselines import worse_path
from ecgbyte_hf.models.configuration_ecg_resnet import EcgResNetConfig
from ecgbyte_hf.models.errors_ecg_byte import EcgError
from ecgbyte_hf.training import sft
from ecgbyte_hf.training.augmentation import Augmentation

# TRL and PEFT use the old name, whatever is set; the new one is not known to all versions that setup.py allows.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")

FOLDER = Path(__file__).parents[2] / "scripts" / "recipes"
OWN_KEYS = {field.name for field in fields(sft.EcgArguments)}
NAMES = ["--model_name_or_path", "model", "--dataset_name", "rows"]
CPU = ["--bf16", "false", "--dtype", "float32", "--use_cpu", "true"]


def read(name):
    return yaml.safe_load((FOLDER / name).read_text())


def options_of(name):
    return sft.parse_options(["--config", str(FOLDER / name), *NAMES, *CPU])[0]


class TestSettings:
    @pytest.mark.parametrize("name", ["paper", "packed"])
    def test_the_recipe_for_trl_lacks_only_what_trl_lacks(self, name):
        ours = {key: value for key, value in read(f"sft_{name}.yaml").items() if key not in OWN_KEYS}
        assert read(f"trl_sft_{name}.yaml") == ours

    def test_the_papers(self):
        """REFERENCE section 4."""
        options = options_of("sft_paper.yaml")
        training, model = options.training, options.model
        assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (16, 32, 0.05)
        assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.99, 1e-8)
        assert (training.weight_decay, training.max_grad_norm) == (1e-2, 1.0)
        assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 1)
        assert (training.num_train_epochs, training.max_length) == (1, 1024)
        assert (training.packing, training.completion_only_loss) == (False, True)
        assert (training.load_best_model_at_end, training.metric_for_best_model) == (True, "eval_loss")
        assert (options.ecg.train_ecg_rows, options.ecg.early_stopping_patience) == (False, 5)

    def test_the_papers_schedule_is_noams(self):
        training = options_of("sft_paper.yaml").training
        optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=training.learning_rate)
        schedule = get_scheduler(training.lr_scheduler_type, optimiser, num_warmup_steps=training.warmup_steps)
        (rate,) = schedule.lr_lambdas
        for step in (1, 100, 500, 2000, 20000):
            noam = 2048**-0.5 * min(step**-0.5, step * 500**-1.5)
            assert training.learning_rate * rate(step) == pytest.approx(noam, rel=1e-3)

    def test_llamas_layers_are_the_papers_seven(self, small_llm):
        model = AutoModelForCausalLM.from_pretrained(small_llm)
        adapter = get_peft_model(model, get_peft_config(options_of("trl_sft_paper.yaml").model))
        names = {name.rpartition(".")[2] for name in adapter.peft_config["default"].target_modules}
        assert names == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}

    def test_shared_rows_are_not_packed(self):
        shared, packed = read("sft_shared.yaml"), read("sft_packed.yaml")
        changed = {"packing", "per_device_train_batch_size", "gradient_accumulation_steps"}
        assert {key for key in packed if shared[key] != packed[key]} == changed and shared.keys() == packed.keys()
        assert shared["packing"] is False

    def test_the_readme_has_all(self):
        text = (FOLDER / "README.md").read_text()
        names = {path.name for path in FOLDER.rglob("*") if path.suffix in (".yaml", ".sh")}
        assert {name for name in names if name not in text} == set()


class TestAccelerate:
    @pytest.mark.parametrize("path", sorted((FOLDER / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
    def test_accelerate_knows_every_key(self, path):
        load_config_from_file(str(path))  # refuses unknown keys of the first level
        parser = launch_command_parser()
        arguments = parser.parse_args(["--config_file", str(path), "-m", "ecgbyte_hf.cli"])
        for inner in (value for value in yaml.safe_load(path.read_text()).values() if isinstance(value, dict)):
            assert all(hasattr(arguments, key) for key in inner)
        merged, _, _ = _validate_launch_command(arguments)
        kind = "ddp" if path.stem.startswith("ddp") else path.stem
        assert merged.multi_gpu == (kind == "ddp")
        assert merged.use_fsdp == (kind == "fsdp2") and (not merged.use_fsdp or str(merged.fsdp_version) == "2")
        assert merged.use_deepspeed == kind.startswith("zero")
        assert not merged.use_deepspeed or merged.zero_stage == int(kind[-1])
        assert merged.use_cpu == (path.stem == "ddp_cpu")

    def test_a_file_that_is_not_there(self, small_llm, capsys):
        given = ["--model_name_or_path", str(small_llm), "--dataset_name", "rows", *CPU]
        assert cli.main(["sft", *given, "--accelerate_config", "many.yaml"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("ecgbyte sft: Accelerate config many.yaml is neither a file") and said.count("\n") == 1

    @pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
    def test_sharing_out_without_gpus_is_refused(self, name, small_llm, tmp_path, monkeypatch):
        options = sft.parse_options(["--model_name_or_path", str(small_llm), "--dataset_name", "rows", *CPU])[0]
        monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
        with pytest.raises(EcgError, match=f"{name} shares a model out to GPUs, and there is none here"):
            sft._check_distribution(options)


class Commands:
    """A stand-in of `ecgbyte` on the PATH that has this process run the command: no torch is imported anew."""

    SCRIPT = '#!/usr/bin/env bash\nprintf "%s\\0" "$@" >"{0}/asked"\nread -r code <"{0}/answered"\nexit "$code"\n'

    def __init__(self, folder):
        self.folder = folder
        for name in ("asked", "answered"):
            os.mkfifo(folder / name)
        (folder / "ecgbyte").write_text(self.SCRIPT.format(folder))
        (folder / "ecgbyte").chmod(0o755)

    def run(self, script, variables):
        """Its exit code, and the commands that it gave."""
        environment = {**os.environ, **variables, "PATH": f"{self.folder}:{os.environ['PATH']}"}
        ended = []

        def wait():
            ended.append(subprocess.run(["bash", str(FOLDER / script)], env=environment, timeout=300).returncode)
            (self.folder / "asked").write_bytes(b"")

        thread = threading.Thread(target=wait)
        thread.start()
        given = []
        while words := (self.folder / "asked").read_bytes().decode().split("\0")[:-1]:
            given.append(words)
            (self.folder / "answered").write_text(f"{self._answer(words)}\n")
        thread.join()
        return ended[0], given

    def _answer(self, words):
        if words[0] != "sft":
            return cli.main(words)
        sft.train(words[1:])
        return 0


@pytest.fixture
def commands(tmp_path):
    folder = tmp_path / "commands"
    folder.mkdir()
    return Commands(folder)


class TestChain:
    @pytest.mark.slow
    def test_the_way_to_the_scores_and_again(self, commands, small_llm, tmp_path, capsys):
        base = small_llm.with_name("tiny-llama")
        variables = {
            "OUTPUT": str(tmp_path / "runs"),
            "DATA_SET": "synthetic",
            "PREPARE_ARGUMENTS": "--records 40 --sampling-rate 100 --leads II --profile none",
            "NUM_MERGES": "20",
            "MAX_LENGTH": "384",
            "WINDOWS": "10",
            "BASE_MODEL": str(base),
            "SEEDS": "4",
            "SFT_ARGUMENTS": "--max_steps 2 --report_to none --disable_tqdm true --dataloader_pin_memory false "
            "--gradient_checkpointing false --eval_steps 2 --save_steps 2 " + " ".join(CPU),
            "GENERATE_ARGUMENTS": "--max-new-tokens 2 --device cpu",
            "EVALUATE_ARGUMENTS": "--no-rule --resamples 20",
        }
        code, given = commands.run("segment_length.sh", variables)
        assert code == 0
        names = [words[0] for words in given]
        first = ["prepare", "train-tokenizer", "extend-llm", "encode", "encode"]
        assert names == [*first, "sft", "generate", "sft", *["generate"] * 3, "evaluate"]
        training = given[7]
        assert training[training.index("--learning_rate") + 1] == "0.007906"  # (500 * 32) ** -0.5
        assert training[training.index("--seed") + 1] == "4"
        assert all("--window-seconds 10" in " ".join(words) for words in given if words[0] in ("encode", "generate"))
        (experiment,) = (tmp_path / "runs").glob("synthetic-10s-20-384-*")
        report = (experiment / "seed-4" / "report.md").read_text()
        assert all(name in report for name in ("majority", "question_only", "shuffled", "zero_signal"))

        # Again: only what is quick.
        code, given = commands.run("segment_length.sh", variables)
        assert code == 0 and {words[0] for words in given} == {"evaluate"}
        code, given = commands.run("paper.sh", variables | {"MAX_RECORDS": "7"})
        assert code == 2 and given == []

    @pytest.mark.parametrize(
        ("script", "variables", "varied"),
        [
            ("num_merges.sh", {"MERGES": "20 30"}, ["tokenizer-synthetic-20", "tokenizer-synthetic-30"]),
            ("sequence_length.sh", {}, ["model-synthetic-2s-9-1024-base", "model-synthetic-2s-9-2048-base"]),
            # A model notes the windows it is for, so each length has one of its own.
            ("segment_length.sh", {}, ["model-synthetic-2s-9-1024-base", "model-synthetic-5s-9-1024-base"]),
            (
                "base_models.sh",
                {"BASE_MODELS": "a/b c/d"},
                ["model-synthetic-2s-9-1024-b", "model-synthetic-2s-9-1024-d"],
            ),
            ("data_sets.sh", {"DATA_SETS": "synthetic ptb_xl"}, ["prepared-synthetic", "prepared-ptb_xl"]),
        ],
    )
    def test_what_is_varied(self, script, variables, varied, tmp_path):
        """Every command succeeds and makes nothing, so that all of them are given."""
        stub = tmp_path / "ecgbyte"
        # The learning rate is worked out from the model's width.
        stub.write_text(
            f'#!/usr/bin/env bash\necho "$*" >>"{tmp_path}/given"\n'
            '[[ $1 != extend-llm ]] || { mkdir -p "${@: -1}"; echo \'{"n_embd": 1600}\' >"${@: -1}/config.json"; }\n'
        )
        stub.chmod(0o755)
        usual = {"OUTPUT": "runs", "DATA_SET": "synthetic", "NUM_MERGES": "9", "BASE_MODEL": "some/base", "SEEDS": "0"}
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PTB_XL_DIR": "ptb-xl"}
        subprocess.run(
            ["bash", str(FOLDER / script)], env=environment | usual | variables, cwd=tmp_path, check=True, timeout=60
        )
        given = (tmp_path / "given").read_text()
        assert all(f"runs/{name}" in given for name in varied)
        assert given.count("--learning_rate 0.001118") == given.count("\nsft") > 0
        if script == "data_sets.sh":
            pairs = [line.split()[2].rpartition("/")[2] for line in given.splitlines() if line.startswith("evaluate")]
            assert pairs == ["prepared-synthetic", "prepared-ptb_xl"] * 2


def test_every_command_about_labels_is_one(tmp_path):
    """A stand-in takes all command lines; each is read by the command's own parser."""
    stub = tmp_path / "ecgbyte"
    stub.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >>"{tmp_path}/given"\necho >>"{tmp_path}/given"\n')
    stub.chmod(0o755)
    variables = {
        "PTB_XL_DIR": "ptb-xl",
        "OUTPUT": "runs",
        "ROBUSTNESS": "yes",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    script = ["bash", str(FOLDER / "ptb_xl_labels.sh")]
    subprocess.run(script, env={**os.environ, **variables}, cwd=tmp_path, check=True, timeout=60)
    given = [line.split("\0")[:-1] for line in (tmp_path / "given").read_text().splitlines()]
    parser, _ = cli.build_parser()
    for words in given:
        if words[0] == "sft":
            _, from_file, from_line = sft.parse_options([*words[1:], *CPU])
            assert not from_file and not from_line
        else:
            options = parser.parse_args(words)
            for perturbation in [*getattr(options, "perturb", []), *getattr(options, "worse", [])]:
                Perturbation.parse(perturbation)
            if getattr(options, "augment", []):
                Augmentation(options.augment, sampling_rate=50, seed=0)
    names = [words[0] for words in given]
    assert names.count("sft") == 3 and names.count("baseline") == 2 + 2 and names[-1] == "evaluate"
    told = [words for words in given if words[0] == "evaluate"][0]
    assert told.count("--control") == 3 and told.count("--system") == 2
    # What the robustness is read from are the files that the baselines write.
    made = {
        str(worse_path(words[words.index("--output") + 1], change))
        for words in given
        if "--worse" in words
        for change in words[words.index("--worse") + 1 :]
    }
    read = {
        word.split("=", 1)[1]
        for words in given
        if words[0] == "evaluate"
        for word in words
        if "runs/superclass-" in word
    }
    assert made == read and len(read) == 18
    # The question-only control is trained as long as the model, and the baselines on all labels.
    steps = [words[words.index("--max_steps") + 1] for words in given if words[0] == "sft"]
    assert steps[1] == steps[2]
    thinned = [
        words[words.index("--output") + 1] for words in given if words[0] == "prepare" and "--negatives" in words
    ]
    assert thinned == ["runs/data"]
    again = subprocess.run(
        script, env={**os.environ, **variables, "TEST_FOLD": "8"}, cwd=tmp_path, capture_output=True
    )
    assert again.returncode == 2 and b"runs holds a run with other settings" in again.stderr


#: Takes all command lines and makes nothing but the logs of trainings; a rate of 1e-3 has the lowest loss.
RECORDER = """#!/usr/bin/env bash
printf '%s\\0' "$@" >>"{folder}/given"
echo >>"{folder}/given"
[[ $1 == sft ]] || exit 0
shift
while [[ $1 != --output_dir ]]; do shift; done
mkdir -p "$2"
loss=2
[[ $2 != *1e-3* ]] || loss=1
echo '{{"history": [{{"eval_loss": '"$loss"'}}]}}' >"$2/training_log.json"
"""


class Recorder:
    """A stand-in of `ecgbyte` on the PATH; what it was given is read by each command's own parser."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "ecgbyte").write_text(RECORDER.format(folder=folder))
        (folder / "ecgbyte").chmod(0o755)

    def run(self, script, variables):
        """The finished process."""
        environment = {**os.environ, **variables, "PATH": f"{self.folder}:{os.environ['PATH']}"}
        command = ["bash", str(FOLDER / script)]
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=300)

    def commands(self):
        """All command lines, after their options were read."""
        given = [line.split("\0")[:-1] for line in (self.folder / "given").read_text().splitlines()]
        parser, _ = cli.build_parser()
        for words in given:
            if words[0] == "sft":
                _, from_file, from_line = sft.parse_options([*words[1:], *CPU])
                assert not from_file and not from_line
            else:
                parser.parse_args(words)
        return given


def of(words, option):
    """The value that a command line gives an option."""
    return words[words.index(option) + 1]


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path)


def test_every_command_about_an_encoder_of_labels_is_one(recorder):
    variables = {"PTB_XL_DIR": "ptb-xl", "OUTPUT": "runs"}
    ended = recorder.run("ptb_xl_encoder.sh", variables)
    assert ended.returncode == 0, ended.stderr
    given = recorder.commands()
    first = ["prepare", "pretrain-encoder", "probe-encoder", "prepare", "extend-llm"]
    rows = ["encode", "sft"] * 2
    assert [words[0] for words in given] == [*first, *rows, *["generate"] * 4, "evaluate"]
    # The encoder never saw the fold that is answered about, nor did the language model.
    assert {of(words, "--test-fold") for words in given if words[0] == "prepare"} == {"9"}
    assert all(of(words, "--splits") == "train" for words in given if words[0] == "encode")
    trained = [words for words in given if words[0] == "sft"]
    assert of(trained[0], "--max_steps") == of(trained[1], "--max_steps")
    assert [of(words, "--dataset_name") for words in trained] == ["runs/rows-true", "runs/rows-question_only"]
    (answers,) = {of(words, "--output") for words in given if words[0] == "generate" and of(words, "--view") == "true"}
    assert of(given[-1], "--predictions") == answers and given[-1].count("--control") == 3
    settings = EcgResNetConfig(**json.loads((recorder.folder / "runs" / "encoder.json").read_text()))
    assert (settings.base_channels, settings.text_config.num_hidden_layers) == (32, 2)
    again = recorder.run("ptb_xl_encoder.sh", variables | {"EPOCHS": "3"})
    assert again.returncode == 2 and "runs holds a run with other settings" in again.stderr


class TestSystems:
    ENCODERS = ("clip", "vit", "clip-vit", "merl-resnet", "patch-transformer")

    def test_every_command_is_one_and_every_system_has_the_same_budget(self, recorder):
        ended = recorder.run("compare_systems.sh", {"OUTPUT": "runs"})
        assert ended.returncode == 0, ended.stderr
        given = recorder.commands()
        every = ("ecg-byte", *self.ENCODERS)
        by_name = {name: [words for words in given if words[0] == name] for name in {words[0] for words in given}}
        assert len(by_name["prepare"]) == len(by_name["train-tokenizer"]) == len(by_name["systems"]) == 1
        pretrained = [(of(words, "--encoder"), of(words, "--seed")) for words in by_name["pretrain-encoder"]]
        assert pretrained == [(name, seed) for name in self.ENCODERS for seed in "012"]
        same = ("--max-steps", "--batch-size", "--learning-rate", "--tiny-size")
        assert len({tuple(of(words, option) for option in same) for words in by_name["pretrain-encoder"]}) == 1

        # Three rates with the first seed, the best one with two more; and without ECGs once for all encoders.
        trained = by_name["sft"]
        assert len(trained) == len(every) * 5 + 2 * 3
        shared = ("--max_steps", "--per_device_train_batch_size", "--max_length", "--warmup_steps")
        assert len({tuple(of(words, option) for option in shared) for words in trained}) == 1
        for name in every:
            mine = [words for words in trained if of(words, "--dataset_name") == f"runs/{name}/rows"]
            rates = [(of(words, "--learning_rate"), of(words, "--seed")) for words in mine]
            assert rates == [("5e-4", "0"), ("1e-3", "0"), ("2e-3", "0"), ("1e-3", "1"), ("1e-3", "2")]
            bases = {of(words, "--model_name_or_path") for words in mine}
            assert bases == {f"runs/{name}/seed-{seed}/base" for seed in "012"}
        controls = [of(words, "--dataset_name") for words in trained if "question-only" in of(words, "--output_dir")]
        assert controls == ["runs/ecg-byte/question-only/rows"] * 3 + ["runs/clip/question-only/rows"] * 3
        assert all(of(words, "--dataset_test_split") == "validation" for words in trained)

        asked = [(of(words, "--view"), of(words, "--model")) for words in by_name["generate"]]
        assert len(asked) == 3 * 3 * len(every) + 2 and all(of(w, "--split") == "test" for w in by_name["generate"])
        first, second = (f"runs/vit/{model}" for model in ("tuning/rate-1e-3", "seed-1/model"))
        for model in (first, second):
            assert [view for view, of_model in asked if of_model == model] == ["true", "shuffled", "zero_signal"]
        (question_only,) = [
            of(words, "--output")
            for words in by_name["generate"]
            if of(words, "--model").startswith("runs/clip/question-only")
        ]

        for words in by_name["evaluate"]:
            system = of(words, "--predictions").split("/")[1]
            files = [words[place + 1] for place, word in enumerate(words) if word == "--control"]
            assert {file.partition("=")[0] for file in files} == {"shuffled", "zero_signal", "question_only"}
            without = "runs/ecg-byte/question-only/answers.jsonl" if system == "ecg-byte" else question_only
            assert f"question_only={without}" in files
        (table,) = by_name["systems"]
        assert [table.count(f"--{kind}") for kind in ("report", "training", "tried", "pretraining")] == [
            18,
            18,
            18,
            15,
        ]
        assert "vit=runs/vit/tuning/rate-1e-3/training_log.json" in table
        assert table.index("ecg-byte=runs/ecg-byte/seed-0/report.json") < table.index(
            "clip=runs/clip/seed-0/report.json"
        )

    def test_the_papers_settings(self, recorder):
        variables = {"OUTPUT": "runs", "DATA": "prepared", "SEEDS": "0", "LEARNING_RATES": "1e-3"}
        ended = recorder.run("compare_systems_paper.sh", variables)
        assert ended.returncode == 0, ended.stderr
        given = recorder.commands()
        for words in given:
            if words[0] == "pretrain-encoder":  # the paper's weights, not random ones
                assert "--tiny" not in words and of(words, "--precision") == "bf16"
            if words[0] == "sft":
                options = sft.parse_options([*words[1:], "--use_cpu", "true", "--bf16", "false"])[0]
                assert options.model.use_peft and options.model.lora_r == 16 and options.training.max_length == 1024
            if "--data" in words:
                assert "--window-seconds 2" in " ".join(words)
        extended = [words for words in given if words[0] == "extend-llm"]
        assert [("--standardize-on" in words) for words in extended] == [False, True, True, True, True]
        assert {of(words, "--model") for words in extended} == {"meta-llama/Llama-3.2-1B"}

    def test_some_systems_of_a_prepared_folder(self, recorder):
        variables = {
            "OUTPUT": "runs",
            "DATA": "prepared",
            "SYSTEMS": "merl-resnet",
            "SEEDS": "7",
            "WINDOW": "--window-seconds 2",
        }
        variables |= {"BASE_MODEL": "some/llama", "LEARNING_RATES": "3e-4", "PRETRAIN_WEIGHTS": "--depth 18"}
        assert recorder.run("compare_systems.sh", variables).returncode == 0
        given = recorder.commands()
        names = [words[0] for words in given]
        train = ["encode", "sft"]
        assert names == [
            "pretrain-encoder",
            "extend-llm",
            *train,
            "generate",
            *train,
            *["generate"] * 3,
            "evaluate",
            "systems",
        ]
        assert all(of(words, "--data") == "prepared" for words in given if "--data" in words)
        assert all("--window-seconds 2" in " ".join(words) for words in given if "--data" in words)
        assert of(given[0], "--depth") == "18" and of(given[1], "--model") == "some/llama"

        # Again: what is trained stays. Other settings are refused.
        assert recorder.run("compare_systems.sh", variables).returncode == 0
        assert "sft" not in [words[0] for words in recorder.commands()[len(given) :]]
        again = recorder.run("compare_systems.sh", variables | {"STEPS": "7"})
        assert again.returncode == 2 and "runs holds a run with other settings" in again.stderr


def test_a_tokenizer_to_share(tmp_path):
    """Every command line is one, and only a wish uploads."""
    stub = tmp_path / "ecgbyte"
    stub.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >>"{tmp_path}/given"\necho >>"{tmp_path}/given"\n')
    stub.chmod(0o755)
    variables = {"PTB_XL_DIR": "ptb-xl", "PATH": f"{tmp_path}:{os.environ['PATH']}", "OUTPUT": "runs"}
    script = ["bash", str(FOLDER / "share_tokenizer.sh")]
    for wish in ("no", "yes"):
        subprocess.run(script, env={**os.environ, **variables, "PUSH": wish}, cwd=tmp_path, check=True, timeout=60)
    given = [line.split("\0")[:-1] for line in (tmp_path / "given").read_text().splitlines()]
    options = [cli.build_parser()[0].parse_args(words) for words in given]
    assert [one.command for one in options] == ["prepare", "train-tokenizer", "card", "push"] * 2
    _, trained, card, push = options[:4]
    assert trained.output == card.folder == push.folder and card.license == push.license == "cc-by-4.0"
    assert card.sources == [f"{options[0].output}/report.json"] and card.repo_id == push.repo_id
    assert [options[3].dry_run, options[7].dry_run] == [True, False]


def test_sets_that_divide_the_same_patients_otherwise_are_no_pair(tmp_path):
    variables = {"DATA_SET": "ptb_xl", "TEST_ON": "ecg_qa_ptbxl", "OUTPUT": "runs", "PTB_XL_DIR": "ptb-xl"}
    script = ["bash", str(FOLDER / "paper.sh")]
    ended = subprocess.run(script, env={**os.environ, **variables}, cwd=tmp_path, capture_output=True)
    assert ended.returncode == 2 and b"ptb_xl trains on patients that ecg_qa_ptbxl tests on" in ended.stderr
