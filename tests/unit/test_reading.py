"""Every token of a prompt has its place: samples, words, or special tokens."""

from dataclasses import replace

import numpy as np
import pytest
from attribution_models import LEADS, bare_reading, make_model, record

from ecgbyte_hf.data.local_findings import QUESTION, SHIFT_MV, local_st_shift
from ecgbyte_hf.data.simulator import ST_SHIFTS
from ecgbyte_hf.evaluation.language_model import EcgLanguageModel
from ecgbyte_hf.interpretation import faithfulness
from ecgbyte_hf.interpretation.attribution import METHODS, attribute, save_numbers, sums_by_kind
from ecgbyte_hf.interpretation.attribution_figure import plot_attribution
from ecgbyte_hf.interpretation.faithfulness import (
    answer_logprobs,
    deleted,
    deletions,
    moved,
    share_inside,
    token_share,
    top_samples,
)
from ecgbyte_hf.interpretation.gradients import (
    answer_logprob,
    gradient_x_input,
    integrated_gradients,
    one_layer_at_a_time,
)
from ecgbyte_hf.interpretation.reading import read_question
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return EcgLanguageModel.load(make_model(tmp_path_factory.mktemp("reader")), device="cpu")


@pytest.fixture(scope="module")
def reading(model):
    return read_question(model, record(3).signal, QUESTION, answer="st elevation")


class TestLocalFindings:
    def test_the_shift_is_in_its_place_and_nowhere_else(self):
        made = [local_st_shift(number, leads=LEADS, duration=3.0, sampling_rate=100) for number in range(60)]
        assert {one.answer for one in made} == set(ST_SHIFTS)
        assert {one.lead for one in made} == {*LEADS, None}
        for one in made:
            assert one.place.any() == (one.answer != "normal st") == (one.lead is not None)
            if one.lead is None:
                continue
            row = LEADS.index(one.lead)
            assert one.place[row].any() and not np.delete(one.place, row, axis=0).any()
            assert 0.05 < one.place[row].mean() < 0.6
            # Twice the same draws; of a normal record the shift's place is the level the shift moves.
            sign = 1.0 if one.answer == "st elevation" else -1.0
            middle = np.median(one.signal[row][~one.place[row]])
            assert sign * (np.median(one.signal[row][one.place[row]]) - middle) > 0.5 * SHIFT_MV[0]

    def test_a_record_depends_on_its_number_and_seed_alone(self):
        one, again = record(7), record(7)
        assert np.array_equal(one.signal, again.signal) and one.answer == again.answer
        assert not np.array_equal(one.signal, record(8).signal)


