"""X-CLIP, VideoPrism and PE-Video: the embeddings of `transformers`, in every command that takes an encoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, VideoMAEImageProcessorPil, VideoPrismClipModel, XCLIPModel

import vop
from tiny_backbones import make_pe_video_folder, make_videoprism_folder, make_x_clip_folder
from tiny_data import write_data
from vop.backbones import find_backbone
from vop.backbones.video_native.pe_video import PeAudioVideoFamily, PeVideoFamily
from vop.errors import UsageError, VopError
from vop.models.pretrained import create
from vop.video.shape import square

MAKERS = {"xclip": make_x_clip_folder, "videoprism": make_videoprism_folder, "pe_video": make_pe_video_folder}
TEXTS = ["a cat cuts an onion", "a", "猫 жук"]


@pytest.fixture(scope="module", params=MAKERS)
def folder(request, tmp_path_factory):
    if request.param == "pe_video":
        pytest.importorskip("timm")
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param), seed=3)


@pytest.fixture(scope="module")
def backbone(folder):
    return find_backbone(str(folder))


def draw(backbone, *, frames: int | None = None):
    side = backbone.sizes.vision.image_size
    shape = (2, frames or backbone.sizes.num_frames, 3, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def expected(folder, pixels, texts):
    """Features that transformers computes from its own tokens."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    tokens = AutoTokenizer.from_pretrained(folder)
    if kind == "xclip":
        model = XCLIPModel.from_pretrained(folder).eval()
        words = tokens(texts, padding=True, return_tensors="pt")
        return model.get_video_features(pixel_values=pixels).pooler_output, model.get_text_features(
            **words
        ).pooler_output
    if kind == "videoprism":
        model = VideoPrismClipModel.from_pretrained(folder).eval()
        words = tokens(
            [f"{text}." for text in texts], padding="max_length", truncation=True, max_length=16, return_tensors="pt"
        )
        features = model.get_text_features(input_ids=words.input_ids, attention_mask=words.attention_mask)
        return model.get_video_features(pixel_values_videos=pixels).pooler_output.squeeze(1), features.pooler_output
    from transformers import PeVideoModel

    model = PeVideoModel.from_pretrained(folder).eval()
    words = tokens(texts, padding=True, return_tensors="pt")
    output = model(input_ids=words.input_ids, attention_mask=words.attention_mask, pixel_values_videos=pixels)
    return output.video_embeds, output.text_video_embeds


def test_embeddings_and_gradients_equal_transformers(folder, backbone):
    model = vop.load(folder, device="cpu")
    first = draw(backbone).requires_grad_()
    second = first.detach().clone().requires_grad_()
    videos, texts = expected(folder, second, TEXTS)
    ours = model.frame_features(first)
    assert ours.shape == (2, 1, backbone.sizes.embed_dim)
    torch.testing.assert_close(ours[:, 0], videos, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.text_features(model.tokenize(TEXTS)), texts, rtol=0, atol=1e-5)
    weight = torch.linspace(-1, 1, videos.numel()).view_as(videos)
    (ours[:, 0] * weight).sum().backward()
    (videos * weight).sum().backward()
    assert first.grad.abs().sum() > 0
    torch.testing.assert_close(first.grad, second.grad, rtol=0, atol=1e-4)


def test_backbones_open_with_their_own_number_of_frames(folder, backbone):
    model = vop.load(folder, device="cpu")
    assert model.num_frames == backbone.sizes.num_frames == create("zero-shot", str(folder), device="cpu").num_frames
    assert not backbone.sizes.has_layers
    side = model.image_size
    frames = np.random.default_rng(0).integers(0, 256, (3, model.num_frames, side, side, 3), dtype=np.uint8)
    embeddings = model.encode_frames(frames)
    assert embeddings.shape == (3, backbone.sizes.embed_dim)
    turned = model.encode_frames(frames[:, ::-1].copy())
    assert (embeddings - turned).abs().max() > 1e-4  # the order of the frames matters
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_texts_of_any_length_are_embedded(folder):
    model = vop.load(folder, device="cpu")
    assert len(model.encode_text(["", "a", "cat " * 200])) == 3
    alone, beside = model.encode_text(["a cat"]), model.encode_text(["a cat", "a cat cuts an onion"])
    torch.testing.assert_close(alone[0], beside[0], rtol=0, atol=1e-5)


def test_bfloat16_is_close_to_float32(folder):
    exact, fast = (vop.load(folder, device="cpu", dtype=dtype) for dtype in ("fp32", "bf16"))
    assert fast.clip.dtype == torch.bfloat16
    frames = torch.randint(0, 256, (2, exact.num_frames, 3, exact.image_size, exact.image_size), dtype=torch.uint8)
    assert F.cosine_similarity(exact.encode_text(TEXTS), fast.encode_text(TEXTS)).min() > 0.99
    assert F.cosine_similarity(exact.encode_frames(frames), fast.encode_frames(frames)).min() > 0.99
    assert fast.logit_scale == pytest.approx(exact.logit_scale)


