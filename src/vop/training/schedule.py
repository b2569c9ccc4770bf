"""The schedule of a training: its steps, its validations, and the learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vop.training.recipe import ENOUGH_STEPS, PAPER_EPOCHS, Recipe
from vop.training.selection import FEWEST
from vop.utils.text import count

FEW_VIDEOS = 50  # for validation
MOST_VALIDATIONS = 20  # in a training with many short epochs


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps, validations and learning rates of a training.

    Attributes:
        epochs, steps_per_epoch: at least 1.
        peak_rate: the learning rate at the end of the warm-up.
        warmup: fraction of the steps in which the learning rate rises.
    """

    epochs: int
    steps_per_epoch: int
    peak_rate: float
    warmup: float

    @classmethod
    def of(cls, recipe: Recipe, *, steps_per_epoch: int, default_rate: float) -> Schedule:
        """Return the schedule of a recipe. The method's learning rate and enough epochs are the defaults."""
        return cls(
            epochs=recipe.epochs or max(PAPER_EPOCHS, math.ceil(ENOUGH_STEPS / steps_per_epoch)),
            steps_per_epoch=steps_per_epoch,
            peak_rate=recipe.learning_rate or default_rate,
            warmup=recipe.warmup,
        )

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0: linear warm-up, then a cosine to 0."""
        rising = math.ceil(self.warmup * self.total_steps)
        if step < rising:
            return self.peak_rate * (step + 1) / rising
        return self.peak_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, self.total_steps - rising)))

    def is_validated(self, epoch: int) -> bool:
        """Return whether an epoch, counted from 0, ends with a validation."""
        return epoch + 1 == self.epochs or (epoch + 1) % math.ceil(self.epochs / MOST_VALIDATIONS) == 0

    def resolve(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the number of epochs and the learning rate that are used."""
        return replace(recipe, epochs=self.epochs, learning_rate=self.peak_rate)

    def in_words(self, *, videos: int, held_out: int) -> list[str]:
        """Return the plan in words, with warnings if there are few steps or videos.

        Args:
            videos, held_out: the numbers of training and of validation videos.
        """
        lines = [
            f"training videos: {videos:,}, validation videos: {held_out:,}; "
            f"epochs: {self.epochs:,}, steps per epoch: {self.steps_per_epoch:,}, total steps: {self.total_steps:,}"
        ]
        if self.total_steps < ENOUGH_STEPS:
            enough = math.ceil(ENOUGH_STEPS / self.steps_per_epoch)
            lines.append(
                f"{self.total_steps} steps are few: new prompts harm retrieval at first, and improve it after about "
                f"{ENOUGH_STEPS} steps; leave out --epochs, or give --epochs {enough}"
            )
        if not held_out:
            lines.append(
                "no videos are held out, so nothing will show whether tuning helped or harmed: leave out --validation 0"
            )
        elif held_out < FEWEST:
            lines.append(f"{count('validation video', held_out)} cannot tell whether tuning helps or harms")
        elif held_out < FEW_VIDEOS:
            lines.append(
                f"with {held_out} validation videos only a large gain can be told from chance; without one "
                "the untuned model is kept"
            )
        return lines
