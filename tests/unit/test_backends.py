"""vLLM, by a stand-in with its signature: the same prompts and files, and what it cannot do is refused."""

import json
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from ecgbyte_hf.evaluation.backends import VllmLanguageModel, load_language_model
from ecgbyte_hf.evaluation.generate import EcgLanguageModel, generate_answers, make_prompter, report_path
from ecgbyte_hf.models.errors_ecg_byte import EcgDataError


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    detokenize: bool = True
    skip_special_tokens: bool = True


class LLM:
    """Answers as transformers does."""

    made: list["LLM"] = []

    def __init__(
        self, model, *, dtype="auto", seed=None, max_model_len=None, enable_prefix_caching=None,
        generation_config="auto", gpu_memory_utilization=0.9,
    ):  # fmt: skip
        assert dtype == "float32" and generation_config == "vllm" and enable_prefix_caching is True
        self.max_model_len = max_model_len
        self.model = EcgLanguageModel.load(model, device="cpu")
        self.asked = []
        LLM.made.append(self)

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):
        assert sampling_params.temperature == 0.0 and not sampling_params.detokenize
        (end,) = sampling_params.stop_token_ids
        outputs = []
        for number, prompt in enumerate(prompts):
            ids = prompt["prompt_token_ids"]
            assert len(ids) + sampling_params.max_tokens <= self.max_model_len
            self.asked.append(ids)
            (new,) = self.model._generate([ids], sampling_params.max_tokens, None)
            reason = "stop" if new[-1] == end else "length"
            outputs.append(RequestOutput(str(number), ids, [CompletionOutput(0, "", new, reason)]))
        return outputs


@pytest.fixture
def vllm(monkeypatch):
    package = ModuleType("vllm")
    package.LLM, package.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", package)
    LLM.made.clear()
    return package


def test_the_file_is_that_of_transformers(vllm, lively_llm, small_prepared, tmp_path):
    rows = small_prepared.questions("test")
    options = small_prepared.template_options()
    paths = {}
    for name in ("transformers", "vllm"):
        model = load_language_model(name, lively_llm, max_new_tokens=6)
        prompter = make_prompter(model, small_prepared, rows)
        paths[name] = generate_answers(model, rows, prompter, options, tmp_path / f"{name}.jsonl", max_new_tokens=6)
    assert paths["vllm"].read_bytes() == paths["transformers"].read_bytes()
    report = json.loads(report_path(paths["vllm"]).read_text())
    assert report["decoding"]["backend"] == report["provenance"]["arguments"]["backend"] == "vllm"
    (engine,) = LLM.made
    assert engine.max_model_len == 384 - 16 + 6
    end = model.lm_tokenizer.convert_tokens_to_ids("<|ecg_end|>")
    ecgs = [tuple(ids[: ids.index(end)]) for ids in engine.asked]
    changes = sum(one != other for one, other in zip(ecgs, ecgs[1:], strict=False))
    assert changes == len(set(ecgs)) - 1 > 0  # questions about an ECG follow one another


def test_answers_of_the_other_back_end_are_not_mixed_in(vllm, lively_llm, small_prepared, tmp_path, monkeypatch):
    rows = small_prepared.questions("test")
    model = load_language_model("vllm", lively_llm)
    prompter, output = make_prompter(model, small_prepared, rows), tmp_path / "a.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(VllmLanguageModel, "complete", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            generate_answers(model, rows, prompter, small_prepared.template_options(), output)
    with pytest.raises(EcgDataError, match="differs in backend"):
        generate_answers(LLM.made[0].model, rows, prompter, small_prepared.template_options(), output)


def test_what_it_cannot_do(vllm, lively_llm, tmp_path):
    model = load_language_model("vllm", lively_llm)
    for settings in ({"options": [["yes"]]}, {"options_only": True}):
        with pytest.raises(EcgDataError, match="scores no options; use the back end transformers"):
            model.complete(["a"], max_new_tokens=1, **settings)
    with pytest.raises(EcgDataError, match="does not stream"):
        model.complete(["a"], max_new_tokens=1, streamer=object())
    with pytest.raises(EcgDataError, match="device='cpu' for vllm"):
        load_language_model("vllm", lively_llm, device="cpu")
    with pytest.raises(EcgDataError, match="unknown back end 'other'; known: transformers, vllm"):
        load_language_model("other", lively_llm)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(lively_llm)}))
    with pytest.raises(EcgDataError, match="is an adapter, .* `ecgbyte sft --merge`"):
        load_language_model("vllm", adapter)


def test_without_vllm(lively_llm, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"ecgbyte-hf\[vllm\]"):
        load_language_model("vllm", lively_llm)
