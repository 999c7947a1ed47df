"""Which ids carry loss in each format of rows, as TRL and its collator see them, and what a prompt says."""

from dataclasses import replace

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from chat_models import FAMILIES, save_chat_model
from sft_options import sft_config

from ecgbyte_hf.data.chat import EcgPrompter
from ecgbyte_hf.data.ecg_chat import conversation_questions, conversation_row
from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.data.prompts import ECG_SUBFOLDER, EcgPrompt
from ecgbyte_hf.data.questions import report_question
from ecgbyte_hf.data.windows import WindowedData
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError, VocabularyError
from ecgbyte_hf.models.processing_ecg_byte import EcgByteProcessor
from ecgbyte_hf.training.extend_llm import extend_llm, keep_settings, load_prompter
from ecgbyte_hf.training.tiny_llm import texts_of

PROMPT = EcgPrompt(max_length=640, reserve=48)
SYSTEM = {"llama": "Answer {briefly}.", "chatml": None, "gemma": "Answer {briefly}."}


@pytest.fixture(scope="module")
def bases(small_prepared, tmp_path_factory):
    """The folder of a model in the manner of each family."""
    texts = texts_of(small_prepared, PROMPT)[:50]
    return {family: save_chat_model(tmp_path_factory.mktemp(family), family, texts) for family in FAMILIES}


@pytest.fixture(scope="module")
def extended(bases, small_ecg_byte):
    """The same extended for their chat."""
    processor = EcgByteProcessor.from_pretrained(small_ecg_byte)
    folders = {}
    for family, base in bases.items():
        options = {"prompt": PROMPT, "prompt_format": "chat", "system_prompt": SYSTEM[family]}
        folders[family] = extend_llm(str(base), processor, base.with_name(f"{family}-ecg"), **options).folder
    return folders


@pytest.fixture(scope="module", params=["plain", *FAMILIES])
def made(request, small_prepared, small_llm, extended):
    """The folder of an extended model and its prompter."""
    if request.param == "plain":
        prompter = load_prompter(small_llm, small_prepared)
        prompter.prompt = replace(prompter.prompt, max_length=640, reserve=48)
        return small_llm, prompter
    return extended[request.param], load_prompter(extended[request.param], small_prepared)


@pytest.fixture(params=FAMILIES)
def chat(request, small_prepared, extended):
    return extended[request.param], load_prompter(extended[request.param], small_prepared)


@pytest.fixture(scope="module")
def talk():
    """A conversation as ECG-Chat has it, about ECG 3."""
    turns = [
        "<ecg>\nWhat does\nthis show?",
        " Sinus {rhythm}.\nNo more. ",
        "And the rate?\n",
        "70",
        "Why?",
        "RR, 857 ms",
    ]
    item = {
        "ecg": "files/p1000/p10000032/s3/3",
        "conversations": [
            {"from": "gpt" if place % 2 else "human", "value": text} for place, text in enumerate(turns)
        ],
    }
    return conversation_row(item, 7, "file")


@pytest.fixture(scope="module")
def asked(small_prepared, talk):
    """A question of each data set."""
    return [
        small_prepared.questions("train")[0],
        {**small_prepared.questions("train")[20], "ecg_id": [1, 2], "answer": ["v1", "v2"]},
        report_question("ptb_xl", 2, "Sinusrhythmus.\nLagetyp normal {sic}.", "records500/00000/00002_hr"),
        *conversation_questions(talk, "first"),
        *conversation_questions(talk, "separate"),
        *conversation_questions(talk, "history"),
    ]


