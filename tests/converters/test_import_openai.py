"""OpenAI's files become CLIP folders with the same outputs. No code in a file is run."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from openai_files import EOS, MERGES, VOCAB, Holder, encode_ids, encode_image, make_state, write_vocabulary
from transformers import CLIPModel, CLIPTokenizer

from vop.backbones import find_backbone
from vop.cli import main
from vop.converters import openai
from vop.converters.openai import import_openai
from vop.errors import UsageError, VopError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # old files have this format


def convert(file, out, **options):
    """Convert with heads and activation given, because the tests' files do not have OpenAI's shapes."""
    return import_openai(file, out, **{"heads": 2, "text_heads": 1, "activation": "quick-gelu"} | options)


def halved(state):
    """As in OpenAI's archives: weights in fp16, the rest in fp32, and three additional numbers."""
    state = {name: t.half() if t.ndim > 1 and "embedding" not in name else t for name, t in state.items()}
    extra = {"input_resolution": 16, "context_length": 77, "vocab_size": VOCAB}
    return state | {name: torch.tensor(value) for name, value in extra.items()}


def write_scripted(state, path):
    torch.jit.save(torch.jit.script(Holder(state)), path)


def write_traced(state, path):
    torch.jit.save(torch.jit.trace(Holder(state), torch.ones(1)), path)


def write_nested(state, path):
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": t for name, t in state.items()}}, path)