def test_methods_with_layers_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="zero-shot"):
        create("vop", str(folder))
    with pytest.raises(UsageError, match="zero-shot"):
        vop.train(method="vop", data=write_data(tmp_path / "data"), backbone=str(folder), out=tmp_path / "run")


def test_other_image_sizes_are_refused(backbone):
    size = backbone.sizes.vision.image_size
    with pytest.raises(UsageError, match=rf"image_size is {2 * size}.* {size}$"):
        backbone.with_image_size(2 * size)


def test_every_command_takes_a_video_backbone(folder, tmp_path):
    table = write_data(tmp_path / "data")
    model = vop.load(folder, device="cpu")
    metrics = vop.evaluate(str(folder), table, precision="fp32").metrics
    assert metrics.t2v.r1 in (0, pytest.approx(100 / 3), pytest.approx(200 / 3), 100)
    library = vop.Library.create(tmp_path / "library", model=str(folder))
    library.index([tmp_path / "data"])
    moments = library.search("a red clip", k=3)
    assert len(moments) == 3
    videos = model.encode_video(sorted((tmp_path / "data").glob("*.mp4")))
    scores = model.encode_text(["a red clip"]) @ videos.T
    assert moments[0].score == pytest.approx(scores.max().item(), abs=0.02)


def test_x_clip_takes_only_its_number_of_frames(tmp_path):
    folder = make_x_clip_folder(tmp_path)
    with pytest.raises(UsageError, match=r"num_frames is 12.* 4$"):
        vop.load(folder, num_frames=12, device="cpu")
    with pytest.raises(UsageError, match=r"num_frames is 3.* 4$"):
        create("zero-shot", str(folder), num_frames=3)
    model = vop.load(folder, device="cpu")
    with pytest.raises(UsageError, match=r"num_frames is 2.* 4$"):
        model.frame_features(draw(model.backbone, frames=2))


def test_videoprism_takes_other_numbers_of_frames(tmp_path):
    folder = make_videoprism_folder(tmp_path)
    model = vop.load(folder, num_frames=6, device="cpu")
    pixels = draw(model.backbone, frames=6)
    theirs = VideoPrismClipModel.from_pretrained(folder).eval()
    with torch.no_grad():
        videos = theirs.get_video_features(pixel_values_videos=pixels, interpolate_pos_encoding=True).pooler_output
        torch.testing.assert_close(model.frame_features(pixels), videos, rtol=0, atol=1e-5)
        fast = vop.load(folder, num_frames=6, device="cpu", dtype="bf16").frame_features(pixels)
    assert F.cosine_similarity(fast.float(), videos, dim=-1).min() > 0.99


def test_preprocessing_is_read_from_the_folder(tmp_path):
    found = find_backbone(str(make_x_clip_folder(tmp_path / "x-clip")))
    assert (found.resizing.mode, found.resizing.interpolation, found.mean[0]) == ("crop", "bilinear", 0.485)
    folder = make_videoprism_folder(tmp_path / "videoprism")
    values = json.loads((folder / "video_preprocessor_config.json").read_text())
    for change in ("rename", "delete"):
        found = find_backbone(str(folder))
        assert (found.resizing.mode, found.resizing.interpolation, found.mean, found.std) == (
            "squash",
            "bicubic",
            (0, 0, 0),
            (1, 1, 1),
        )
        (folder / "video_preprocessor_config.json").unlink(missing_ok=True)
        if change == "rename":  # transformers 5 writes it so
            (folder / "processor_config.json").write_text(json.dumps({"video_processor": values}))


