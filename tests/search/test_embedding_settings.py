"""How a library's model embeds: merged tokens and shorter vectors, kept by the library and used for every query."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vop
from search.owners_videos import embeddings, write_folder, write_video
from tiny_clip import make_clip_folder
from vop import Library, UsageError, VopError
from vop.backbones.embedding_config import AS_USUAL, EmbeddingConfig, TokenMerging
from vop.cli import main
from vop.models.pretrained import create
from vop.search import manifest
from vop.search.store import Store
from vop.search.sync import index

FRAMES = 2
SETTINGS = {
    "merged": {"merge_tokens": TokenMerging(0.5, across_frames=2)},
    "short": {"dimensions": 8},
    "both": {"merge_tokens": 0.25, "dimensions": 4},
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> str:
    """A tiny CLIP of 16 patches, whose configuration says that it was trained for 4, 8 and all 16 dimensions."""
    folder = make_clip_folder(tmp_path_factory.mktemp("clip"), vision={"image_size": 64, "patch_size": 16})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"matryoshka_dimensions": [16, 8, 4]}))
    return str(folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("owner") / "videos"
    write_folder(folder, count=2)
    return folder


@pytest.fixture
def make(tmp_path, backbone, videos):
    """A library of the videos."""

    def run(*, name: str = "library", **settings) -> Library:
        library = Library.create(tmp_path / name, model=backbone, num_frames=FRAMES, precision="fp32", **settings)
        assert library.index(videos, workers=1).added == 2
        return library

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_round_trip(name, make, backbone, videos, tmp_path):
    settings = SETTINGS[name]
    library = make(**settings)
    model = vop.load(backbone, num_frames=FRAMES, **settings)
    opened = Library.open(library.path)
    assert opened.models[0].embedding == model.embedding != AS_USUAL
    assert opened.models[0].embed_dim == model.dimensions == settings.get("dimensions", 16)
    vector = model.encode_video([videos / "a.mp4"])[0].numpy()
    np.testing.assert_allclose(embeddings(library.path)["a.mp4", 0], vector, atol=1e-5)
    assert not np.allclose(
        vop.load(backbone, num_frames=FRAMES).encode_video([videos / "a.mp4"])[0, : len(vector)], vector
    )

    found = opened.search(videos / "a.mp4", k=1)[0]  # a video as the query is embedded alike
    assert (Path(found.path).name, found.score) == ("a.mp4", pytest.approx(1, abs=1e-5))
    text = model.encode_text(["a dog"])[0].numpy()
    assert text.shape == (model.dimensions,)
    unjudged = [replace(moment, confidence=None, is_weak=False) for moment in opened.search("a dog")]
    assert unjudged == opened.search(text)

    write_video(tmp_path / "later" / "c.mp4", seed=9)
    assert index(library.path, [tmp_path / "later"], workers=1).added == 1  # nothing given: the library's own settings
    later = model.encode_video([tmp_path / "later" / "c.mp4"])[0].numpy()
    np.testing.assert_allclose(embeddings(library.path)["c.mp4", 0], later, atol=1e-5)


@pytest.mark.slow
def test_other_settings_are_refused_by_name(make, backbone, videos, tmp_path):
    library = make(merge_tokens=0.5, dimensions=8).path
    for name, value, own in [("merge_tokens", 0.25, 0.5), ("merge_tokens", 0.0, 0.5), ("dimensions", 16, 8)]:
        with pytest.raises(UsageError, match=rf"^{name} of .* is {own:g}, not {value:g}"):
            index(library, [videos], embedding=EmbeddingConfig.of(**{name: value}))
    for given in ({"merge_tokens": 0.5}, {"dimensions": 8}, {"merge_tokens": 0.5, "dimensions": 8}):
        assert index(library, [videos], embedding=EmbeddingConfig.of(**given), workers=1).unchanged == 2
    usual = make(name="usual").path
    assert index(usual, [videos], embedding=EmbeddingConfig.of(merge_tokens=0, dimensions=16), workers=1).unchanged == 2
    with pytest.raises(UsageError, match=r"dimensions of .* is 16, not 4"):
        index(usual, [videos], embedding=EmbeddingConfig.of(dimensions=4))

    had = manifest.read(library)  # rows of two settings are never mixed, whatever the manifest says
    manifest.write(had.with_(models=(replace(had.models[0], embedding=AS_USUAL),)), library)
    with pytest.raises(VopError, match=had.models[0].fingerprint):
        Library.open(library).search("a dog")


@pytest.mark.slow
def test_two_settings_in_one_library(make, backbone, videos):
    library = make()
    library.reembed(backbone, keep=True, merge_tokens=0.5, dimensions=8, precision="fp32", workers=1)
    opened = Library.open(library.path)
    assert [(model.embed_dim, model.embedding) for model in opened.models] == [
        (8, EmbeddingConfig(merge_tokens=TokenMerging(0.5), dimensions=8)),
        (16, AS_USUAL),
    ]
    for number in (0, 1):
        assert opened.search(videos / "a.mp4", model=number, k=1)[0].score == pytest.approx(1, abs=1e-5)
    assert opened.model(0).clip is not opened.model(1).clip  # which merges nothing
    with pytest.raises(UsageError, match="has this model already"):
        library.reembed(backbone, keep=True, merge_tokens=0.5, dimensions=8, precision="fp32")


@pytest.mark.slow
def test_in_the_program(backbone, videos, tmp_path, capsys):
    library, options = tmp_path / "library", ["--merge-tokens", "0.5", "--dimensions", "8"]
    call = ["index", str(library), str(videos), "--num-frames", str(FRAMES), "--precision", "fp32", "--workers", "1"]
    assert main([*call, "--model", backbone, *options]) == 0
    assert main([*call, "--dimensions", "4"]) == 2
    assert "is 8, not 4" in capsys.readouterr().err
    assert main(["library", "info", str(library), "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert model["embedding"] == {"merge_tokens": {"ratio": 0.5, "across_frames": 1}, "dimensions": 8}
    assert main(["library", "info", str(library)]) == 0
    assert "token merging 0.5, 8 dimensions" in capsys.readouterr().out
    assert main(["library", "reembed", str(library), "--model", backbone, "--dimensions", "4", "--workers", "1"]) == 0
    assert main(["search", str(library), "a dog", "--json"]) == 0
    assert Store.open(library).models[0].embedding == EmbeddingConfig(dimensions=4)


def test_a_usual_library_has_the_manifest_of_earlier_versions(tmp_path, backbone):
    library = Library.create(tmp_path / "library", model=backbone)
    path = library.path / manifest.FILE
    assert "embedding" not in json.loads(path.read_text())["models"][0]
    assert manifest.read(library.path).models[0].embedding == AS_USUAL


class TestRefused:
    def test_unknown_settings_in_a_manifest(self, tmp_path, backbone):
        library = Library.create(tmp_path / "library", model=backbone, dimensions=8)
        path = library.path / manifest.FILE
        document = json.loads(path.read_text())
        del document["sha256"]
        document["models"][0]["embedding"]["dimension"] = 4
        with pytest.raises(VopError, match="dimensions"):
            manifest.parse(json.dumps(document).encode(), path)

    @pytest.mark.parametrize(
        ("settings", "message"), [({"merge_tokens": 0.95}, r"0\.95"), ({"dimensions": 5}, "5.*4, 8, 16")]
    )
    def test_what_the_model_cannot_do(self, settings, message, tmp_path, backbone, videos):
        with pytest.raises(UsageError, match=message):
            Library.create(tmp_path / "library", model=backbone, **settings)
        with pytest.raises(UsageError, match=message):
            index(tmp_path / "library", [videos], model=backbone, embedding=EmbeddingConfig.of(**settings))
        assert not (tmp_path / "library").exists()

    def test_a_tuned_model_that_was_not_trained_for_it(self, tmp_path, backbone):
        create("vop", backbone, num_frames=FRAMES, text_prompts=4).save_pretrained(tmp_path / "run")
        with pytest.raises(UsageError, match=r"dimensions is 8.*for 16:"):
            Library.create(tmp_path / "library", model=str(tmp_path / "run"), dimensions=8)
