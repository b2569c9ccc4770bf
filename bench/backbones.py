"""Measure each family of backbones against its original implementation, with random weights at base size.

    python bench/backbones.py [--device cpu] [--families clip siglip ...] [--videos 4 32] [--compile] [--json]

Two things are timed, by turns with the original in one run: embedding videos of 12 frames, and a training step (both
towers forward, InfoNCE, and back to the pixels and the embedded captions, as prompts need it). The originals are those
of transformers (with its fused attention) and open_clip. A ratio above 1 means that ours is faster. Before anything is
timed, both must give the same embeddings.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vop.backbones.compiling import compile_layers
from vop.backbones.source import FAMILIES
from vop.backbones.speed import NUM_FRAMES, random_ids, random_pixels
from vop.backbones.towers import CLIP
from vop.utils.timing import timed

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PARTS = ("embedding", "step")


@dataclass(frozen=True)
class Original:
    """A model of another library, and how it embeds.

    Attributes:
        config: its configuration, as a folder of `model_type` holds it.
    """

    model_type: str
    model: nn.Module
    config: dict[str, Any]
    images: Callable[[Tensor], Tensor]
    texts: Callable[[Tensor], Tensor]


def from_transformers(name: str) -> Callable[[], Original]:
    """A model of transformers, by the name of its class before "Model"; its defaults are its base size."""

    def build() -> Original:
        import transformers

        kind = getattr(transformers, f"{name}Model")
        config = getattr(transformers, f"{name}Config")()
        model = kind._from_config(config, attn_implementation="sdpa")

        def pooled(output: Any) -> Tensor:
            return output if isinstance(output, Tensor) else output.pooler_output

        return Original(
            config.model_type,
            model,
            json.loads(config.to_json_string(use_diff=False)),
            lambda pixels: pooled(model.get_image_features(pixel_values=pixels)),
            lambda ids: pooled(model.get_text_features(input_ids=ids)),
        )

    return build


def from_open_clip(name: str) -> Callable[[], Original]:
    """A model of open_clip, by the name of its configuration."""

    def build() -> Original:
        import open_clip

        model = open_clip.create_model(name)
        config = {"model_cfg": open_clip.get_model_config(name)}
        return Original("open_clip", model, config, model.encode_image, model.encode_text)

    return build


ORIGINALS = {
    "clip": from_transformers("CLIP"),
    "metaclip_2": from_transformers("MetaClip2"),
    "siglip": from_transformers("Siglip"),
    "chinese_clip": from_transformers("ChineseCLIP"),
    "altclip": from_transformers("AltCLIP"),
    "open_clip ViT-B-16": from_open_clip("ViT-B-16"),
    "open_clip EVA02-B-16": from_open_clip("EVA02-B-16"),
    "open_clip MobileCLIP2-B": from_open_clip("MobileCLIP2-B"),
    "open_clip PE-Core-B-16": from_open_clip("PE-Core-B-16"),
    "open_clip ViT-B-16-SigLIP": from_open_clip("ViT-B-16-SigLIP"),
}


def convert(original: Original) -> CLIP:
    """Our towers with the weights of an original."""
    family = FAMILIES.find(original.model_type)()
    sizes = family.read_sizes(original.config)
    clip = family.build(sizes)
    state = family.rename(original.model.state_dict(), sizes, source=original.model_type)
    clip.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return clip.eval().requires_grad_(False)


def measure(name: str, arguments: argparse.Namespace) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the figures of each number of videos and each precision."""
    torch.manual_seed(0)
    original, device = ORIGINALS[name](), torch.device(arguments.device)
    original.model.eval().requires_grad_(False).to(device)
    for parameter in original.model.parameters():  # some start at zero, which would hide a difference
        parameter.data.add_(torch.randn_like(parameter) * 0.01)
    with device:
        ours = convert(original)
    if arguments.compile:
        compile_layers(ours)
    for kind in arguments.precisions:
        dtype = DTYPES[kind]
        ours.compute_in(dtype)
        original.model.to(dtype)
        for videos in arguments.videos:
            yield videos, kind, measure_batch(name, ours, original, dtype, videos, arguments.repeats)


