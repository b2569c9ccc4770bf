"""Fingerprints of models, and models that share a backbone."""

from __future__ import annotations

import re

import pytest
import torch

import vop
from tiny_backbones import make_siglip_folder
from tiny_clip import make_clip_folder
from vop.backbones import find_backbone
from vop.errors import UsageError, VopError
from vop.models.fingerprint import fingerprint
from vop.models.pretrained import create
from vop.search.manifest import Manifest
from vop.search.models import check_same, describe, open_models

SHARING = ["zero-shot", "vop", "vop-f+p", "adapter-ffn"]
CHANGING = ["full", "bias", "lora"]


def a_run(method: str, backbone, folder, *, seed: int = 0, **settings):
    """Save a run whose weights all differ from their initial values."""
    torch.manual_seed(seed)
    model = create(method, backbone, **{"num_frames": 3} | settings)
    for parameter in model.trainable().values():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """The folders of the runs, by method."""
    folder = tmp_path_factory.mktemp("runs")
    found = {method: a_run(method, tiny, folder / method) for method in SHARING + CHANGING if method != "zero-shot"}
    return {"zero-shot": tiny.folder} | found


def a_manifest(runs, methods) -> Manifest:
    models = [vop.load(runs[method], num_frames=3) for method in methods]
    described = [
        describe(model, name=str(runs[method]), column=f"embedding_{n}")
        for n, (model, method) in enumerate(zip(models, methods, strict=True))
    ]
    return Manifest(table="segments_0", models=tuple(described), num_frames=3, image_size=32)


def some_frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (5, 3, 3, 32, 32), dtype=torch.uint8, generator=generator)


