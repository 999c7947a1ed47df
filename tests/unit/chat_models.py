"""Tiny tokenizers with chat templates in the manner of known families."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LINES = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The day it runs on is a part of every prompt, as in Llama 3.2's.
LLAMA = (
    "{{ bos_token }}<|start|>system<|sep|>\n\nToday: {{ strftime_now('%d %b %Y %H:%M:%S.%f') }}\n\n"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}{% set messages = messages[1:] %}"
    "{% endif %}<|eot|>{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '<|sep|>\n\n' + message['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|sep|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are {kind}.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{{ message['content'] | trim + '<end_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
# family: (template, tokens of its turns, its end of sequence, end of a turn, what its template writes behind a
# conversation, whether the tokenizer begins every text)
FAMILIES = {
    "llama": (LLAMA, ["<|start|>", "<|sep|>", "<|eot|>"], "<|eot|>", "<|eot|>", "", True),
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "<|eos|>", "<|im_end|>", "\n", False),
    "gemma": (GEMMA, ["<turn>", "<end_turn>"], "<|eos|>", "<end_turn>", "\n", True),
}


def chat_tokenizer(family, texts):
    """A byte-level tokenizer with the turns of a family."""
    template, turn_tokens, eos, _, _, adds_bos = FAMILIES[family]
    special = ["<|bos|>", "<|eos|>", "<|pad|>", *turn_tokens]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LINES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*texts, "system\n\nuser\n\nassistant\n\nmodel\n"] * 2, trainer)
    if adds_bos:
        begin = ("<|bos|>", backend.token_to_id("<|bos|>"))
        backend.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[begin])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|bos|>",
        eos_token=eos,
        pad_token="<|pad|>",  # noqa: S106
        additional_special_tokens=turn_tokens,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def save_chat_model(folder, family, texts, max_positions=2048):
    """A folder with a random model and such a tokenizer."""
    tokenizer = chat_tokenizer(family, texts)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=max_positions,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
