"""The command line as a process, against real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from clients.cli.arguments import parser
from marquee import errors
from marquee.client import EventKind
from marquee.v1 import retriever_pb2, types_pb2, user_encoder_pb2
from tests.client.fakes import MOVIES, ROOT, RunCli, Services, StartCli, cli_environment, hanging

LONG = MOVIES[2].title


def test_the_flags_are_this_list() -> None:
    top = parser({})
    [commands] = [action for action in top._actions if isinstance(action.choices, dict)]
    assert isinstance(commands.choices, dict)
    shared = {"--help", "--json", "--encoder", "--retriever", "--deadline"}
    shared |= {"--tls-ca", "--tls-cert", "--tls-key", "--tls-name"}
    filters = {"--genre", "--without-genre", "--all-genre", "--year", "--language", "--person"}
    filters |= {"--stars", "--rated", "--little-known"}
    ranked = shared | filters | {"-k"}
    listed = ranked | {"--min-score", "--quality", "--diversity", "--max-per-genre", "--max-per-director"}
    flags = {
        name: {flag for action in command._actions for flag in action.option_strings} - {"-h"}
        for name, command in commands.choices.items()
    }
    assert flags == {
        "arm": shared | {"--arms"},
        "batch": listed,
        "dislike": shared,
        "doctor": shared | {"--registry"},
        "explain": shared | {"--events"},
        "facets": shared | filters,
        "forget": shared | {"--yes"},
        "genres": shared,
        "history": shared,
        "like": shared,
        "rate": shared,
        "recommend": listed | {"--like", "--dislike", "--include-seen", "--no-fallback", "--debug"},
        "retract": shared,
        "search": shared | {"-k"},
        "show": shared,
        "similar": listed | {"--unlike", "--debug"},
        "status": shared,
        "top": ranked,
        "why": ranked,
    }


@pytest.mark.parametrize(
    ("environment", "addresses"),
    [
        ({}, ("127.0.0.1:50051", "127.0.0.1:50052")),
        ({"MARQUEE_ENCODER": "a:1", "MARQUEE_RETRIEVER": ""}, ("a:1", "127.0.0.1:50052")),
    ],
)
def test_addresses_come_from_the_environment(environment: dict[str, str], addresses: tuple[str, str]) -> None:
    options = parser(environment).parse_args(["show", "1"])
    assert (options.encoder, options.retriever) == addresses


@pytest.mark.parametrize(
    ("text", "years"),
    [("1999", (1999, 1999)), ("1990-1999", (1990, 1999)), ("1990-", (1990, None)), ("-1999", (None, 1999))],
)
def test_years(text: str, years: tuple[int | None, int | None]) -> None:
    assert parser({}).parse_args(["recommend", "42", "--year", text]).year == years


class TestRecommend:
    async def test_a_table_without_colour_or_cuts(self, cli: RunCli) -> None:
        done = await cli("recommend", "42", "-k", "3")
        assert (done.code, done.err) == (0, "")
        head, *rows = done.out.splitlines()
        assert head.split() == ["#", "Title", "Year", "Genres", "Score", "Id"]
        assert rows[0].split() == ["1", "Toy", "Story", "1995", "Animation,", "Comedy", "0.900", "1"]
        # "[REC]" would be markup, and a line of 80 columns would not hold the rest.
        assert LONG in rows[1]
        assert len(rows) == 3
        assert "\x1b" not in done.out
        assert not any(line.endswith(" ") for line in rows)

    async def test_json(self, cli: RunCli) -> None:
        done = await cli("recommend", "42", "-k", "1", "--json")
        found = json.loads(done.out)
        assert found["items"][0]["rank"] == 1
        assert found["items"][0]["movie"]["release_date"] == "1995-11-22"
        assert found["items"][0]["movie"]["genres"] == ["Animation", "Comedy"]
        assert (found["source"], found["short_reason"], found["as_of"]) == (
            "store",
            "unspecified",
            "2023-11-14T22:13:20+00:00",
        )
        assert done.out.isascii()

    async def test_filters_reach_the_retriever(self, cli: RunCli, services: Services) -> None:
        filters = "--genre Comedy --genre Drama --without-genre War --year 1990-1999 --language fr --include-seen -k 2"
        await cli("recommend", "42", *filters.split())
        [search] = services.fake.requests("Search")
        assert search.filter == types_pb2.MovieFilter(
            genres_any=["Comedy", "Drama"], genres_none=["War"], year_min=1990, year_max=1999, languages=["fr"]
        )
        assert (search.k, search.exclude_packed) == (2, b"")

    async def test_titles_are_looked_up_and_the_match_is_said(self, cli: RunCli, services: Services) -> None:
        done = await cli(
            "recommend", "--like", "amel", "--like", "toy", "--dislike", "17", "--like", "imdb:tt1", "-k", "3"
        )
        assert done.code == 1
        assert "no movie matches 'amel'" in done.err
        done = await cli("recommend", "--like", "toy", "--dislike", "17", "--like", "imdb:tt1", "-k", "3")
        assert done.code == 0
        assert done.err == "python -m clients.cli: 'toy' is Toy Story (1995), id 1\n"
        events = services.fake.requests("Encode")[0].events
        kinds = [EventKind(kind).name for kind in events.kinds]
        assert list(zip(events.movie_ids, kinds, strict=True)) == [(1, "LIKED"), (1, "LIKED"), (17, "DISLIKED")]

    async def test_it_says_why_a_list_is_short_and_for_whom(self, cli: RunCli, services: Services) -> None:
        cold = user_encoder_pb2.FEATURE_SOURCE_COLD_START
        services.fake.then("Encode", user_encoder_pb2.EncodeResponse(source=cold, degraded=True))
        services.fake.then("Search", retriever_pb2.SearchResponse(short_reason=retriever_pb2.SHORT_REASON_FILTER))
        done = await cli("recommend", "nobody")
        assert done.code == 0
        assert "this is for anyone new" in done.err
        assert "the store of people's events cannot be read now" in done.err
        assert "0 of 10 movies: fewer movies pass the filters" in done.err


class TestOtherCommands:
    async def test_search(self, cli: RunCli) -> None:
        done = await cli("search", "toy", "story")
        assert done.out.splitlines()[1].split() == ["Toy", "Story", "1995", "Animation,", "Comedy", "215", "1"]
        done = await cli("search", "xyzzy")
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            "python -m clients.cli: error: no movie matches 'xyzzy'; try fewer words, or look for it with search\n"
        )
        assert json.loads((await cli("search", "xyzzy", "--json")).out) == []

    async def test_show(self, cli: RunCli) -> None:
        done = await cli("show", "1", "amélie")
        assert done.out.startswith("Toy Story (1995)\n")
        assert "runtime      81 min\n" in done.out
        assert "ratings      3.92 stars, 215 ratings\n" in done.out
        assert done.out.rstrip().endswith("Amélie (2001)\nid  3")
        [shown] = json.loads((await cli("show", "1", "--json")).out)
        assert (shown["movie_id"], shown["mean_rating"]) == (1, 3.92)

    async def test_similar(self, cli: RunCli, services: Services) -> None:
        done = await cli("similar", "toy", "9", "--unlike", "7", "-k", "2")
        [request] = services.fake.requests("SearchSimilar")
        assert (list(request.movie_ids), list(request.negative_movie_ids), request.k) == ([1, 9], [7], 2)
        assert len(done.out.splitlines()) == 3


class TestErrors:
    async def test_nobody_listening(self, cli: RunCli, nobody: str) -> None:
        done = await cli("recommend", "42", "--encoder", nobody, "--no-fallback")
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            f"python -m clients.cli: error: no user_encoder answers at {nobody} (Connection refused): is it running? "
            "Start it with python -m services.user_encoder\n"
        )

    async def test_what_a_service_says_is_passed_on(self, cli: RunCli, services: Services) -> None:
        services.fake.then("Encode", errors.InvalidRequest("user_id has a control character", field="user_id"))
        done = await cli("recommend", "4\x012")
        assert (done.code, done.err) == (1, "python -m clients.cli: error: user_id has a control character\n")

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ([], "the following arguments are required: COMMAND"),
            (["recommend"], "recommend takes a USER, --like or --dislike"),
            (["recommend", "42", "-k", "0"], "'0' is no number from 1 to 1000"),
            (["recommend", "42", "--year", "90s"], "'90s' is no year or range of years"),
            (["show", "1", "--retriever", "nowhere"], "retriever is 'nowhere', which is no address; give host:port"),
            (["show", "1", "--deadline", "0"], "deadline_s is 0.0; give a number of seconds above 0"),
        ],
    )
    async def test_wrong_arguments(self, cli: RunCli, arguments: list[str], sentence: str) -> None:
        done = await cli(*arguments)
        assert (done.code, done.out) == (2, "")
        assert sentence in done.err
        assert "Traceback" not in done.err


class TestEnds:
    async def test_ctrl_c_is_quiet(self, start_cli: StartCli, services: Services) -> None:
        hang, started = hanging()
        services.fake.then("Encode", hang)
        process = await start_cli("recommend", "42", "--deadline", "60")
        await started.wait()
        process.send_signal(signal.SIGINT)
        assert await process.communicate() == (b"", b"")
        assert process.returncode == 130

    async def test_a_reader_that_has_left_is_no_traceback(self, start_cli: StartCli) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        process = await start_cli("recommend", "42", "-k", "3", stdout=writer)
        os.close(writer)
        _, err = await process.communicate()
        assert (process.returncode, err) == (141, b"")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    async def test_a_full_disk_is_one_sentence(self, start_cli: StartCli) -> None:
        with open("/dev/full", "wb") as full:
            process = await start_cli("recommend", "42", "-k", "3", stdout=full)
        _, err = await process.communicate()
        assert process.returncode == 1
        assert err == b"python -m clients.cli: error: cannot write the answer: No space left on device\n"

    async def test_an_encoding_without_the_title_costs_one_letter(self, services: Services) -> None:
        command = [sys.executable, "-m", "clients.cli", "show", "3", "--retriever", services.retriever]
        environment = cli_environment(PYTHONIOENCODING="ascii")
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, check=True
        )
        assert done.stdout.startswith(b"Am?lie (2001)\n")
