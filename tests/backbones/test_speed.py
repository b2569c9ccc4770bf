"""Speeds are measured with random weights: of folders without weights, well-known ids, and what cannot be built."""

from __future__ import annotations

import shutil

import pytest
import torch

from tiny_backbones import make_siglip_folder, make_x_clip_folder
from vop.backbones import speed
from vop.backbones.known import BY_NAME, KNOWN, KnownBackbone
from vop.backbones.sizes import Sizes, TextSizes
from vop.backbones.source import FAMILIES, UnknownBackbone
from vop.backbones.speed import measure_backbones, random_ids
from vop.errors import VopError
from vop.utils import timing

CPU = torch.device("cpu")


def measured(*names, dtype=torch.float32, **options):
    return measure_backbones([str(name) for name in names], device=CPU, dtype=dtype, seconds=0, **options)


@pytest.mark.parametrize(("make", "frames"), [(make_siglip_folder, 12), (make_x_clip_folder, 4)])
def test_folders_need_no_weights(make, frames, tmp_path):
    folder = make(tmp_path)
    (folder / "model.safetensors").unlink()
    (found,) = measured(folder)
    assert (found.name, found.num_frames, found.problem) == (str(folder), frames, None)
    assert min(found.videos_per_second, found.texts_per_second, 1000 / found.query_milliseconds) > 0


def test_frames_and_precision(tiny_folder, monkeypatch):
    seen = []
    measure = speed.measure
    monkeypatch.setattr(speed, "measure", lambda encoder, **rest: seen.append(encoder) or measure(encoder, **rest))
    (found,) = measured(tiny_folder, num_frames=6, dtype=torch.bfloat16)
    assert (found.num_frames, seen[0].dtype, seen[0].training) == (6, torch.bfloat16, False)
    assert seen[0].vision.positions.dtype == torch.bfloat16


def test_what_cannot_be_measured_has_a_reason(tmp_path, tiny_folder, monkeypatch):
    x_clip = make_x_clip_folder(tmp_path / "x-clip")
    damaged = shutil.copytree(tiny_folder, tmp_path / "damaged")
    (damaged / "config.json").write_text("{")
    progress = []
    wrong, broken, right = measured(
        x_clip, damaged, tiny_folder, num_frames=5, progress=lambda *steps, note="": progress.append(steps)
    )
    assert (wrong.videos_per_second, wrong.num_frames) == (None, None)
    assert "num_frames is 5" in wrong.problem
    assert "config.json" in broken.problem
    assert right.problem is None
    assert progress == [("measuring", done, 3) for done in range(4)]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_too_little_memory(tiny_folder, monkeypatch, error):
    def full(encoder, **_):
        raise error

    monkeypatch.setattr(speed, "free_bytes", lambda device: 1000)
    (found,) = measured(tiny_folder)
    assert "0.0 GB are free" in found.problem
    monkeypatch.undo()
    monkeypatch.setattr(speed, "measure", full)
    (found,) = measured(tiny_folder)
    assert "memory" in found.problem


def test_other_errors_keep_their_traceback(tiny_folder, monkeypatch):
    def broken(encoder, **_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(speed, "measure", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        measured(tiny_folder)


def test_an_unknown_name_is_refused_before_anything_is_measured(tiny_folder, monkeypatch):
    monkeypatch.setattr(speed, "measure", pytest.fail)
    with pytest.raises(UnknownBackbone, match="ViT-B/33"):
        measured(tiny_folder, "ViT-B/33")


def test_by_default_all_well_known_ones_the_smallest_first(monkeypatch):
    tiny = Sizes()
    two = [KnownBackbone(name=f"a/{n}", family="clip", sizes=tiny, millions=n) for n in (7, 3)]
    monkeypatch.setattr(speed, "KNOWN", two)
    monkeypatch.setattr(speed, "_find", lambda name: lambda: None)
    monkeypatch.setattr(speed, "_build", lambda build, **_: build())
    monkeypatch.setattr(speed, "measure", lambda encoder, *, name, **_: speed.Speed(name=name))
    assert [found.name for found in measured()] == ["a/3", "a/7"]


@pytest.mark.parametrize(
    "known", [known for known in KNOWN if not known.sizes.has_layers], ids=lambda known: known.name
)
def test_well_known_encoders_are_built_from_their_configuration(known):
    """On the device `meta`, which allocates nothing: the number of parameters is the table's."""
    if known.family == "open_clip":
        pytest.importorskip("open_clip")
    with torch.device("meta"):
        encoder = speed._find(known.name)()
    assert encoder.sizes.embed_dim == known.sizes.embed_dim
    assert encoder.sizes.num_frames == known.sizes.num_frames
    assert round(sum(parameter.numel() for parameter in encoder.parameters()) / 1e6) == known.millions


def test_well_known_ids_at_another_size():
    with torch.device("meta"):
        assert speed._find("hf-hub:google/siglip-base-patch16-224@256")().sizes.vision.grid == 16


def test_the_configuration_of_mobileclip2_is_open_clips():
    open_clip = pytest.importorskip("open_clip")
    published = open_clip.get_model_config("MobileCLIP2-S0")
    ours = BY_NAME["timm/MobileCLIP2-S0-OpenCLIP"].config["model_cfg"]
    for part in ("vision_cfg", "text_cfg"):
        assert ours[part].items() <= published[part].items()
    assert (ours["embed_dim"], ours["custom_text"]) == (published["embed_dim"], published["custom_text"])


def test_a_family_that_cannot_build_without_weights_says_so():
    with pytest.raises(VopError, match="CLIP cannot be built"):
        FAMILIES.find("clip")().build_random(BY_NAME["microsoft/xclip-base-patch32"].sizes, {})


@pytest.mark.parametrize(
    ("text", "length"),
    [(TextSizes(), 24), (TextSizes(positions=16), 16), (TextSizes(fixed_length=True, readout="last"), 77)],
)
def test_random_texts_are_read_at_their_end(text, length):
    ids = random_ids(text, 5)
    assert ids.shape == (5, length)
    assert ids.min() >= 4
    assert ids.max() < text.vocab_size
    assert ((ids == text.eos_token_id).sum(dim=1) == (text.readout == "eos")).all()


@pytest.mark.parametrize(
    ("times", "median", "passes"),
    [
        ([9, 1, 2, 3, 7], 2, 4),  # six seconds are over after 1 + 2 + 3
        ([25, 1], 25, 1),  # the first pass took more than four times six seconds
        ([9, 6, 1], 6, 2),
    ],
)
def test_the_first_pass_warms_up_and_the_median_of_the_others_counts(monkeypatch, times, median, passes):
    left = iter(times)
    monkeypatch.setattr(timing, "timed", lambda work, device: work() or next(left))
    done = []
    assert timing.median_seconds(lambda: done.append(1), CPU, within_seconds=6) == median
    assert len(done) == passes


def test_a_pass_is_timed(monkeypatch):
    clock = iter([10.0, 12.5])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert timing.timed(lambda: None, CPU) == 2.5
