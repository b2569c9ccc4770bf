"""Check a backbone on pictures that are not in its training data.

R@1 alone is not enough: it looks good while `left` and `right` are at chance. So swaps test two pictures of the same
things that differ in one respect: each must be nearer to its own caption, and each caption to its own picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

import numpy as np
import torch

from tools.mini import motion_groups
from tools.mini.settings import WORLDS
from vop.benchmarks import captions, scenes
from vop.benchmarks.captions import CLARITIES, COUNTS, RELATIONS, SIZES, TURNS
from vop.benchmarks.scenes import Example

SHIFT = 8  # as many positions as VoP's text prompts move the words
_AT_MOST = {"r1_lost_by_shift"}  # required values that are upper limits
_SEED = "acceptance"


def check(model, tokenizer, version: int, *, count: int = 500) -> dict[str, float]:
    """Run all checks of a `CLIPModel`, on `count` composites and `count` pairs per swap. Return percentages.

    `r1_lost_by_shift` is the mean loss of R@1 in points when all words stand `SHIFT` positions later.
    """
    training = model.training
    model.eval()
    composites = held_out_composites(count, version)
    similarity = _similarity(model, tokenizer, composites)
    moved = _similarity(model, tokenizer, composites, shift=SHIFT)
    recalls = [_recall(scores) for scores in (similarity, similarity.T, moved, moved.T)]
    results = {
        "image_to_text_r1": recalls[0],
        "text_to_image_r1": recalls[1],
        "r1_lost_by_shift": (sum(recalls[:2]) - sum(recalls[2:])) / 2,
    }
    for name, pairs in swap_pairs(count).items():
        flat = [example for pair in pairs for example in pair]
        results[name] = _swap_accuracy(_similarity(model, tokenizer, flat))
    model.train(training)
    return {name: round(value, 1) for name, value in results.items()}


def check_folder(folder: Path, version: int, *, count: int = 500) -> dict[str, float]:
    """Run all checks of a saved backbone in fp32, and measure the cosines between captions of twin videos."""
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    results = check(model, tokenizer, version, count=count)
    return {"count": count, **results, **twin_captions(model, tokenizer, version)}


@torch.no_grad()
def twin_captions(model, tokenizer, version: int) -> dict[str, float]:
    """Return the mean and largest cosine between captions of a video and its twin in the benchmark's test split."""
    from tools.mini.batches import tokenize
    from vop.benchmarks import emoji_motion
    from vop.benchmarks.emoji_motion_2 import benchmark as emoji_motion_2

    planned = (emoji_motion if version == 1 else emoji_motion_2).plan_clips()
    clips = {clip.id: clip for clip in planned if clip.split == "test" and clip.twin}
    ids = tokenize(tokenizer, [text for c in clips.values() for text in (c.captions[0], clips[c.twin].captions[0])])
    features = model.text_projection(model.text_model(input_ids=ids).pooler_output)
    pairs = torch.nn.functional.normalize(features, dim=-1).view(len(clips), 2, -1)
    cosines = (pairs[:, 0] * pairs[:, 1]).sum(-1)
    return {
        "twin_caption_cosine_mean": round(cosines.mean().item(), 3),
        "twin_caption_cosine_max": round(cosines.max().item(), 4),
    }


def missed(results: dict[str, float], version: int) -> dict[str, float]:
    """Return the failed checks and the values that they require."""
    return {
        name: wanted
        for name, wanted in WORLDS[version].required.items()
        if (results[name] > wanted if name in _AT_MOST else results[name] < wanted)
    }


def held_out_composites(count: int, version: int) -> list[Example]:
    """Return pictures of one to three things with different captions. Their pairs of things are new to the model."""
    rng = Random(f"{_SEED}/composites")
    examples: dict[str, Example] = {}
    while len(examples) < count:
        example = rng.choice(WORLDS[version].sample_group(rng, held_out=True))
        examples.setdefault(example.caption, example)
    return list(examples.values())


def swap_pairs(count: int) -> dict[str, list[tuple[Example, Example]]]:
    """Return pairs of pictures that differ in one respect, with the same things and background."""
    makers = {
        "position_swap": _position_pair,
        "size_swap": _size_pair,
        "count_swap": _count_pair,
        "clarity_swap": _clarity_pair,
        "turn_swap": _turn_pair,
        "two_object_swap": _relation_pair,
        "two_object_size_swap": _sizes_pair,
        "order_swap": motion_groups.order_pair,
        "change_swap": motion_groups.change_pair,
        "direction_swap": motion_groups.direction_pair,
    }
    pairs = {}
    for name, make in makers.items():
        rng = Random(f"{_SEED}/{name}")
        pairs[name] = [make(rng) for _ in range(count)]
    return pairs


