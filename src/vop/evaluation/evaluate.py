"""Evaluate a model on a split: embed its videos and texts, rank, rescore, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vop.errors import DataError
from vop.evaluation.embedding import Progress, SplitEmbeddings, embed_split
from vop.evaluation.report import EvaluationReport, Rescored
from vop.evaluation.rescoring import dual_softmax_metrics, qb_norm_metrics

if TYPE_CHECKING:
    from vop.datasets.types import Split

RESCORING_LIMIT = 4 * 10**7  # text-video pairs: rescoring takes 48 bytes for each, so 1.9 GB at most


def evaluate(
    model: Any,
    split: Split,
    store: Any,
    *,
    batch_size: int = 32,
    workers: int = 4,
    on_bad_video: str = "skip",
    bank: Split | None = None,
    progress: Progress | None = None,
    **facts: Any,
) -> EvaluationReport:
    """Embeds a split and reports both directions' metrics.

    Args:
        model: embeds; see `vop.evaluation.embedding`.
        split: the texts and the gallery.
        store: decodes or reads frames.
        batch_size, workers, on_bad_video, progress: as for `embed_split`.
        bank: training queries for QB-Norm (never of the evaluated split); without it, QB-Norm is left out.
        facts: fields of the report that only the caller knows: method, data, selection, epoch, seed, settings.

    Raises:
        VideoError, DataError, UsageError: as for `embed_split`.
    """
    options = {"batch_size": batch_size, "workers": workers, "on_bad_video": on_bad_video, "progress": progress}
    embedded = embed_split(model, split, store, **options)
    embedded_bank = None
    if bank is not None:
        try:  # a damaged training video is no flaw of what is evaluated
            embedded_bank = embed_split(model, bank, store, **options | {"on_bad_video": "skip"})
        except DataError as error:
            facts["notes"] = [*facts.get("notes", ()), f"no QB-Norm: {error}"]
    return report_from_embeddings(embedded, listed=split, bank=embedded_bank, **facts)


def report_from_embeddings(
    embedded: SplitEmbeddings,
    *,
    listed: Split,
    bank: SplitEmbeddings | None = None,
    temperature: float = 0.01,
    beta: float = 20.0,
    tie_rule: str = "pessimistic",
    rescore: bool = True,
    method: str = "",
    data: str = "",
    **facts: Any,
) -> EvaluationReport:
    """The report on embeddings that are there already.

    Args:
        embedded: what could be read of the split.
        listed: the split as it was asked for.
        bank: embeddings of training queries for QB-Norm.
        temperature: of the dual softmax.
        beta: of QB-Norm.
        tie_rule: see `retrieval_metrics`.
        rescore: by dual softmax, and with a bank by QB-Norm.
        method, data: names; `facts` are further fields of `EvaluationReport`.
    """
    metrics = embedded.metrics(tie_rule=tie_rule)
    rescored: dict[str, Rescored] = {}
    notes = tuple(facts.pop("notes", ()))
    if not rescore:
        pass
    elif not embedded.cosines:
        notes += ("not rescored: the head's scores are no cosines",)
    elif metrics.texts * metrics.videos > RESCORING_LIMIT:
        notes += (f"not rescored: more than {RESCORING_LIMIT:,} text-video pairs",)
    else:
        rescored = _rescored(embedded, bank, temperature=temperature, beta=beta, tie_rule=tie_rule)
    return EvaluationReport(
        method=method,
        data=data,
        split=listed.name,
        metrics=metrics,
        listed_videos=len(listed.videos),
        listed_texts=len(listed.captions),
        fingerprint=embedded.split.fingerprint,
        targets=embedded.split.targets,
        rescored=rescored,
        skipped=embedded.skipped,
        notes=notes,
        **facts,
    )


def _rescored(
    embedded: SplitEmbeddings, bank: SplitEmbeddings | None, *, temperature: float, beta: float, tie_rule: str
) -> dict[str, Rescored]:
    common = {"targets": embedded.split.targets, "tie_rule": tie_rule}
    scores = embedded.similarity()
    softmaxed = dual_softmax_metrics(scores, temperature=temperature, **common)
    rescored = {"dual softmax": Rescored(softmaxed, {"temperature": temperature})}
    if bank is not None:
        normed = qb_norm_metrics(
            scores,
            text_bank=embedded.scores(bank.texts, embedded.videos),
            video_bank=embedded.scores(embedded.texts, bank.videos).T,
            beta=beta,
            **common,
        )
        sizes = {"bank_texts": len(bank.texts), "bank_videos": len(bank.videos)}
        rescored["qb-norm"] = Rescored(normed, {"beta": beta, "top_k": 1, **sizes})
    return rescored
