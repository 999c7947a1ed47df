"""An ECG-Byte vocabulary as a `tokenizer.json` of the stock `tokenizers` library."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from transformers.tokenization_utils_base import AddedToken

from .errors_ecg_byte import VocabularyError
from .vocabulary_ecg_byte import SPECIAL_TOKENS


def stock_tokenizer(tokenizer: Any) -> Any:
    """The same vocabulary for the stock `tokenizers` library, with the same ids for any string.

    This is what `AutoTokenizer` loads where `ecgbyte_hf` is not installed. Greedy: a WordLevel model behind a Split
    pre-tokenizer whose regular expression is the vocabulary's trie; it matches the longest token, and any other single
    character, which becomes `<|ecg_unk|>`. Rank order: the library's own BPE. The letters alone cannot tell where a
    lead ends, so with `lead_boundary="split"` encode each lead by itself there.

    Args:
        tokenizer: An `EcgByteTokenizer`.

    Returns:
        A `tokenizers.Tokenizer`.

    Raises:
        VocabularyError: the regular expression nests too deeply, when some 2,000 tokens begin with one another.
    """
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import BPE, WordLevel
    from tokenizers.pre_tokenizers import Split

    unknown = SPECIAL_TOKENS["unk_token"]
    # Without the tokens that a user added: they are in tokenizer_config.json, which the stock library reads too.
    vocabulary = dict(islice(tokenizer.get_vocab().items(), tokenizer.vocab_size))
    words = list(vocabulary)[: tokenizer.num_ecg_tokens]
    if tokenizer.algorithm == "greedy":
        stock = Tokenizer(WordLevel(vocabulary, unk_token=unknown))
        try:
            stock.pre_tokenizer = Split(Regex(rf"{trie_pattern(words)}|[\s\S]"), "isolated")
        except Exception as error:  # the library raises no narrower class
            raise VocabularyError(
                f"its regular expression cannot be built ({error}); lower max_token_length"
            ) from error
    else:
        merges = [(words[left], words[right]) for left, right in tokenizer.bpe.merges.tolist()]
        stock = Tokenizer(BPE(vocabulary, merges, unk_token=unknown))
    stock.decoder = Fuse()
    stock.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS.values()])
    return stock


def trie_pattern(words: Sequence[str]) -> str:
    """A regular expression that matches the longest of `words` at a position.

    Example:
        >>> trie_pattern(["a", "ab", "abcd", "b"])
        'a(?:b(?:cd)?)?|b'
    """
    children: list[dict[str, int]] = [{}]
    is_word = [False]
    for word in words:
        node = 0
        for letter in word:
            if letter not in children[node]:
                children[node][letter] = len(children)
                children.append({})
                is_word.append(False)
            node = children[node][letter]
        is_word[node] = True
    # A child always has a larger number than its parent, so one pass from the end builds the pattern bottom-up,
    # without recursion: words of a thousand letters would exceed Python's limit.
    patterns = [""] * len(children)
    for node in range(len(children) - 1, 0, -1):
        branches = [letter + patterns[child] for letter, child in children[node].items()]
        if not branches:
            continue
        if is_word[node]:
            patterns[node] = f"(?:{'|'.join(branches)})?"
        else:
            patterns[node] = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
        for child in children[node].values():
            patterns[child] = ""
    return "|".join(letter + patterns[child] for letter, child in children[0].items())