def _pair(rng: Random, *drafts: tuple[tuple[scenes.Sticker, ...], str]) -> tuple[Example, ...]:
    background = scenes.any_background(rng)
    return tuple(Example(stickers, background, caption) for stickers, caption in drafts)


def _position_pair(rng: Random):
    (c,) = scenes.pick_concepts(1, rng)
    places = rng.choice((("left", "right"), ("top", "bottom")))
    return _pair(rng, *((scenes.at_position(c, p, rng), captions.say_position(c, p, rng)) for p in places))


def _size_pair(rng: Random):
    (c,) = scenes.pick_concepts(1, rng)
    return _pair(rng, *(((scenes.single(c, rng, size=s),), captions.say_state(c, s, rng)) for s in SIZES))


def _count_pair(rng: Random):
    (c,) = scenes.pick_concepts(1, rng)
    numbers = rng.sample(range(3), 2)
    return _pair(rng, *((scenes.scattered([c] * (n + 1), rng), captions.say_count(c, COUNTS[n], rng)) for n in numbers))


def _clarity_pair(rng: Random):
    (c,) = scenes.pick_concepts(1, rng)
    drafts = zip(CLARITIES, (0.3, 1.0), strict=True)
    return _pair(rng, *(((scenes.single(c, rng, opacity=o),), captions.say_state(c, f, rng)) for f, o in drafts))


def _turn_pair(rng: Random):
    (c,) = scenes.pick_concepts(1, rng)
    drafts = zip(TURNS, (180.0, 0.0), strict=True)
    return _pair(rng, *(((scenes.single(c, rng, angle=a),), captions.say_state(c, f, rng)) for f, a in drafts))


def _relation_pair(rng: Random):
    a, b = scenes.pick_concepts(2, rng, held_out=True)
    relation = rng.choice(RELATIONS)
    orders = (a, b), (b, a)
    return _pair(rng, *((scenes.related(*o, relation, rng), captions.say_relation(*o, relation, rng)) for o in orders))


def _sizes_pair(rng: Random):
    a, b = scenes.pick_concepts(2, rng, held_out=True)
    return _pair(rng, *((scenes.unequal(*o, rng), captions.say_sizes(*o, rng)) for o in ((a, b), (b, a))))


@torch.no_grad()
def _similarity(model, tokenizer, examples: list[Example], *, shift: int = 0) -> torch.Tensor:
    """Return the cosines (images, texts) of the examples. The words of the captions stand `shift` positions later."""
    from torch.nn.functional import normalize

    from tools.mini.batches import draw, positions, tokenize
    from tools.mini.pretrain import normalise

    device, image_size = model.logit_scale.device, model.config.vision_config.image_size
    rng = np.random.default_rng(7)
    images, texts = [], []
    for start in range(0, len(examples), 250):
        part = examples[start : start + 250]
        pixels = draw(part, pixels=image_size, rng=rng).to(device)
        ids = tokenize(tokenizer, [e.caption for e in part]).to(device)
        places = positions(ids, torch.full((len(ids),), shift, device=device))
        out = model(input_ids=ids, pixel_values=normalise(pixels), position_ids=places)
        images.append(normalize(out.image_embeds, dim=-1))
        texts.append(normalize(out.text_embeds, dim=-1))
    return torch.cat(images) @ torch.cat(texts).T


def _recall(similarity: torch.Tensor) -> float:
    """Return the percentage of rows whose diagonal entry is above all others."""
    own = similarity.diagonal()[:, None]
    others = similarity.masked_fill(torch.eye(len(similarity), dtype=torch.bool, device=own.device), -2)
    return 100 * (own[:, 0] > others.max(1).values).float().mean().item()


def _swap_accuracy(similarity: torch.Tensor) -> float:
    """Return the percentage of right choices within pairs, for pictures and captions. Chance is 50."""
    even = torch.arange(0, len(similarity), 2)
    own = torch.stack([similarity[even, even], similarity[even + 1, even + 1]])
    crossed = torch.stack([similarity[even, even + 1], similarity[even + 1, even]])
    right = [own > crossed, own > crossed.flip(0)]
    return 100 * torch.stack(right).float().mean().item()


def main(arguments: list[str] | None = None) -> None:
    """Print the results of a backbone folder as JSON; exit with an error if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", type=int, choices=tuple(WORLDS), default=2, help="of the pictures and limits")
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args(arguments)
    results = check_folder(options.folder, options.version, count=options.count)
    print(json.dumps(results, indent=2))
    if failed := missed(results, options.version):
        raise SystemExit(f"{options.folder} fails these checks: {failed}")


if __name__ == "__main__":
    main()