def trained_on(folder, rows, tmp_path, **settings):
    """`input_ids` and `labels` of rows as TRL's collator gives them to the model, without padding."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTTrainer

    config = sft_config(tmp_path, **{"max_length": 640, **settings})
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(len(rows))])
    seen = []
    for ids, labels, is_there in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        length = int(is_there.sum())
        assert set(labels[length:].tolist()) <= {-100}
        seen.append((ids[:length].tolist(), labels[:length].tolist()))
    return seen


def runs(labels):
    """The stretches of labels that carry loss."""
    parts = [[]]
    for label in labels:
        if label == -100 and parts[-1]:
            parts.append([])
        elif label != -100:
            parts[-1].append(label)
    return [part for part in parts if part]


def pairs(rows):
    return [(row["input_ids"], row["labels"]) for row in rows]


class TestTextRows:
    def test_loss_is_on_every_answer_token_and_its_end(self, made, asked, tmp_path):
        folder, prompter = made
        tokenizer = prompter.lm_tokenizer
        rows = [prompter.training_row(row) for row in asked]
        seen = trained_on(folder, [{name: row[name] for name in ("prompt", "completion")} for row in rows], tmp_path)
        for question, row, (ids, labels) in zip(asked, rows, seen, strict=True):
            prompt_ids = tokenizer(row["prompt"])["input_ids"]
            assert ids[: len(prompt_ids)] == prompt_ids
            assert labels == [-100] * len(prompt_ids) + ids[len(prompt_ids) :]
            (answer,) = runs(labels)
            assert answer[-1] == tokenizer.eos_token_id
            assert tokenizer.decode(answer[:-1]).strip() == ", ".join(question["answer"]).strip()
            assert ids.count(tokenizer.bos_token_id) == len(tokenizer("")["input_ids"])
            assert len(ids) <= 640

    def test_the_end_is_where_the_template_ends_a_turn(self, chat):
        folder, prompter = chat
        from transformers import AutoModelForCausalLM

        family = folder.name.removesuffix("-ecg")
        _, _, old_end, end, _, _ = FAMILIES[family]
        tokenizer = prompter.lm_tokenizer
        assert tokenizer.eos_token == end and tokenizer.pad_token == "<|pad|>"
        assert tokenizer.decode(tokenizer(f"yes{end}")["input_ids"], skip_special_tokens=True) == "yes"
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.config.eos_token_id == tokenizer.eos_token_id
        ends = model.generation_config.eos_token_id
        wanted = tokenizer.convert_tokens_to_ids(list(dict.fromkeys([end, old_end])))
        assert (ends if isinstance(ends, list) else [ends]) == wanted

        def ends_at_once(_, scores):
            scores[:] = 0.0
            scores[:, tokenizer.eos_token_id] = 1.0
            return scores

        batch = tokenizer(["Why?"], return_tensors="pt")
        made = model.generate(**batch, max_new_tokens=5, do_sample=False, logits_processor=[ends_at_once])
        assert made[0, batch["input_ids"].shape[1] :].tolist() == [tokenizer.eos_token_id]


class TestMessages:
    def test_become_the_ids_and_labels_of_text_rows(self, chat, asked, tmp_path):
        folder, prompter = chat
        text = [prompter.training_row(row) for row in asked]
        rows = [prompter.messages_row(row) for row in asked]
        names = ("prompt", "completion")
        seen = trained_on(folder, [{name: row[name] for name in names} for row in rows], tmp_path / "messages")
        assert seen == trained_on(folder, [{name: row[name] for name in names} for row in text], tmp_path / "text")
        for question, row in zip(asked, rows, strict=True):
            roles = [message["role"] for message in row["prompt"] + row["completion"]]
            if roles[0] == "system":
                assert row["prompt"][0]["content"] == SYSTEM["llama"] and roles.pop(0)
            assert roles == ["user", "assistant"] * (1 + len(question.get("history") or []) // 2)
            assert row["sample_id"] == question["sample_id"] and row["ecg_id"] == question["ecg_id"]

    def test_without_the_ecg_too(self, chat, asked, small_prepared):
        _, prompter = chat
        blind = EcgPrompter(
            prompter.ecg_tokenizer, prompter.lm_tokenizer, prompter.prompt, small_prepared.signal, view="question_only"
        )
        row = blind.messages_row(asked[0])
        assert "<|ecg" not in str(row) and row["prompt"][-1]["content"].endswith(asked[0]["question"])

    def test_of_a_plain_prompt_are_refused(self, small_prepared, small_llm, asked):
        with pytest.raises(EcgDataError, match="hold no messages; extend the base model with --prompt-format chat"):
            load_prompter(small_llm, small_prepared).messages_row(asked[0])

    def test_another_chat_template_is_refused(self, extended, small_prepared, asked):
        prompter = load_prompter(extended["chatml"], small_prepared)
        prompter.lm_tokenizer.chat_template = FAMILIES["chatml"][0]
        with pytest.raises(VocabularyError, match="does not write its prompts; restore the one"):
            prompter.messages_row(asked[0])  # a line break behind the last turn


class TestConversations:
    def test_one_row_has_loss_on_every_answer(self, made, talk, tmp_path):
        folder, prompter = made
        tokenizer = prompter.lm_tokenizer
        (whole,) = conversation_questions(talk, "all")
        row = prompter.conversation_row(whole)
        answers = [tokenizer.decode(run) for run in runs(row["labels"])]
        wanted = ["Sinus {rhythm}.\nNo more.", "70", "RR, 857 ms"]
        assert [answer.strip() for answer in answers] == [f"{text}{tokenizer.eos_token}" for text in wanted]
        assert all(label in (-100, token) for token, label in zip(row["input_ids"], row["labels"], strict=True))
        assert trained_on(folder, [row], tmp_path) == pairs([row])
        text = tokenizer.decode(row["input_ids"])
        places = [text.index(part) for part in ("<|ecg_start|>", "What does\nthis show?", "And the rate?", "Why?")]
        assert places == sorted(places) and text.count("<|ecg_start|>") == 1

    def test_its_ids_are_those_of_the_last_question_with_history(self, made, talk, tmp_path):
        folder, prompter = made
        tokenizer = prompter.lm_tokenizer
        (whole,) = conversation_questions(talk, "all")
        row = prompter.conversation_row(whole)
        asked = conversation_questions(talk, "history")
        last = prompter.training_row(asked[-1])
        ((ids, labels),) = trained_on(folder, [{name: last[name] for name in ("prompt", "completion")}], tmp_path)
        assert ids == row["input_ids"] and runs(labels) == runs(row["labels"])[-1:]
        for one in asked:  # what generation will be asked
            assert prompter.prompt_for(one).num_tokens == len(tokenizer(prompter.prompt_for(one).text)["input_ids"])
            assert prompter.prompt_for(one).text == prompter.training_row(one)["prompt"]

    def test_as_messages_they_become_the_same(self, chat, talk, tmp_path):
        folder, prompter = chat
        (whole,) = conversation_questions(talk, "all")
        row = {"messages": prompter.conversation_messages_row(whole)["messages"]}
        seen = trained_on(folder, [row], tmp_path, assistant_only_loss=True)
        assert seen == pairs([prompter.conversation_row(whole)])

    def test_too_long_ones_are_named(self, made, talk):
        _, prompter = made
        (whole,) = conversation_questions(talk, "all")
        long = {
            **whole,
            "history": [*whole["history"], {"role": "user", "content": "word " * 900}, whole["history"][1]],
        }
        with pytest.raises(BudgetError, match="sample 7: "):
            prompter.conversation_row(long)
        with pytest.raises(BudgetError, match="sample 7: an answer of .* raise reserve"):
            prompter.conversation_row({**whole, "answer": ["word " * 90]})

    def test_are_not_grouped(self, made, asked):
        _, prompter = made
        with_history = asked[-1]
        first = {**asked[-3], "history": []}
        rows = list(prompter.grouped_rows([first, with_history]))
        assert len(rows) == 2 and [len(runs(row["labels"])) for row in rows] == [1, 1]


class TestGroupedRows:
    def test_further_questions_are_further_turns(self, chat, small_prepared, tmp_path):
        """A group of two questions is a conversation of two turns, ids and labels."""
        folder, prompter = chat
        one = small_prepared.questions("train")[0]
        two = {**one, "answer": ["sinus rhythm"]}  # as long, so that it is shown the same cut
        prompter.prompt = replace(prompter.prompt, reserve=200)
        (grouped,) = prompter.grouped_rows([one, two])
        talk = [("user", one["question"]), ("assistant", one["answer"][0])]
        history = [{"role": role, "content": content} for role, content in talk]
        ids = prompter.conversation_row({**two, "history": history})["input_ids"]
        tail = ids[ids.index(prompter.lm_tokenizer.convert_tokens_to_ids("<|ecg_end|>")) :]
        assert grouped["input_ids"][-len(tail) :] == tail
        assert len(runs(grouped["labels"])) == 2
        assert trained_on(folder, [grouped], tmp_path) == pairs([grouped])


class TestBudget:
    def test_what_fits_and_what_is_cut(self, made, asked):
        _, prompter = made
        prompter.report.rows_cut = 0
        for row in asked:
            prompt = prompter.prompt_for(row)
            text = "".join(prompter._parts(row, "<|ecg_start|>"))
            rest = len(prompter.lm_tokenizer(text)["input_ids"]) - 1
            budget = 640 - 48 - -(-rest // 32) * 32
            share = budget // len(row["ecg_id"])
            assert rest < prompt.num_tokens <= rest + budget
            for block in prompt.text.split("<|ecg_end|>")[:-1]:
                assert 0.8 * share < block[block.index("<|ecg_start|>") :].count("<|ecg_") + 1 <= share

    def test_random_texts_and_budgets(self, made, small_prepared):
        """Whatever the texts, a row is whole and within its length, or refused by name."""
        _, given = made
        prompter = EcgPrompter(given.ecg_tokenizer, given.lm_tokenizer, given.prompt, small_prepared.signal)
        rng = np.random.default_rng(0)
        letters = np.array(list("ab .?{}\u00fc\u6f22\n-1"))
        fitted = refused = 0
        for number in range(40):
            texts = ["".join(rng.choice(letters, rng.integers(1, 160))).strip() or "x" for _ in range(4)]
            history = [{"role": "user", "content": texts[2]}, {"role": "assistant", "content": texts[3]}]
            row = {
                "sample_id": number,
                "ecg_id": [1, 2][: rng.integers(1, 3)],
                "question": texts[0],
                "answer": [texts[1]],
                "history": history if rng.integers(2) else [],
            }
            most = int(rng.integers(150, 900))
            prompter.prompt = replace(prompter.prompt, max_length=most, reserve=int(rng.integers(10, most // 2)))
            try:
                text = prompter.training_row(row)
                ids = prompter.conversation_row(row)["input_ids"]
                alone = [one["input_ids"] for one in prompter.grouped_rows([row])]
            except BudgetError as error:
                assert f"sample {number}" in str(error)
                refused += 1
                continue
            fitted += 1
            assert len(ids) <= most and alone == [ids]
            whole = text["prompt"] + text["completion"] + prompter.lm_tokenizer.eos_token
            assert prompter.lm_tokenizer(whole)["input_ids"] == ids
            assert text["completion"].strip() == texts[1] and texts[0] in text["prompt"]
            assert text["prompt"].count("<|ecg_start|><|ecg_") == len(row["ecg_id"])
            assert all(turn["content"] in text["prompt"] for turn in row["history"])
        assert fitted > 8 and refused > 3


class Known:
    """A prepared folder that tells of its patients."""

    def __init__(self, prepared, metadata):
        self._prepared, self._metadata = prepared, metadata

    def __getattr__(self, name):
        return getattr(self._prepared, name)

    def metadata(self):
        return self._metadata


class TestContext:
    FACTS = {
        1: {"age": 63.7, "sex": "male", "device": "CS-12"},
        2: {"age": None, "sex": "female", "device": None},
        3: {"age": 90.0, "sex": None, "device": None},
    }

    @pytest.mark.parametrize(
        ("context", "ecg_ids", "wanted"),
        [
            (["age", "sex"], [1], "Patient: 63 years, male. Why?"),
            (["sex", "age"], [1], "Patient: male, 63 years. Why?"),
            (["sex"], [1], "Patient: male. Why?"),
            (["age", "sex"], [2], "Patient: female. Why?"),
            (["age"], [2], "Why?"),
            (["age", "sex"], [3], "Patient: over 89 years. Why?"),
            (["age", "sex"], [4], "Why?"),
            ([], [1], "Why?"),
            (["age", "sex"], [1, 2], "First ECG: 63 years, male. Second ECG: female. Why?"),
            (["age"], [2, 1], "Second ECG: 63 years. Why?"),
        ],
    )
    def test_text(self, context, ecg_ids, wanted):
        facts = [self.FACTS.get(ecg_id, {}) for ecg_id in ecg_ids]
        assert EcgPrompt(context=context).with_context(" Why? ", facts) == wanted

    @pytest.mark.parametrize("age", [float("nan"), float("inf"), -1.0, "63", None])
    def test_ages_that_are_none(self, age):
        assert EcgPrompt(context=["age"]).with_context("Why?", [{"age": age}]) == "Why?"

    def test_is_in_rows_and_in_every_control(self, extended, small_prepared, talk):
        folder = extended["gemma"]
        known = Known(small_prepared, self.FACTS)
        row = small_prepared.questions("train")[0]
        assert row["ecg_id"] == [1]
        told = f"Patient: 63 years, male. {row['question']}"
        prompter = load_prompter(folder, known, context=["age", "sex"])
        assert told in prompter.training_row(row)["prompt"] and "CS-12" not in prompter.training_row(row)["prompt"]
        assert told in prompter.messages_row(row)["prompt"][-1]["content"]
        parts = (prompter.ecg_tokenizer, prompter.lm_tokenizer, prompter.prompt, known)
        for view, options in (("question_only", {}), ("zero_signal", {}), ("shuffled", {"substitutes": {1: 2}})):
            control = EcgPrompter.for_prepared(*parts, view=view, **options)
            assert told in control.prompt_for(row).text  # of the ECG that is asked about, not the one that is shown
        (grouped,) = EcgPrompter.for_prepared(*parts, view="question_only").grouped_rows([row, row])
        assert prompter.lm_tokenizer.decode(grouped["input_ids"]).count("Patient:") == 1
        (whole,) = conversation_questions(talk, "all")
        (talked,) = [prompter.lm_tokenizer.decode(prompter.conversation_row(whole)["input_ids"])]
        assert talked.count("Patient: over 89 years. What does") == talked.count("Patient:") == 1

    def test_a_folder_that_tells_nothing(self, extended, small_prepared):
        for prepared in (Known(small_prepared, {}), Known(small_prepared, {1: {"age": None, "sex": "male"}})):
            with pytest.raises(EcgDataError, match="tells neither age of its patients; prepare it anew"):
                load_prompter(extended["gemma"], prepared, context=["age"])
        load_prompter(extended["gemma"], Known(small_prepared, {}))  # nothing is asked for

    def test_is_not_forgotten(self, extended, small_prepared):
        prompter = load_prompter(extended["gemma"], small_prepared)
        prompt = replace(prompter.prompt, context=["sex"])
        with pytest.raises(EcgDataError, match="tell sex of the patient; pass them as context_of"):
            EcgPrompter(prompter.ecg_tokenizer, prompter.lm_tokenizer, prompt, small_prepared.signal)


class TestSettings:
    def test_what_rows_were_written_for_is_kept(self, extended, small_prepared, tmp_path):
        import shutil

        folder = tmp_path / "model"
        shutil.copytree(extended["gemma"], folder)
        assert EcgPrompt.load(folder / ECG_SUBFOLDER).window_seconds is None
        windows = WindowedData(small_prepared.folder, 2.0)
        prompter = load_prompter(folder, windows)
        assert prompter.prompt_for(windows.questions("test")[0]).seconds <= 2.0
        keep_settings(folder, prompter.prompt)
        kept = EcgPrompt.load(folder / ECG_SUBFOLDER)
        assert (kept.window_seconds, kept.context) == (2.0, [])
        load_prompter(folder, windows)
        with pytest.raises(
            EcgDataError, match="got whole records, and this model is for windows of 2 s; give --window-s"
        ):
            load_prompter(folder, small_prepared)
        with pytest.raises(EcgDataError, match="got the context age, and prompts of this model have none"):
            load_prompter(folder, windows, context=["age"])

    def test_whole_records_are_a_setting_too(self):
        settled = EcgPrompt().settle(window_seconds=None, context=["age"])
        assert (settled.window_seconds, settled.context) == (0.0, ["age"])
        settled.check_windows(None)
        assert settled.settle(window_seconds=None) == settled
        with pytest.raises(EcgDataError, match="got windows of 5 s, and this model is for whole records"):
            settled.check_windows(5.0)
        EcgPrompt().check_windows(5.0)  # not known

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"context": "age"}, "expected a list of age, sex"),
            ({"context": ["name"]}, "expected a list of age, sex"),
            ({"context": ["age", "age"]}, "expected a list of age, sex"),
            ({"window_seconds": -1}, "or 0 for whole records"),
            ({"window_seconds": float("nan")}, "or 0 for whole records"),
            ({"window_seconds": "2"}, "or 0 for whole records"),
            ({"next_template": "{ecg}{question}"}, "once each"),
            ({"user_template": "{question}"}, "once each"),
            ({"system": 5}, "expected text"),
        ],
    )
    def test_what_cannot_be_is_refused(self, changes, message):
        with pytest.raises(EcgDataError, match=message):
            EcgPrompt(**changes)

    def test_a_file_of_an_earlier_version(self, tmp_path):
        (tmp_path / "ecg_prompt.json").write_text(
            '{"template": "{ecg}{question}", "completion": " {answer}", "answer_separator": ", ", "max_length": 99, '
            '"reserve": 9}'
        )
        loaded = EcgPrompt.load(tmp_path)
        assert loaded == EcgPrompt(template="{ecg}{question}", max_length=99, reserve=9)
        assert loaded.context is loaded.window_seconds is loaded.next_template is None
        assert loaded.render_next("Why?") == "Why?"

    def test_chat_settings_that_do_not_go_together(self, small_llm, small_ecg_byte, tmp_path):
        processor = EcgByteProcessor.from_pretrained(small_ecg_byte)
        with pytest.raises(EcgDataError, match="expected one of plain, chat"):
            extend_llm(str(small_llm), processor, tmp_path, prompt_format="html")
        with pytest.raises(EcgDataError, match="give --prompt-format chat"):
            extend_llm(str(small_llm), processor, tmp_path, system_prompt="Be brief.")
        base = small_llm.with_name("tiny-llama")
        with pytest.raises(VocabularyError, match="has no chat template"):
            extend_llm(str(base), processor, tmp_path, prompt=PROMPT, prompt_format="chat")


class TestCommands:
    def test_extend_and_encode(self, bases, small_prepared, small_ecg_byte, tmp_path, capsys):
        from ecgbyte_hf.cli import main

        model, rows = str(tmp_path / "model"), str(tmp_path / "rows")
        options = ["--max-length", "640", "--system-prompt", "Be brief.", "--output", model]
        extend = ["extend-llm", "--model", str(bases["llama"]), "--tokenizer", str(small_ecg_byte), *options]
        assert main(extend) == 1 and "give --prompt-format chat" in capsys.readouterr().err
        assert main([*extend, "--prompt-format", "chat"]) == 0
        encode = [
            "encode",
            "--data",
            str(small_prepared.folder),
            "--model",
            model,
            "--output",
            rows,
            "--splits",
            "test",
        ]
        assert main([*encode, "--context", "age"]) == 1 and "tells neither age" in capsys.readouterr().err
        assert EcgPrompt.load(tmp_path / "model" / ECG_SUBFOLDER).window_seconds is None
        assert main([*encode, "--row-format", "messages", "--window-seconds", "5"]) == 0
        kept = EcgPrompt.load(tmp_path / "model" / ECG_SUBFOLDER)
        assert (kept.window_seconds, kept.context, kept.system) == (5.0, [], "Be brief.")
        assert len(pq.read_table(tmp_path / "rows/test.parquet")) == 60
        assert main(encode) == 1 and "this model is for windows of 5 s" in capsys.readouterr().err

    def test_what_extend_llm_is_told_is_kept(self, bases, small_ecg_byte, tmp_path):
        from ecgbyte_hf.cli import main

        options = ["--context", "sex", "age", "--window-seconds", "2", "--output", str(tmp_path)]
        assert main(["extend-llm", "--model", str(bases["gemma"]), "--tokenizer", str(small_ecg_byte), *options]) == 0
        kept = EcgPrompt.load(tmp_path / ECG_SUBFOLDER)
        assert (kept.context, kept.window_seconds, kept.user_template) == (["sex", "age"], 2.0, None)


class TestFiles:
    def test_messages_rows(self, chat, small_prepared, tmp_path):
        _, prompter = chat
        report = encode_rows(small_prepared, tmp_path, prompter, splits=["test"], row_format="messages")
        rows = pq.read_table(tmp_path / "test.parquet").to_pylist()
        assert [{name: row[name] for name in ("prompt", "completion", "sample_id", "ecg_id")} for row in rows] == [
            prompter.messages_row(row) for row in small_prepared.questions("test")
        ]
        assert all(row["options"] for row in rows)
        assert report["provenance"]["arguments"]["row_format"] == "messages"

    def test_turns(self, chat, small_prepared, talk, tmp_path, monkeypatch):
        _, prompter = chat
        monkeypatch.setattr(
            small_prepared, "questions", lambda split: [{**talk, "ecg_id": [3]}, {**talk, "sample_id": 8}]
        )

        def written(**options):
            report = encode_rows(small_prepared, tmp_path / "rows", prompter, splits=["test"], **options)
            rows = pq.read_table(tmp_path / "rows/test.parquet").to_pylist()
            assert report["splits"]["test"]["questions"] == report["splits"]["test"]["rows"] == len(rows)
            return rows

        assert [row["completion"].strip() for row in written()] == ["Sinus {rhythm}.\nNo more."] * 2
        for turns in ("separate", "history"):
            rows = written(turns=turns)
            assert [row["sample_id"] for row in rows] == [7000, 7001, 7002, 8000, 8001, 8002]
            assert ("And the rate?" in rows[2]["prompt"]) == (turns == "history")
        tokens = written(turns="all")
        assert [set(row) for row in tokens] == [{"input_ids", "labels"}] * 2 and len(runs(tokens[0]["labels"])) == 3
        (first, _) = written(turns="all", row_format="messages")
        assert set(first) == {"messages", "sample_id", "ecg_id"} and first["messages"][-1]["content"] == "RR, 857 ms"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"row_format": "html"}, "unknown row format 'html'; known: text, grouped"),
            ({"row_format": "messages", "questions_per_row": 2}, "got 2 questions per row of messages"),
            ({"row_format": "grouped"}, "expected at least 2"),
            ({"questions_per_row": 3, "turns": "all"}, "takes no further questions"),
            ({"turns": "last"}, "got turns='last', expected one of first, separate, history, all"),
            ({"turns": "all"}, "has no messages; prepare ecg_chat anew"),
        ],
    )
    def test_what_does_not_go_together(self, small_prepared, extended, tmp_path, options, message):
        prompter = load_prompter(extended["gemma"], small_prepared)
        with pytest.raises(EcgDataError, match=message):
            encode_rows(small_prepared, tmp_path, prompter, splits=["test"], **options)
        assert not list(tmp_path.glob("*.parquet"))
