"""The sizes in a config.json, as `transformers.CLIPConfig` reads them."""

from __future__ import annotations

import json

import pytest
from transformers import CLIPConfig

from vop.backbones.clip.family import ClipFamily
from vop.backbones.sizes import VIT_B_16, VIT_B_32, VIT_L_14, Sizes, TextSizes, VisionSizes

# As in OpenAI's folders on the hub, with old names and ids.
LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
LARGE_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
}
OLD_IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
BASE_32 = {
    "projection_dim": 512,
    "text_config": {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "vocab_size": 49408}
    | OLD_IDS,
    "text_config_dict": None,
    "vision_config": {"hidden_size": 768, "intermediate_size": 3072, "image_size": 224, "patch_size": 32},
    "vision_config_dict": None,
}
BASE_16 = BASE_32 | {"vision_config": {"patch_size": 16}}
LARGE_14 = {
    "projection_dim": 768,
    "text_config": LARGE_TEXT | OLD_IDS,
    "text_config_dict": LARGE_TEXT,
    "vision_config": LARGE_VISION,
    "vision_config_dict": LARGE_VISION,
}
SMALL_TEXT = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 600, "eos_token_id": 599}
ODD = {
    "nothing": {},
    "empty parts": {"text_config": {}, "vision_config": {}},
    "no parts": {"text_config": None, "vision_config": None, "text_config_dict": None},
    "an old part goes before": {"text_config": {"hidden_size": 64}, "text_config_dict": SMALL_TEXT},
    "and has its own defaults": {"text_config": SMALL_TEXT, "text_config_dict": {}, "vision_config_dict": {}},
    "a small vocabulary": {"text_config": SMALL_TEXT},
    "the old end mark": {"text_config": SMALL_TEXT | {"eos_token_id": 2}},
    "no end mark": {"text_config": SMALL_TEXT | {"eos_token_id": None}},
    "another activation": {"vision_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 336}},
    "towers of two kinds": {"text_config": {"hidden_act": "gelu"}, "vision_config": {"layer_norm_eps": 1e-6}},
    "other positions": {"text_config": {"max_position_embeddings": 40, "num_hidden_layers": 3}, "projection_dim": 16},
    "what is not read": {"transformers_version": "4.1", "logit_scale_init_value": 2.6, "text_config": {"dropout": 0.1}},
}


def their_sizes(config: dict) -> Sizes:
    """The sizes that `CLIPConfig` reads, and the end mark that `CLIPModel` uses."""
    theirs = CLIPConfig.from_dict(json.loads(json.dumps(config)))
    text, vision = theirs.text_config, theirs.vision_config
    return Sizes(
        vision=VisionSizes(**tower(vision), image_size=vision.image_size, patch_size=vision.patch_size),
        text=TextSizes(
            **tower(text),
            vocab_size=text.vocab_size,
            positions=text.max_position_embeddings,
            eos_token_id=text.vocab_size - 1 if text.eos_token_id in (None, 2) else text.eos_token_id,
        ),
        embed_dim=theirs.projection_dim,
    )


def tower(part) -> dict:
    return {
        "width": part.hidden_size,
        "layers": part.num_hidden_layers,
        "heads": part.num_attention_heads,
        "mlp_width": part.intermediate_size,
        "activation": part.hidden_act,
        "norm_eps": part.layer_norm_eps,
    }


def sizes_from_config(config: dict) -> Sizes:
    return ClipFamily().read_sizes(config)


@pytest.mark.parametrize(
    ("config", "sizes"), [(BASE_32, VIT_B_32), (BASE_16, VIT_B_16), (LARGE_14, VIT_L_14)], ids=["B/32", "B/16", "L/14"]
)
def test_sizes_of_openais_configurations(config, sizes):
    assert sizes_from_config(config) == their_sizes(config) == sizes


@pytest.mark.parametrize("config", ODD.values(), ids=ODD)
def test_sizes_of_unusual_configurations(config):
    assert sizes_from_config(config) == their_sizes(config)


@pytest.mark.parametrize("old", [2, None])
def test_old_configurations_pool_at_the_highest_id(old):
    assert sizes_from_config({"text_config": SMALL_TEXT | {"eos_token_id": old}}).text.eos_token_id == 599


@pytest.mark.parametrize("left_out", ["text_config", "projection_dim", "vision_config"])
def test_configurations_written_by_transformers(left_out):
    config = {name: value for name, value in LARGE_14.items() if not name.startswith(left_out)}
    written = CLIPConfig.from_dict(json.loads(json.dumps(config))).to_dict()
    assert sizes_from_config(json.loads(json.dumps(written))) == their_sizes(config) != VIT_B_32


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"projection_dim": "wide"}, "projection_dim is 'wide'; it must be a whole number"),
        ({"projection_dim": 0}, "projection_dim is 0; it must be a whole number, 1 or more"),
        ({"text_config": {"hidden_size": 512.0}}, r"hidden_size is 512\.0; it must be a whole number"),
        ({"text_config": {"num_hidden_layers": True}}, "num_hidden_layers is True; it must be a whole number"),
        ({"vision_config": {"image_size": [224, 224]}}, r"image_size is \[224, 224\]; it must be a whole number"),
        ({"vision_config": {"num_attention_heads": None}}, "num_attention_heads is None; it must be a whole number"),
        ({"vision_config": {"num_attention_heads": 5}}, "hidden_size is 768; .*num_attention_heads, 5"),
        ({"vision_config": {"layer_norm_eps": "small"}}, "layer_norm_eps is 'small'; it must be a number"),
        ({"vision_config": {"hidden_act": 3}}, "hidden_act is 3; it must be a name"),
        ({"text_config": {"eos_token_id": [1, 2]}}, r"eos_token_id is \[1, 2\]; it must be a whole number"),
        ({"text_config": ["hidden_size"]}, r"text_config is \['hidden_size'\]"),
    ],
)
def test_invalid_sizes_are_refused(config, says):
    with pytest.raises(ValueError, match=says):
        sizes_from_config(config)
