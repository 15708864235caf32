"""Errors survive the trip over the wire."""

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from marquee import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest("k is 0; it must be 1 to 1000", field="k"),
        errors.SpaceNotLoaded("no", metadata={"space": "a", "loaded": "b,c"}),
        errors.UserUnknown("who?"),
        errors.StoreUnavailable("disk full"),
        errors.BundleError("manifest.json: gone"),
        errors.Overloaded("too many calls"),
        errors.Unauthenticated("no key"),
        errors.PermissionDenied("not yours"),
    ],
)
def test_an_error_comes_back_as_itself(error: errors.MarqueeError) -> None:
    back = errors.from_rpc(error.code, error.message, errors.to_status(error).SerializeToString())
    assert (type(back), back.message, back.field, back.metadata) == (
        type(error),
        error.message,
        error.field,
        error.metadata,
    )


def test_a_reason_of_a_newer_server_keeps_its_codes_class() -> None:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="SHARD_AWAY", domain=errors.DOMAIN))
    status = status_pb2.Status(code=14, message="later", details=[detail])
    assert type(errors.from_status(status)) is errors.Unavailable


def test_a_garbled_trailer_leaves_code_and_text() -> None:
    back = errors.from_rpc(grpc.StatusCode.UNAVAILABLE, "gone", b"\xff\xff\xff")
    assert isinstance(back, errors.Unavailable)
    assert back.message == "gone"


def test_a_foreign_code_is_a_remote_error_that_keeps_it() -> None:
    back = errors.from_rpc(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", None)
    assert isinstance(back, errors.RemoteError)
    assert back.remote_code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_refusal_for_overload_says_when_to_come_back() -> None:
    error = errors.Overloaded("too many calls", retry_after_s=0.25)
    back = errors.from_status(errors.to_status(error))
    assert isinstance(back, errors.Overloaded)
    assert back.retry_after_s == 0.25
    assert not isinstance(back, errors.RemoteError)


def test_every_error_has_a_reason_of_its_own() -> None:
    def tree(cls: type[errors.MarqueeError]) -> list[type[errors.MarqueeError]]:
        return [cls, *(leaf for child in cls.__subclasses__() for leaf in tree(child))]

    marquees = [cls for cls in tree(errors.MarqueeError) if cls.__module__ == errors.__name__]
    reasons = [cls.reason for cls in marquees if cls is not errors.RemoteError]
    assert len(set(reasons)) == len(reasons)
