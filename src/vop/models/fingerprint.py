"""The fingerprint of a model, by which its stored embeddings and results are recognised."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vop.models.model import TextVideoModel


def fingerprint(model: TextVideoModel) -> str:
    """Return a hash of 16 hexadecimal digits of all that determines the embeddings."""
    decisive = {
        "backbone": model.backbone.content_hash(),
        "sizes": model.backbone.sizes.identity(),
        "mean": model.backbone.mean,
        "std": model.backbone.std,
        **model.resizing.differences(),
        "method": model.method_name,
        "settings": model.method.settings,
        "head": [model.head_name, model.head.settings],
        **model.embedding.differences(),
    }
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
    for name, tensor in sorted(model.trainable().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