class TestReading:
    def test_tokens_stand_for_the_samples_that_the_tokenizer_says(self, model, reading):
        tokenizer = model.processor.tokenizer
        encoding = tokenizer(reading.signal, return_offsets_mapping=True)
        assert reading.ecg_ids.tolist() == encoding["input_ids"]
        assert reading.offsets.tolist() == [list(pair) for pair in encoding["offset_mapping"]]
        for token, offset in enumerate(encoding["offset_mapping"]):
            for lead, start, stop in tokenizer.lead_spans(offset, reading.signal.shape[1]):
                assert (reading.token_of_sample[LEADS.index(lead), start:stop] == token).all()

    def test_an_ecg_that_was_cut_is_read_as_far_as_it_was_shown(self, model):
        long = record(5, seconds=8.0).signal
        cut = read_question(model, long, QUESTION, answer="normal st")
        assert cut.seconds == 8.0
        assert cut.signal.shape[1] < long.shape[1]
        assert np.array_equal(cut.signal, long[:, : cut.signal.shape[1]])
        assert cut.num_tokens <= model.prompt.max_length

    def test_every_token_is_counted_once(self, reading, model):
        places = [place for word in reading.words for place in range(word.start, word.stop)]
        ecg = range(reading.ecg.start, reading.ecg.stop)
        assert sorted([*places, *ecg, reading.num_tokens - 1]) == list(range(reading.num_tokens))
        assert " ".join(word.text for word in reading.words if word.kind == "text") == f"Question: {QUESTION} Answer:"
        assert [word.text for word in reading.words if word.kind == "answer"] == ["st", "elevation"]
        assert [word.text for word in reading.words if word.kind == "special"][-2:] == ["<|ecg_start|>", "<|ecg_end|>"]
        assert reading.ids[-1] == model.lm_tokenizer.eos_token_id

    def test_ecg_tokens_in_a_question_are_words(self, model):
        asked = read_question(model, record(3).signal, "<|ecg_start|><|ecg_1|><|ecg_end|> what?", answer="no")
        plain = read_question(model, record(3).signal, "what?", answer="no")
        assert asked.ecg == plain.ecg

    def test_words_of_several_tokens_and_bytes(self, model):
        asked = read_question(model, record(3).signal, "Größe der 心-Achse?", answer="ähm")
        assert [word.text for word in asked.words if word.kind != "special"][1:-2] == ["Größe", "der", "心-Achse?"]
        assert asked.words[-1].text == "ähm"

    def test_values_are_shared_out_or_repeated(self, reading):
        values = np.random.default_rng(0).random(reading.num_tokens)
        shared, whole = reading.to_samples(values), reading.to_samples(values, divide=False)
        assert shared.sum() == pytest.approx(values[reading.ecg].sum())
        assert whole.ravel().tolist() == pytest.approx(
            np.repeat(values[reading.ecg], np.diff(reading.offsets, axis=1)[:, 0]).tolist()
        )
        assert reading.to_words(values).sum() == pytest.approx(values.sum() - values[reading.ecg].sum() - values[-1])

    def test_the_models_own_answer(self, model):
        own = model.complete([*_prompts(model, record(3).signal)], max_new_tokens=4)[0].text
        made = read_question(model, record(3).signal, QUESTION, max_new_tokens=4)
        assert (made.answer, made.is_given) == (own, False)
        with pytest.raises(EcgDataError, match="there is no answer to explain"):
            read_question(model, record(3).signal, QUESTION, answer=" ")


def _prompts(model, signal):
    from ecgbyte_hf.interpretation.reading import prompts_about

    return prompts_about(model, [signal], QUESTION)


class TestGradients:
    def test_they_are_of_the_answers_logprob(self, model, reading):
        import torch

        ids = torch.from_numpy(reading.ids[None])
        logprob = float(answer_logprob(model.model, reading)(ids).detach())
        assert logprob == pytest.approx(
            answer_logprobs(model, [reading.signal], QUESTION, reading.answer)[0], abs=1e-4
        )

    def test_a_layer_keeps_its_input_alone(self, monkeypatch):
        """What else the backward pass needs of a layer is made again."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        shape = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
        given = bare_reading()

        def kept(layers):
            numbers = []

            def keep(tensor):
                if tensor.requires_grad and not isinstance(tensor, torch.nn.Parameter):
                    numbers.append(tensor.numel())
                return tensor

            model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **shape)).eval()
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), one_layer_at_a_time(model):
                answer_logprob(model, given)(torch.from_numpy(given.ids[None]))
            assert not [module for module in model.modules() if "forward" in vars(module)]
            return sum(numbers)

        assert kept(6) - kept(2) == 4 * given.num_tokens * 32
        monkeypatch.setattr("transformers.modeling_layers.GradientCheckpointingLayer", torch.nn.Bilinear)
        assert kept(6) - kept(2) > 20 * 4 * given.num_tokens * 32  # of layers that are no such

    def test_values_are_those_of_all_layers_at_once(self, model, reading, monkeypatch):
        from contextlib import nullcontext

        from ecgbyte_hf.interpretation import gradients

        made = gradient_x_input(model.model, reading)
        monkeypatch.setattr(gradients, "one_layer_at_a_time", nullcontext)
        assert gradient_x_input(model.model, reading) == pytest.approx(made, abs=1e-6)

    def test_a_hook_of_a_layer_comes_back(self, model):
        layer = model.model.model.layers[0]
        hook = layer.forward
        layer.forward = hook  # as accelerate does, on the layer itself
        try:
            with one_layer_at_a_time(model.model):
                assert layer.forward is not hook
            assert vars(layer)["forward"] is hook
        finally:
            del layer.forward

    def test_gradient_x_input_is_a_slope(self, model, reading):
        """Scaling one token's embedding by 1 + e changes the log-probability by e times its value."""
        import torch

        values = gradient_x_input(model.model, reading)
        ids = torch.from_numpy(reading.ids[None])
        logprob = answer_logprob(model.model, reading)
        for place in (reading.ecg_start + 1, reading.answer_start - 2):
            scaled = []
            for factor in (1.01, 0.99):

                def scale(module, inputs, output, place=place, factor=factor):
                    changed = output.clone()
                    changed[:, place] *= factor
                    return changed

                handle = model.model.get_input_embeddings().register_forward_hook(scale)
                with torch.no_grad():
                    scaled.append(float(logprob(ids)))
                handle.remove()
            assert (scaled[0] - scaled[1]) / 0.02 == pytest.approx(values[place], rel=0.05, abs=2e-3)

    def test_integrated_gradients_sum_to_what_they_explain(self, model, reading):
        import copy

        import torch

        pytest.importorskip("captum")
        symbol = int(model.lm_tokenizer.convert_tokens_to_ids("<|ecg_8|>"))
        # With the large weights of the other tests 48 steps are off by a multiple: the path is too winding.
        gentle = copy.deepcopy(model.model)
        with torch.no_grad():
            for parameter in gentle.model.layers.parameters():
                if parameter.dim() > 1:
                    parameter.div_(6.0)
        made = integrated_gradients(gentle, reading, steps=24, batch_size=8, symbol=symbol)
        ids = torch.from_numpy(reading.ids[None])
        flat = ids.clone()
        flat[0, reading.ecg] = symbol
        logprob = answer_logprob(gentle, reading)
        with torch.no_grad():
            gained = float(logprob(ids) - logprob(flat))
        assert made.values[reading.ecg].sum() == pytest.approx(gained, abs=max(0.05 * abs(gained), 0.02))
        assert made.error < max(0.1 * abs(gained), 0.1)
        assert made.values[reading.answer_start :].tolist() == [0.0] * (reading.num_tokens - reading.answer_start)
        with pytest.raises(EcgDataError, match="give symbol"):
            integrated_gradients(model.model, reading)


