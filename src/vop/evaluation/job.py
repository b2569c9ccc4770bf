"""`vop.evaluate`: evaluate a model on a split of a data set."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vop.backbones.embedding_config import AS_USUAL, EmbeddingConfig, TokenMerging
from vop.datasets.frames import FrameSource, FrameStore
from vop.datasets.readers import load as load_data
from vop.datasets.types import Dataset, Split
from vop.errors import DataError, UsageError
from vop.evaluation.embedding import Embedder, SplitEmbeddings, embed_split
from vop.evaluation.embeddings_file import check_embeddings_path, read_embeddings, save_embeddings
from vop.evaluation.report import AmbiguousCaptions, EvaluationReport, ReportFacts, Rescored
from vop.evaluation.rescoring import dual_softmax_metrics, qb_norm_metrics
from vop.heads import MEAN
from vop.models.model import HEAD_PREFIX, TextVideoModel
from vop.models.pretrained import load as load_model
from vop.models.run_folder import is_run
from vop.utils.checks import check_whole
from vop.utils.device import default_device, resolve_precision
from vop.utils.progress import Progress, silent
from vop.utils.ranks import ALONE, Ranks, join
from vop.utils.text import count
from vop.utils.watch import watched
from vop.video.clip import DISPLAY

RESCORING_LIMIT = 4 * 10**7  # text-video pairs: rescoring takes 48 bytes for each, so 1.9 GB at most


def evaluate(
    model: TextVideoModel | str | Path,
    data: Dataset | str | Path,
    *,
    split: str | None = None,
    videos: str | Path | None = None,
    video_column: str | None = None,
    caption_column: str | None = None,
    backbone: str | Path | None = None,
    num_frames: int | None = None,
    precision: str = "auto",
    merge_tokens: float | TokenMerging = 0.0,
    dimensions: int | None = None,
    compile: bool = False,
    cache: Path | None = None,
    aspect: str | None = None,
    batch_size: int = 32,
    on_bad_video: str = "skip",
    bank_videos: int = 512,
    write_card: str | Path | None = None,
    save_embeddings: str | Path | None = None,
    shared: bool = False,
    progress: Progress = silent,
) -> EvaluationReport:
    """Rank one split of a data set in both directions, as `vop evaluate` does.

    Args:
        model: a loaded model, or a name for `vop.load`: a run, a CLIP folder, a hub id, or "mini".
        data: a SPEC (`msrvtt-9k:/data/msrvtt`, `test.csv`), or a `Dataset`.
        split: "test", "val" or "train". By default the only split, or "test" if there are several.
        videos, video_column, caption_column: as for `vop.datasets.load`, if `data` is a SPEC.
        backbone, num_frames: as for `vop.load`, if `model` is a name.
        precision: "auto", "bf16" or "fp32", if `model` is a name; a loaded model keeps its own.
        merge_tokens, dimensions, compile: as for `vop.load`, if `model` is a name.
        cache: a folder for decoded frames. Existing ones are reused, missing ones added.
        aspect: as for `vop.read_frames`; by default as in the model's training.
        batch_size: videos per forward pass.
        on_bad_video: "skip" leaves unreadable videos out and lists them; "fail" stops.
        bank_videos: the number of training videos, each with one caption, in QB-Norm's bank. QB-Norm is left out if
            it is 0, if the data set has no training split, or if the training split is evaluated.
        write_card: the model's run folder. The results are written into its config.json and the card in its
            README.md; what stands below the card stays.
        save_embeddings: a .npz, .safetensors or .parquet file for the embeddings, which `evaluate_embeddings` reads.
        shared: share the work among the processes that `torchrun` or `accelerate launch` started. Each of them makes
            this call and gets the same report; the first one writes files. A loaded model must be on its process's
            device (`accelerate.PartialState().device`).

    Raises:
        UsageError: a name or a value is not allowed.
        VopError: the model or the data cannot be read, or another process has failed.
    """
    with watched(when=shared):
        ranks = join() if shared else ALONE
        check_whole("bank_videos", bank_videos, at_least=0, at_most=sys.maxsize)
        if not isinstance(data, Dataset):
            data = load_data(str(data), videos=videos, video_column=video_column, caption_column=caption_column)
        if save_embeddings is not None:
            check_embeddings_path(save_embeddings)
        ranked = data.split(split or default_split(data))  # before seconds are spent on the model
        if not isinstance(model, TextVideoModel):
            embedding = EmbeddingConfig.of(merge_tokens=merge_tokens, dimensions=dimensions)
            model = open_model(
                model,
                backbone=backbone,
                num_frames=num_frames,
                precision=precision,
                embedding=embedding,
                compile=compile,
            )
        elif (backbone, num_frames, precision, merge_tokens, dimensions) != (None, None, "auto", 0.0, None) or compile:
            raise UsageError(
                "backbone, num_frames, precision, merge_tokens, dimensions and compile apply only to a model that is "
                "given by name"
            )
        if write_card is not None:
            _check_card(write_card, model)
        if save_embeddings is not None:
            model.check_independent()
        model.check_vocabulary()  # before every video is decoded
        bank = None
        if "train" in data.splits and ranked.name != "train" and bank_videos:
            bank = _sample(data.split("train"), bank_videos)
        aspect = aspect or str(model.card.get("aspect", DISPLAY))
        with FrameStore(model.num_frames, model.resizing, cache=cache, aspect=aspect).isolated() as store:
            report = evaluate_split(
                model,
                ranked,
                store,
                batch_size=batch_size,
                on_bad_video=on_bad_video,
                bank=bank,
                facts=report_facts(model, data, aspect=aspect),
                save_to=save_embeddings,
                ranks=ranks,
                progress=progress,
            )
        if write_card is not None and ranks.is_first:
            model.card["results"] = _results(report)
            model.save_pretrained(write_card)
        return report


def evaluate_embeddings(path: str | Path, *, score: str | None = None) -> EvaluationReport:
    """Rank the embeddings in a file, as `vop evaluate --embeddings` does. No model and no videos are needed.

    Args:
        path: a .npz, .safetensors, .parquet or .pkl file; docs/evaluation.md describes the layouts. Nothing in it is
            executed.
        score: "cosine" normalises every vector; "dot" takes the vectors as they are. By default what the file says, or
            else "cosine".

    Raises:
        UsageError: the score or the kind of file is unknown.
        DataError: the file cannot be read, or its content does not fit together.
    """
    stored = read_embeddings(path, score=score)
    report = report_from_embeddings(stored.embedded, listed=stored.embedded.split, bank=stored.bank, facts=stored.facts)
    return report if stored.has_texts else replace(report, ambiguous=None)


def _check_card(folder: str | Path, model: TextVideoModel) -> None:
    if not (Path(folder).is_dir() and is_run(Path(folder))):
        raise UsageError(f"{folder} is not a run folder: only the folder of a run has a model card for results")
    if model.num_frames != model.trained_frames:
        raise UsageError(
            f"num_frames is {model.num_frames}, but the run was trained with {model.trained_frames}: its card "
            "holds only results with that number"
        )
    unusual = model.embedding.in_words()
    if unusual:
        raise UsageError(
            f"the model embeds with {' and '.join(unusual)}, but the card of a run holds only results without: leave "
            "out the card, or these settings"
        )


def _results(report: EvaluationReport) -> dict[str, Any]:
    """Return the results of an evaluation for the model card."""
    return {
        **report.metrics.to_dict(),
        "rsum": report.metrics.rsum,
        "data": report.data,
        "split": report.split,
        "gallery_size": report.gallery_size,
        "precision": report.settings["precision"],
        "made_with": dict(report.made_with),
    }


def default_split(data: Dataset) -> str:
    """Return the name of the only split, or "test" if there are several."""
    return next(iter(data.splits)) if len(data.splits) == 1 else "test"


def open_model(
    name: str | Path,
    *,
    backbone: str | Path | None = None,
    num_frames: int | None = None,
    precision: str = "auto",
    embedding: EmbeddingConfig = AS_USUAL,
    compile: bool = False,
) -> TextVideoModel:
    """Load a model with the dtype that `precision` selects on this device."""
    return load_model(
        name,
        backbone=backbone,
        num_frames=num_frames,
        merge_tokens=embedding.merge_tokens or 0.0,
        dimensions=embedding.dimensions,
        dtype=resolve_precision(precision, default_device()),
        compile=compile,
    )


def evaluate_split(
    model: Embedder,
    split: Split,
    store: FrameSource,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    on_bad_video: str = "skip",
    bank: Split | None = None,
    facts: ReportFacts | None = None,
    save_to: str | Path | None = None,
    ranks: Ranks = ALONE,
    progress: Progress = silent,
) -> EvaluationReport:
    """Embed a split, and report the metrics of both directions.

    Args:
        model: the model that embeds texts and videos.
        split: the texts and the gallery.
        store: loads frames.
        batch_size, workers, on_bad_video, ranks, progress: as for `embed_split`.
        bank: training queries for QB-Norm (never of the evaluated split); without it, QB-Norm is left out.
        facts: facts about the model and the data, for the report.
        save_to: a file for the embeddings, which the first process writes; see `save_embeddings`.

    Raises:
        VideoError, DataError, UsageError: as for `embed_split`.
    """

    def embed(part: Split, on_bad_video: str) -> SplitEmbeddings:
        return embed_split(
            model,
            part,
            store,
            batch_size=batch_size,
            workers=workers,
            on_bad_video=on_bad_video,
            progress=progress,
            ranks=ranks,
        )

    embedded, embedded_bank = embed(split, on_bad_video), None
    notes: tuple[str, ...] = ()
    if bank is not None:
        try:  # a damaged training video does not concern the evaluated split
            embedded_bank = embed(bank, "skip")
        except DataError as error:
            notes = (f"no QB-Norm: {error}",)
    if save_to is not None and ranks.is_first:
        save_embeddings(save_to, embedded, bank=embedded_bank, facts=facts)
    return report_from_embeddings(embedded, listed=split, bank=embedded_bank, facts=facts, notes=notes)


def report_from_embeddings(
    embedded: SplitEmbeddings,
    *,
    listed: Split,
    bank: SplitEmbeddings | None = None,
    facts: ReportFacts | None = None,
    temperature: float = 0.01,
    beta: float = 20.0,
    tie_rule: str = "pessimistic",
    rescore: bool = True,
    notes: tuple[str, ...] = (),
) -> EvaluationReport:
    """Return the report for computed embeddings.

    Args:
        embedded: the readable part of the split.
        listed: the whole split.
        bank: embeddings of training queries for QB-Norm.
        facts: facts about the model and the data, for the report.
        temperature: the temperature of the dual softmax.
        beta: the inverse temperature of QB-Norm.
        tie_rule: see `retrieval_metrics`.
        rescore: whether to add dual softmax and, with a bank, QB-Norm.
        notes: further notes for the report.
    """
    facts = facts or ReportFacts()
    metrics = embedded.metrics(tie_rule=tie_rule)
    rescored: dict[str, Rescored] = {}
    notes = (*facts.notes, *notes)
    if not rescore:
        pass
    elif not embedded.cosines:
        notes += ("not rescored: the scores are not cosines",)
    elif metrics.texts * metrics.videos > RESCORING_LIMIT:
        notes += (f"not rescored: more than {RESCORING_LIMIT:,} text-video pairs",)
    else:
        rescored = _rescored(embedded, bank, temperature=temperature, beta=beta, tie_rule=tie_rule)
    return EvaluationReport(
        method=facts.method,
        data=facts.data,
        split=listed.name,
        metrics=metrics,
        listed_videos=len(listed.videos),
        listed_texts=len(listed.captions),
        fingerprint=embedded.split.fingerprint,
        targets=embedded.split.targets,
        rescored=rescored,
        skipped=embedded.skipped,
        selection=facts.selection,
        epoch=facts.epoch,
        seed=facts.seed,
        settings=facts.settings,
        notes=notes,
        ambiguous=AmbiguousCaptions.among(embedded.split.captions, embedded.split.targets, metrics),
        made_with=facts.made_with,
        trained_with=facts.trained_with,
    )


def _rescored(
    embedded: SplitEmbeddings, bank: SplitEmbeddings | None, *, temperature: float, beta: float, tie_rule: str
) -> dict[str, Rescored]:
    targets, scores = embedded.split.targets, embedded.similarity()
    softmaxed = dual_softmax_metrics(scores, targets=targets, temperature=temperature, tie_rule=tie_rule)
    rescored = {"dual softmax": Rescored(softmaxed, {"temperature": temperature})}
    if bank is not None:
        normed = qb_norm_metrics(
            scores,
            text_bank=embedded.scores(bank.texts, embedded.videos),
            video_bank=embedded.scores(embedded.texts, bank.videos).T,
            targets=targets,
            beta=beta,
            tie_rule=tie_rule,
        )
        sizes = {"bank_texts": len(bank.texts), "bank_videos": len(bank.videos)}
        rescored["qb-norm"] = Rescored(normed, {"beta": beta, "top_k": 1, **sizes})
    return rescored


def report_facts(model: TextVideoModel, dataset: Dataset, *, aspect: str = DISPLAY) -> ReportFacts:
    """Return the facts about the model and the data for a report."""
    card: Mapping[str, Any] = model.card
    return ReportFacts(
        method=model.method_name if model.head_name == MEAN else f"{model.method_name}/{model.head_name}",
        data=dataset.name,
        selection=card.get("selection", None if model.trainable() else "untrained"),
        epoch=card.get("epoch"),
        seed=card.get("seed"),
        notes=_frame_notes(model),
        settings={
            "backbone": model.backbone.name,
            "precision": str(model.clip.dtype).removeprefix("torch."),
            "trained_on": card.get("data"),
            "head": model.head_name,
            **model.method.settings,
            **{f"{HEAD_PREFIX}{name}": value for name, value in model.head.settings.items()},
            "num_frames": model.num_frames,
            "aspect": aspect,
            **({} if model.merging is None else {"merge_tokens": model.merging.ratio}),
            **({} if model.embedding.dimensions is None else {"dimensions": model.dimensions}),
        },
        made_with=model.made_with(),
        trained_with={name: str(card[name]) for name in model.made_with() if name in card},
    )


def _frame_notes(model: TextVideoModel) -> tuple[str, ...]:
    if model.num_frames == model.trained_frames or not model.trainable():
        return ()
    note = f"tuned with {count('frame', model.trained_frames)} per video, evaluated with {model.num_frames}"
    return (f"{note}; its frame positions are interpolated" if model.frame_tables() else note,)


def _sample(split: Split, most: int) -> Split:
    """Return at most `most` videos, drawn with a fixed seed, each with its first caption."""
    rows = np.random.default_rng(0).permutation(len(split.videos))[:most]
    chosen = sorted(int(row) for row in rows)
    return Split(
        name=split.name,
        videos=tuple(split.videos[row] for row in chosen),
        captions=tuple(split.captions[split.captions_of[row][0]] for row in chosen),
        targets=tuple(range(len(chosen))),
    )
