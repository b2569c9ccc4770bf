"""Values of a wrong type in a folder's files are an error that names them, no traceback."""

from __future__ import annotations

import json
import shutil

import pytest

from tiny_clip import make_tokenizer
from vop.backbones import find_backbone
from vop.backbones.describe import describe_backbone
from vop.backbones.embedding_config import TokenMerging
from vop.errors import UsageError, VopError


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "clip")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (["clip"], r"model_type is \['clip'\]; it must be one of clip, "),
        ({"a": 1}, "model_type is {'a': 1}; it must be one of clip, "),
        (3, "model_type is 3; it must be one of clip, "),
        (None, "model_type is missing; .*one of clip, "),
        ("CLIP", "unknown model_type 'CLIP': did you mean clip"),
        ("clip_vision_model", "unknown model_type 'clip_vision_model': did you mean clip"),
        ("chinese_clip_text_model", ".*did you mean chinese_clip"),
        ("siglop", "unknown model_type 'siglop': did you mean siglip"),
    ],
)
def test_model_type(folder, value, says):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": value}))
    with pytest.raises(VopError, match=rf"config\.json: {says}"):
        find_backbone(str(folder))


def test_text_cleaning(folder):
    (folder / "tokenizer_config.json").write_text(json.dumps({"text_cleaning": ["none"]}))
    with pytest.raises(VopError, match=r"unknown text cleaning .*\['none'\].*known: openai"):
        find_backbone(str(folder)).tokenizer()


HF = {"hf_tokenizer_name": "words"}


@pytest.mark.parametrize(
    ("preprocess", "text", "says"),
    [
        ({"resize_mode": ["squash"]}, {}, r"resize_mode is \['squash'\]"),
        ([1], {}, r"preprocess_cfg is \[1\]; it must be an object"),
        ({}, {"norm_kwargs": [1]}, r"norm_kwargs is \[1\]; it must be an object"),
        ({}, {"act_kwargs": "tanh"}, "act_kwargs is 'tanh'; it must be an object"),
        ({}, HF | {"tokenizer_kwargs": ["x"]}, r"tokenizer_kwargs is \['x'\]; it must be an object"),
        ({}, HF | {"tokenizer_kwargs": {"clean": ["a"]}}, r"unknown text cleaning .*\['a'\]"),
    ],
)
def test_open_clip(tmp_path, preprocess, text, says):
    text = {"vocab_size": make_tokenizer(tmp_path), "context_length": 24, "width": 32, "heads": 4, "layers": 2} | text
    model = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "width": 64, "layers": 1}, "text_cfg": text}
    config = {"model_cfg": model, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(VopError, match=says):
        find_backbone(str(tmp_path)).tokenizer()


@pytest.mark.parametrize("ratio", ["0.5", None, [0.5], True])
def test_ratio_of_token_merging(ratio):
    with pytest.raises(UsageError, match="the ratio of token merging is .*; it must be a number from 0 to below 1"):
        TokenMerging.of(ratio)


@pytest.mark.parametrize("frames", ["2", 1.5, True, 0])
def test_frames_of_token_merging(frames):
    with pytest.raises(UsageError, match="across_frames is .*; it must be a whole number, 1 or more"):
        TokenMerging(0.5, across_frames=frames)


def test_mini_is_described_with_its_language():
    assert describe_backbone("mini")["languages"] == "English"
