"""Errors with their own HTTP status. Other errors are in `vop.errors`."""

from __future__ import annotations

from vop.errors import UsageError, VopError

CLIENT_CLOSED_REQUEST = 499  # nobody reads this response; the number is nginx's


class Unavailable(VopError):
    """The server cannot answer now; try again soon: status 503 with Retry-After."""


class NotFound(UsageError):
    """No library, view, video or segment has this name or id: status 404."""


class StorageFull(VopError):
    """The server's disk is full: status 507."""
