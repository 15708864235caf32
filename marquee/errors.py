"""The error tree: each error knows its gRPC status code, its reason and its metadata.

Services raise these and one interceptor turns them into a status with `google.rpc` details (AIP-193); the SDK turns
such a status back into the same class. The text of an error says what was wrong, where, and what to do.
"""

from __future__ import annotations

from typing import ClassVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "marquee"
DETAILS_KEY = "grpc-status-details-bin"


class MarqueeError(Exception):
    """Is the root of every error that Marquee raises on purpose.

    `metadata` travels in the status as `ErrorInfo.metadata`; `field` names the request field that was wrong, where
    one was, and travels as `BadRequest`.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, field: str = "", metadata: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.metadata = metadata or {}


class InvalidRequest(MarqueeError):
    """Says that a field of the request is out of its range."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class NotFound(MarqueeError):
    """Is the parent of everything that was asked for by id and is not there."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class UserUnknown(NotFound):
    """Says that a person has no events and no cold start was asked for."""

    reason = "USER_UNKNOWN"


class MovieUnknown(NotFound):
    """Says that no loaded bundle has the movie."""

    reason = "MOVIE_UNKNOWN"


class UserDeleted(MarqueeError):
    """Says that an event is dated at or before the deletion of its person, and was not recorded."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "USER_DELETED"


class SpaceNotLoaded(MarqueeError):
    """Says that a vector's embedding space is not loaded; metadata `loaded` names those that are."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "SPACE_NOT_LOADED"


class Unavailable(MarqueeError):
    """Says that a service, or something that it needs, cannot answer now; the call may be tried again."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class StoreUnavailable(Unavailable):
    """Says that the feature store could not be read or written; nothing was recorded."""

    reason = "STORE_UNAVAILABLE"


class Overloaded(MarqueeError):
    """Says that a service has more calls than it can answer and refused this one before doing anything.

    `retry_after_s`: when to come back, in seconds; None is not soon. Travels in the status as `RetryInfo`.
    """

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        metadata: dict[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, field=field, metadata=metadata)
        self.retry_after_s = retry_after_s


class Unauthenticated(MarqueeError):
    """Says that the call came without a key, or with one that the service does not know."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(MarqueeError):
    """Says that the caller is known, and may not call this rpc."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class DeadlineExceeded(MarqueeError):
    """Says that the answer did not come within the call's deadline."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class BundleError(MarqueeError):
    """Says that a bundle cannot be used: a file is missing, cut off, edited, or of a newer format."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "BUNDLE_INVALID"


class RegistryError(MarqueeError):
    """Says that the registry, or an order given to it, cannot be followed."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "REGISTRY"


class GateRefused(RegistryError):
    """Says that a bundle is not good enough to be published."""

    reason = "GATE_REFUSED"


class DataError(MarqueeError):
    """Says that input data cannot be used, with its file, its line and the cure."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "DATA_INVALID"


class ConfigError(MarqueeError):
    """Says that a setting is wrong and names it."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "CONFIG_INVALID"


class RemoteError(MarqueeError):
    """Is what the SDK raises for a status that is none of the above; `remote_code` is the code that came."""

    remote_code: grpc.StatusCode = grpc.StatusCode.UNKNOWN


def _tree(root: type[MarqueeError]) -> list[type[MarqueeError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


_BY_REASON = {cls.reason: cls for cls in _tree(MarqueeError) if cls not in (MarqueeError, RemoteError)}
_BY_CODE: dict[grpc.StatusCode, type[MarqueeError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}


def to_status(error: MarqueeError) -> status_pb2.Status:
    """Builds the `google.rpc.Status` of an error: code, message and ErrorInfo.

    With BadRequest for a field, and with RetryInfo where it is known when to come back.
    """
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    if isinstance(error, Overloaded) and error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(retry)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_status(status: status_pb2.Status) -> MarqueeError:
    """Rebuilds the error that `to_status` described, or the nearest one where it came from elsewhere."""
    info, field = error_details_pb2.ErrorInfo(), ""
    retry_after_s: float | None = None
    for detail in status.details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        detail.Unpack(info)
    code = _code(status.code)
    # A reason that this version does not know yet is still of its code's class.
    cls = (_BY_REASON.get(info.reason) if info.domain == DOMAIN else None) or _BY_CODE.get(code)
    # gRPC's core has this code for messages that are too large, too: a load that passes says when to come back.
    if cls is Overloaded or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s is not None):
        return Overloaded(status.message, metadata=dict(info.metadata), retry_after_s=retry_after_s)
    if cls is not None:
        return cls(status.message, field=field, metadata=dict(info.metadata))
    error = RemoteError(f"{code.name}: {status.message}", field=field, metadata=dict(info.metadata))
    error.remote_code = code
    return error


def from_rpc(code: grpc.StatusCode, message: str, details: bytes | None) -> MarqueeError:
    """Turns a failed call's code, text and `grpc-status-details-bin` trailer into an error of this tree."""
    status = status_pb2.Status()
    try:
        status.ParseFromString(details or b"")
    except DecodeError:
        status.Clear()  # a garbled trailer says nothing; code and text still do
    if status.code != code.value[0]:
        status = status_pb2.Status(code=code.value[0], message=message)
    return from_status(status)


def _code(number: int) -> grpc.StatusCode:
    return next((code for code in grpc.StatusCode if code.value[0] == number), grpc.StatusCode.UNKNOWN)
