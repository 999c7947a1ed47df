"""The reward is what evaluation counts, and TRL's trainer for GRPO takes it with the rows as they are."""

import datasets
import pytest

from ecgbyte_hf.data.encode import encode_rows
from ecgbyte_hf.evaluation.scoring import score_rows
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError
from ecgbyte_hf.training.extend_llm import load_prompter
from ecgbyte_hf.training.rewards import exact_match_reward


@pytest.fixture(scope="module")
def rows(small_prepared, small_llm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpo") / "rows"
    encode_rows(small_prepared, folder, load_prompter(small_llm, small_prepared), splits=["validation"])
    return datasets.load_dataset(str(folder), cache_dir=str(folder.with_name("cache")))["validation"]


class TestReward:
    def test_a_right_answer_of_every_type_is_rewarded(self, rows):
        assert len({tuple(options) for options in rows["options"]}) > 5
        assert exact_match_reward(rows["completion"], rows["answer"], rows["options"]) == [1.0] * len(rows)

    def test_it_is_the_score_of_evaluate(self, rows):
        said = [" yes", " no", " none", "Normal, I think", "", " yes no", *rows["completion"]]
        for text in said:
            rewards = exact_match_reward([text] * len(rows), rows["answer"], rows["options"])
            scored = score_rows({**row, "prediction": text} for row in rows)
            assert rewards == [float(row["correct"]) for row in scored]
        assert {0.0, 1.0} == set(exact_match_reward([" yes"] * len(rows), rows["answer"], rows["options"]))

    def test_sets_and_the_empty_set(self):
        options = ["baseline drift", "none", "static noise"]
        texts = ["static noise, baseline drift", "baseline drift", "none", "nothing"]
        both = ["baseline drift", "static noise"]
        assert exact_match_reward(texts, [both] * 4, [options] * 4) == [1.0, 0.0, 0.0, 0.0]
        assert exact_match_reward(texts, [["none"]] * 4, [options] * 4) == [0.0, 0.0, 1.0, 0.0]

    def test_messages_are_as_good_as_text(self):
        written = [[{"role": "assistant", "content": text}] for text in ("Yes.", "no")]
        assert exact_match_reward(written, [["yes"]] * 2, [["no", "yes"]] * 2) == [1.0, 0.0]

    def test_free_text_is_left_out(self):
        assert exact_match_reward(["sinus rhythm"], [["sinus rhythm."]], [[]]) == [None]

    @pytest.mark.parametrize("missing", ["answer", "options"])
    def test_rows_without_the_columns(self, missing):
        columns = {"answer": [["yes"]], "options": [["no", "yes"]]}
        del columns[missing]
        with pytest.raises(EcgDataError, match=f"the rows have no column {missing}; write them"):
            exact_match_reward(["yes"], **columns)


# TRL and PEFT use the old name, whatever is set.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")
def test_trl_trains_by_it(rows, small_llm, tmp_path, monkeypatch):
    from trl import GRPOConfig, GRPOTrainer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given: list[list[float]] = []
    right = {row["sample_id"]: (row["answer"], row["options"]) for row in rows}

    def watched(completions, **columns):
        for number, answer, options in zip(columns["sample_id"], columns["answer"], columns["options"], strict=True):
            assert (answer, options) == right[number]
        given.append(exact_match_reward(completions, **columns))
        return given[-1]

    config = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=4,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
    )
    trainer = GRPOTrainer(model=str(small_llm), reward_funcs=watched, args=config, train_dataset=rows)
    trainer.train()
    assert trainer.state.global_step == 2
    assert [len(rewards) for rewards in given] == [4, 4] and {value for batch in given for value in batch} <= {
        0.0,
        1.0,
    }
    logged = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert logged == pytest.approx([sum(batch) / 4 for batch in given])
