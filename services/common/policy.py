"""Who may call what: each rpc with the role that it needs.

A reader asks for recommendations and for movies. To recommend for a person is to learn of the person: a reader's key is
for programs that may. A recorder writes down what people do, and reads nothing. An admin may do everything, and alone
what shows, moves or deletes whole histories. What is not in the table nobody may call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum


class Role(StrEnum):
    """Is what a caller may be; one caller may have several."""

    READER = "reader"
    RECORDER = "recorder"
    ADMIN = "admin"


_RPCS: Mapping[str, Mapping[str, Role]] = {
    "marquee.v1.UserEncoderService": {
        "Encode": Role.READER,
        "BatchEncode": Role.READER,
        "Explain": Role.READER,
        "GetModel": Role.READER,
    },
    "marquee.v1.LiveFeaturesService": {
        "RecordEvents": Role.RECORDER,
        "GetHistory": Role.ADMIN,
        "DeleteUser": Role.ADMIN,
        "ExportEvents": Role.ADMIN,
    },
    "marquee.v1.RetrieverService": {
        "Search": Role.READER,
        "BatchSearch": Role.READER,
        "SearchSimilar": Role.READER,
        "GetIndex": Role.READER,
    },
    "marquee.v1.CatalogService": {
        "GetMovie": Role.READER,
        "BatchGetMovies": Role.READER,
        "SearchMovies": Role.READER,
        "ListGenres": Role.READER,
        "GetFacets": Role.READER,
        "TopMovies": Role.READER,
    },
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": Role.ADMIN},
}


def _paths() -> Iterator[tuple[str, Role]]:
    for service, rpcs in _RPCS.items():
        yield from ((f"/{service}/{rpc}", role) for rpc, role in rpcs.items())


# By the path that a call has on the wire.
POLICY: Mapping[str, Role] = dict(_paths())


def role_for(method: str) -> Role | None:
    """Names the role that a method needs; None: nobody may call it."""
    return POLICY.get(method)
