"""Pre-train a small CLIP on pictures of the built-in world: `mini-2`, which starts from `mini`, or `mini` from scratch.

    python -m tools.mini.pretrain --version 2 --out DIR

The command writes checkpoints, a log and, at the end, a `transformers` CLIP folder with the acceptance results to DIR.
After an interruption, `--resume` continues from the last checkpoint. On two cores it takes about an hour. On a busy
machine `--threads 1` with OPENBLAS_NUM_THREADS=1 is faster, because threads that wait for each other spin.

Besides CLIP's contrastive loss over batches of hard groups, linear classifiers predict the facts in the captions
(position, size, which thing is on the left, ...) from both embeddings. They are dropped after training. Without hard
groups and classifiers, position words were still at chance after a million pictures.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

import torch
from torch import nn
from torch.nn import functional

from tools.mini import acceptance
from tools.mini.batches import UNSAID, Batch, Batches, positions
from tools.mini.grow import grow
from tools.mini.settings import WORLDS, Settings
from tools.mini.tokenizer import train_tokenizer
from vop.backbones.preprocessing import CLIP_MEAN, CLIP_STD
from vop.backbones.source import find_backbone
from vop.benchmarks.artwork import CONCEPTS
from vop.training.loss import contrastive_loss
from vop.utils.files import atomic_write

MAX_LOGIT_SCALE = math.log(100)


def build_tokenizer(settings: Settings):
    """Train the tokenizer on captions of the training distribution."""
    rng = Random(f"tokenizer/{settings.seed}")
    sample = WORLDS[settings.version].sample_batch
    captions = (e.caption for _ in range(200) for e in sample(256, rng))
    return train_tokenizer(captions, merges=settings.merges)


def build_model(settings: Settings, tokenizer):
    """Build a `CLIPModel` with random weights, or those of the smaller model that the settings start from."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    s = settings
    marks = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = _tower(s.text_width, s.text_layers, s) | {"vocab_size": len(tokenizer), "max_position_embeddings": 77}
    vision = _tower(s.vision_width, s.vision_layers, s) | {"image_size": s.image_size, "patch_size": s.patch_size}
    config = CLIPConfig(text_config=text | marks, vision_config=vision, projection_dim=s.projection)
    torch.manual_seed(s.seed)
    # The fused attention's backward pass on CPU is slow at 37 tokens; plain attention trains 1.8 times faster.
    model = CLIPModel._from_config(config, attn_implementation="eager" if not torch.cuda.is_available() else "sdpa")
    if s.start:
        folder = find_backbone(s.start).folder
        small = CLIPModel.from_pretrained(folder, dtype=torch.float32)
        grow(small, CLIPTokenizer.from_pretrained(folder), model, tokenizer)
    return model


def _tower(width: int, layers: int, settings: Settings) -> dict:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // settings.head_width,
        "projection_dim": settings.projection,
        "hidden_act": "gelu",
    }


