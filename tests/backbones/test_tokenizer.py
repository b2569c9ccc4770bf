"""Our token ids against those of OpenAI's tokenizer, and of `transformers.CLIPTokenizer`."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from random import Random

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from vop.backbones import find_backbone
from vop.backbones.sizes import TextSizes
from vop.backbones.tokenizer import Tokenizer, clean
from vop.benchmarks import emoji_motion
from vop.errors import VopError

MINI = Path(str(files("vop.backbones.mini")))
SIZES = TextSizes(vocab_size=1914, eos_token_id=1913)  # Mini's
MARKS = ("<|startoftext|>", "<|endoftext|>")
BY_HAND = [
    "",
    " ",
    "\n\t ",
    "a dog",
    "A  Dog\tRUNS\r\nhome. ",
    "it's we're they've I'm he'll she'd don't DON'T 'S ''s",
    "fish &amp; chips &lt;b&gt; &#39;quoted&#39;",
    "naïve café, cafe\u0301, ŻÓŁĆ, İstanbul, Straße, ΣΊΣΥΦΟΣ, ﬁne",
    "日本語のテキスト 中文 한국어 العربية हिन्दी ไทย",
    "🐈 👩‍👩‍👧‍👦 🇵🇱 ☺️ \U0001f9d1\U0001f3fd\u200d\U0001f680",
    "x1y2 2024 3.14 ½ ² Ⅷ ٣",
    "\x00 \x01\x02 \x1f \x7f \x85 \u200b \ufeff \u2028 \u3000 \u00a0 \ufffd \U0010ffff",
    "snake_case kebab-case a/b http://example.org/?q=1&r=2#x <<>> !?!? ... …",
    f"{MARKS[0]} a dog {MARKS[1]}",
    f"{MARKS[1]}{MARKS[1]} a{MARKS[0]}b <|pad|> <|endoftext>",
    "w" * 500,
    "word " * 10_000,
]
RANGES = [(0, 0x80), (0x80, 0x250), (0x250, 0x3000), (0x3000, 0xD800), (0xE000, 0x11000), (0x1F300, 0x1FAFF)]


def random_texts(count: int) -> list[str]:
    """Random Unicode characters, and captions that are cut and joined at random."""
    rng = Random(0)
    captions = [clip.caption for clip in emoji_motion.plan_clips()]
    texts = []
    for _ in range(count):
        start, end = rng.choice(RANGES)
        characters = [chr(rng.randrange(start, end)) for _ in range(rng.randrange(30))]
        caption = rng.choice(captions)
        pieces = ["".join(characters), caption[: rng.randrange(len(caption))], rng.choice([" ", "", "'s ", "\n"])]
        texts.append("".join(rng.sample(pieces, 3)))
    return texts


@pytest.fixture(scope="module", params=["tokenizer.json", "vocab.json and merges.txt"])
def folder(request, tmp_path_factory):
    """Mini's vocabulary in each of its two formats."""
    if request.param == "tokenizer.json":
        return MINI
    folder = tmp_path_factory.mktemp("words")
    for name in ("vocab.json", "merges.txt", "config.json", "tokenizer_config.json"):
        shutil.copy(MINI / name, folder)
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    return CLIPTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("max_length", [77, 20, 3, 2])
def test_ids_equal_those_of_transformers(folder, theirs, max_length):
    texts = BY_HAND + random_texts(800)
    expected = theirs(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")["input_ids"]
    ours = Tokenizer(folder, SIZES).encode(texts, max_length=max_length)
    assert ours.shape[1] == max_length
    assert (ours.dtype, ours.tolist()) == (expected.dtype, expected.tolist())


def test_a_single_text_is_not_padded(folder, theirs):
    ours = Tokenizer(folder, SIZES)
    for text in BY_HAND:
        expected = theirs([text], padding=True, truncation=True, max_length=77, return_tensors="pt")["input_ids"]
        assert ours.encode([text], max_length=77).tolist() == expected.tolist()
    assert ours.encode([""], max_length=77).tolist() == [[1912, 1913]]
    assert ours.pad_token_id == theirs.pad_token_id == 1913


def test_counts_include_tokens_that_are_cut(folder, theirs):
    ours = Tokenizer(folder, SIZES)
    assert [ours.count(text) for text in BY_HAND] == [len(theirs(text)["input_ids"]) for text in BY_HAND]
    assert ours.count("word " * 10_000) > 10_000


def test_copied_and_pickled_tokenizers_are_equal(folder):
    ours = Tokenizer(folder, SIZES)
    expected = ours.encode(BY_HAND, max_length=77)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other.encode(BY_HAND, max_length=77), expected)


