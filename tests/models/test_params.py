"""Parameter counts against table 1 of the paper."""

from __future__ import annotations

import pytest
import torch

from vop.backbones.sizes import VIT_B_32
from vop.backbones.towers import CLIP
from vop.models.params import count_model, count_parameters, paper_size, trained_names
from vop.models.pretrained import create

TABLE_1 = {  # method: the paper's count, its percentage
    "zero-shot": (0, 0.0),
    "full": (119_826_432, 100.0),
    "bias": (124_928, 0.104),
    "proj": (655_360, 0.547),
    "partial": (7_680_512, 6.410),
    "adapter-attn": (1_982_976, 1.655),
    "adapter-ffn": (1_982_976, 1.655),
    "vop": (122_880, 0.103),
    "vop-p": (528_384, 0.441),
    "vop-c": (14_257_152, 11.898),
    "vop-f": (122_880, 0.103),
    "vop-f+p": (393_216, 0.328),
    "vop-f+c": (14_269_440, 11.908),
}


@pytest.fixture(scope="module")
def counts():
    return count_parameters(VIT_B_32)


@pytest.mark.parametrize("method", TABLE_1)
def test_paper_counts_equal_table_1(counts, method):
    assert (counts[method].paper_count, counts[method].paper_percent) == TABLE_1[method]


LATER = {  # methods that came after the paper
    "vop-f+p+bias",
    "tempme",
    "stop",
    "discovla",
    *("dgl-linear", "dgl-transformer"),
}
IN_PROJ = {"vision": 3 * 768 * 768 + 3 * 768, "text": 3 * 512 * 512 + 3 * 512}  # per layer
FREE = 768 + 50 * 768 + 77 * 512 + 768 * 512 + 512 * 512 + 1  # class, positions, projections, logit scale
UNCOUNTED = {
    "full": 12 * sum(IN_PROJ.values()) + FREE,
    "partial": sum(IN_PROJ.values()),
    **dict.fromkeys(("vop-f", "vop-f+p", "vop-f+c"), 12 * 768),  # frame positions
}


@pytest.mark.parametrize("method", TABLE_1)
def test_true_counts_add_the_papers_uncounted_parameters(counts, method):
    assert counts[method].true_count == TABLE_1[method][0] + UNCOUNTED.get(method, 0)


def test_full_counts_every_parameter_of_clip(counts):
    assert counts["full"].true_count == 151_277_313
    assert count_parameters(VIT_B_32, only=["full"], train_logit_scale=False)["full"].true_count == 151_277_312


def test_text_prompts_above_layer_1_count_a_layer_less(counts):
    above = count_parameters(VIT_B_32, only=["vop", "vop-f+p"], text_layers=range(2, 13))
    for name, count in above.items():
        assert count.true_count == counts[name].true_count - 8 * 512
        assert count.paper_count == counts[name].paper_count - 8 * 512
    assert above["vop"].true_count == 118_784


def test_the_biases_of_the_vision_tower_are_counted_beside_the_prompts(counts):
    of_layer = 2 * 768 + 768 + 4 * 768 + 768  # two norms, the attention's output, and the MLP's two layers
    outside = 2 * 768  # the norms before and behind the layers
    assert counts["vop-f+p+bias"].true_count == counts["vop-f+p"].true_count + 12 * of_layer + outside


def test_lora_counts_two_low_rank_matrices_per_target(counts):
    of_layer = {width: 8 * (width + 3 * width) + 8 * (width + width) for width in (768, 512)}  # in_proj, out_proj
    assert counts["lora"].true_count == counts["lora"].paper_count == 12 * sum(of_layer.values())


def test_every_row_of_table_1_is_counted(counts):
    assert counts.keys() == TABLE_1.keys() | {"lora"} | LATER


@pytest.mark.parametrize("head", ["seqTransf", "tightTransf", "x-pool"])
@pytest.mark.parametrize("method", ["zero-shot", "full", "bias", "vop-f+c", "lora"])
def test_counts_equal_the_trainable_parameters(tiny, method, head):
    settings = {"num_frames": 5, **({"train_logit_scale": True} if method == "bias" else {})}
    built = create(method, tiny, head=head, device="cpu", **settings)
    counted = count_model(method, tiny.sizes, head=head, settings=settings)
    assert sorted(trained_names(method, tiny.sizes, head=head, settings=settings)) == sorted(built.trainable())
    assert counted.true_count == sum(p.numel() for p in built.trainable().values())
    assert (
        counted.paper_count == count_model(method, tiny.sizes, settings=settings).paper_count or head == "tightTransf"
    )


def test_the_papers_size_of_the_backbone():
    with torch.device("meta"):
        clip = CLIP(VIT_B_32)
    assert paper_size(clip) == 119_826_432


def test_a_broken_package_fails_only_when_named(tmp_path, monkeypatch, capsys):
    from vop.cli import main

    info = tmp_path / "broken_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vop.methods]\ncrack = broken_methods:Crack\n")
    (tmp_path / "broken_methods.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["params", "--backbone", "mini", "--json"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("crack ")
    assert "ZeroDivisionError: division by zero" in error
    with pytest.raises(ZeroDivisionError) as caught:
        main(["params", "--backbone", "mini", "--method", "crack"])
    assert "broken-methods 1.0" in caught.value.__notes__[0]
