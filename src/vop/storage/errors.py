"""Why an operation on an object failed.

Messages never repeat a server's answer: it can contain keys, signatures and tokens.
"""

from __future__ import annotations

from vop.errors import VopError


class StorageError(VopError):
    """Object storage cannot be used: the server is unreachable, the credentials are wrong, the bucket is missing."""


class ScratchFull(StorageError):
    """The disk with the local copies of objects is full."""


class ObjectError(StorageError):
    """One object cannot be used; others may be.

    Attributes:
        address: of the object.
        reason: why, in a few words, without the address.
    """

    def __init__(self, address: object, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address, self.reason = address, reason

    def __reduce__(self) -> tuple[type[ObjectError], tuple[object, str]]:  # pickle passes both arguments
        return type(self), (self.address, self.reason)


class MissingObject(ObjectError):
    """The object does not exist."""


class ChangedObject(ObjectError):
    """The object is not the one that was expected: it was written meanwhile."""


class DeniedObject(ObjectError):
    """The credentials do not allow this operation on the object."""