class TestFingerprint:
    @pytest.mark.parametrize("method", SHARING + CHANGING)
    def test_fingerprints_do_not_depend_on_the_dtype(self, runs, method):
        prints = {fingerprint(vop.load(runs[method], dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)}
        prints.add(fingerprint(vop.load(runs[method])))
        assert len(prints) == 1
        assert re.fullmatch("[0-9a-f]{16}", prints.pop())

    def test_fingerprints_stay_equal_after_saving(self, runs, tmp_path):
        model = vop.load(runs["vop-f+p"])
        model.save_pretrained(tmp_path)
        assert fingerprint(vop.load(tmp_path)) == fingerprint(model)

    def test_fingerprints_differ_for_every_difference(self, runs, tiny, tmp_path):
        other = find_backbone(str(make_clip_folder(tmp_path / "clip", seed=1)))
        made = {
            "weights": a_run("vop", tiny, tmp_path / "weights", seed=1),
            "settings": a_run("vop", tiny, tmp_path / "settings", text_prompts=4),
            "frames": a_run("vop-f+p", tiny, tmp_path / "frames", num_frames=4),
            "head": a_run("vop", tiny, tmp_path / "head", head="seqLSTM"),
            "backbone": a_run("vop", other, tmp_path / "backbone"),
            "clip": other.folder,
        }
        prints = {name: fingerprint(vop.load(folder)) for name, folder in (runs | made).items()}
        assert len(set(prints.values())) == len(SHARING + CHANGING) + len(made), prints

    def test_fingerprints_differ_by_a_single_weight(self, runs):
        model = vop.load(runs["vop"])
        before = fingerprint(model)
        parameter = next(iter(model.trainable().values()))
        parameter.data.view(-1)[-1] += 1e-6
        assert fingerprint(model) != before

    def test_fingerprints_depend_on_the_number_of_frames(self, runs):
        assert fingerprint(vop.load(runs["vop"], num_frames=5)) != fingerprint(vop.load(runs["vop"]))


class TestOpening:
    def test_methods_that_freeze_the_backbone_share_it(self, runs):
        models = open_models(a_manifest(runs, SHARING), folder=runs["vop"], precision="fp32")
        assert [model.method_name for model in models] == SHARING
        assert len({id(model.clip) for model in models}) == 1

    @pytest.mark.parametrize("method", CHANGING)
    def test_methods_that_change_the_backbone_have_their_own(self, runs, method):
        methods = ["vop", method, "vop-f+p"]
        first, changing, last = open_models(a_manifest(runs, methods), folder=runs["vop"], precision="fp32")
        assert first.clip is last.clip
        assert changing.clip is not first.clip

    def test_open_models_lend_their_backbone(self, runs):
        open_already = vop.load(runs["vop"])
        models = open_models(a_manifest(runs, ["vop-f+p"]), folder=runs["vop"], precision="fp32", beside=[open_already])
        assert [model.method_name for model in models] == ["vop-f+p"]
        assert models[0].clip is open_already.clip

    def test_backbones_of_other_precisions_are_not_shared(self, runs):
        manifest = a_manifest(runs, ["vop-f+p"])
        half = vop.load(runs["vop"], dtype=torch.bfloat16)
        (model,) = open_models(manifest, folder=runs["vop"], precision="fp32", beside=[half])
        assert model.clip is not half.clip

    def test_sharing_changes_no_bit_of_the_embeddings(self, runs):
        methods = ["vop", "full", "zero-shot", "lora", "vop-f+p", "bias", "adapter-ffn"]
        models = open_models(a_manifest(runs, methods), folder=runs["vop"], precision="fp32")
        frames, texts = some_frames(), ["a dog", "a longer sentence about a park"]
        together = [model.encode_frames(frames) for model in models]
        for method, model, embeddings in zip(methods, models, together, strict=True):
            alone = vop.load(runs[method], num_frames=3)
            assert torch.equal(alone.encode_frames(frames), embeddings), method
            assert torch.equal(alone.encode_text(texts), model.encode_text(texts)), method
        assert len({tuple(embeddings[0].tolist()) for embeddings in together}) == len(methods)

    def test_a_moved_model_can_be_given(self, runs, tiny, tmp_path):
        folder = a_run("vop", tiny, tmp_path / "before")
        manifest = a_manifest({"vop": folder}, ["vop"])
        now = folder.rename(tmp_path / "now")
        with pytest.raises(UsageError, match="before"):
            open_models(manifest, folder=tmp_path)
        (model,) = open_models(manifest, folder=tmp_path, name=str(now), precision="fp32")
        assert fingerprint(model) == manifest.models[0].fingerprint


def test_a_model_that_differs_from_the_librarys_is_refused(runs, tmp_path):
    manifest, other = a_manifest(runs, ["vop"]), vop.load(runs["vop-f+p"])
    wanted = manifest.models[0]
    parts = [
        f"{tmp_path / 'library'} was made with {runs['vop']} (vop, fingerprint {wanted.fingerprint})",
        f"{runs['vop-f+p']} is vop-f+p with fingerprint {fingerprint(other)}",
        f"vop library reembed {tmp_path / 'library'} --model {runs['vop-f+p']}",
    ]
    with pytest.raises(VopError, match=".*".join(map(re.escape, parts))):
        open_models(manifest, folder=tmp_path / "library", name=str(runs["vop-f+p"]))
    check_same(vop.load(runs["vop"]), wanted, source="anywhere", folder=tmp_path)


def test_a_model_of_another_width_is_refused(runs, tmp_path):
    about, other = a_manifest(runs, ["zero-shot"]), make_siglip_folder(tmp_path / "siglip")
    assert (about.models[0].embed_dim, vop.load(other).backbone.sizes.embed_dim) == (16, 48)
    with pytest.raises(VopError, match="embeddings of two models cannot be compared"):
        open_models(about, folder=tmp_path / "library", name=str(other))


def test_describe_returns_name_method_and_precision(runs, monkeypatch):
    monkeypatch.chdir(runs["vop"].parent)
    model = describe(vop.load("vop", dtype=torch.bfloat16), name="vop", column="embedding_0")
    assert (model.name, model.method, model.embed_dim) == (str(runs["vop"]), "vop", 16)
    assert (model.precision, model.column) == ("bf16", "embedding_0")
    assert describe(vop.load("mini"), name="mini", column="embedding_1").name == "mini"


def test_a_head_that_needs_text_and_video_is_refused(tiny):
    with pytest.raises(UsageError, match="the head x-pool scores a text and a video together"):
        describe(create("vop", tiny, head="x-pool"), name="any", column="embedding_0")


def test_embeddings_are_unit_vectors_in_float32(runs):
    embeddings = vop.load(runs["vop"], dtype=torch.bfloat16).encode_frames(some_frames())
    assert (embeddings.dtype, embeddings.shape, embeddings.device.type) == (torch.float32, (5, 16), "cpu")
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(5), atol=1e-3, rtol=0)