class Auxiliary(nn.Module):
    """Linear classifiers of the stated facts and the present things, shared by both embeddings."""

    def __init__(self, width: int, facts: dict[str, int]) -> None:
        super().__init__()
        self.scale = width**0.5  # embeddings have unit length; classifiers need entries near one
        self.facts = nn.ModuleDict({fact: nn.Linear(width, values) for fact, values in facts.items()})
        self.present = nn.Linear(width, len(CONCEPTS))

    def forward(self, embedding: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the sum of the losses for embeddings (n, width)."""
        embedding = embedding * self.scale
        losses = []
        for i, classifier in enumerate(self.facts.values()):
            target = batch.facts[:, i]
            said = (target != UNSAID).nonzero()[:, 0]
            if len(said):
                share = len(said) / len(target)  # rare facts get a small weight
                losses.append(share * functional.cross_entropy(classifier(embedding[said]), target[said]))
        some = batch.present.sum(1) > 0
        wanted = batch.present[some] / batch.present[some].sum(1, keepdim=True)
        losses.append(functional.cross_entropy(self.present(embedding[some]), wanted))
        return sum(losses)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 pixels (n, 3, h, w) to the model's float input."""
    mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (pixels.float() / 255 - mean) / std


def embed(model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return unit-length image and text embeddings, float32, computed with bf16 autocast."""
    places = positions(batch.ids, batch.shift)
    with torch.autocast(batch.pixels.device.type, dtype=torch.bfloat16):
        out = model(input_ids=batch.ids, pixel_values=normalise(batch.pixels), position_ids=places)
    return (functional.normalize(e.float(), dim=-1) for e in (out.image_embeds, out.text_embeds))


def build_optimizer(model, auxiliary: Auxiliary, settings: Settings) -> torch.optim.AdamW:
    """Return AdamW. Position embeddings get a higher rate. Neither they nor vectors have weight decay."""
    decayed, plain, positions = [], [], []
    for name, parameter in [*model.named_parameters(), *auxiliary.named_parameters()]:
        if "position_embedding" in name:
            positions.append(parameter)
        else:
            (decayed if parameter.ndim > 1 else plain).append(parameter)
    rate = settings.learning_rate
    return torch.optim.AdamW(
        [
            {"params": decayed, "lr": rate, "weight_decay": settings.weight_decay},
            {"params": plain, "lr": rate, "weight_decay": 0.0},
            {"params": positions, "lr": rate * settings.position_factor, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


class Trainer:
    """The state of a run: model, classifiers, optimiser, schedule, and the next step."""

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out, self.step, self.seconds = settings, out, 0, 0.0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = build_tokenizer(settings)
        self.model = build_model(settings, self.tokenizer).to(self.device)
        self.auxiliary = Auxiliary(settings.projection, WORLDS[settings.version].facts).to(self.device)
        self.optimizer = build_optimizer(self.model, self.auxiliary, settings)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)

    def _rate(self, step: int) -> float:
        s = self.settings
        if step < s.warmup:
            return (step + 1) / s.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - s.warmup) / max(1, s.steps - s.warmup)))

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Update the weights once, and return the losses."""
        s = self.settings
        batch = Batch(**{k: v.to(self.device) for k, v in vars(batch).items()})
        images, texts = embed(self.model, batch)
        logits = self.model.logit_scale.exp() * texts @ images.T
        rows = torch.arange(len(logits), device=self.device)
        contrast = contrastive_loss(logits, rows, batch.caption)  # equal captions are not negatives of each other
        weight = s.auxiliary * max(0.0, 1 - self.step / (s.steps * s.auxiliary_until))
        facts = self.auxiliary(images, batch) + self.auxiliary(texts, batch) if weight else contrast.new_zeros(())
        loss = contrast + weight * facts
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {self.step}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.auxiliary.parameters()], 1.0)
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        self.step += 1
        return {"contrast": contrast.item(), "facts": facts.item()}

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {"step": self.step, "seconds": self.seconds, "settings": asdict(self.settings)}
        for part in ("model", "auxiliary", "optimizer", "schedule"):
            state[part] = getattr(self, part).state_dict()
        with atomic_write(self.out / "checkpoint.pt") as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Resume from the checkpoint, if it exists."""
        path = self.out / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise ValueError(f"{path} was written with other settings: {state['settings']}")
        self.step, self.seconds = state["step"], state["seconds"]
        for part in ("model", "auxiliary", "optimizer", "schedule"):
            getattr(self, part).load_state_dict(state[part])

    def log(self, **values) -> None:
        with open(self.out / "log.jsonl", "a") as file:
            file.write(json.dumps({"step": self.step, "seconds": round(self.seconds), **values}) + "\n")

    def run(self, *, check_every: int = 500, log_every: int = 50) -> None:
        """Train to the last step."""
        s = self.settings
        data = Batches(self.tokenizer, s)
        loader = torch.utils.data.DataLoader(
            data, batch_size=None, sampler=range(self.step, s.steps), num_workers=1, prefetch_factor=8
        )
        self.model.train()
        last = time.perf_counter()
        for batch in loader:
            losses = self.train_step(batch)
            now = time.perf_counter()
            self.seconds, last = self.seconds + now - last, now
            if self.step % log_every == 0:
                self.log(**{k: round(v, 4) for k, v in losses.items()}, speed=round(self.step * s.batch / self.seconds))
            if self.step % check_every == 0 or self.step == s.steps:
                self.save()
                self.log(check=acceptance.check(self.model, self.tokenizer, s.version, count=150))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--version", type=int, choices=tuple(WORLDS), default=2)
    for name, value in asdict(Settings()).items():
        if name != "version":
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=argparse.SUPPRESS)
    options = vars(parser.parse_args(arguments))
    out, resume, threads = options.pop("out"), options.pop("resume"), options.pop("threads")
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(replace(WORLDS[options["version"]].settings, **options), out)
    if resume:
        trainer.resume()
    trainer.run()
    from tools.mini.export import export

    export(out, out / "mini")


if __name__ == "__main__":
    main()