def test_threads_may_use_different_lengths(folder):
    texts = ["a dog runs " * 100] * 20
    ours, lengths = Tokenizer(folder, SIZES), [5, 9, 77, 20] * 10
    with ThreadPoolExecutor(4) as threads:
        got = threads.map(lambda n: ours.encode(texts, max_length=n).shape[1], lengths)
    assert list(got) == lengths


class TestOtherFiles:
    @pytest.fixture
    def damaged(self, tmp_path):
        """A function that writes Mini's tokenizer.json with changed values."""

        def write(**changes) -> Path:
            values = json.loads((MINI / "tokenizer.json").read_text(encoding="utf-8"))
            (tmp_path / "tokenizer.json").write_text(json.dumps(values | changes), encoding="utf-8")
            return tmp_path

        return write

    def test_length_and_padding_in_the_file_are_ignored(self, damaged):
        folder = damaged(
            truncation={"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            padding={
                "strategy": {"Fixed": 77},
                "direction": "Left",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "!",
            },
        )
        texts = ["a dog runs to the left", "a", ""]
        ours = Tokenizer(folder, SIZES).encode(texts, max_length=77)
        assert torch.equal(ours, Tokenizer(MINI, SIZES).encode(texts, max_length=77))

    def test_a_tokenizer_without_marks_is_refused(self, damaged):
        with pytest.raises(VopError, match=r"tokenizer\.json .*marks"):
            Tokenizer(damaged(post_processor=None), SIZES)

    def test_a_damaged_vocabulary_is_refused(self, tmp_path):
        (tmp_path / "vocab.json").write_text('{"a": 0')
        with pytest.raises(VopError, match="its vocabulary cannot be read"):
            Tokenizer(tmp_path, SIZES)


OPENAI = json.loads(Path(__file__).with_name("openai_tokens.json").read_text())


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    """OpenAI's vocabulary with only the merges that these tests need."""
    folder = tmp_path_factory.mktemp("openai")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate([*alphabet, *(letter + "</w>" for letter in alphabet)])}
    merges = {int(rank): tuple(merge.split()) for rank, merge in OPENAI["merges"].items()}
    words |= {"".join(merge): 512 + rank for rank, merge in merges.items()}
    words |= dict(zip(MARKS, (49406, 49407), strict=True))
    CLIPTokenizer(vocab=words, merges=list(merges.values())).save_pretrained(folder)
    return Tokenizer(folder, TextSizes())


class TestOpenAI:
    """Texts are cleaned as in OpenAI's code before they are tokenised."""

    @pytest.mark.parametrize(("text", "ids"), OPENAI["texts"])
    def test_ids_equal_openais(self, openai, text, ids):
        assert openai.count(text) == len(ids)
        assert openai.encode([text], max_length=len(ids)).tolist() == [ids]

    @pytest.mark.parametrize(
        ("text", "cleaned"),
        [
            ("  A  Dog\tRUNS\r\nhome. ", "a dog runs home."),
            ("fish &amp;amp; chips", "fish & chips"),
            ("\u201cquoted\u201d \u2018it\u2019s\u2019", "\"quoted\" 'it's'"),
            ("caf\u00c3\u00a9", "caf\u00e9"),
            ("\uff21\uff22\uff23 \ufb01ne", "abc fine"),
        ],
    )
    def test_texts_are_cleaned(self, text, cleaned):
        assert clean(text) == cleaned

    def test_mini_uses_no_cleaning(self):
        assert Tokenizer(MINI, SIZES).cleaning == "none"


def test_a_vocabulary_of_bytes(tiny_folder):
    """The vocabulary contains only bytes, in a tokenizer.json as `save_pretrained` writes it."""
    theirs = CLIPTokenizer.from_pretrained(tiny_folder)
    texts = [clean(text) for text in BY_HAND + random_texts(500)]
    texts = [text for text in texts if theirs.backend_tokenizer.normalizer.normalize_str(text) == text]
    assert len(texts) > 500
    expected = theirs(texts, padding=True, truncation=True, max_length=40, return_tensors="pt")["input_ids"]
    assert torch.equal(find_backbone(str(tiny_folder)).tokenizer().encode(texts, max_length=40), expected)
