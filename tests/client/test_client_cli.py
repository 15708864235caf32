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
    shared |= {"--tls", "--tls-ca", "--tls-cert", "--tls-key", "--tls-name"}
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
        assert "0 of 10 movies: no more pass the filters" in done.err


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


class TestCatalogue:
    async def test_top_takes_filters(self, cli: RunCli, services: Services) -> None:
        done = await cli("top", "-k", "2", "--stars", "3.5", "--person", "Agnès Varda", "--rated", "10")
        assert [line.split()[0] for line in done.out.splitlines()] == ["Title", "Amélie", "Toy"]
        expected = types_pb2.MovieFilter(people_any=["Agnès Varda"], rating_min=3.5, rating_count_min=10)
        assert services.fake.requests("TopMovies")[0].filter == expected

    async def test_counts(self, cli: RunCli) -> None:
        assert (await cli("genres")).out.splitlines()[1].split() == ["Comedy", "2"]
        done = await cli("facets", "--genre", "Comedy")
        assert done.out.startswith("3 movies\n\nDecade  Movies\n2000")

    async def test_options_of_a_list_reach_the_retriever(self, cli: RunCli, services: Services) -> None:
        flags = "--min-score 0.1 --quality exact --diversity 0.5 --max-per-genre 3 --max-per-director 1 --debug -k 3"
        done = await cli("recommend", "42", *flags.split())
        options = services.fake.requests("Search")[0].options
        assert (options.quality, options.diversity, options.debug) == (retriever_pb2.QUALITY_EXACT, 0.5, True)
        assert (options.max_per_genre, options.max_per_director) == (3, 1)
        assert done.err == "python -m clients.cli: 2 of 3 movies match; exact, 0 + 7 + 0 µs\n"


class TestPeople:
    @pytest.mark.parametrize(
        ("arguments", "kind", "value"),
        [
            (("like", "42", "toy"), "LIKED", 0.0),
            (("dislike", "42", "1"), "DISLIKED", 0.0),
            (("rate", "42", "1", "3.5"), "RATED", 3.5),
            (("retract", "42", "1"), "RETRACTED", 0.0),
        ],
    )
    async def test_what_they_do_is_recorded(
        self, cli: RunCli, services: Services, arguments: tuple[str, ...], kind: str, value: float
    ) -> None:
        done = await cli(*arguments)
        assert (done.code, done.out) == (0, "recorded\n")
        [event] = services.fake.requests("RecordEvents")[0].events
        assert (event.user_id, event.movie_id, EventKind(event.kind).name, event.value) == ("42", 1, kind, value)

    async def test_history(self, cli: RunCli) -> None:
        done = await cli("history", "42")
        assert done.out.splitlines()[1].split() == [
            "2023-11-14",
            "22:13",
            "rated",
            "4.5",
            "Toy",
            "Story",
            "(1995)",
            "1",
        ]

    async def test_forgetting_takes_a_yes(self, cli: RunCli, services: Services) -> None:
        done = await cli("forget", "42")
        assert (done.code, services.fake.calls) == (2, [])
        assert "forget deletes for good; say --yes" in done.err
        done = await cli("forget", "42", "--yes")
        assert done.out == ("deleted; events dated up to 2023-11-14T22:13:20+00:00 are refused from now on\n")

    async def test_explain_names_films(self, cli: RunCli, services: Services) -> None:
        done = await cli("explain", "42", "3")
        title, head, first, second = done.out.splitlines()[:4]
        assert title == "Amélie (2001): score 0.500"
        assert head.split() == ["Effect", "What", "Movie", "When"]
        assert first.split()[:3] == ["+0.2500", "rated", "4.5"]
        assert second.split()[:4] == ["-0.1250", "liked", "Toy", "Story"]

    async def test_many_people(self, start_cli: StartCli, services: Services) -> None:
        process = await start_cli("batch", "7", "-", "-k", "1", stdin=asyncio.subprocess.PIPE)
        out, _ = await process.communicate("8\nаня 🎬\n".encode())
        assert [line.split()[0] for line in out.decode().splitlines()] == ["User", "7", "8", "аня"]
        assert [item.user_id for item in services.fake.requests("BatchEncode")[0].items] == ["7", "8", "аня 🎬"]

    async def test_an_arm_asks_nobody(self, cli: RunCli, services: Services) -> None:
        assert (await cli("arm", "4", "posters")).out == "1\n"
        assert services.fake.calls == []


class TestServices:
    async def test_status(self, cli: RunCli) -> None:
        done = await cli("status")
        assert done.out.splitlines()[1].split()[:3] == ["user_encoder", "active", "aaaaaaaa"]
        assert "the retriever cannot load what is newest: bundle is cut off" in done.err

    async def test_without_the_encoder_the_most_watched_are_shown(self, cli: RunCli, nobody: str) -> None:
        done = await cli("recommend", "42", "-k", "2", "--encoder", nobody)
        assert done.out.splitlines()[1].split() == ["1", "Amélie", "2001", "–", "3"]
        assert "this is what most people watch, and the person counts for nothing in it: no user_encoder" in done.err
        told = json.loads((await cli("recommend", "42", "-k", "2", "--encoder", nobody, "--json")).out)
        assert (told["source"], told["items"][0]["score"]) == ("top_movies", None)
        assert told["away"]["reason"] == "UNAVAILABLE"

    async def test_a_key_comes_from_the_environment(self, start_cli: StartCli, services: Services) -> None:
        environment = cli_environment(MARQUEE_RETRIEVER=services.retriever, MARQUEE_API_KEY="s3cret")
        process = await start_cli("genres", env=environment)
        await process.communicate()
        assert services.fake.calls[0].metadata["authorization"] == "Bearer s3cret"

    async def test_tls_to_a_plain_port(self, cli: RunCli, services: Services) -> None:
        done = await cli("genres", "--tls")
        assert f"what answers at {services.retriever} does not speak TLS: leave tls away" in done.err

    async def test_files_of_tls_that_are_missing(self, cli: RunCli) -> None:
        done = await cli("genres", "--tls-ca", "/none.pem")
        assert done.code == 2
        assert "tls.ca /none.pem cannot be read" in done.err


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
