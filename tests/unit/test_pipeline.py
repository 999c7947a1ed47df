"""`pipeline("ecg-question-answering")` and `ecgbyte ask`: an ECG in any form and questions to answers."""

import threading

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, TextIteratorStreamer, pipeline

from ecgbyte_hf import cli
from ecgbyte_hf.evaluation.pipeline import EcgQuestionAnsweringPipeline
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, EcgError, LeadError, SignalError
from ecgbyte_hf.models.feature_extraction_ecg_byte import EcgByteFeatureExtractor
from ecgbyte_hf.signal.records import EcgRecord

TASK = "ecg-question-answering"
QUESTIONS = ("Is the rhythm regular?", "What is the heart rate of this ECG?", "Does it show a wide QRS complex?")


@pytest.fixture(scope="module")
def pipe(lively_llm):
    return pipeline(TASK, model=str(lively_llm), device="cpu", max_new_tokens=6)


@pytest.fixture(scope="module")
def records(small_prepared):
    return [EcgRecord(small_prepared.signal(number), 100.0, ("I", "aVF"), str(number)) for number in (20, 21)]


@pytest.fixture(scope="module")
def path(small_prepared, tmp_path_factory):
    """A recording as a file."""
    signal = small_prepared.signal(20)
    file = tmp_path_factory.mktemp("recording") / "twenty.npz"
    np.savez(file, signal=signal, lead_names=["I", "aVF"], units="mV")
    return file


@pytest.fixture(scope="module")
def expected(pipe, records):
    """The answers of the model itself, one by one."""
    model = pipe.language_model
    return {
        (number, question): model.answer(records[number], question, max_new_tokens=6)
        for number in (0, 1)
        for question in QUESTIONS
    }


def test_a_record_an_array_and_a_file_are_the_same(pipe, records, path, expected):
    assert isinstance(pipe, EcgQuestionAnsweringPipeline)
    record, question = records[0], QUESTIONS[0]
    answer = pipe({"ecg": record, "question": question})
    assert answer["answer"] == expected[0, question]
    assert set(answer) == {"answer", "reached_limit", "seconds_shown"} and 0 < answer["seconds_shown"] < 10
    array = {"sampling_rate": 100.0, "leads": ["aVF", "I"]}
    assert pipe(ecg=record.signal[::-1].copy(), question=question, **array) == answer
    assert pipe({"ecg": record.signal, "question": question, "sampling_rate": 100, "leads": ["I", "aVF"]}) == answer
    for place in (path, str(path)):
        assert pipe(ecg=place, question=question, sampling_rate=100.0) == answer


def test_lists_keep_their_order_and_each_ecg_is_cleaned_once(pipe, records, expected, monkeypatch):
    cleaned = []
    clean = EcgByteFeatureExtractor.clean

    def counted(self, record, *arguments, **kwargs):
        cleaned.append(record.name)
        return clean(self, record, *arguments, **kwargs)

    monkeypatch.setattr(EcgByteFeatureExtractor, "clean", counted)
    asked = [(number, question) for question in QUESTIONS for number in (1, 0)]
    inputs = [{"ecg": records[number], "question": question} for number, question in asked]
    for size in (1, 4, 16):
        cleaned.clear()
        assert [one["answer"] for one in pipe(inputs, batch_size=size)] == [expected[key] for key in asked]
        assert sorted(cleaned) == ["20", "21"]
    in_turn = pipe(iter(inputs), batch_size=4)
    assert next(in_turn)["answer"] == expected[asked[0]]
    assert [one["answer"] for one in in_turn] == [expected[key] for key in asked[1:]]
    assert pipe([]) == []


def test_the_answer_s_limit_is_told(pipe, records):
    asked = [{"ecg": record, "question": question} for record in records for question in QUESTIONS]
    short, long = pipe(asked, max_new_tokens=1), pipe(asked, max_new_tokens=30)
    assert any(answer["reached_limit"] for answer in short)
    for one, other in zip(short, long, strict=True):
        assert other["answer"].startswith(one["answer"]) and (one["reached_limit"] or one == other)
    assert any(len(one["answer"]) < len(other["answer"]) for one, other in zip(short, long, strict=True))


def test_tokens_are_streamed(pipe, records, expected):
    streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    call = {"ecg": records[0], "question": QUESTIONS[1], "streamer": streamer}
    thread = threading.Thread(target=pipe, kwargs=call)
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text.strip() == expected[0, QUESTIONS[1]]
    with pytest.raises(EcgDataError, match="a streamer for 2 questions"):
        pipe([{"ecg": records[0], "question": QUESTIONS[0]}] * 2, streamer=streamer)


