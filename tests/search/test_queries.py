"""Queries: sentences with weights, frames, captions."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import vop
from vop.errors import DataError, UsageError, VopError
from vop.models.pretrained import create
from vop.search.queries import (
    Caption,
    Sentence,
    best_captions,
    combine,
    cut_short,
    embed_frames,
    embed_sentences,
    read_captions,
)

LANGUAGES = ["ein Hund läuft über die Straße", "一只狗在草地上跑", "كلب"]
ODD = [*LANGUAGES, "\N{PILE OF POO}" * 3, "\x00", "x" * 5000, "word " * 10_000]


@pytest.fixture(scope="module")
def model(tiny_folder):
    return vop.load(tiny_folder, num_frames=3)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -0.5), (3.0, 0.0), (-2.0, 0.25), (1e-3, 7.0)])
def test_sentences_are_a_weighted_sum(model, weights):
    texts = ["a dog", "a park at night"]
    vector = embed_sentences(model, [Sentence(text, weight) for text, weight in zip(texts, weights, strict=True)])
    embeddings = [model.encode_text([text])[0].double().numpy() for text in texts]
    naive = sum(weight * embedding for weight, embedding in zip(weights, embeddings, strict=True))
    np.testing.assert_allclose(vector, naive / np.sqrt((naive**2).sum()), atol=2e-6)
    assert (vector.dtype, vector.shape) == (np.float32, (16,))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300, 1.7e308])
def test_only_the_proportions_of_weights_count(model, scale):
    plain = embed_sentences(model, [Sentence("a dog"), Sentence("a park", -0.5)])
    np.testing.assert_allclose(
        embed_sentences(model, [Sentence("a dog", scale), Sentence("a park", -0.5 * scale)]), plain
    )


@pytest.mark.parametrize("text", ODD)
def test_any_text_gives_a_unit_vector(model, text):
    vector = embed_sentences(model, [Sentence(text)])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    together = embed_sentences(model, [Sentence(text), Sentence("a dog", -0.5)])
    assert np.linalg.norm(together) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "the query is empty"),
        ([Sentence("")], "an empty sentence, ''"),
        ([Sentence("a dog"), Sentence(" \n\t")], r"an empty sentence, ' \\n\\t'"),
        ([Sentence("caf\udce9")], r"the sentence 'caf\\udce9' is not valid Unicode"),
        ([Sentence("a dog", float("nan"))], "the weight of 'a dog' is nan"),
        ([Sentence("a dog"), Sentence("a cat", float("-inf"))], "the weight of 'a cat' is -inf"),
        ([Sentence("a dog", 0), Sentence("a cat", -0.0)], "all weights of the query are 0"),
        ([Sentence("a dog", 2), Sentence("a dog", -2)], "cancel each other out"),
        ([Sentence("a dog", 1e300), Sentence("a dog", -1e300)], "cancel each other out"),
    ],
)
def test_invalid_queries_are_refused(model, sentences, message):
    with pytest.raises(UsageError, match=message):
        embed_sentences(model, sentences)


def test_nearly_opposite_sentences_do_not_cancel():
    vectors = np.array([[1, 0], [0.9999, 0.0141418]], np.float32)
    np.testing.assert_allclose(combine(vectors, [Sentence("a"), Sentence("b", -1)]), [0.00707, -0.99997], atol=1e-3)


@pytest.mark.parametrize(("method", "most"), [("zero-shot", 40), ("vop", 40 - 8)])
def test_truncated_sentences_give_a_warning(tiny, method, most):
    model = create(method, tiny)
    fits = "x" * (most - 2)  # the start and end tokens take the other two
    assert cut_short(model, [Sentence("a dog"), Sentence(fits)]) == []
    notes = cut_short(model, [Sentence("a dog"), Sentence(fits + "x"), Sentence("word " * 10_000)])
    assert [f" {most} tokens" in note for note in notes] == [True, True]
    assert fits[:40] in notes[0]
    assert ("word " * 8).strip() in notes[1]


def test_a_model_without_a_vocabulary_is_refused(tiny_folder, tmp_path):
    bare = shutil.copytree(tiny_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    model = vop.load(bare)
    for ask in (embed_sentences, cut_short):
        with pytest.raises(VopError, match=r"bare: .*vocabulary"):
            ask(model, [Sentence("a dog")])


def test_frames_are_embedded_as_a_video(model):
    frames = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    vector = embed_frames(model, frames)
    with torch.no_grad():
        expected = model.embed_frames(model.normalise(frames[None]))[0]
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


class TestCaptions:
    def test_captions_have_line_numbers(self, tmp_path):
        file = tmp_path / "captions.txt"
        file.write_bytes("\ufeffa dog\r\n\r\n  a cat \n\t\n \n😀 one\x85or\x0cthe\u2028other".encode())
        assert read_captions(file) == [(1, "a dog"), (3, "a cat"), (6, "😀 one\x85or\x0cthe\u2028other")]

    @pytest.mark.parametrize("content", [b"", b"\n \n\t\r\n", b"\xef\xbb\xbf\n"])
    def test_an_empty_file_is_refused(self, tmp_path, content):
        (tmp_path / "captions.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"captions\.txt has no captions"):
            read_captions(tmp_path / "captions.txt")

    def test_a_binary_file_is_refused(self, tmp_path):
        (tmp_path / "clip.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom\xff\xfe")
        with pytest.raises(DataError, match=r"clip\.mp4: not a text file in UTF-8"):
            read_captions(tmp_path / "clip.mp4")

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(UsageError, match=r"gone\.txt does not exist"):
            read_captions(tmp_path / "gone.txt")

    def test_captions_are_sorted_by_score(self, model):
        captions = [(number, f"caption {number}" + " more" * (number % 5)) for number in range(1, 40)]
        vector = embed_sentences(model, [Sentence("caption 7")])
        scores = {number: float(model.encode_text([text])[0].numpy() @ vector) for number, text in captions}
        found = best_captions(model, vector, captions, 5)
        assert [caption.line for caption in found] == sorted(scores, key=lambda number: -scores[number])[:5]
        assert [caption.score for caption in found] == pytest.approx([scores[c.line] for c in found], abs=1e-5)
        assert isinstance(found[0], Caption)
        assert found[0].caption == dict(captions)[found[0].line]

    def test_ties_keep_the_order_of_the_file(self, model):
        vector = embed_sentences(model, [Sentence("a cat")])
        captions = [(number, "a dog" if number % 3 else f"another {'x' * (number % 17)}") for number in range(1, 700)]
        found = best_captions(model, vector, captions, 10**9)
        assert len(found) == 699
        dogs = [caption for caption in found if caption.caption == "a dog"]
        assert [caption.line for caption in dogs] == [number for number, text in captions if text == "a dog"]
        assert len({caption.score for caption in dogs}) == 1

    @pytest.mark.parametrize("k", [0, -3])
    def test_k_must_be_positive(self, model, k):
        with pytest.raises(UsageError, match=f"k is {k}; ask for 1 caption or more"):
            best_captions(model, np.zeros(16, np.float32), [(1, "a dog")], k)
