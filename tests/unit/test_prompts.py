"""The wording of prompts and the length that is kept for the ECG."""

import json

import pytest

from ecgbyte_hf.data.prompts import PROMPT_FILE, TEXT_STEP, EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import BudgetError, EcgDataError


class Words:
    """A tokenizer of one token a word, and one for the beginning; an ECG token is a word wherever it stands."""

    def __call__(self, text, add_special_tokens=True):
        words = text.replace("<|ecg_start|>", " <|ecg_start|> ").split()
        return {"input_ids": list(range(len(words) + add_special_tokens))}


class TestText:
    def test_render(self):
        prompt = EcgPrompt()
        assert prompt.render("<E>", " Is {this} it? \n") == "<E>\nQuestion: Is {this} it?\nAnswer:"
        assert prompt.render_answer(["b", "a {c}"]) == " b, a {c}"
        other = EcgPrompt(template="{question} {ecg}", completion="{answer}.", answer_separator=" and ")
        assert other.render("<E>", "Why?") == "Why? <E>"
        assert other.render_answer(["b", "a"]) == "b and a."

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"template": "{question}"}, "expected .*'ecg', 'question'.* once each"),
            ({"template": "{ecg}{ecg}{question}"}, "once each"),
            ({"template": "{ecg}{question}{other}"}, "once each"),
            ({"template": "{ecg.__class__}{question}"}, "once each"),
            ({"template": "{ecg}{question}{"}, "in braces"),
            ({"template": None}, "in braces"),
            ({"completion": "yes"}, "once each"),
            ({"answer_separator": None}, "expected text"),
            ({"max_length": 0}, "max_length=0"),
            ({"max_length": "1024"}, "expected a positive number"),
            ({"reserve": True}, "expected a positive number"),
            ({"reserve": 1024}, "expected less reserve"),
        ],
    )
    def test_what_cannot_be_is_refused(self, changes, message):
        with pytest.raises(EcgDataError, match=message):
            EcgPrompt(**changes)


class TestBudget:
    PROMPT = EcgPrompt(max_length=100, reserve=10)

    def test_text_is_counted_with_one_ecg_token_in_its_place(self):
        # beginning, "Question:", "a", "b", "Answer:"
        assert self.PROMPT.text_tokens(Words(), "a b") == 5
        assert self.PROMPT.text_tokens(Words(), "a b", ecg_token="<|ecg_start|>") == 5

    @pytest.mark.parametrize(("text", "left"), [(1, 58), (32, 58), (33, 26), (64, 26)])
    def test_the_ecg_gets_what_steps_of_text_and_reserve_leave(self, text, left):
        assert TEXT_STEP == 32
        assert self.PROMPT.ecg_budget(text) == left

    def test_the_ecg_with_text_and_answer_never_exceeds_max_length(self):
        for text in range(1, 65):
            assert text + self.PROMPT.ecg_budget(text) + self.PROMPT.reserve <= 100

    def test_what_does_not_fit(self):
        with pytest.raises(
            BudgetError, match="text of 65 tokens .* leave no room for the ECG in 100; raise max_length"
        ):
            self.PROMPT.ecg_budget(65)
        with pytest.raises(BudgetError, match="question of 103 tokens .*'x x x"):
            self.PROMPT.text_tokens(Words(), "x " * 100)
        assert self.PROMPT.text_tokens(Words(), "x " * 87) == 90

    def test_answers(self):
        assert self.PROMPT.check_answer(Words(), " sinus rhythm") == 3  # with the end of sequence
        assert self.PROMPT.check_answer(Words(), " x" * 9) == 10
        with pytest.raises(BudgetError, match="11 tokens does not fit the 10 reserved"):
            self.PROMPT.check_answer(Words(), " x" * 10)


class TestFile:
    def test_comes_back(self, tmp_path):
        prompt = EcgPrompt(template="{question}\n{ecg}", completion=" {answer}!", max_length=77, reserve=7)
        assert prompt.save(tmp_path).name == PROMPT_FILE
        assert EcgPrompt.load(tmp_path) == prompt

    def test_missing_or_malformed(self, tmp_path):
        with pytest.raises(EcgDataError, match="make the folder with `ecgbyte extend-llm`"):
            EcgPrompt.load(tmp_path)
        for content in ("{", "[1]", json.dumps({"colour": 1}), json.dumps({"max_length": -1})):
            (tmp_path / PROMPT_FILE).write_text(content)
            with pytest.raises(EcgDataError):
                EcgPrompt.load(tmp_path)