class TestFaithfulness:
    def test_top_moved_and_deleted(self):
        values = np.array([[5.0, 1.0, 4.0, 0.0], [3.0, 3.0, 9.0, 2.0]])
        top = top_samples(values, 0.5)
        assert top.tolist() == [[True, False, True, False], [True, False, True, False]]
        for seed in range(20):
            other = moved(top, np.random.default_rng(seed))
            assert (
                other.sum() == top.sum()
                and not np.array_equal(other, top)
                or np.array_equal(np.roll(top.ravel(), 2), top.ravel())
            )
        signal = np.array([[1.0, 1.0, 8.0, 1.0], [0.0, 0.0, 0.0, 7.0]])
        assert deleted(signal, values > 3.5).tolist() == [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 7.0]]
        with pytest.raises(EcgDataError, match="share of 1.0"):
            top_samples(values, 1.0)

    def test_shares_inside_a_place(self, reading):
        place = np.zeros(reading.signal.shape, dtype=bool)
        place[1] = True
        assert share_inside(np.ones(place.shape), place) == 0.5
        only = np.where(place, 1.0, 0.0)
        assert share_inside(only, place) == 1.0 and share_inside(1.0 - only, place) == 0.0
        assert np.isnan(share_inside(0.0 * only, place))
        in_second = sum(stop > reading.signal.shape[1] for _, stop in reading.offsets.tolist())
        assert token_share(reading, place) == pytest.approx(in_second / len(reading.ecg_ids), abs=1.5 / 50)
        with pytest.raises(EcgDataError, match="values below 0"):
            share_inside(-only, place)
        with pytest.raises(EcgDataError, match="expected the same samples"):
            share_inside(only[:, 1:], place)

    def test_deletion_scores_the_changed_signals(self, model, reading, monkeypatch):
        values = np.random.default_rng(1).random(reading.signal.shape)
        made = deletions(model, reading, {"a": values, "b": -values}, draws=3, seed=4)
        expected = answer_logprobs(
            model, [reading.signal, deleted(reading.signal, top_samples(values))], QUESTION, reading.answer
        )
        assert [made["a"].whole, made["a"].top] == pytest.approx(expected, abs=1e-4)
        assert made["a"].drop == pytest.approx(expected[0] - expected[1], abs=1e-4)
        monkeypatch.setattr(faithfulness, "_MOST_TOKENS", 1)  # one ECG after another
        again = deletions(model, reading, {"a": values, "b": -values}, draws=3, seed=4)
        assert again["b"].random == pytest.approx(made["b"].random, abs=1e-4)
        assert made["b"].top != pytest.approx(made["a"].top, abs=1e-6)
        assert len(set(made["a"].random)) == 3
        assert made["a"].to_dict()["random_drop"] == pytest.approx(made["a"].whole - np.mean(made["a"].random))


