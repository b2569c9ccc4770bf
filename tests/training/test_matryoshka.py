"""Training for shorter embeddings, and their use."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import vop
from tiny_clip import make_clip_folder
from tiny_data import write_data
from vop.backbones import find_backbone
from vop.cli import main
from vop.cli.common import add_recipe_options
from vop.cli.parser import Parser
from vop.errors import UsageError, VopError
from vop.models.pretrained import create
from vop.training.loss import contrastive_loss, matryoshka_loss, sigmoid_loss
from vop.training.recipe import Recipe, read_config

RECIPE = Recipe(epochs=1, batch_size=4, validation=0, workers=0, precision="fp32", matryoshka=(4, 8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, tiny_folder, tmp_path_factory):
    """A run that was trained for 4, 8 and all 16 dimensions."""
    out = tmp_path_factory.mktemp("runs") / "run"
    vop.train(data, out=out, method="vop", backbone=str(tiny_folder), settings={"num_frames": 2}, recipe=RECIPE)
    return out


@pytest.mark.parametrize("loss", [contrastive_loss, sigmoid_loss])
def test_equals_the_losses_written_out(loss):
    generator = torch.Generator().manual_seed(0)
    texts, videos = (F.normalize(torch.randn(n, 16, generator=generator), dim=1) for n in (5, 4))
    rows, ids = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([7, 8, 9, 7])

    def of(texts, videos):
        return loss(20 * texts @ videos.T - 3, rows, ids)

    expected = of(texts, videos).item()
    for d in (2, 8):
        cosines = [
            [np.dot(t[:d], v[:d]) / np.linalg.norm(t[:d]) / np.linalg.norm(v[:d]) for v in videos.numpy()]
            for t in texts.numpy()
        ]
        expected += loss(20 * torch.tensor(cosines) - 3, rows, ids).item()
    assert matryoshka_loss(of, texts, videos, dimensions=(2, 8)).item() == pytest.approx(expected / 3, rel=1e-5)
    assert torch.equal(matryoshka_loss(of, texts, videos, dimensions=()), of(texts, videos))


def test_a_run_knows_its_dimensions(run, data):
    whole, short = vop.load(run), vop.load(run, dimensions=8)
    assert json.loads((run / "config.json").read_text())["matryoshka_dimensions"] == [4, 8]
    assert "matryoshka dimensions: 4, 8" in (run / "README.md").read_text()
    videos = [data.parent / f"clip{n}.mp4" for n in range(2)]
    for one, other in [
        (whole.encode_text(["a red clip", "blue"]), short.encode_text(["a red clip", "blue"])),
        (whole.encode_video(videos), short.encode_video(videos)),
    ]:
        assert other.shape == (2, 8)
        torch.testing.assert_close(other, F.normalize(one[:, :8], dim=1))
    assert short.encode_text([]).shape == (0, 8)
    assert vop.load(run, dimensions=16).embedding == whole.embedding
    with pytest.raises(UsageError, match=r"dimensions is 5.*4, 8, 16"):
        vop.load(run, dimensions=5)


def test_it_changes_the_training(run, data, tiny_folder, tmp_path):
    usual = Recipe(**{**vars(RECIPE), "matryoshka": ()})
    vop.train(data, out=tmp_path, method="vop", backbone=str(tiny_folder), settings={"num_frames": 2}, recipe=usual)
    assert "matryoshka_dimensions" not in json.loads((tmp_path / "config.json").read_text())
    one, other = (load_file(folder / "model.safetensors") for folder in (run, tmp_path))
    assert not all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(VopError, match=r"matryoshka = \[\], this one has \[4, 8\]"):
        vop.train(
            data,
            out=tmp_path,
            method="vop",
            backbone=str(tiny_folder),
            settings={"num_frames": 2},
            recipe=RECIPE,
            resume=True,
        )


def test_evaluation(run, data, tmp_path):
    saved = tmp_path / "embeddings.npz"
    report = vop.evaluate(run, data, dimensions=8, save_embeddings=saved)
    assert report.settings["dimensions"] == 8
    assert set(report.rescored) == {"dual softmax", "qb-norm"}
    again = vop.evaluate_embeddings(saved)
    assert (again.settings["dimension"], again.metrics) == (8, report.metrics)
    assert main(["evaluate", str(run), "--data", str(data), "--dimensions", "8", "--json", str(tmp_path / "r")]) == 0
    assert json.loads((tmp_path / "r").read_text()) == report.to_dict()
    assert "dimensions" not in vop.evaluate(run, data).settings
    with pytest.raises(UsageError, match="8 dimensions"):
        vop.evaluate(run, data, dimensions=8, write_card=run)
    with pytest.raises(UsageError, match="given by name"):
        vop.evaluate(vop.load(run), data, dimensions=8)


def test_recipes(tmp_path):
    (tmp_path / "recipe.yaml").write_text("matryoshka: [8, 4]\n")
    assert read_config(tmp_path / "recipe.yaml").recipe.matryoshka == (4, 8)
    parser = Parser()
    add_recipe_options(parser)
    assert parser.parse_args(["--matryoshka", "64,32"]).matryoshka == (64, 32)
    for value in ([0], [4.5], "8", 8, [True]):
        with pytest.raises(UsageError, match="matryoshka"):
            Recipe(matryoshka=value)


class TestRefused:
    @pytest.mark.parametrize(
        ("head", "matryoshka", "message"), [("x-pool", (8,), "x-pool"), ("meanP", (8, 16), "16 dimensions")]
    )
    def test_trainings(self, head, matryoshka, message, data, tiny_folder, tmp_path):
        recipe = Recipe(matryoshka=matryoshka)
        with pytest.raises(UsageError, match=message):
            vop.train(data, out=tmp_path / "run", method="vop", head=head, backbone=str(tiny_folder), recipe=recipe)
        assert not (tmp_path / "run").exists()

    def test_a_pairwise_head(self, tiny_folder):
        model = create("vop", str(tiny_folder), head="x-pool", num_frames=2)
        with pytest.raises(UsageError, match="x-pool"):
            model.use_dimensions(8)

    @pytest.mark.parametrize("value", ["8", [0], [8.0], {"8": 1}])
    def test_configurations(self, value, tmp_path):
        path = make_clip_folder(tmp_path) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"matryoshka_dimensions": value}))
        with pytest.raises(VopError, match="matryoshka_dimensions"):
            find_backbone(str(tmp_path))