def test_a_loaded_model_with_or_without_its_ecg_parts(pipe, lively_llm, records, expected):
    ours = pipeline(TASK, model=pipe.language_model, max_new_tokens=6, device="cpu")
    model = AutoModelForCausalLM.from_pretrained(lively_llm)
    theirs = EcgQuestionAnsweringPipeline(model, device="cpu", max_new_tokens=6)
    for made in (ours, theirs):
        assert made(ecg=records[1], question=QUESTIONS[2])["answer"] == expected[1, QUESTIONS[2]]


# Of peft 0.21 with transformers 5.23, in nobody's hands here.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_with_trained_rows(lively_llm, records, expected, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = AutoModelForCausalLM.from_pretrained(lively_llm)
    rows = list(range(320, base.config.vocab_size))
    torch.manual_seed(5)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, trainable_token_indices=rows)
    adapter = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.normal_()
    adapter.save_pretrained(tmp_path / "adapter")
    made = pipeline(TASK, model=str(tmp_path / "adapter"), device="cpu", max_new_tokens=6)
    answers = made([{"ecg": records[0], "question": question} for question in QUESTIONS])
    alone = [made(ecg=records[0], question=question) for question in QUESTIONS]
    assert answers == alone
    assert [one["answer"] for one in answers] != [expected[0, question] for question in QUESTIONS]
    again = adapter.eval()
    texts = [
        type(made.language_model)(again, *_parts(made.language_model)).answer(records[0], question, max_new_tokens=6)
        for question in QUESTIONS
    ]
    assert [one["answer"] for one in answers] == texts


def _parts(model):
    return model.lm_tokenizer, model.processor, model.prompt


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"question": "Why?"}, EcgDataError, r"input 0 lacks \['ecg'\]"),
        ({"ecg": "a", "question": "Why?", "text": 1}, EcgDataError, r"has \['text'\]"),
        ({"ecg": "a", "question": " "}, EcgDataError, "has the question ' '"),
        (["a"], EcgDataError, "input 0 is str, expected a dictionary"),
        (
            {"ecg": np.zeros((2, 100)), "question": "?"},
            SignalError,
            "array of shape .2, 100. without its sampling_rate",
        ),
        ({"ecg": [1.0], "question": "?"}, SignalError, "an ECG of type list"),
        ({"ecg": "absent.hea", "question": "?"}, EcgError, "absent.hea"),
        (
            {"ecg": np.zeros((2, 99)), "question": "?", "sampling_rate": 100, "leads": ["I", "X"]},
            LeadError,
            "X",
        ),
    ],
)
def test_inputs_that_are_none(pipe, inputs, error, message):
    with pytest.raises(error, match=message):
        pipe(inputs)


def test_arguments_that_are_none(pipe, records):
    question = {"ecg": records[0], "question": "?"}
    for settings, message in (
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"temperature": 1.0}, "unknown: temperature; known: max_new_tokens"),
        ({"question": "?", "age": 63}, "got inputs and question=, age= beside them"),
    ):
        with pytest.raises(EcgDataError, match=message):
            pipe(question, **settings)
    for facts, message in (({"age": "63"}, "the age '63', expected years"), ({"sex": "M"}, "the sex 'M', expected")):
        with pytest.raises(EcgDataError, match=message):
            pipe(**question, **facts)
    with pytest.raises(SignalError, match="beside a record, which has its own"):
        pipe({**question, "sampling_rate": 100.0})


def test_a_folder_without_ecg_parts_says_so(small_llm):
    with pytest.raises(EcgDataError, match="no ECG tokenizer"):
        pipeline(TASK, model=str(small_llm.with_name("tiny-llama")), device="cpu")


class TestAsk:
    @pytest.fixture
    def recording(self, records, monkeypatch):
        monkeypatch.setattr("ecgbyte_hf.signal.records.read_ecg", lambda path: records[0])
        return "twenty"

    def ask(self, llm, recording, *questions):
        return cli.main(
            ["ask", "--model", str(llm), "--device", "cpu", "--max-new-tokens", "6", recording, *questions]
        )

    def test_answers_are_printed(self, lively_llm, recording, expected, capsys):
        assert self.ask(lively_llm, recording, QUESTIONS[0]) == 0
        assert capsys.readouterr().out.strip() == expected[0, QUESTIONS[0]]
        assert self.ask(lively_llm, recording, *QUESTIONS[:2]) == 0
        lines = [line for question in QUESTIONS[:2] for line in (question, expected[0, question])]
        assert capsys.readouterr().out == "\n".join(lines) + "\n"

    def test_a_terminal_gets_each_word_when_it_is_there(self, lively_llm, recording, expected, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        assert self.ask(lively_llm, recording, *QUESTIONS[:2]) == 0
        heard = capsys.readouterr().out.strip().split("\n")
        assert [line.strip() for line in heard] == [
            line for question in QUESTIONS[:2] for line in (question, expected[0, question])
        ]
