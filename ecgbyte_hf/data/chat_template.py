"""A chat template read once and frozen to text, so that rows, generation and the model's own template cannot differ.

Templates of base models are programs: Llama 3.2's writes the day it runs on, others cut earlier answers or end a
conversation otherwise than a turn. What they write around a question and an answer is found here with placeholders,
once, when a model is extended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from ecgbyte_hf.data.prompts import EcgPrompt
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError, VocabularyError

#: How `extend_llm` may word prompts.
PROMPT_FORMATS = ("plain", "chat")
#: What a user's first turn holds.
USER_TEMPLATE = "{ecg}\n{question}"
_SYSTEM, _QUESTIONS, _ANSWERS = "PLACE-OF-SYSTEM", ("PLACE-OF-Q1", "PLACE-OF-Q2"), ("PLACE-OF-A1", "PLACE-OF-A2")


@dataclass(frozen=True)
class ChatFormat:
    r"""The texts around the turns of a conversation.

    Attributes:
        start: Before the first question where there is no system message.
        system: Before and after a system message, up to the first question; `None` if the template takes none.
        to_answer: From a question to its answer.
        answer: The answer with the spaces around it, as text with `{answer}`.
        end: The token that ends an answer, and where generation stops.
        to_question: From there to the next question.

    Example:
        >>> turns = ChatFormat("<|user|>", None, "<|assistant|>", "{answer}", "<|end|>", "\n<|user|>")
        >>> turns.prompt(EcgPrompt(), system=None).template
        '<|user|>{ecg}\n{question}<|assistant|>'
    """

    start: str
    system: tuple[str, str] | None
    to_answer: str
    answer: str
    end: str
    to_question: str

    def prompt(self, prompt: EcgPrompt, *, system: str | None) -> EcgPrompt:
        """The wording of a prompt in this format, with the lengths and settings of `prompt`.

        A system text for a template that takes none becomes the beginning of the first question.
        """
        user = prompt.user_template or USER_TEMPLATE
        system = (system or "").strip() or None
        start = self.start
        if system is not None and self.system is None:
            user, system = f"{_escaped(system)}\n\n{user}", None
        elif system is not None and self.system is not None:
            start = self.system[0] + system + self.system[1]
        return replace(
            prompt,
            template=_escaped(start) + user + _escaped(self.to_answer),
            completion=self.answer,
            next_template=f"{_escaped(self.to_question)}{{question}}{_escaped(self.to_answer)}",
            user_template=user,
            system=system,
        )

    def jinja(self, tokenizer_bos: str) -> str:
        """A chat template that writes these texts, whatever the day and however many turns.

        It marks the answers with their ends as generated, so that TRL's `assistant_only_loss` trains on them alone.

        Args:
            tokenizer_bos: What the tokenizer puts before every text by itself; a chat template has to write it.
        """
        if self.system is None:
            opening = (
                "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role is known') }}{% endif %}"
            )
            opening += f"{{% set turns = messages %}}{{{{ {_quoted(tokenizer_bos + self.start)} }}}}"
        else:
            before, after = (_quoted(text) for text in self.system)
            opening = (
                f"{{{{ {_quoted(tokenizer_bos)} }}}}"
                "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
                f"{{{{ {before} + messages[0]['content'] + {after} }}}}"
                f"{{% else %}}{{% set turns = messages %}}{{{{ {_quoted(self.start)} }}}}{{% endif %}}"
            )
        before, after = (_quoted(text) for text in self.answer.split("{answer}"))
        return (
            opening + "{% for turn in turns %}"
            "{% if turn['role'] != ('assistant' if loop.index0 % 2 else 'user') %}"
            "{{ raise_exception('turns must be of user and assistant by turns') }}{% endif %}"
            "{% if turn['role'] == 'user' %}"
            f"{{% if not loop.first %}}{{{{ {_quoted(self.to_question)} }}}}{{% endif %}}{{{{ turn['content'] }}}}"
            f"{{% if add_generation_prompt or not loop.last %}}{{{{ {_quoted(self.to_answer)} }}}}{{% endif %}}"
            "{% else %}{% generation %}"
            f"{{{{ {before} + turn['content'] + {after} + {_quoted(self.end)} }}}}"
            "{% endgeneration %}{% endif %}{% endfor %}"
        )


def read_chat_format(tokenizer: Any) -> ChatFormat:
    """What a tokenizer's chat template writes around the turns.

    The beginning of sequence is left out where the tokenizer adds it to every text by itself.

    Raises:
        VocabularyError: there is no chat template, or one whose turns cannot be told apart.
    """
    if not tokenizer.chat_template:
        raise VocabularyError(
            f"{tokenizer.name_or_path} has no chat template; take the Instruct model, or --prompt-format plain"
        )
    prompt = _rendered(tokenizer, [("user", _QUESTIONS[0])], add_generation_prompt=True)
    turns = [("user", _QUESTIONS[0]), ("assistant", _ANSWERS[0]), ("user", _QUESTIONS[1]), ("assistant", _ANSWERS[1])]
    whole = _rendered(tokenizer, turns)
    _, until_answer, between = _parted(whole, _QUESTIONS[0], _ANSWERS[0], _QUESTIONS[1])[:3]
    start, to_answer = _parted(prompt, _QUESTIONS[0])
    lead = until_answer.removeprefix(to_answer) if until_answer.startswith(to_answer) else ""
    if lead.strip():  # the template knows no generation prompt
        to_answer, lead = until_answer, ""
    if to_answer.count("<think>") > to_answer.count("</think>"):
        raise VocabularyError(
            f"the chat template of {tokenizer.name_or_path} begins answers with a thought, which the answers here do "
            "not have; take a model that answers at once, or --prompt-format plain"
        )
    trail = between[: len(between) - len(between.lstrip())]
    end = _end_token(tokenizer, between[len(trail) :])
    bos = added_bos(tokenizer)
    system = _around_system(tokenizer)
    return ChatFormat(
        start=start.removeprefix(bos),
        system=None if system is None else (system[0].removeprefix(bos), system[1]),
        to_answer=to_answer,
        answer=f"{lead}{{answer}}{trail}",
        end=end,
        to_question=between[len(trail) + len(end) :],
    )


def added_bos(tokenizer: Any) -> str:
    """The beginning of sequence that a tokenizer adds to every text, which no text may hold a second time."""
    ids = tokenizer("")["input_ids"]
    return str(tokenizer.bos_token) if ids and ids[0] == tokenizer.bos_token_id else ""


def _rendered(tokenizer: Any, turns: list[tuple[str, str]], **options: Any) -> str:
    from jinja2 import TemplateError

    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    except TemplateError as error:
        roles = ", ".join(role for role, _ in turns)
        raise VocabularyError(
            f"the chat template of {tokenizer.name_or_path} refuses turns of {roles} ({error}); use --prompt-format "
            "plain"
        ) from error


def _around_system(tokenizer: Any) -> tuple[str, str] | None:
    try:
        text = _rendered(tokenizer, [("system", _SYSTEM), ("user", _QUESTIONS[0])], add_generation_prompt=True)
        before, after, _ = _parted(text, _SYSTEM, _QUESTIONS[0])
    except VocabularyError:  # refused, left out, or put elsewhere
        return None
    return before, after


def _parted(text: str, *places: str) -> list[str]:
    """The parts of a text around placeholders, which stand in it once and in this order."""
    parts = []
    for place in places:
        before, found, text = text.partition(place)
        if not found or place in text:
            raise VocabularyError(
                "the chat template does not write every turn once and in order; use --prompt-format plain"
            )
        parts.append(before)
    return [*parts, text]


def _end_token(tokenizer: Any, text: str) -> str:
    """The token that a text begins with."""
    tokens = sorted((token for token in tokenizer.get_added_vocab() if text.startswith(token)), key=len)
    if not tokens:
        raise VocabularyError(
            f"the chat template ends an answer with {text[:30]!r}, which is no token of its own, so that generation "
            "could not stop there; use --prompt-format plain"
        )
    return str(tokens[-1])


def _escaped(text: str) -> str:
    """As part of a text with placeholders in braces."""
    return text.replace("{", "{{").replace("}", "}}")


def _quoted(text: str) -> str:
    """As a string of Jinja, whose escapes are Python's."""
    return json.dumps(text, ensure_ascii=False)


def check_prompt_format(prompt_format: str, system_prompt: str | None) -> None:
    """Refuse an unknown format, and a system prompt where there is no system.

    Raises:
        EcgDataError: as said.
    """
    if prompt_format not in PROMPT_FORMATS:
        raise EcgDataError(f"got the prompt format {prompt_format!r}, expected one of {', '.join(PROMPT_FORMATS)}")
    if prompt_format == "plain" and (system_prompt or "").strip():
        raise EcgDataError("a system prompt belongs to the prompt format 'chat'; give --prompt-format chat")
