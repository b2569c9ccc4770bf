"""One part of a batch job, and what it reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vop.errors import UsageError
from vop.search.sharding.plan import Plan


def check_part(part: int, parts: int) -> None:
    """Raise a UsageError if there is no such part."""
    if not 1 <= part <= parts:
        raise UsageError(f"shard is {part}/{parts}; give I/N with I from 1 to N, such as 1/4")


@dataclass(kw_only=True)
class PartReport:
    """What one part of a batch job did.

    Attributes:
        written: shards that this call has written.
        finished, shards: shards of the whole plan that are finished, and all of them.
        index_built: parts of the vector index that this call has built.
    """

    library: str
    part: int
    parts: int
    written: int
    finished: int
    shards: int
    index_built: int = 0

    @classmethod
    def of(cls, plan: Plan, *, part: int, parts: int, written: int, index_built: int = 0) -> PartReport:
        return cls(
            library=str(plan.library),
            part=part,
            parts=parts,
            written=written,
            finished=plan.num_shards - len(plan.unfinished()),
            shards=plan.num_shards,
            index_built=index_built,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `--shard --json`."""
        return asdict(self)
