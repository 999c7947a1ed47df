r"""ECG-Chat's `pretrain_mimic.json` (Zhao et al., 2024): conversations about MIMIC-IV-ECG records.

The file is a list of `{"ecg": "files/p1000/p10000032/s40689238/40689238", "conversations": [{"from": "human", "value":
"<ecg>\n..."}, {"from": "gpt", "value": "..."}, ...]}`. It is read whole: a few hundred MB of JSON are some GB in
memory while the data set is built or streamed, and nothing afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Features

from ecgbyte_hf.data.builder import EcgBuilderConfig, EcgDatasetBuilder, split_generators
from ecgbyte_hf.data.ecg_qa import read_ecg_ids
from ecgbyte_hf.data.mimic_iv_ecg import patients_of
from ecgbyte_hf.data.questions import CONVERSATION_TEMPLATE, MESSAGES_FEATURE, QUESTION_FEATURES
from ecgbyte_hf.data.splits import split_of_patient
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

#: Where the conversation shows the ECG.
ECG_TAG = "<ecg>"
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
#: What is made of a conversation: see `conversation_questions`.
TURNS = ("first", "separate", "history", "all")
#: Most questions of one conversation, so that each can have a number.
MOST_QUESTIONS = 1000
#: Conversations in a unit of work.
SHARD = 2000

_PATH = re.compile(r"(?:.*/)?(?P<path>files/p\d+/p(?P<patient>\d+)/s(?P<study>\d+)/(?P=study))")


@dataclass
class EcgChatConfig(EcgBuilderConfig):
    """Which conversations to read, and how to divide them.

    Attributes:
        file: Its name in `data_dir`.
        seed: Of the division by patient; with MIMIC-IV-ECG's seed the same patients are in the same split.
        ecg_qa_dir: ECG-QA's `ecgqa` folder: the patients of its MIMIC test ECGs then are in the test split.
        record_list: MIMIC-IV-ECG's `record_list.csv`, which says whose ECGs these are; needed with `ecg_qa_dir`.
    """

    version: datasets.Version = datasets.Version("1.0.0")
    file: str = "pretrain_mimic.json"
    seed: int = 0
    ecg_qa_dir: str | None = None
    record_list: str | None = None

    def source_files(self) -> list[Path]:
        """The conversations, and what the division depends on."""
        files = [self.root() / self.file]
        if self.ecg_qa_dir is not None:
            files.append(self.test_list())
        if self.record_list is not None:
            files.append(Path(self.record_list))
        return files

    def test_list(self) -> Path:
        """ECG-QA's list of MIMIC test ECGs."""
        return Path(self.ecg_qa_dir or "") / "mimic-iv-ecg" / "test_ecgs.tsv"

    def test_patients(self) -> set[str]:
        """The patients that are in the test split whatever the seed.

        Raises:
            EcgDataError: `ecg_qa_dir` without `record_list`, or a file that cannot be read.
        """
        if self.ecg_qa_dir is None:
            return set()
        if self.record_list is None:
            raise EcgDataError(
                "got ecg_qa_dir without record_list: name MIMIC-IV-ECG's record_list.csv too, since ECG-QA's test "
                "list has ECGs and no patients"
            )
        return patients_of(read_ecg_ids(self.test_list()), self.record_list)