def test_pixels_equal_those_of_the_image_processor(tmp_path):
    folder = make_x_clip_folder(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = VideoMAEImageProcessorPil.from_pretrained(folder)([Image.fromarray(picture)], return_tensors="pt")
    model = vop.load(folder, device="cpu")
    pixels = model.normalise(torch.from_numpy(square(picture, resizing=model.resizing)))
    difference = (pixels - expected.pixel_values[0, 0]).abs() * 255
    assert difference.max() < 1.001 / 0.224  # one level, where the crop rounds differently
    assert difference.mean() < 0.05


def test_videoprism_cleans_captions_like_its_authors(tmp_path):
    tokenizer = find_backbone(str(make_videoprism_folder(tmp_path))).tokenizer()
    assert (
        tokenizer.encode(["  A Cat,  cuts!"], max_length=16).tolist()
        == tokenizer.encode(["a cat cuts"], max_length=16).tolist()
    )
    assert tokenizer.encode(["a"], max_length=16).shape == (1, 16)


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("xclip", {"vision_config": {"num_frames": 0}}, "num_frames is 0"),
        ("xclip", {"vision_config": {"mit_num_hidden_layers": 10**6}}, "mit_num_hidden_layers is 1,000,000"),
        ("videoprism", {"vision_config": {"tubelet_size": [2, 18, 18]}}, r"tubelet_size is \[2, 18, 18\]"),
        ("videoprism", {"text_config": {"hidden_size": 48}}, "hidden_size is 32 for videos and 48"),
    ],
)
def test_unknown_configurations_are_refused(kind, change, says, tmp_path):
    folder = MAKERS[kind](tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for part, values in change.items():
        config[part] |= values
    path.write_text(json.dumps(config))
    with pytest.raises(VopError, match=says):
        find_backbone(str(folder))


@pytest.mark.parametrize(
    ("vision", "says"),
    [
        ({"architecture": "hf-hub:someone/model"}, "hf-hub:someone/model"),
        ({"architecture": "vit_pe_core", "model_args": {}}, "vit_pe_core is unknown"),
        ({"model_args": {"img_size": [32, 64]}}, "32 x 64"),
    ],
)
def test_unknown_pe_video_configurations_are_refused(vision, says):
    with pytest.raises(ValueError, match=says):
        PeVideoFamily().read_sizes({"video_config": {"vision_config": vision}})


def test_image_size_of_pe_video():
    for vision, size in [
        ({}, 336),
        ({"architecture": "vit_pe_core_base_patch16_224.fb"}, 224),
        ({"model_args": {"img_size": [448, 448]}}, 448),
        ({"pretrained_cfg": {"input_size": [3, 256, 256]}}, 256),
    ]:
        assert PeVideoFamily().read_sizes({"video_config": {"vision_config": vision}}).vision.image_size == size
    with pytest.raises(ValueError, match="bert"):
        PeVideoFamily().read_sizes({"text_config": {"model_type": "bert"}})


def test_the_video_part_of_an_audio_visual_model_is_read(tmp_path):
    pytest.importorskip("timm")
    from transformers import PeAudioVideoConfig, PeAudioVideoModel

    folder = make_pe_video_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio = layers | {"head_dim": 16, "dac_config": {"encoder_hidden_size": 4, "hidden_size": 8, "codebook_dim": 8}}
    both = layers | {"head_dim": 16, "audio_config": audio, "video_config": config["video_config"]}
    theirs = PeAudioVideoModel(PeAudioVideoConfig(text_config=config["text_config"], audio_video_config=both)).eval()
    theirs.save_pretrained(folder)
    model = vop.load(folder, device="cpu")
    assert isinstance(model.backbone.family, PeAudioVideoFamily)
    pixels, ids = draw(model.backbone), model.tokenize(TEXTS)
    with torch.no_grad():
        output = theirs.video_model(input_ids=ids, attention_mask=(ids != 0).long(), pixel_values_videos=pixels)
    torch.testing.assert_close(model.text_features(ids), output.text_video_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.frame_features(pixels)[:, 0], output.video_embeds, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["xclip", "videoprism"])
def test_weights_of_another_model_are_refused(kind, tmp_path):
    folder = MAKERS[kind](tmp_path)
    path = folder / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.endswith("token_embedding.weight"))
    for change, says in [
        ({one: tensor for one, tensor in state.items() if one != name}, rf"{name}.*missing"),
        (state | {name: torch.zeros(3, 32)}, rf"{name}.*\(3, 32\)"),
        (state | {"other.weight": torch.zeros(2)}, r"other\.weight"),
    ]:
        save_file(change, path)
        with pytest.raises(VopError, match=says):
            find_backbone(str(folder)).load()


def test_code_in_a_configuration_is_not_run(tmp_path):
    folder = make_x_clip_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoModel": "evil--Model"}, "attn_implementation": "someone/kernels"}
    config |= code
    config["text_config"] |= code
    (folder / "config.json").write_text(json.dumps(config))
    assert find_backbone(str(folder)).load().model.config._attn_implementation != "someone/kernels"


def test_the_error_without_timm_names_it(tmp_path, monkeypatch):
    from transformers.utils import import_utils

    from vop.backbones.video_native.encoder import count_parameters

    monkeypatch.setattr(import_utils, "is_timm_available", lambda: False)
    if import_utils.is_torch_available() and __import__("importlib").util.find_spec("timm"):
        pytest.skip("timm is installed")
    with pytest.raises(UsageError, match="timm"):
        count_parameters("PeVideoModel", {"text_config": {}, "video_config": {}}, source="folder")
