"""Whatever is typed into a title search, on a real socket: a precise refusal or a defined answer, never a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marquee.errors import InvalidRequest
from marquee.v1 import catalog_pb2
from tests.bundles import make_bundle
from tests.rigs import Rig, error_of, publish, retriever

# One server a test, for all of its examples.
on_the_wire = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    publish(folder / "registry", make_bundle(folder / "bundle", movies=40))
    return folder / "registry"


@pytest.fixture
async def rig(registry: Path) -> AsyncIterator[Rig]:
    async with retriever(registry) as running:
        yield running


async def titles(rig: Rig, query: str) -> list[str]:
    answer = await rig.catalog.SearchMovies(catalog_pb2.SearchMoviesRequest(query=query, page_size=3))
    return [movie.title for movie in answer.movies]


async def refusal(rig: Rig, request: catalog_pb2.SearchMoviesRequest) -> InvalidRequest:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await rig.catalog.SearchMovies(request)
    error = error_of(failure.value)
    assert type(error) is InvalidRequest
    return error


FOUND = ["The Sparrow and the Harbor 4"]
BOTH = ["The Harbor and the Sparrow 28", *FOUND]

ANSWERED = [
    # Syntax of FTS5 is punctuation, or words as others.
    ('"', []),
    ('""', []),
    ('"sparrow and the harbor"', BOTH),
    ('"sparrow and the harbor', BOTH),
    ("*", []),
    ("sparrow* and the harbor*", BOTH),
    ("*sparrow and the harbor", BOTH),
    ("NEAR(", []),
    ("NEAR(sparrow harbor)", []),
    ("NEAR(sparrow harbor, 5)", []),
    ("sparrow AND harbor", BOTH),
    ("sparrow OR harbor", []),
    ("sparrow NOT harbor", []),
    ("-sparrow and the harbor", BOTH),
    ("sparrow -harbor", BOTH),
    ("sparrow + harbor", BOTH),
    ("^sparrow harbor", BOTH),
    ("words : sparrow", []),
    ("{words names} : sparrow", []),
    ("sparrow:harbor", []),
    ("(sparrow harbor)", BOTH),
    ("(sparrow harbor", BOTH),
    ("'sparrow' harbor", BOTH),
    ("'; DROP TABLE movie; --", []),
    # Nothing to look for.
    ("", []),
    (" ", []),
    (" \t\r\n\u00a0\u3000", []),
    ("!?.,;:-_()[]{}<>", []),
    ("\0", []),
    ("\0\0 \0", []),
    ("🎬", []),
    ("👩‍👩‍👧", []),
    ("\u0301", []),
    ("\u200b\u200d\ufeff", []),
    ("&", []),
    # What says nothing beside what does.
    ("sparrow\0harbor", []),
    ("🎬 sparrow harbor 🎬", BOTH),
    ("spa\u0301rrow ha\u0308rbor", BOTH),
    ("sparrów hàrbör", BOTH),
    ("SPARROW HARBOR", BOTH),
    ("ｓｐａｒｒｏｗ harbor", BOTH),
    ("  sparrow \n harbor  ", BOTH),
    ("the sparrow and the harbor 4", FOUND),
    ("a sparrow and the harbor", BOTH),
    ("Sparrow and the Harbor 4, The", FOUND),
    ("the sparow and the harbor", FOUND),
]


@pytest.mark.parametrize(("query", "expected"), ANSWERED)
async def test_odd_queries_have_defined_answers(rig: Rig, query: str, expected: list[str]) -> None:
    assert sorted(await titles(rig, query)) == expected


@pytest.mark.parametrize(
    "query", ["x" * 10_240, "é" * 513, "the " * 2560, '"' * 10_240, "\0" * 1025, "🎬" * 257, "(" * 100_000]
)
async def test_a_query_of_more_than_1024_bytes_is_refused(rig: Rig, query: str) -> None:
    error = await refusal(rig, catalog_pb2.SearchMoviesRequest(query=query))
    assert (error.field, error.message) == ("query", "query is longer than 1024 bytes; send its beginning")


@pytest.mark.parametrize("query", ["x" * 1024, "é" * 512, "a-" * 512, "(a" * 512, "1999 " * 204, "ﷺ" * 341, '"' * 1024])
async def test_a_query_of_1024_bytes_is_answered(rig: Rig, query: str) -> None:
    assert await titles(rig, query) == []


SYNTAX = st.lists(
    st.sampled_from(
        [
            '"',
            "'",
            "*",
            "^",
            "-",
            "+",
            ":",
            "(",
            ")",
            "{",
            "}",
            ",",
            "NEAR(",
            "AND",
            "OR",
            "NOT",
            "NEAR",
            " ",
            "\0",
            "sparrow",
            "harbor",
            "the",
            "names",
            "year",
            "1999",
            "19",
            "ﬁ",
            "ß",
            "½",
            "İ",
            "\u0345",
            "क्ष",
            "\u0300",
        ]
    ),
    max_size=40,
).map("".join)
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)


@on_the_wire
@given(query=SYNTAX | TEXT)
async def test_any_text_is_answered_the_same_twice(rig: Rig, query: str) -> None:
    request = catalog_pb2.SearchMoviesRequest(query=query, page_size=5, request_id="r")
    first, second = [await rig.catalog.SearchMovies(request) for _ in range(2)]
    assert first == second
    assert len({movie.movie_id for movie in first.movies}) == len(first.movies) <= 5


@on_the_wire
@given(query=st.sampled_from(["the", "sparrow", "sparow", "19"]), size=st.integers(-(2**31), 2**31 - 1), token=TEXT)
async def test_any_page_is_answered_or_refused_by_its_field(rig: Rig, query: str, size: int, token: str) -> None:
    request = catalog_pb2.SearchMoviesRequest(query=query, page_size=size, page_token=token)
    if 0 <= size <= 100 and not token:
        await rig.catalog.SearchMovies(request)
    else:
        error = await refusal(rig, request)
        assert error.field == ("page_token" if 0 <= size <= 100 else "page_size")
