"""The preprocessing that the files of real checkpoints describe, and values that no resizing of ours expresses."""

from __future__ import annotations

import json

import pytest

from vop.backbones.preprocessing import HALF, Preprocessing, preprocessor_config, read_preprocessing
from vop.errors import VopError
from vop.video.resizing import Resizing

SQUARE = {"height": 224, "width": 224}
SQUASHES = Preprocessing(resizing=Resizing(224, "squash"))
CROPS = Preprocessing(resizing=Resizing(224, "crop"))
SWITCHES = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 0.00392156862745098}
OLD_CLIP = {"do_center_crop": True, "do_resize": True, "do_normalize": True, "feature_extractor_type": "x"}
UNSET = {"crop_size": None, "do_center_crop": None, "do_pad": None}  # as transformers 5 writes what is not set
# The values in the files of checkpoints that docs/backbones.md names, the usual of their families, and the mode.
REAL = {
    "CLIP": (SWITCHES | {"do_center_crop": True, "crop_size": SQUARE, "size": {"shortest_edge": 224}}, CROPS, "crop"),
    "CLIP, old, AltCLIP": (OLD_CLIP | {"crop_size": 224, "size": 224}, CROPS, "crop"),
    "CLIP, mixed": (OLD_CLIP | {"crop_size": SQUARE, "size": 224}, CROPS, "crop"),
    "SigLIP": (SWITCHES | {"size": SQUARE}, SQUASHES, "squash"),
    "SigLIP 2": (SWITCHES | UNSET | {"size": SQUARE, "resample": 2}, SQUASHES, "squash"),
    "SigLIP, without crop": (SWITCHES | {"size": SQUARE, "do_center_crop": False}, SQUASHES, "squash"),
    "Chinese-CLIP": (OLD_CLIP | {"do_center_crop": False, "size": SQUARE}, SQUASHES, "squash"),
    "Chinese-CLIP, one number": (OLD_CLIP | {"do_center_crop": False, "size": 224}, SQUASHES, "squash"),
    "X-CLIP": (OLD_CLIP | {"size": 224, "resample": 2}, CROPS, "crop"),
    "VideoPrism": (SWITCHES | UNSET | {"size": SQUARE, "do_normalize": False}, SQUASHES, "squash"),
    "a crop that is not done": (SWITCHES | {"size": SQUARE, "do_center_crop": False, "crop_size": 9}, CROPS, "squash"),
    "ours": (preprocessor_config(224), CROPS, "crop"),
    "nothing": ({}, CROPS, "crop"),
    "only nulls": (dict.fromkeys([*SWITCHES, "size", "crop_size", "do_center_crop"]), SQUASHES, "squash"),
}


def read(folder, values, usual=CROPS):
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return read_preprocessing(folder, image_size=224, usual=usual)


@pytest.mark.parametrize("name", REAL)
def test_files_of_real_checkpoints(tmp_path, name):
    values, usual, mode = REAL[name]
    found = read(tmp_path, values, usual)
    assert (found.resizing.size, found.resizing.mode) == (224, mode)
    assert found.std == ((1.0, 1.0, 1.0) if name == "VideoPrism" else usual.std)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": {"shortest_edge": 256}}, r"size is .*256.*224, is supported"),
        ({"size": 256}, r"size is 256; .*224, is supported"),
        ({"size": {"height": 224, "width": 448}}, "size is .*448"),
        ({"size": {"longest_edge": 224}}, "size is .*longest_edge"),
        ({"size": "224"}, "size is '224'"),
        ({"size": [[224]]}, "size is "),
        ({"crop_size": {"height": 999, "width": 999}}, "crop_size is .*999.*224, is supported"),
        ({"crop_size": 192}, "crop_size is 192"),
        ({"do_resize": False}, "do_resize is false; .*another checkpoint"),
        ({"do_rescale": False}, "do_rescale is false; .*another checkpoint"),
        ({"do_center_crop": False}, "do_center_crop is false, .*squash"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078.*only 1/255"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
        ({"do_normalize": "no"}, "do_normalize is 'no'; it must be true or false"),
        ({"do_resize": 0}, "do_resize is 0; it must be true or false"),
        ({"do_center_crop": [1]}, r"do_center_crop is \[1\]; it must be true or false"),
        ({"resample": [3]}, r"resample is \[3\]; 2 \(bilinear\)"),
        ({"resample": {"a": 1}}, "resample is "),
    ],
)
def test_values_that_are_not_supported(tmp_path, changes, says):
    with pytest.raises(VopError, match=f"preprocessor_config.json: {says}"):
        read(tmp_path, preprocessor_config(224) | changes)


def test_frames_that_are_not_normalised(tmp_path):
    found = read(tmp_path, {"do_normalize": False}, Preprocessing(resizing=Resizing(224), mean=HALF, std=HALF))
    assert (found.mean, found.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
