"""Chat templates as frozen text: what surrounds the turns, where they end, and that nothing stands there twice."""

import copy
import json
from pathlib import Path

import pytest
import trl
from chat_models import FAMILIES, chat_tokenizer

from ecgbyte_hf.data.chat_template import ChatFormat, added_bos, read_chat_format
from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import VocabularyError

TALK = [("user", "Is it {regular}?"), ("assistant", "yes"), ("user", "The rate?"), ("assistant", "70")]


def messages(turns):
    return [{"role": role, "content": content} for role, content in turns]


@pytest.fixture(scope="module")
def tokenizers():
    return {family: chat_tokenizer(family, ["Is it regular? yes", "Which rate? 70"]) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def family(request, tokenizers):
    return request.param, tokenizers[request.param]


def with_template(tokenizer, template):
    class Other:
        name_or_path = "other"
        chat_template = template

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text):
            return tokenizer(text)

        def apply_chat_template(self, turns, **options):
            return tokenizer.apply_chat_template(turns, chat_template=template, **options)

    return Other()


class TestReading:
    def test_the_parts_of_chatml(self, tokenizers):
        assert read_chat_format(tokenizers["chatml"]) == ChatFormat(
            start="<|im_start|>system\nYou are {kind}.<|im_end|>\n<|im_start|>user\n",
            system=("<|im_start|>system\n", "<|im_end|>\n<|im_start|>user\n"),
            to_answer="<|im_end|>\n<|im_start|>assistant\n",
            answer="{answer}",
            end="<|im_end|>",
            to_question="\n<|im_start|>user\n",
        )

    def test_gemma_takes_no_system_and_its_beginning_is_the_tokenizers(self, tokenizers):
        assert read_chat_format(tokenizers["gemma"]) == ChatFormat(
            start="<turn>user\n",
            system=None,
            to_answer="<end_turn>\n<turn>model\n",
            answer="{answer}",
            end="<end_turn>",
            to_question="\n<turn>user\n",
        )

    def test_spaces_around_an_answer_and_repeated_beginnings(self, tokenizers):
        template = (
            "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[IN] ' + m['content'] + ' [/IN]' }}"
            "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
        )
        read = read_chat_format(with_template(tokenizers["llama"], template))
        assert (read.start, read.to_answer, read.answer) == ("[IN] ", " [/IN]", " {answer} ")
        assert (read.end, read.to_question, read.system) == ("<|eot|>", "<|bos|>[IN] ", None)

    def test_a_template_without_generation_prompt(self, tokenizers):
        template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
        read = read_chat_format(with_template(tokenizers["gemma"], template))
        assert (read.to_answer, read.answer, read.end) == ("<|eos|>assistant: ", "{answer}", "<|eos|>")

    def test_earlier_turns_may_be_written_otherwise_than_the_last(self, tokenizers):
        """As templates of reasoning models do: the last answer has an empty thought before it, earlier ones none."""
        template = (
            "{% for m in messages %}{{ '<turn>' + m['role'] + '\n' }}"
            "{% if loop.last and m['role'] == 'assistant' %}{{ '(no thought)' }}{% endif %}"
            "{{ m['content'] + '<end_turn>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
        )
        read = read_chat_format(with_template(tokenizers["gemma"], template))
        assert (read.to_answer, read.answer) == ("<end_turn>\n<turn>assistant\n", "{answer}")

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            (None, "has no chat template; take the Instruct model, or --prompt-format plain"),
            ("{{ raise_exception('no') }}", r"refuses turns of user \(no\)"),
            ("{% for m in messages %}{{ m['content'] }}. {% endfor %}", "ends an answer with '. ', which is no token"),
            (
                "{% for m in messages %}{{ m['content'] + '<end_turn>' }}{% endfor %}"
                "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}",
                "begins answers with a thought",
            ),
            ("{{ messages[0]['content'] }}", "every turn once and in order"),
            ("{% for m in messages %}{{ m['content'] + m['content'] }}{% endfor %}", "every turn once and in order"),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, tokenizers, template, message):
        with pytest.raises(VocabularyError, match=message):
            read_chat_format(with_template(tokenizers["gemma"], template))