class TestAttribution:
    def test_all_methods_together(self, model, reading, tmp_path):
        methods = [method for method in METHODS if method != "integrated_gradients"]
        made = attribute(model, reading, methods)
        assert [one.method for one in made] == methods
        for one in made:
            assert one.values.shape == (reading.num_tokens,)
            assert one.is_signed == (one.method == "gradient_x_input")
            if one.is_signed:
                assert one.values.min() < 0.0 <= one.for_answer().min()
            else:
                assert one.values.min() >= 0.0 and one.values.sum() == pytest.approx(1.0, abs=1e-4)
                assert sum(sums_by_kind(reading, one.values).values()) == pytest.approx(1.0, abs=1e-4)
        json_path, npz_path = save_numbers(tmp_path / "map.png", reading, made, check={"a": 1})
        with np.load(npz_path) as arrays:
            assert np.array_equal(arrays["rollout"], made[3].values)
            assert arrays["paper_samples"].shape == reading.signal.shape
        import json

        stored = json.loads(json_path.read_text())
        assert stored["check"] == {"a": 1} and stored["arrays"] == "map.npz"
        by_lead = stored["methods"]["attention"]["by_lead"]
        assert sum(by_lead.values()) == pytest.approx(stored["methods"]["attention"]["sums"]["ecg"])

    def test_one_layer_and_head(self, model, reading):
        (one,) = attribute(model, reading, ["attention"], layer=1, head=0)
        assert one.title == "attention of the answer, layer 1, head 0"
        (mean,) = attribute(model, reading, ["attention"])
        assert not np.allclose(one.values, mean.values)
        with pytest.raises(EcgDataError, match="unknown method 'saliency'"):
            attribute(model, reading, ["saliency"])

    def test_the_figure_colours_the_samples(self, model, reading):
        pytest.importorskip("matplotlib")
        for one in attribute(model, reading, ["attention", "gradient_x_input"]):
            figure = plot_attribution(reading, one, title="a $ b")
            leads = figure.axes[: len(LEADS)]
            assert [axis.get_ylabel() for axis in leads] == ["II\n(mV)", "V2\n(mV)"]
            unit = 1.0 if one.is_signed else 100.0
            expected = unit * 100.0 * reading.to_samples(one.values)
            assert np.allclose(leads[1].images[0].get_array(), expected[1:])
            bar, words = figure.axes[len(LEADS) + 1 :] if len(figure.axes) > 4 else figure.axes[len(LEADS) :]
            labels = {bar.get_ylabel(), words.get_ylabel()}
            assert any("nats" in label if one.is_signed else "% of all" in label for label in labels)
            figure.draw_without_rendering()

    def test_many_words_are_thinned_out(self, model):
        asked = read_question(
            model, record(3).signal, "is it " + " ".join("abcdefghijklmnopqrstuvwxyz" * 2), answer="no"
        )
        (one,) = attribute(model, asked, ["attention"])
        figure = plot_attribution(asked, one)
        texts = [axis.get_xlabel() for axis in figure.axes]
        assert any(text.startswith("the 40 words of 5") for text in texts)


def test_a_prompt_without_an_ecg_is_refused(model, monkeypatch):
    from ecgbyte_hf.interpretation import reading as module

    monkeypatch.setattr(module, "prompts_about", lambda *given, **more: ["What is it?"])
    with pytest.raises(EcgDataError, match="holds no whole ECG"):
        read_question(model, record(3).signal, QUESTION, answer="no")


def test_a_reading_is_frozen(reading):
    with pytest.raises(AttributeError):
        reading.answer = "x"
    assert replace(reading, answer="x").answer == "x"