def write_old_format(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS = [write_scripted, write_traced, torch.save, write_nested, write_old_format]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("half", [False, True])
def test_converted_folders_equal_the_file(tmp_path, write, half):
    state = halved(make_state()) if half else make_state()
    write(state, tmp_path / "clip.pt")
    assert convert(tmp_path / "clip.pt", tmp_path / "out") == tmp_path / "out"
    backbone = find_backbone(str(tmp_path / "out"))
    sizes = backbone.sizes
    assert (sizes.vision.image_size, sizes.vision.patch_size, sizes.text.positions, sizes.text.eos_token_id) == (
        16,
        8,
        77,
        EOS,
    )
    assert (sizes.vision.heads, sizes.vision.layers, sizes.text.heads, sizes.text.layers) == (2, 3, 1, 2)
    clip, reference = backbone.load(), {name: t.float() for name, t in state.items()}
    images = torch.randn(2, 3, 16, 16)
    ids = torch.randint(0, VOCAB - 2, (2, 12))
    ids[:, 7] = EOS
    torch.testing.assert_close(
        clip.vision(images), torch.stack([encode_image(reference, i) for i in images]), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(clip.text(ids), torch.stack([encode_ids(reference, i) for i in ids]), rtol=0, atol=1e-5)
    assert float(clip.log_logit_scale) == pytest.approx(4.6052)


@pytest.mark.parametrize(("heads", "text_heads", "activation"), [(4, 2, "gelu"), (1, 4, "quick-gelu")])
def test_heads_and_activation_can_be_given(tmp_path, heads, text_heads, activation):
    state, gelu = make_state(), activation == "gelu"
    torch.save(state, tmp_path / "clip.pt")
    convert(tmp_path / "clip.pt", tmp_path / "out", heads=heads, text_heads=text_heads, activation=activation)
    clip = find_backbone(str(tmp_path / "out")).load()
    image, ids = torch.randn(3, 16, 16), torch.tensor([1, 2, 3, EOS])
    expected = encode_image(state, image, heads=heads, gelu=gelu)
    torch.testing.assert_close(clip.vision(image[None])[0], expected, rtol=0, atol=1e-5)
    expected = encode_ids(state, ids, heads=text_heads, gelu=gelu)
    torch.testing.assert_close(clip.text(ids[None])[0], expected, rtol=0, atol=1e-5)


def full_state(sizes, *, own=True) -> dict[str, torch.Tensor]:
    """Tensors of the real shapes that store one number each."""

    def zeros(*shape):
        return torch.zeros(1).expand(shape)

    state = {}
    for prefix, tower in (("visual.transformer", sizes.vision), ("transformer", sizes.text)):
        for i in range(tower.layers):
            at, width = f"{prefix}.resblocks.{i}", tower.width
            for name, shape in {
                "ln_1.weight": (width,),
                "ln_1.bias": (width,),
                "ln_2.weight": (width,),
                "ln_2.bias": (width,),
                "attn.in_proj_weight": (3 * width, width),
                "attn.in_proj_bias": (3 * width,),
                "attn.out_proj.weight": (width, width),
                "attn.out_proj.bias": (width,),
                "mlp.c_fc.weight": (tower.mlp_width, width),
                "mlp.c_fc.bias": (tower.mlp_width,),
                "mlp.c_proj.weight": (width, tower.mlp_width),
                "mlp.c_proj.bias": (width,),
            }.items():
                state[f"{at}.{name}"] = zeros(*shape)
    width, text = sizes.vision.width, sizes.text.width
    state |= {f"visual.ln_{place}.{kind}": zeros(width) for place in ("pre", "post") for kind in ("weight", "bias")}
    state |= {
        "visual.class_embedding": zeros(width),
        "visual.conv1.weight": zeros(width, 3, sizes.vision.patch_size, sizes.vision.patch_size),
        "visual.positional_embedding": zeros(1 + sizes.vision.patches, width),
        "visual.proj": zeros(width, sizes.embed_dim),
        "token_embedding.weight": zeros(sizes.text.vocab_size, text),
        "positional_embedding": zeros(sizes.text.positions, text),
        "text_projection": zeros(text, sizes.embed_dim),
        "ln_final.weight": zeros(text),
        "ln_final.bias": zeros(text),
        "logit_scale": torch.tensor(4.6),
    }
    numbers = {"input_resolution": sizes.vision.image_size, "context_length": 77, "vocab_size": sizes.text.vocab_size}
    return state | {name: torch.tensor(value) for name, value in numbers.items() if own}


@pytest.fixture
def written(monkeypatch) -> list:
    """The sizes of imported models. Their weights, 600 MB of zeros, are not written."""
    seen = []
    monkeypatch.setattr(openai, "write_clip_folder", lambda state, folder, *, sizes, **_: seen.append(sizes))
    return seen


@pytest.mark.parametrize("name", openai.OWN)
def test_openais_files_need_no_options(tmp_path, name, written):
    torch.save(full_state(openai.OWN[name]), tmp_path / "clip.pt")
    import_openai(tmp_path / "clip.pt", tmp_path / "out")
    assert written == [openai.OWN[name]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, r"its shapes are those of ViT-B/32, but it lacks input_resolution, context_length, vocab_size"),
        (
            {"vision": replace(openai.VIT_B_32.vision, patch_size=28)},
            r"unlike ViT-B/32 it has patch size 28 \(not 32\)",
        ),
        (
            {"text": replace(openai.VIT_B_32.text, vocab_size=49410)},
            r"unlike ViT-B/32 it has vocabulary 49410 \(not 49408\)",
        ),
        ({"vision": replace(openai.VIT_B_32.vision, layers=11)}, r"unlike ViT-B/32 it has vision layers 11 \(not 12\)"),
        ({"text": replace(openai.VIT_B_32.text, mlp_width=1024)}, r"unlike ViT-B/32 it has text MLP width 1024"),
        ({"embed_dim": 640}, r"unlike ViT-B/32 it has embedding size 640 \(not 512\)"),
    ],
)
def test_other_files_need_heads_and_activation(tmp_path, change, says, written):
    """open_clip's LAION ViT-B/32 has OpenAI's names and shapes, and another activation."""
    state = full_state(replace(openai.VIT_B_32, **change), own=bool(change))
    torch.save(state, tmp_path / "clip.pt")
    with pytest.raises(VopError, match=rf"not one of OpenAI's own files .*: (?:{says}).*--heads N --text-heads N"):
        import_openai(tmp_path / "clip.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    import_openai(tmp_path / "clip.pt", tmp_path / "out", heads=12, text_heads=8, activation="gelu")
    assert (written[0].vision.heads, written[0].text.heads, written[0].text.activation) == (12, 8, "gelu")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heads": 12}, "missing: --text-heads, --activation"),
        (
            {"heads": 12, "text_heads": 8, "activation": "gelu"},
            "this is OpenAI's own file, with 12 heads, 8 text heads",
        ),
        (
            {"heads": 13, "text_heads": 8, "activation": "gelu"},
            "--heads is 13; it must be a whole number that divides .* 768",
        ),
        ({"heads": 12, "text_heads": 0, "activation": "gelu"}, "--text-heads is 0"),
        ({"heads": 12, "text_heads": 8, "activation": "relu"}, "unknown activation 'relu'"),
    ],
)
def test_contradicting_options_are_refused(tmp_path, options, says):
    torch.save(full_state(openai.VIT_B_32), tmp_path / "clip.pt")
    with pytest.raises(UsageError, match=says):
        import_openai(tmp_path / "clip.pt", tmp_path / "out", **options)


def test_unknown_parts_of_a_model_are_refused(tmp_path):
    """LayerScale, attention pooling, SigLIP's bias: OpenAI's CLIP has none of them."""
    torch.save(make_state() | {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(128)}, tmp_path / "clip.pt")
    with pytest.raises(VopError, match="'visual.transformer.resblocks.0.ls_1.gamma'.*CLIP of OpenAI's"):
        convert(tmp_path / "clip.pt", tmp_path / "out")


