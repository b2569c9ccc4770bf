"""Train a small byte-level BPE in CLIP's format on captions. It can encode any text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Iterable[str], *, merges: int, max_length: int = 77):
    """Train a `CLIPTokenizer` with all bytes, all bytes at a word's end, up to `merges` merges and the two marks.

    The end mark has the highest id, as in OpenAI's vocabulary, and is also used for padding.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    empty = CLIPTokenizer().backend_tokenizer  # for its rules of lower case and word splitting
    learner.normalizer, learner.pre_tokenizer = empty.normalizer, empty.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + merges,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
        min_frequency=2,
    )
    learner.train_from_iterator(captions, trainer)
    learned = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]][:merges]
    words = [*alphabet, *(a + "</w>" for a in alphabet), *("".join(m) for m in learned), START, END]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    return CLIPTokenizer(vocab=vocabulary, merges=learned, model_max_length=max_length)


def save_tokenizer(tokenizer, folder: Path) -> None:
    """Write `tokenizer.json` and its configuration, and `vocab.json` with `merges.txt` for other readers."""
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["text_cleaning"] = (
        "none"  # captions of the built-in world need no cleaning, and the tokenizer was trained without it
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    lines = ["#version: 0.2", *(m if isinstance(m, str) else " ".join(m) for m in model["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