def measure_batch(
    name: str, ours: CLIP, original: Original, dtype: torch.dtype, videos: int, repeats: int
) -> dict[str, Any]:
    """Compare our towers with the original on a batch of videos, with 8 captions each."""
    device = ours.log_logit_scale.device
    pixels = random_pixels(ours.sizes, videos, frames=NUM_FRAMES).flatten(0, 1).to(device, dtype)
    length = ours.sizes.text.positions if original.model_type == "open_clip" else None  # it takes no other
    ids = random_ids(ours.sizes.text, videos * 8, length=length).to(device)
    ways: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
        "ours": (lambda x: ours.embed_frames(x.unflatten(0, (-1, NUM_FRAMES))).flatten(0, 1), ours.embed_tokens),
        "original": (original.images, original.texts),
    }
    tables = {"ours": ours.text.positions, "original": _positions(original.model)}
    with torch.no_grad():
        a, b = (F.normalize(images(pixels).float(), dim=-1) for images, _ in ways.values())
        c, d = (F.normalize(texts(ids).float(), dim=-1) for _, texts in ways.values())
    difference = max((a - b).abs().max().item(), (c - d).abs().max().item())
    if dtype == torch.float32 and difference > 1e-3:
        raise SystemExit(f"{name}: the embeddings differ by {difference:.2g}: nothing to compare")

    def embed(way: str) -> None:
        with torch.no_grad():
            ways[way][0](pixels)

    def step(way: str) -> None:
        images, texts = ways[way]
        tables[way].requires_grad_(True)
        x = pixels.detach().requires_grad_(True)
        embedded = F.normalize(images(x).float().unflatten(0, (-1, NUM_FRAMES)).mean(dim=1), dim=-1)
        captions = F.normalize(texts(ids).float(), dim=-1)[: len(embedded)]
        logits = 100 * captions @ embedded.T
        target = torch.arange(len(embedded), device=logits.device)
        (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)).backward()
        tables[way].requires_grad_(False)
        tables[way].grad = None

    return {
        "difference": difference,
        "embedding": compare(embed, repeats, device),
        "step": compare(step, repeats, device),
    }


def _positions(model: nn.Module) -> nn.Parameter:
    """The table of text positions of an original."""
    names = ("text_model.embeddings.position_embedding.weight", "text_model.embeddings.position_embeddings.weight")
    more = ("text.positional_embedding", "positional_embedding")
    known = dict(model.named_parameters())
    found = next((known[name] for name in (*names, *more) if name in known), None)
    return found if found is not None else next(p for name, p in known.items() if "position_embeddings" in name)


def compare(work: Callable[[str], None], repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds of each way, the median of `repeats` by turns, and their ratio."""
    seconds: dict[str, list[float]] = {"ours": [], "original": []}
    for turn in range(repeats + 1):
        for way, times in seconds.items():
            passed = timed(partial(work, way), device)
            if turn:  # the first warms up
                times.append(passed)
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    return middle | {"ratio": middle["original"] / middle["ours"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="Device: cpu, cuda or mps.")
    parser.add_argument("--families", nargs="+", default=list(ORIGINALS), choices=list(ORIGINALS), metavar="NAME")
    parser.add_argument("--precisions", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--videos", type=int, nargs="+", default=[1], help="Videos of 12 frames in a batch.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="Compile our layers, as `vop … --compile` does.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    skipped = {}
    for name in arguments.families:
        if name.partition(" ")[0] not in FAMILIES.names():
            skipped[name] = "this version does not read the family"
            continue
        try:
            for videos, kind, values in measure(name, arguments):
                found.append({"family": name, "videos": videos, "precision": kind, **values})
                if not arguments.json:
                    times = (f"{values[part]['ours'] * 1000:8.1f} ms, {values[part]['ratio']:5.2f}x" for part in PARTS)
                    line = f"embedding {'   step '.join(times)}   {values['difference']:.1g}"
                    print(f"{name:<28} {videos:>3} {kind}  {line}", flush=True)
        except ImportError as error:
            skipped[name] = str(error)
    if arguments.json:
        print(json.dumps({"device": arguments.device, "measured": found, "skipped": skipped}))
    else:
        for name, why in skipped.items():
            print(f"{name}: skipped: {why}")


if __name__ == "__main__":
    main()
