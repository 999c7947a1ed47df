"""Answer sets, options, exact match; on ECG-QA's own files where they are."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgbyte_hf.evaluation.scoring import (
    answer_text,
    gold_answer,
    parse_answer,
    question_options,
    read_template_options,
    score_rows,
    summarise,
)
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError

YES_NO = ["no", "not sure", "yes"]
ISCHEMIA = ["non-specific st changes", "none", "st changes", "myocardial infarction", "myocardial infarction in leads"]


def question(**changes):
    row = {
        "sample_id": 5,
        "template_id": 1,
        "question_id": 9,
        "question_type": "single-verify",
        "attribute_type": "scp_code",
        "question": "Does this ECG show sinus rhythm?",
        "answer": ["yes"],
        "ecg_id": [17],
        "attribute": ["sinus rhythm"],
    }
    return {**row, **changes}


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("yes", YES_NO, {"yes"}),
        ("  YES!\n", YES_NO, {"yes"}),
        ("This is a normal ECG", YES_NO, None),
        ("I know nothing, notably", YES_NO, None),
        ("no, it is normal", YES_NO, {"no"}),
        ("Not\n sure", YES_NO, {"not sure"}),
        ("yes no", YES_NO, {"yes", "no"}),
        ("", YES_NO, None),
        ("non-diagnostic", YES_NO, None),
        ("none", YES_NO, None),
        ("none", ISCHEMIA, set()),
        ("None.", ISCHEMIA, set()),
        ("nonetheless", ISCHEMIA, None),
        ("none, except st changes", ISCHEMIA, {"st changes"}),
        ("Non-specific ST changes", ISCHEMIA, {"non-specific st changes"}),
        ("st changes non-specific st changes", ISCHEMIA, {"non-specific st changes", "st changes"}),
        ("myocardial infarction in leads", ISCHEMIA, {"myocardial infarction in leads"}),
        (
            "myocardial infarction, myocardial infarction in leads",
            ISCHEMIA,
            {"myocardial infarction", "myocardial infarction in leads"},
        ),
        (
            "none of myocardial infarction",
            ["none of myocardial infarction", "unknown stage"],
            {"none of myocardial infarction"},
        ),
        (
            "none of myocardial infarction",
            ["none of myocardial infarction", "none"],
            {"none of myocardial infarction"},
        ),
        ("irregular", ["regular", "irregular"], {"irregular"}),
        ("lead V1", ["lead V1", "lead V10", "lead I", "lead II"], {"lead v1"}),
        ("lead II", ["lead I", "lead II", "lead III"], {"lead ii"}),
        ("bigeminal pattern (block) here", ["bigeminal pattern (block)"], {"bigeminal pattern (block)"}),
        ("st/t change", ["st/t change"], {"st/t change"}),
        ("st/t changes", ["st/t change"], None),
    ],
)
def test_parse_answer(text, options, expected):
    assert parse_answer(text, options) == (None if expected is None else frozenset(expected))


OPTION = st.from_regex(r"[a-z]{1,4}( [a-z]{1,4}){0,2}", fullmatch=True).filter(lambda text: text != "none")


@given(st.lists(OPTION, min_size=1, max_size=6, unique=True), st.data())
def test_an_answer_of_options_apart_is_found_whatever_order_and_case(options, data):
    chosen = data.draw(st.lists(st.sampled_from(options), unique=True, min_size=1))
    text = " | ".join(data.draw(st.permutations(chosen)))
    parsed = parse_answer(data.draw(st.sampled_from([text, text.upper(), text.title()])), [*options, "none"])
    # Parts of a longer option are options too here; the span rule leaves them to it, so nothing else is found.
    assert parsed == frozenset(chosen)


@given(st.text(), st.lists(OPTION, max_size=5))
def test_any_text_parses_to_options_or_to_none(text, options):
    parsed = parse_answer(text, options)
    assert parsed is None or (parsed and parsed <= set(options))


def test_gold_answer():
    assert gold_answer(question(answer=["ST Elevation", "yes"])) == {"st elevation", "yes"}
    assert gold_answer(question(answer=["none"])) == frozenset()
    for wrong in ([], None, "yes"):
        with pytest.raises(EcgDataError, match=r"question 5 .*expected a list"):
            gold_answer(question(answer=wrong))


def test_answer_text():
    assert answer_text({"b", "a c"}) == "a c b"
    assert answer_text(()) == "none"


class TestOptions:
    TEMPLATES = {
        1: YES_NO,
        31: ["baseline drift", "burst noise", "none", "static noise"],
        22: ["left", "right"],
        40: ["above the normal range", "below the normal range", "none", "within the normal range"],
        37: ["extrasystoles", "none", "supraventricular extrasystoles", "ventricular extrasystoles"],
    }

    def choose(self, template, text, attribute=None):
        row = question(question_type="single-choose", template_id=template, question=text, attribute=attribute)
        return question_options(row, self.TEMPLATES)

    def test_verify_and_query_have_the_templates(self):
        assert question_options(question(), self.TEMPLATES) == YES_NO
        assert question_options(question(template_id=22, question_type="single-query"), self.TEMPLATES) == [
            "left",
            "right",
        ]

    def test_choose_has_those_named(self):
        text = "Which noise does this ECG show in lead I, static noise or baseline drift?"
        assert self.choose(31, text) == ["baseline drift", "none", "static noise"]
        assert self.choose(22, "LEFT or right?") == ["left", "right"]

    def test_an_option_inside_another_is_not_named(self):
        text = "Which does this ECG show, ventricular extrasystoles or supraventricular extrasystoles?"
        assert self.choose(37, text) == ["none", "supraventricular extrasystoles", "ventricular extrasystoles"]
        text = "Which does this ECG show, extrasystoles or ventricular extrasystoles?"
        assert self.choose(37, text) == ["extrasystoles", "none", "ventricular extrasystoles"]

    def test_the_attribute_names_them_too(self):
        attribute = ["below the normal range of rr interval", "within the normal range of rr interval"]
        assert self.choose(40, "Is the rr interval low or usual?", attribute) == [
            "below the normal range",
            "none",
            "within the normal range",
        ]

    def test_refusals_name_the_question(self):
        with pytest.raises(EcgDataError, match=r"question 5 .*template 99"):
            question_options(question(template_id=99), self.TEMPLATES)
        with pytest.raises(EcgDataError, match=r"question 5 .*names \['left'\]"):
            self.choose(22, "Is it left or not?")


class TestReadTemplateOptions:
    def write(self, folder, text):
        path = folder / "answers.csv"
        path.write_text(text, encoding="utf-8")
        return path

    def test_reads(self, tmp_path):
        path = self.write(tmp_path, 'template_id,classes\n7,"[\'no\', ""rSr\' type""]"\n')
        assert read_template_options(path) == {7: ["no", "rSr' type"]}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,b\n1,2\n", "expected template_id and classes"),
            ("template_id,classes\n", "holds no template"),
            ("template_id,classes\nx,\"['no']\"\n", "line 2.*expected a template"),
            ("template_id,classes\n1,__import__('os')\n", "expected a template"),
            ("template_id,classes\n1\n", "expected a template"),
            ("template_id,classes\n1,\"['no', 3]\"\n", "expected a list of strings"),
            ("template_id,classes\n1,[]\n", "expected a list of strings"),
            ("template_id,classes\n1,['a']\n1,['b']\n", "twice"),
        ],
    )
    def test_refuses(self, tmp_path, text, message):
        with pytest.raises(EcgDataError, match=message):
            read_template_options(self.write(tmp_path, text))

    def test_missing_and_not_text(self, tmp_path):
        with pytest.raises(EcgDataError, match="cannot read"):
            read_template_options(tmp_path / "absent.csv")
        (tmp_path / "answers.csv").write_bytes(b"template_id,classes\n1,\xff\n")
        with pytest.raises(EcgDataError, match="UTF-8"):
            read_template_options(tmp_path / "answers.csv")


def test_score_rows():
    rows = [
        question(prediction="Yes.", options=YES_NO),
        question(prediction="", options=YES_NO),
        question(prediction=None, options=YES_NO),
        question(prediction="no", options=YES_NO),
        question(prediction="b, A", answer=["a", "b"], options=["a", "b", "none"]),
        question(prediction="none", answer=["none"], options=["a", "none"]),
        question(prediction="a", answer=["none"], options=["a", "none"]),
        question(prediction="c", answer=["c"], options=["a", "none"]),
    ]
    scored = score_rows(rows)
    assert [row["correct"] for row in scored] == [True, False, False, False, True, True, False, False]
    assert [row["unparsed"] for row in scored] == [False, True, True, False, False, False, False, True]
    assert [row["parsed"] for row in scored] == [["yes"], None, None, ["no"], ["a", "b"], [], ["a"], None]
    assert [row["gold_outside_options"] for row in scored] == [False] * 7 + [True]
    assert scored[0]["sample_id"] == 5 and "correct" not in rows[0]
    with pytest.raises(EcgDataError, match="lacks.*prediction"):
        score_rows([question(options=YES_NO)])


def test_summarise():
    rows = score_rows(
        [
            question(prediction="yes", options=YES_NO, ecg_id=[1]),
            question(prediction="", options=YES_NO, ecg_id=[1]),
            question(prediction="yes", options=YES_NO, ecg_id=[2, 1], question_type="comparison_irrelevant-verify"),
            question(
                prediction="no", options=YES_NO, ecg_id=[3], attribute_type="noise", question_type="single-query"
            ),
        ]
    )
    result = summarise(rows, n_resamples=500, seed=1)["exact_match"]
    assert (result["overall"], result["n"], result["n_ecgs"], result["unparsed"]) == (0.5, 4, 3, 0.25)
    assert result["gold_outside_options"] == 0
    assert list(result["by_type"]) == ["single-verify", "single-query", "comparison_irrelevant-verify"]
    assert result["by_type"]["single-query"] == {"value": 0.0, "n": 1, "ci95": [0.0, 0.0]}
    assert {name: (part["value"], part["n"]) for name, part in result["by_attribute"].items()} == {
        "noise": (0.0, 1),
        "scp_code": (pytest.approx(2 / 3), 3),
    }
    low, high = result["ci95"]
    assert low == 0.0 and 0.5 < high <= 1.0
    assert json.loads(json.dumps(result)) == result
    assert summarise(rows, n_resamples=500, seed=1)["exact_match"] == result
    with pytest.raises(EcgDataError, match="no scored row"):
        summarise([])


def read_items(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.rglob("*.json")) for row in json.loads(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    ("items", "templates", "count"),
    [
        ("ecg_qa/ecgqa/ptbxl", "ptbxl", 790),
        ("ecg_qa/schema_only_no_signals/mimic-iv-ecg", "mimic-iv-ecg", 25),
        ("ecg_qa/from_heartllm/ptbxl", "ptbxl", 345),
    ],
)
def test_every_real_gold_answer_parses_to_itself(test_data, items, templates, count):
    options = read_template_options(test_data / "ecg_qa/ecgqa" / templates / "answers_for_each_template.csv")
    rows = read_items(test_data / items)
    assert len(rows) == count
    for row in rows:
        valid = question_options(row, options)
        for separator in (" ", ", "):
            assert parse_answer(separator.join(row["answer"]), valid) == gold_answer(row), row


@pytest.mark.parametrize(("name", "count"), [("ptbxl", 70), ("mimic-iv-ecg", 60)])
def test_every_pair_of_real_options_joined_by_a_space_parses_to_itself(test_data, name, count):
    templates = read_template_options(test_data / "ecg_qa/ecgqa" / name / "answers_for_each_template.csv")
    assert len(templates) == count
    for options in {tuple(options) for options in templates.values()}:
        assert len({option.lower() for option in options}) == len(options)
        for first, second in itertools.permutations(options, 2):
            expected = {first.lower(), second.lower()} - {"none"}
            assert parse_answer(f"{first} {second}", options) == expected