class EcgChat(EcgDatasetBuilder):
    """Builder of ECG-Chat's conversations: rows as of ECG-QA from the first two turns, and all turns as `messages`."""

    BUILDER_CONFIG_CLASS = EcgChatConfig
    BUILDER_CONFIGS = [EcgChatConfig(name="pretrain_mimic")]

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="ECG-Chat: conversations about MIMIC-IV-ECG records",
            homepage="https://github.com/YubaoZhao/ECG-Chat",
            features=Features({**QUESTION_FEATURES, "messages": MESSAGES_FEATURE}),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        always_test = self.config.test_patients()
        path = self.config.root() / self.config.file
        splits: dict[str, list[tuple[int, Any]]] = {}
        for index, item in enumerate(_read_list(path)):
            _, patient, _ = _place(item, f"{path}: item {index}")
            split = split_of_patient(patient, self.config.seed, always_test)
            splits.setdefault(split, []).append((index, item))
        return split_generators(splits, SHARD)

    def _generate_examples(self, shards: list[list[tuple[int, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for items in shards:
            for index, item in items:
                yield index, conversation_row(item, index, self.config.file)


def conversation_row(item: Any, index: int, source: str | Path) -> dict[str, Any]:
    """The row of one conversation.

    Args:
        item: As the file has it.
        index: Its place in the file; the sample's id.
        source: The file's name for messages.

    Returns:
        Columns of a question: the first turn without `<ecg>` and line breaks, as the ECG-Byte paper has it, and the
        second as its answer; and `messages`, the whole conversation without `<ecg>`, with the roles of chat templates.

    Raises:
        EcgDataError: the item is not as the module says.
    """
    where = f"{source}: item {index}"
    path, _, study = _place(item, where)
    turns = item.get("conversations")
    if not isinstance(turns, list) or len(turns) < 2:
        raise EcgDataError(f"{where}: got {turns!r:.80} as conversations, expected a list of two turns or more")
    messages = [_message(turn, f"{where}, turn {number}") for number, turn in enumerate(turns)]
    if [message["role"] for message in messages[:2]] != ["user", "assistant"]:
        got = ", ".join(str(turn["from"]) for turn in turns[:2])
        raise EcgDataError(f"{where}: its first turns are of {got}, expected human, gpt")
    return {
        "sample_id": index,
        "template_id": CONVERSATION_TEMPLATE,
        "question_id": CONVERSATION_TEMPLATE,
        "question_type": "conversation",
        "attribute_type": "conversation",
        "question": turns[0]["value"].replace("\n", "").replace(ECG_TAG, ""),
        "answer": [turns[1]["value"]],
        "ecg_id": [study],
        "attribute": None,
        "ecg_path": [path],
        "messages": messages,
    }


def conversation_questions(row: dict[str, Any], turns: str = "first") -> list[dict[str, Any]]:
    """The questions of one conversation.

    Args:
        row: A row with `messages`, as `conversation_row` makes it.
        turns: `"first"`: the first question and its answer, as in the ECG-Byte paper. `"separate"`: every question by
            itself, as if nothing had been said before. `"history"`: every question behind those before it and their
            answers, which are its `history`. `"all"`: the last question with the history of all others, as one row.

    Returns:
        Rows; those of `"separate"` and `"history"` have the `sample_id` of the conversation times 1,000, plus the
        question's place in it.

    Raises:
        EcgDataError: an unknown choice, or turns that are not of user and assistant by turns.

    Example:
        >>> talk = [("user", "Rhythm?"), ("assistant", "sinus"), ("user", "Rate?"), ("assistant", "70")]
        >>> messages = [{"role": role, "content": content} for role, content in talk]
        >>> row = {"sample_id": 4, "question": "Rhythm?", "answer": ["sinus"], "messages": messages}
        >>> made = conversation_questions(row, "history")
        >>> [(one["sample_id"], one["question"], len(one["history"])) for one in made]
        [(4000, 'Rhythm?', 0), (4001, 'Rate?', 2)]
    """
    if turns not in TURNS:
        raise EcgDataError(f"got turns={turns!r}, expected one of {', '.join(TURNS)}")
    plain = {name: value for name, value in row.items() if name != "messages"}
    if turns == "first":
        return [plain]
    messages = _alternating(row)
    made = []
    for place in range(0, len(messages), 2):
        asked, answer = messages[place], messages[place + 1]
        one = {**plain, "question": asked["content"], "answer": [answer["content"]], "history": []}
        if turns != "separate":
            one["history"] = messages[:place]
        if turns != "all":
            one["sample_id"] = row["sample_id"] * MOST_QUESTIONS + place // 2
        made.append(one)
    return made[-1:] if turns == "all" else made


def _alternating(row: dict[str, Any]) -> list[dict[str, str]]:
    """The messages of a row: a question and its answer, and so on."""
    where = f"sample {row['sample_id']}"
    messages: list[dict[str, str]] | None = row.get("messages")
    if not messages:
        raise EcgDataError(f"{where} has no messages; prepare ecg_chat anew, or take the first turns alone")
    roles = [message["role"] for message in messages]
    if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2) or len(roles) > 2 * MOST_QUESTIONS:
        raise EcgDataError(
            f"{where}: got turns of {', '.join(roles):.80}, expected user and assistant by turns, an answer at the "
            "end; the first turns can be taken alone"
        )
    return messages


def _read_list(path: Path) -> list[Any]:
    try:
        items = json.loads(path.read_bytes())
    except OSError as error:
        raise EcgDataError(
            f"cannot read {path}: {error.strerror or error}; name the folder of pretrain_mimic.json as data_dir, or "
            "another file with file="
        ) from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise EcgDataError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(items, list) or not items:
        raise EcgDataError(f"{path}: got {items!r:.60}, expected a list of conversations")
    return items


def _place(item: Any, where: str) -> tuple[str, str, int]:
    """Path, patient and study of an item's ECG."""
    if not isinstance(item, dict) or not isinstance(item.get("ecg"), str):
        raise EcgDataError(f"{where} is {item!r:.80}, expected a conversation with the path of its ECG as 'ecg'")
    match = _PATH.fullmatch(item["ecg"].replace("\\", "/"))
    if match is None:
        raise EcgDataError(f"{where}: ecg is {item['ecg']!r:.80}, expected 'files/pXXXX/pXXXXXXXX/sNNN/NNN'")
    return match["path"], match["patient"], int(match["study"])


def _message(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, dict) or turn.get("from") not in ROLES or not isinstance(turn.get("value"), str):
        raise EcgDataError(f"{where} is {turn!r:.80}, expected 'from' ({', '.join(ROLES)}) and 'value' with text")
    return {"role": ROLES[turn["from"]], "content": turn["value"].replace(ECG_TAG, "").strip()}