@pytest.mark.parametrize("name", ["llama3", "qwen2_5", "qwen3", "gemma", "gemma3", "phi3"])
def test_templates_of_known_families(tokenizers, name):
    """As TRL has them: the prompt is theirs, and two turns are but for empty thoughts and what follows the last."""
    path = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    tokenizer = copy.deepcopy(tokenizers["gemma"])
    template = path.read_text(encoding="utf-8")
    tokens = ["<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.chat_template = template
    read = read_chat_format(tokenizer)
    assert read.end in tokens and read.answer == "{answer}"
    for turns, options in ((TALK, {}), (TALK[:1], {"add_generation_prompt": True})):
        given = messages([("system", "Be brief."), *turns]) if read.system else messages(turns)
        theirs = tokenizer.apply_chat_template(given, tokenize=False, **options)
        ours = tokenizer.apply_chat_template(given, chat_template=read.jinja(""), tokenize=False, **options)
        theirs = theirs.replace("<think>\n\n</think>\n\n", "").removeprefix("<|bos|>")
        rest = theirs.removeprefix(ours)
        assert theirs == ours + rest and rest in ("", "\n", "<|eos|>", "\n<|eos|>")


class TestPrompt:
    def test_ids_are_those_of_the_template(self, family):
        """Llama's writes a time, so it is compared without."""
        name, tokenizer = family
        prompt = read_chat_format(tokenizer).prompt(EcgPrompt(user_template="{ecg}{question}"), system=None)
        kept = prompt.render("", TALK[0][1])
        wanted = tokenizer.apply_chat_template(messages(TALK[:1]), add_generation_prompt=True, tokenize=False)
        if name == "llama":
            assert kept.partition("Today: ")[0] == wanted.removeprefix("<|bos|>").partition("Today: ")[0]
            assert kept.partition("\n\n<|eot|>")[2] == wanted.partition("\n\n<|eot|>")[2]
            return
        ids = tokenizer(kept)["input_ids"]
        assert ids == tokenizer(wanted, add_special_tokens=False)["input_ids"]
        assert ids.count(tokenizer.bos_token_id) == (name == "gemma")

    def test_system(self, family):
        name, tokenizer = family
        prompt = read_chat_format(tokenizer).prompt(EcgPrompt(), system=" Be {brief}. ")
        text = prompt.render("<ECG>", "Why?")
        assert text.count("Be {brief}.") == 1 and text.index("Be {brief}.") < text.index("<ECG>")
        if name == "gemma":
            assert prompt.system is None and prompt.render_user("<ECG>", "Why?") == "Be {brief}.\n\n<ECG>\nWhy?"
        else:
            assert prompt.system == "Be {brief}." and prompt.render_user("<ECG>", "Why?") == "<ECG>\nWhy?"
        assert "Be {brief}" not in prompt.render_next("Why?")

    def test_lengths_and_settings_are_kept(self, tokenizers):
        given = EcgPrompt(max_length=99, reserve=9, answer_separator="; ", context=["sex"], window_seconds=2.0)
        made = read_chat_format(tokenizers["gemma"]).prompt(given, system=None)
        for name in ("max_length", "reserve", "answer_separator", "context", "window_seconds"):
            assert getattr(made, name) == getattr(given, name)


class TestFrozenTemplate:
    def frozen(self, tokenizer):
        read = read_chat_format(tokenizer)
        return read, read.jinja(added_bos(tokenizer))

    def test_writes_what_the_template_writes(self, family):
        name, tokenizer = family
        _, template = self.frozen(tokenizer)
        tail = FAMILIES[name][4]
        systems = [[]] if name == "gemma" else [[], [("system", 'Be "brief" \\ {{ 1 }}\n\u00fc\U0001f600.')]]
        for system in systems:
            for turns, options in ((TALK, {}), (TALK[:1], {"add_generation_prompt": True}), (TALK[:3], {})):
                given = messages(system + turns)
                ours = tokenizer.apply_chat_template(given, chat_template=template, tokenize=False, **options)
                theirs = tokenizer.apply_chat_template(given, tokenize=False, **options)
                if name == "llama":  # without the time
                    ours, theirs = (
                        text[:30] + text.partition("\n\n")[2].partition("\n\n")[2] for text in (ours, theirs)
                    )
                if turns[-1][0] == "user" and not options:  # the end of an unanswered question is left to the answer
                    assert theirs.startswith(ours) and ours.endswith("The rate?")
                else:
                    assert ours + (tail if turns[-1][0] == "assistant" else "") == theirs

    def test_is_the_same_on_every_day(self, tokenizers):
        _, template = self.frozen(tokenizers["llama"])
        texts = {
            tokenizers["llama"].apply_chat_template(messages(TALK), chat_template=template, tokenize=False)
            for _ in range(3)
        }
        assert len(texts) == 1 and "strftime" not in template
        theirs = {tokenizers["llama"].apply_chat_template(messages(TALK), tokenize=False) for _ in range(3)}
        assert len(theirs) > 1

    def test_marks_the_answers_and_their_ends(self, family):
        name, tokenizer = family
        _, template = self.frozen(tokenizer)
        made = tokenizer.apply_chat_template(
            messages(TALK), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        marked = [token for token, mask in zip(made["input_ids"], made["assistant_masks"], strict=True) if mask]
        end = FAMILIES[name][3]
        assert tokenizer.decode(marked) == f"yes{end}70{end}"

    @pytest.mark.parametrize("turns", [TALK[1:2], TALK[:1] * 2, [*TALK[:1], ("tool", "x")]])
    def test_turns_that_it_cannot_write_are_refused(self, family, turns):
        from jinja2 import TemplateError

        _, template = self.frozen(family[1])
        with pytest.raises(TemplateError, match="by turns"):
            family[1].apply_chat_template(messages(turns), chat_template=template, tokenize=False)

    def test_no_system_where_none_is_known(self, tokenizers):
        from jinja2 import TemplateError

        _, template = self.frozen(tokenizers["gemma"])
        with pytest.raises(TemplateError, match="no system role"):
            tokenizers["gemma"].apply_chat_template(
                messages([("system", "x"), *TALK]), chat_template=template, tokenize=False
            )


def test_prompt_of_a_chat_comes_back_from_its_file(tokenizers, tmp_path):
    made = read_chat_format(tokenizers["chatml"]).prompt(EcgPrompt(), system="Be brief.")
    made.save(tmp_path)
    assert EcgPrompt.load(tmp_path) == made
    assert json.loads((tmp_path / "ecg_prompt.json").read_text())["system"] == "Be brief."