def test_the_command_asks_for_heads_and_activation(tmp_path, capsys):
    torch.save(make_state(), tmp_path / "clip.pt")
    words = ["import", "openai", str(tmp_path / "clip.pt"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "--heads N --text-heads N --activation quick-gelu or gelu" in capsys.readouterr().err
    assert main([*words, "--heads", "2", "--text-heads", "1", "--activation", "gelu"]) == 0
    assert find_backbone(str(tmp_path / "out")).sizes.vision.activation == "gelu"


def test_transformers_opens_the_folder(tmp_path):
    state = make_state()
    write_scripted(state, tmp_path / "clip.pt")
    write_vocabulary(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    convert(tmp_path / "clip.pt", tmp_path / "out")
    model = CLIPModel.from_pretrained(tmp_path / "out").eval()
    ids = CLIPTokenizer.from_pretrained(tmp_path / "out")(["the onion"], return_tensors="pt")["input_ids"]
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        texts = model.get_text_features(input_ids=ids).pooler_output
        images = model.get_image_features(pixel_values=image).pooler_output
    torch.testing.assert_close(texts[0], encode_ids(state, ids[0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(images[0], encode_image(state, image[0]), rtol=0, atol=1e-5)
    pixels = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert pixels["crop_size"] == {"height": 16, "width": 16}


def bpe(word, merges):
    """The published algorithm: merge the pair of lowest rank everywhere until no known pair is left."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while len(pieces) > 1:
        ranked = [(merges.index(pair), pair) for pair in pairwise(pieces) if pair in merges]
        if not ranked:
            break
        best, joined, i = min(ranked)[1], [], 0
        while i < len(pieces):
            if tuple(pieces[i : i + 2]) == best:
                joined.append("".join(best))
                i += 2
            else:
                joined.append(pieces[i])
                i += 1
        pieces = joined
    return pieces


def test_the_tokenizer_follows_the_published_algorithm(tmp_path):
    torch.save(make_state(), tmp_path / "clip.pt")
    write_vocabulary(tmp_path / "words.gz")
    convert(tmp_path / "clip.pt", tmp_path / "out", vocabulary=tmp_path / "words.gz")
    tokenizer = find_backbone(str(tmp_path / "out")).tokenizer()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    first = [shown[byte] for byte in [*printable, *others]]
    merges = [tuple(merge.split()) for merge in MERGES]
    words = [*first, *(f"{c}</w>" for c in first), *("".join(merge) for merge in merges)]
    ids = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    assert len(ids) == VOCAB
    for text in ["the onion", "an onion is cut, cutting the thin onions", "ça va?", "日本 the", "a"]:
        split = text.lower().replace(",", " ,").replace("?", " ?").split()
        encoded = ["".join(shown[byte] for byte in word.encode()) for word in split]
        expected = [ids[piece] for word in encoded for piece in bpe(word, merges)]
        assert tokenizer.encode([text], max_length=77)[0].tolist() == [ids["<|startoftext|>"], *expected, EOS]
    assert tokenizer.pad_token_id == EOS
    assert json.loads((tmp_path / "out" / "vocab.json").read_text()) == ids
    assert (tmp_path / "out" / "merges.txt").read_text().splitlines()[1:] == MERGES


def test_without_a_vocabulary_there_is_no_tokenizer(tmp_path):
    torch.save(make_state(), tmp_path / "clip.pt")
    convert(tmp_path / "clip.pt", tmp_path / "out")
    assert find_backbone(str(tmp_path / "out")).tokenizer() is None


class Touch:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def write_pickle(state, path, marker):
    path.write_bytes(pickle.dumps({"state_dict": Touch(marker)}, protocol=2))


def write_torch_pickle(state, path, marker):
    torch.save({"state_dict": state, "hook": Touch(marker)}, path)


def write_hostile_archive(state, path, marker):
    """Write a scripted archive whose data.pkl calls a function."""
    write_scripted(state, path.with_suffix(".whole"))
    with zipfile.ZipFile(path.with_suffix(".whole")) as whole, zipfile.ZipFile(path, "w") as hostile:
        for name in whole.namelist():
            data = pickle.dumps(Touch(marker)) if name.endswith("/data.pkl") else whole.read(name)
            hostile.writestr(name, data)


@pytest.mark.parametrize("write", [write_pickle, write_torch_pickle, write_hostile_archive])
def test_code_in_a_file_is_not_run(tmp_path, write):
    write(make_state(), tmp_path / "clip.pt", tmp_path / "marker")
    with pytest.raises(VopError, match=r"clip\.pt.*(posix|nt)\.system, which is not"):
        convert(tmp_path / "clip.pt", tmp_path / "out")
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "out").exists()


def test_code_in_an_archive_is_not_compiled(tmp_path):
    """`torch.jit.load` would fail at this code; the import ignores it."""
    write_scripted(make_state(), tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "clip.pt", "w") as other:
        for name in whole.namelist():
            other.writestr(name, b"no code at all" if "/code/" in name else whole.read(name))
    with pytest.raises(RuntimeError):
        torch.jit.load(tmp_path / "clip.pt")
    convert(tmp_path / "clip.pt", tmp_path / "out")
    assert find_backbone(str(tmp_path / "out")).load() is not None


def truncated(path):
    write_scripted(make_state(), path)
    path.write_bytes(path.read_bytes()[:-2000])


def flipped(path):
    write_scripted(make_state(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)


def short_storage(path):
    """Write an archive with less data than its index says."""
    write_scripted(make_state(), path.with_suffix(".whole"))
    with zipfile.ZipFile(path.with_suffix(".whole")) as whole, zipfile.ZipFile(path, "w") as short:
        for name in whole.namelist():
            short.writestr(name, whole.read(name)[:-4] if name.endswith("/data/0") else whole.read(name))


def compressed(path):
    """Write a zip in which a few bytes encode many zeros."""
    write_scripted(make_state(), path.with_suffix(".whole"))
    with (
        zipfile.ZipFile(path.with_suffix(".whole")) as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))


def other_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "hello")


def without(name):
    return lambda path: torch.save({key: t for key, t in make_state().items() if key != name}, path)


def wrong_shape(path):
    torch.save(make_state() | {"ln_final.weight": torch.ones(65)}, path)


def resnet(path):
    torch.save({"visual.layer1.0.conv1.weight": torch.ones(1)}, path)


BAD_FILES = [
    (lambda path: path.write_text("not a model"), r"clip\.pt: neither"),
    (lambda path: path.write_bytes(b""), r"clip\.pt: neither"),
    (truncated, r"clip\.pt: neither"),
    (flipped, r"clip\.pt: neither"),
    (short_storage, r"clip\.pt: neither.*data/0 has \d+ bytes"),
    (compressed, r"clip\.pt: neither.*is compressed"),
    (other_zip, r"clip\.pt: neither"),
    (lambda path: torch.save(torch.ones(3), path), r"clip\.pt: neither.*contains a Tensor"),
    (lambda path: torch.save({"lr": 0.1}, path), r"clip\.pt: .*no tensors"),
    (without("visual.proj"), "tensor 'visual.proj' .*missing"),
    (
        without("transformer.resblocks.1.mlp.c_fc.bias"),
        r"tensor 'transformer\.resblocks\.1\.mlp\.c_fc\.bias' .*missing",
    ),
    (wrong_shape, r"text.post_norm.weight has the shape \(65,\).*\(64,\)"),
    (resnet, "ResNet CLIP"),
]


@pytest.mark.parametrize(("write", "says"), BAD_FILES)
def test_other_files_are_refused_and_no_folder_is_left(tmp_path, write, says):
    write(tmp_path / "clip.pt")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VopError, match=says):
        convert(tmp_path / "clip.pt", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"plain text", "not a gzip file"),
        (gzip.compress(b"header\nt h\n"), "1 merges; .* 11"),
        (gzip.compress(b"header\n" + b"t h e\n" * 11), "'t h e' is not a merge"),
        (gzip.compress(b"header\n" + b"tt h\n" * 11), "'tt h' joins .*not exist"),
        (gzip.compress(b"header\n" + b"t h\n" * 11)[:-12], "not a gzip file"),
        (gzip.compress(b"header\n\xff\xfe\n"), "not a gzip file of text"),
        (gzip.compress(bytes(40 * 2**20)), "more than 33,554,432 bytes"),
    ],
    ids=["not gzip", "too few", "three pieces", "unknown piece", "truncated", "not text", "bomb"],
)
def test_wrong_vocabularies_are_refused(tmp_path, content, says):
    torch.save(make_state(), tmp_path / "clip.pt")
    (tmp_path / "words.gz").write_bytes(content)
    with pytest.raises(VopError, match=rf"words\.gz.*{says}"):
        convert(tmp_path / "clip.pt", tmp_path / "out", vocabulary=tmp_path / "words.gz")
    assert not (tmp_path / "out").exists()


def test_missing_files_and_existing_folders_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.pt: .* not exist"):
        import_openai(tmp_path / "nothing.pt", tmp_path / "out")
    torch.save(make_state(), tmp_path / "clip.pt")
    with pytest.raises(UsageError, match=r"words\.gz: .*bpe_simple_vocab_16e6"):
        convert(tmp_path / "clip.pt", tmp_path / "out", vocabulary=tmp_path / "words.gz")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    (tmp_path / "clip.pt").write_bytes(b"not read before the folder is known to be free")
    with pytest.raises(UsageError, match="full exists already"):
        import_openai(tmp_path / "clip.pt", tmp_path / "full")
    with pytest.raises(UsageError, match="mine.txt is a file, not a folder"):
        import_openai(tmp_path / "clip.pt", tmp_path / "full" / "mine.txt" / "out")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
