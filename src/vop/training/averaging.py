"""The moving average of the trained parameters, which a run can keep in place of the parameters of its last step.

With w_t the trained parameters after step t, counted from 1, and d the recipe's `ema_decay`:

    a_1 = w_1,    a_t = d_t a_{t-1} + (1 - d_t) w_t,    d_t = min(d, t / (t + 9))

The decay warms up, as in TensorFlow's `ExponentialMovingAverage`, so that the average also suits short trainings: the
steps in it are on average t / 10 steps old, and at most d / (1 - d).

Only trained parameters are averaged. Buffers are not: training changes none, and a run saves none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

WARMUP = 9  # steps after which the decay is one half


class MovingAverage:
    """The average of `trained`, which `update` extends by the values after a step.

    Every process of a distributed training computes the same average, because it has the same parameters.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], *, decay: float) -> None:
        self._names = list(trained)
        self._trained = nn.ParameterList(trained.values())
        self._averaged = AveragedModel(self._trained, multi_avg_fn=_update(decay))

    def update(self) -> None:
        """Add the trained parameters after a step."""
        self._averaged.update_parameters(self._trained)

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages by the names of the parameters, as they are stored: `update` changes them."""
        return {name: tensor.data for name, tensor in zip(self._names, self._averaged.parameters(), strict=True)}

    def load(self, tensors: Mapping[str, Tensor], *, steps: int) -> None:
        """Restore the averages of `tensors` after a number of steps."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        self._averaged.n_averaged.fill_(steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the trained parameters their averages, and at the end of the block their own values."""
        own = [parameter.detach().clone() for parameter in self._trained]
        self._fill(self.tensors().values())
        try:
            yield
        finally:
            self._fill(own)

    def _fill(self, values: Iterable[Tensor]) -> None:
        for parameter, value in zip(self._trained, values, strict=True):
            parameter.data.copy_(value)


def _update(decay: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Return the function that moves averages towards values, as `AveragedModel` calls it."""

    def update(averages: Sequence[Tensor], values: Sequence[Tensor], averaged: Tensor | int) -> None:
        step = int(averaged) + 1
        get_ema_multi_avg_fn(min(decay, step / (step + WARMUP)))(averages, values, averaged)

    return update
