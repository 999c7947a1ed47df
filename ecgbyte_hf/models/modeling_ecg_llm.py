"""EcgLlm: an encoder of ECGs, a projector and a language model, which reads the projected ECGs in place of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.dynamic_module_utils import custom_object_save
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_ecg_llm import EcgLlmConfig
from .encoder_ecg_llm import encoder_model, encoder_source
from .errors_ecg_byte import EncoderError
from .modeling_ecg_encoder import EcgEncoderPreTrainedModel

#: Inputs of `EcgLlmForConditionalGeneration` that make the placeholders' embeddings; read once, with the prompt.
ECG_INPUTS = ("ecg_values", "ecg_encodings", "ecg_features")


class EcgLlmProjector(nn.Module):
    """Maps what an encoder gives for an ECG to embeddings of the language model.

    Features are standardised by `feature_mean` and `feature_scale` first (0 and 1 unless they were measured), which
    leaves a linear projection linear: the embeddings of two ECGs can differ by a thousandth of their size, and
    training would take as many times longer to see it.
    """

    feature_mean: torch.Tensor
    feature_scale: torch.Tensor

    def __init__(self, config: EcgLlmConfig) -> None:
        super().__init__()
        self.sizes = config.feature_sizes
        width = config.text_config.hidden_size
        self.register_buffer("feature_mean", torch.zeros(sum(self.sizes)))
        self.register_buffer("feature_scale", torch.ones(sum(self.sizes)))
        self.projections = nn.ModuleList(nn.Linear(size, width) for size in self.sizes)
        has_fusion = len(self.sizes) > 1
        self.fusion = nn.Linear(len(self.sizes) * width, width) if has_fusion else nn.Identity()
        self.output = nn.Linear(width, width) if has_fusion or config.projector_type == "mlp" else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (ECGs, tokens, sum of the sizes) to (ECGs, tokens, width of the language model)."""
        features = (features.float() - self.feature_mean.float()) / self.feature_scale.float()
        parts = features.to(next(self.projections.parameters()).dtype).split(self.sizes, dim=-1)
        states = torch.cat([layer(part) for layer, part in zip(self.projections, parts, strict=True)], dim=-1)
        states = self.fusion(states)
        projected: torch.Tensor = states if self.output is None else self.output(F.relu(states))
        return projected


