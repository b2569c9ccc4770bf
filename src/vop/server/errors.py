"""Errors with their own HTTP status. Other errors are in `vop.errors`."""

from __future__ import annotations

from vop.errors import UsageError, VopError

CLIENT_CLOSED_REQUEST = 499  # for the logs only; nginx uses this number


class Unavailable(VopError):
    """The server is busy or not ready. Status 503 with Retry-After."""


class NotFound(UsageError):
    """A library, view, video or segment does not exist. Status 404."""


class StorageFull(VopError):
    """The server's disk is full. Status 507."""
