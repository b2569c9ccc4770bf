"""Compiled layers: the same embeddings, gradients and runs, and clear errors where layers cannot be compiled."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import vop
from tiny_clip import make_clip_folder
from tiny_data import write_data
from vop.backbones.compiling import check_compiler
from vop.cli import main
from vop.errors import UsageError
from vop.models.fingerprint import fingerprint
from vop.models.pretrained import create
from vop.training.recipe import Recipe

FRAMES = 3
CAPTIONS = ["a red cat runs", "a dog and a small frog sit beside a tree", "rain"]
METHODS = [("vop-f+c", {"cmm": "bilstm"}), ("lora", {})]  # prompts between layers, and updates inside them


@pytest.fixture
def captioned(tmp_path):
    return write_data(tmp_path / "data")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A backbone of two layers for frames and one for texts: each is traced alone, which takes most of the time."""
    return make_clip_folder(tmp_path_factory.mktemp("small"), vision_layers=2, text={"num_hidden_layers": 1})


@pytest.fixture(scope="module")
def _compiler():
    try:
        check_compiler("cpu")
    except UsageError as error:
        pytest.skip(str(error))


def embeddings(model, videos: int):
    generator = torch.Generator().manual_seed(videos)
    pixels = torch.randn(videos, FRAMES, 3, model.image_size, model.image_size, generator=generator)
    return model.embed_tokens(model.tokenize(CAPTIONS[:videos])), model.embed_frames(pixels)


def gradients(model) -> dict[str, torch.Tensor]:
    texts, videos = embeddings(model, 3)
    weights = torch.arange(texts.numel()).view_as(texts).sin()
    (weights * (texts + 2 * videos)).sum().backward()
    return {name: p.grad for name, p in model.trainable().items() if p.grad is not None}


def check_same(method: str, settings: dict[str, object], *, backbone) -> None:
    torch.manual_seed(0)
    plain = create(method, backbone, num_frames=FRAMES, device="cpu", **settings).eval()
    compiled = create(method, backbone, num_frames=FRAMES, device="cpu", compile=True, **settings).eval()
    for parameter in plain.trainable().values():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    compiled.load_state_dict(plain.state_dict())  # also: both have the same names
    assert (plain.compiled, compiled.compiled) == (False, True)
    assert fingerprint(compiled) == fingerprint(plain)
    for videos in (3, 1, 2):
        with torch.no_grad():
            for ours, expected in zip(embeddings(compiled, videos), embeddings(plain, videos), strict=True):
                torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    if not plain.trainable():
        return
    expected = gradients(plain)
    found = gradients(compiled)
    assert found.keys() == expected.keys()
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in found.items():
        assert (gradient - expected[name]).norm() <= 1e-4 * expected[name].norm() + 1e-6 * norm, name


def use_backend(monkeypatch, backend) -> None:
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **given: original(call, backend=backend, **given))


@pytest.mark.slow
@pytest.mark.usefixtures("_compiler")
def test_compiled_layers_give_the_same(tiny):
    check_same("zero-shot", {}, backbone=tiny)  # without gradients, whose compilation takes a minute


@pytest.mark.slow
@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_traced_layers_give_the_same(method, settings, small, monkeypatch):
    """Traced and differentiated as for a compiler, but not compiled, which would take many seconds more."""
    if method == "lora":
        pytest.importorskip("peft")
    use_backend(monkeypatch, "aot_eager")
    check_same(method, settings, backbone=str(small))


@pytest.mark.slow
def test_a_training_with_compiled_layers_writes_a_usual_run(captioned, tmp_path, monkeypatch):
    use_backend(monkeypatch, "aot_eager")
    given = {"method": "vop", "backbone": "mini", "settings": {"num_frames": 2}}
    recipe = Recipe(epochs=1, batch_size=2, precision="fp32", validation=0, workers=0)
    trained = [
        vop.train(captioned, out=tmp_path / str(number), recipe=recipe, compile=compiled, track=["none"], **given)
        for number, compiled in enumerate([False, True])
    ]
    assert [run.model.compiled for run in trained] == [False, True]
    plain, compiled = (load_file(tmp_path / str(number) / "model.safetensors") for number in range(2))
    assert plain.keys() == compiled.keys()
    for name, tensor in compiled.items():
        torch.testing.assert_close(tensor, plain[name], atol=1e-3, rtol=0)  # Adam divides by small gradients
    again = vop.train(captioned, out=tmp_path / "1", recipe=recipe, resume=True, track=["none"], **given)
    assert not again.model.compiled
    assert fingerprint(again.model) == fingerprint(trained[1].model)


@pytest.mark.slow
@pytest.mark.usefixtures("captions_embedded_once")
def test_commands_compile_only_on_request(captioned, tiny_folder, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr("vop.models.model.compile_layers", compiled.append)
    library, videos, model = (str(path) for path in (tmp_path / "library", captioned.parent, tiny_folder))
    new = ["--model", model, "--num-frames", "2"]
    moments = captioned.parent / "moments.csv"
    moments.write_text("video,caption,start,end\nclip0.mp4,red,0,0.2\n")
    for words in (
        ["evaluate", model, "--data", str(captioned), "--num-frames", "2", "--bank", "0"],
        ["evaluate", model, "--data", str(moments), "--moments", "--num-frames", "2"],
        ["index", library, videos, *new],
        ["index", library, videos],  # the library exists
        ["library", "reembed", library, "--model", "mini", "--num-frames", "2"],
    ):
        assert main([*words, "--device", "cpu"]) == 0
        assert not compiled
        if words[:2] == ["library", "reembed"]:
            words[words.index("mini")] = model
        assert main([*words, "--device", "cpu", "--compile"]) == 0
        assert compiled
        compiled.clear()


def test_layers_that_merge_tokens_are_not_compiled(tiny_folder, tiny):
    with pytest.raises(UsageError, match="tempme.*leave out compile"):
        create("tempme", tiny, num_frames=2, compile=True)
    with pytest.raises(UsageError, match="leave out merge_tokens or compile"):
        vop.load(tiny_folder, merge_tokens=0.5, compile=True)


def test_other_devices_are_refused():
    with pytest.raises(UsageError, match="mps.*cpu or cuda"):
        check_compiler("mps")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "stop"])
def test_layers_in_bf16_share_their_graph(method, tiny, monkeypatch):
    """Modules that cast to fp32 and back must not make a graph of every layer."""
    if method == "lora":
        pytest.importorskip("peft")
    graphs = []

    def run_as_it_is(graph, inputs):
        graphs.append(graph)
        return graph.forward

    use_backend(monkeypatch, run_as_it_is)
    model = create(method, tiny, num_frames=FRAMES, dtype=torch.bfloat16, device="cpu", compile=True).eval()
    with torch.no_grad():
        model.embed_tokens(model.tokenize(CAPTIONS))
    assert len(model.clip.text.layers) == 2
    assert len(graphs) == 1


@pytest.mark.slow
def test_without_a_compiler_nothing_starts(captioned, tmp_path, monkeypatch, capsys):
    torch._dynamo.reset()  # forgets what is compiled
    check_compiler.cache_clear()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/no/compiler"))
    words = ["--data", captioned, "--backbone", "mini", "--out", tmp_path / "run", "--device", "cpu", "--compile"]
    assert main(["train", *map(str, words)]) == 2
    error = capsys.readouterr().err
    assert "/no/compiler" in error
    assert "leave out compile" in error
    assert not (tmp_path / "run").exists()
    check_compiler.cache_clear()