class EcgLlmPreTrainedModel(EcgEncoderPreTrainedModel):
    """Weights and loading of the EcgLlm models."""

    config_class = EcgLlmConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # An encoder's input may have numbers up to a thousand, of which bfloat16 keeps 3 digits; features may have a mean
    # that is a thousand times their deviation.
    _keep_in_fp32_modules_strict = ["encoder", "feature_mean", "feature_scale"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    auto_classes = {"AutoModel": "EcgLlmModel", "AutoModelForCausalLM": "EcgLlmForConditionalGeneration"}

    @property
    def dtype(self) -> torch.dtype:
        """The language model's, in which the folder is loaded again; the encoder is float32 whatever it is."""
        model: Any = self.base_model
        dtype: torch.dtype = model.language_model.dtype
        return dtype

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, EcgLlmProjector):
            init.zeros_(module.feature_mean)
            init.ones_(module.feature_scale)
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    # PyTorch's own: states keep their size whatever the widths are.
                    init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
                    init.zeros_(layer.bias)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as ever; loading makes new parameters, of which those of a frozen encoder are frozen again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        base: Any = model.base_model
        base.freeze_encoder(model.config.freeze_encoder)
        return loaded

    def save_pretrained(self, save_directory: str | PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Save as ever, with the code of the encoder too, which loads without this package as well."""
        super().save_pretrained(save_directory, *args, **kwargs)
        encoder = self.base_model.encoder
        source = encoder_source(encoder)
        if source is not None and kwargs.get("is_main_process", True):
            custom_object_save(encoder, save_directory)
            Path(save_directory, "encoder_ecg_llm.py").write_text(source, encoding="utf-8")


class EcgLlmModel(EcgLlmPreTrainedModel):
    """Encoder, projector and language model without its output layer.

    Args:
        config: `EcgLlmConfig`.
    """

    _auto_class: Any = "AutoModel"
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: EcgLlmConfig) -> None:
        super().__init__(config)
        from transformers import AutoModel

        self.encoder = encoder_model(config.encoder_config)
        self.projector = EcgLlmProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()
        self.freeze_encoder(config.freeze_encoder)

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's."""
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the language model's."""
        self.language_model.set_input_embeddings(value)

    def freeze_encoder(self, frozen: bool = True) -> None:
        """Say whether the encoder is trained; a frozen one keeps its statistics and has no dropout."""
        self.config.freeze_encoder = frozen
        self.encoder.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> EcgLlmModel:
        """Set the mode, a frozen encoder's to evaluation."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.encoder.eval()
        return self

    def get_ecg_features(self, ecg_values: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Encode ECGs and project them.

        Args:
            ecg_values: what the encoder takes: (ECGs, leads, samples) in mV or (ECGs, 3, height, width); or a
                sequence with one of each ECG, which may differ in length.

        Returns:
            (ECGs, `config.num_ecg_tokens`, width of the language model).

        Raises:
            EncoderError: an ECG that the encoder cannot take.
        """
        if isinstance(ecg_values, torch.Tensor):
            features: torch.Tensor = self.projector(self.encode(ecg_values))
            return features
        return torch.cat([self.get_ecg_features(values[None]) for values in ecg_values])

    def encode(self, ecg_values: torch.Tensor) -> torch.Tensor:
        """Return what the encoder makes of ECGs, in float32 whatever the rest is trained in.

        Args:
            ecg_values: a tensor as of `get_ecg_features`.

        Returns:
            (ECGs, `config.num_ecg_tokens`, sum of `config.feature_sizes`), for the projector.
        """
        device = next(self.encoder.parameters()).device
        wants_gradient = torch.is_grad_enabled() and not self.config.freeze_encoder
        with torch.set_grad_enabled(wants_gradient), torch.autocast(device.type, enabled=False):
            output = self.encoder(**{self.encoder.main_input_name: ecg_values.to(device)})
        if self.config.ecg_features == "pooled":
            pooled: torch.Tensor = output.pooler_output[:, None]
            return pooled
        sequence = output.last_hidden_state
        if sequence.shape[1] != self.config.num_ecg_tokens:
            sequence = F.adaptive_avg_pool1d(sequence.transpose(1, 2), self.config.num_ecg_tokens).transpose(1, 2)
        return sequence

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        ecg_values: torch.Tensor | Sequence[torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        ecg_features: torch.Tensor | None = None,
        ecg_encodings: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the language model on a text in which ECGs stand at the placeholders.

        Args:
            input_ids: (batch, tokens) with `config.num_ecg_tokens` placeholders `config.ecg_token_id` for each ECG.
            ecg_values: as of `get_ecg_features`: the ECGs of the whole batch, in the order of their placeholders.
            attention_mask: (batch, tokens), as of the language model.
            position_ids: as of the language model.
            past_key_values: as of the language model.
            inputs_embeds: (batch, tokens, width) in place of ids, with the ECGs in it.
            ecg_features: what `get_ecg_features` returned, in place of `ecg_values`.
            ecg_encodings: what `encode` returned, in place of `ecg_values`: for training of the projector alone.
            kwargs: for the language model.

        Returns:
            The language model's output, with `last_hidden_state`.

        Raises:
            EncoderError: placeholders and ECGs do not match, or inputs that exclude one another.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise EncoderError("Got both or none of input_ids and inputs_embeds, expected one of them.")
        if inputs_embeds is None:
            inputs_embeds = self._embed(input_ids, ecg_values, ecg_features, ecg_encodings)
        elif any(given is not None for given in (ecg_values, ecg_features, ecg_encodings)):
            raise EncoderError("Got ECGs beside inputs_embeds, expected them in it: nothing says where they belong.")
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )

    def is_place(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Where placeholders of ECGs stand, bool of the same shape."""
        return input_ids == (-1 if self.config.ecg_token_id is None else self.config.ecg_token_id)

    def check_places(self, num_places: int, num_ecgs: int) -> None:
        """Refuse so many placeholders for so many ECGs.

        Raises:
            EncoderError: they do not match.
        """
        if num_places != num_ecgs * self.config.num_ecg_tokens:
            raise EncoderError(
                f"Got {num_places} placeholders and {num_ecgs} ECGs, expected {self.config.num_ecg_tokens} "
                "placeholders for each ECG. Pass the ECGs of all rows as ecg_values, in the order of the text; a "
                "trainer keeps them with remove_unused_columns=False and a collator that reads them."
            )

    def _embed(
        self,
        input_ids: Any,
        ecg_values: Any,
        ecg_features: torch.Tensor | None,
        ecg_encodings: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the embeddings of ids, with those of the ECGs at the placeholders."""
        if sum(given is not None for given in (ecg_values, ecg_features, ecg_encodings)) > 1:
            raise EncoderError("Got several of ecg_values, ecg_encodings and ecg_features, expected one of them.")
        is_ecg = self.is_place(input_ids)
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids)
        if ecg_values is not None:
            ecg_features = self.get_ecg_features(ecg_values)
        elif ecg_encodings is not None:
            ecg_features = self.projector(ecg_encodings.to(embeds.device))
        self.check_places(int(is_ecg.sum()), 0 if ecg_features is None else len(ecg_features))
        if ecg_features is None:
            return embeds
        return embeds.masked_scatter(is_ecg[..., None], ecg_features.to(embeds.device, embeds.dtype))


class EcgLlmForConditionalGeneration(EcgLlmPreTrainedModel, GenerationMixin):
    """A language model that answers questions about ECGs that it reads through an encoder.

    Args:
        config: `EcgLlmConfig`.
    """

    _auto_class: Any = "AutoModelForCausalLM"

    def __init__(self, config: EcgLlmConfig) -> None:
        super().__init__(config)
        self.model = EcgLlmModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=config.lm_head_bias)
        # The embedding's name differs between language models.
        embeddings = self.get_input_embeddings()
        name = next(name for name, module in self.named_modules() if module is embeddings)
        self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        self.post_init()

    @classmethod
    def from_parts(cls, encoder: Any, language_model: Any, **settings: Any) -> EcgLlmForConditionalGeneration:
        """Return a model of an encoder and a causal language model, which become its parts, and a random projector.

        Args:
            encoder: base model of an encoder, which is put in float32.
            language_model: any `AutoModelForCausalLM`.
            settings: for `EcgLlmConfig`, such as `ecg_features`.

        Raises:
            EncoderError: a language model without an output layer of the usual kind, or that changes what it gives.
        """
        head = language_model.get_output_embeddings()
        if not isinstance(head, nn.Linear) or language_model.base_model is language_model:
            raise EncoderError(
                f"Got {type(language_model).__name__}, expected a causal language model whose output layer is linear."
            )
        config = EcgLlmConfig(
            encoder_config=encoder.config,
            text_config=language_model.config,
            lm_head_bias=head.bias is not None,
            **settings,
        )
        with torch.device("meta"):
            model = cls(config)
        model.model.encoder = encoder.float()
        model.model.language_model = language_model.base_model
        model.model.projector = EcgLlmProjector(config)
        model._init_weights(model.model.projector)
        for parameter in model.model.projector.parameters():  # not its buffers, as in loading
            parameter.data = parameter.data.to(language_model.dtype)
        model.lm_head = head
        model.tie_weights()
        model.generation_config = language_model.generation_config
        model.config.dtype = language_model.dtype
        model.model.freeze_encoder(config.freeze_encoder)
        model._check_logits_of(language_model)
        return model.train(language_model.training)

    @torch.no_grad()
    def _check_logits_of(self, language_model: Any) -> None:
        """Refuse a language model that does with its states what is not done here."""
        ids = torch.arange(4, device=self.lm_head.weight.device)[None]
        was_training = language_model.training
        mine, theirs = self.eval()(input_ids=ids).logits, language_model.eval()(input_ids=ids).logits
        language_model.train(was_training)
        if not torch.equal(mine, theirs):
            raise EncoderError(
                f"Got {type(language_model).__name__}, whose logits are more than its output layer's; expected a "
                "language model like Llama, Qwen, Gemma or GPT-2."
            )

    def get_output_embeddings(self) -> nn.Module:
        """Return the output layer."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Set the output layer."""
        self.lm_head = new_embeddings

    def get_ecg_features(self, ecg_values: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Encode ECGs and project them; see `EcgLlmModel.get_ecg_features`."""
        return self.model.get_ecg_features(ecg_values)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        ecg_values: torch.Tensor | Sequence[torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        ecg_features: torch.Tensor | None = None,
        ecg_encodings: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[torch.Tensor, ...]:
        """Predict the next token at every place.

        Args:
            input_ids: as of `EcgLlmModel.forward`, and the next seven.
            ecg_values: the ECGs of the batch.
            attention_mask: of the text.
            position_ids: of the text.
            past_key_values: of a text read before.
            inputs_embeds: in place of ids.
            ecg_features: in place of `ecg_values`.
            ecg_encodings: in place of `ecg_values`.
            labels: (batch, tokens), ids with -100 where no loss is wanted.
            logits_to_keep: of the last so many places, 0 for all; or their indices.
            return_dict: False for a tuple.
            kwargs: for the language model and the loss.

        Raises:
            EncoderError: as of `EcgLlmModel.forward`.
        """
        outputs = self.model(
            input_ids=input_ids,
            ecg_values=ecg_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            ecg_features=ecg_features,
            ecg_encodings=ecg_encodings,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self._capped(self.lm_head(outputs.last_hidden_state[:, kept]))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return output.to_tuple() if return_dict is False else output

    def _capped(self, logits: torch.Tensor) -> torch.Tensor:
        """Cap logits as Gemma 2 does."""
        cap = getattr(self.config.text_config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
        ecg_values: torch.Tensor | Sequence[torch.Tensor] | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the inputs of the next forward pass; ECGs belong to the prompt, which later passes do not read."""
        parent: Any = super()
        inputs: dict[str, Any] = parent.prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs["ecg_values"] = ecg_values
        else:
            for name in ("ecg_features", "ecg_encodings"):
                inputs.pop(name, None)
        return inputs

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Repeat each row with all its ECGs, for beams and several answers; one by one they would change places."""
        given = {name: model_kwargs.pop(name) for name in ECG_INPUTS if model_kwargs.get(name) is not None}
        parent: Any = super()
        if input_ids is not None and expand_size > 1:
            places = self.model.is_place(input_ids).sum(dim=1)
            given = {name: self._repeated(values, places, expand_size) for name, values in given.items()}
        input_ids, model_kwargs = parent._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | given

    def _repeated(self, values: Any, places: torch.Tensor, times: int) -> Any:
        """ECGs in the order of rows with so many placeholders, each of which follows itself so many times."""
        size = self.config.num_ecg_tokens
        self.model.check_places(int(places.sum()), len(values))
        if bool((places % size).any()):
            raise EncoderError(
                f"Got rows with {places.tolist()} placeholders, expected a multiple of {size} in each: an ECG stands "
                "in one row."
            )
        rows = torch.arange(len(values)).split((places // size).tolist())
        order = torch.cat([row.repeat(times) for row in rows])
        if isinstance(values, torch.Tensor):
            return values[order.to(values.device)]
        return [values[place] for place in order.tolist()]
