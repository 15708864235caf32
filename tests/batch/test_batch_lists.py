"""What the lists are: what one person's own search would find, for everybody, by either way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from clients.batch.events import read_people
from marquee.bundle.catalog import Catalog
from marquee.bundle.format import CATALOG, MOVIE_IDS
from marquee.engine.encoder import Encoder
from marquee.engine.index import Index
from marquee.features import MAX_EVENTS, RATED, Events, merge, seen_ids, user_hash
from tests.batch.conftest import PEOPLE, Served, World
from tests.batch.rigs import AS_OF, batch, read_lists, rows_of
from tests.rigs import run_service_process

_AS_OF_MS = 1_577_836_800_000

Capsys = pytest.CaptureFixture[str]


def one_by_one(
    world: World, k: int, genre: str = "", *, exclude_seen: bool = True
) -> list[tuple[str, int, int, float]]:
    """Makes everybody's lists by the code for one person."""
    encoder, index, found = Encoder(world.bundle), Index(world.bundle), []
    with Catalog(world.bundle.file(CATALOG)) as catalog:
        fits = {movie.movie_id for movie in catalog.all() if not genre or genre in movie.genres}
    ratings = pd.read_csv(world.events / "ratings.csv", dtype={"userId": str})
    for user_id, rows in ratings.groupby("userId", sort=False):
        merged = _merged(str(user_id), rows)
        vector, _ = encoder.encode(merged, _AS_OF_MS)
        left_out = set(seen_ids(merged).tolist()) if exclude_seen else set()
        mask = np.array([movie_id in fits - left_out for movie_id in index.movie_ids.tolist()])
        hits = zip(*index.search(vector, k, mask), strict=True)
        found += [(str(user_id), rank, int(movie), float(score)) for rank, (movie, score) in enumerate(hits, 1)]
    return found


def _merged(user_id: str, rows: pd.DataFrame) -> Events:
    ids, stars, seconds = (rows[name].to_numpy() for name in ("movieId", "rating", "timestamp"))
    events = Events(ids, np.full(len(ids), RATED), stars.astype(np.float32), seconds.astype(np.int64) * 1000)
    return merge(events.take(slice(0)), events, user_hash(user_id))


def told(frame: pd.DataFrame) -> list[tuple[str, int, int]]:
    return [tuple(row) for row in rows_of(frame)]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        (["-k5"], {"k": 5}),
        (["-k7", "--genre=Comedy"], {"k": 7, "genre": "Comedy"}),
        (["-k5", "--include-seen"], {"k": 5, "exclude_seen": False}),
        # More than there are.
        (["-k100"], {"k": 100}),
    ],
)
def test_in_process_everybody_gets_what_they_would_get_alone(
    world: World, tmp_path: Path, capsys: Capsys, flags: list[str], asked: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    ended = batch(
        capsys, f"--out={out}", f"--bundle={world.bundle.path}", f"--events={world.events}", f"--as-of={AS_OF}", *flags
    )
    assert ended.code == 0, ended.said
    frame, expected = read_lists(out), one_by_one(world, **asked)
    assert frame["user_id"].nunique() == PEOPLE
    assert told(frame) == [row[:3] for row in expected]
    assert frame["score"].to_numpy() == pytest.approx(np.array([row[3] for row in expected]), abs=2e-6)


async def test_the_services_make_the_same_lists_as_this_process(served: Served, tmp_path: Path, capsys: Capsys) -> None:
    # One that would be in many lists, and one that there is not.
    left_out = 115
    (tmp_path / "left-out").write_text(f"# rights\n{left_out}\n424242\n")
    flags = (
        f"--as-of={AS_OF}",
        "-k8",
        "--year=1960-",
        "--without-genre=Horror",
        "--people-per-part=37",
        f"--exclude={tmp_path / 'left-out'}",
    )
    here = batch(
        capsys,
        f"--out={tmp_path / 'here'}",
        f"--registry={served.world.registry}",
        f"--events={served.world.events}",
        *flags,
    )
    there = await asyncio.to_thread(batch, capsys, f"--out={tmp_path / 'there'}", *served.addresses, *flags)
    assert (here.code, there.code) == (0, 0), here.said + there.said
    ours, theirs = (
        read_lists(tmp_path / way).sort_values(["user_id", "rank"], ignore_index=True) for way in ("here", "there")
    )
    assert len(ours) > PEOPLE
    assert left_out in served.world.bundle.array(MOVIE_IDS)
    assert left_out not in set(ours["movie_id"])
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=0, atol=2e-6)


async def test_a_hundred_thousand_movies_can_be_left_out(served: Served, tmp_path: Path, capsys: Capsys) -> None:
    # As long as ids get: for all people in one message they would take 80 MB.
    known, far = served.world.bundle.array(MOVIE_IDS)[:20].tolist(), 1 << 62
    ids = [*known, *range(far, far + 99_980)]
    (tmp_path / "left-out").write_text("\n".join(map(str, ids)))
    flags = (f"--out={tmp_path / 'out'}", f"--exclude={tmp_path / 'left-out'}", *served.addresses)
    ended = await asyncio.to_thread(batch, capsys, *flags)
    assert ended.code == 0, ended.said
    frame = read_lists(tmp_path / "out")
    assert frame["user_id"].nunique() == PEOPLE
    assert not set(frame["movie_id"]) & set(known)


async def test_more_than_that_are_refused_in_a_sentence(served: Served, tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "left-out").write_text("\n".join(map(str, range(1, 100_002))))
    flags = (f"--out={tmp_path / 'out'}", f"--exclude={tmp_path / 'left-out'}")
    here = (f"--registry={served.world.registry}", f"--events={served.world.events}")
    for way in (served.addresses, here):
        ended = await asyncio.to_thread(batch, capsys, *flags, *way)
        assert ended.code == 1
        assert "names 100,001 movies, and at most 100,000 can be left out" in ended.said
        assert "filter" not in ended.said


def test_an_export_of_the_store_gives_the_lists_of_the_ratings_that_were_imported(
    world: World, store: Path, tmp_path: Path, capsys: Capsys
) -> None:
    exported = tmp_path / "export"
    done = run_service_process("user_encoder", "export-events", f"--out={exported}", f"--store={store}")
    assert done.returncode == 0, done.stderr
    frames: list[pd.DataFrame] = []
    for events in (world.events, exported, exported / "events" / "part-00001.parquet"):
        out = tmp_path / f"out-{len(frames)}"
        ended = batch(capsys, f"--out={out}", f"--bundle={world.bundle.path}", f"--events={events}", f"--as-of={AS_OF}")
        assert ended.code == 0, ended.said
        frames.append(read_lists(out).sort_values(["user_id", "rank"], ignore_index=True))
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])


def test_events_in_any_order_and_retracted_ones_count_as_they_would_in_a_store(
    world: World, tmp_path: Path, capsys: Capsys
) -> None:
    first, second, third = world.bundle.array("movie_ids.npy")[:3].tolist()
    rows = [
        ("b", second, "LIKED", 0.0, 1_500_000_002_000),
        ("a", first, "LIKED", 0.0, 1_500_000_000_000),
        ("b", first, "DISLIKED", 0.0, 1_500_000_001_000),
        ("a", third, "RATED", 4.5, 1_500_000_003_000),
        # Takes back the like of two lines above: nothing is left of a, but a rating.
        ("a", first, "RETRACTED", 0.0, 1_500_000_004_000),
        # Nothing is left of c.
        ("c", first, "LIKED", 0.0, 1_500_000_000_000),
        ("c", first, "RETRACTED", 0.0, 1_500_000_000_000),
    ]
    columns = zip(*rows, strict=True)
    table = pa.table(dict(zip(("user_id", "movie_id", "kind", "value", "time_ms"), columns, strict=True)))
    parquet.write_table(table, tmp_path / "events.parquet")
    out = tmp_path / "out"
    ended = batch(
        capsys, f"--out={out}", f"--bundle={world.bundle.path}", f"--events={tmp_path / 'events.parquet'}", "-k1000"
    )
    assert ended.code == 0
    assert "1 people have no events and no list" in ended.said
    frame = read_lists(out)
    of = {user_id: set(rows["movie_id"]) for user_id, rows in frame.groupby("user_id")}
    everything = set(world.bundle.array("movie_ids.npy").tolist())
    assert of == {"a": everything - {third}, "b": everything - {first, second}}


def test_of_more_events_than_a_store_keeps_the_newest_count(tmp_path: Path) -> None:
    rows = [f"busy,{movie},4.5,{1_000_000 + movie}" for movie in range(1, MAX_EVENTS + 51)]
    # Newest first, as no store would have them.
    (tmp_path / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows[::-1]]) + "\n")
    history = read_people(tmp_path).history(0)
    assert history.movie_ids.tolist() == list(range(51, MAX_EVENTS + 51))


def test_a_file_of_users_says_who_gets_a_list(world: World, tmp_path: Path, capsys: Capsys) -> None:
    users = tmp_path / "users.txt"
    users.write_text("7\nnobody\n12\n7\n\n")
    out = tmp_path / "out"
    ended = batch(
        capsys, f"--out={out}", f"--users={users}", f"--bundle={world.bundle.path}", f"--events={world.events}", "-k3"
    )
    assert ended.code == 0
    assert "2 people, 6 rows, 1 parts; 1 people have no events and no list" in ended.said
    assert read_lists(out)["user_id"].tolist() == ["7"] * 3 + ["12"] * 3


def test_parts_and_manifest_say_what_the_lists_are_made_with(world: World, tmp_path: Path, capsys: Capsys) -> None:
    out = tmp_path / "out"
    batch(
        capsys,
        f"--out={out}",
        f"--bundle={world.bundle.path}",
        f"--events={world.events}",
        f"--as-of={AS_OF}",
        "--people-per-part=40",
    )
    schema = parquet.read_schema(out / "part-00002.parquet")
    assert schema.names == ["user_id", "rank", "movie_id", "score"]
    assert [str(kind) for kind in schema.types] == ["string", "int32", "int64", "float"]
    assert schema.metadata[b"marquee.bundle_id"].decode() == world.bundle.id
    assert schema.metadata[b"marquee.space"].decode() == world.bundle.space
    assert int(schema.metadata[b"marquee.as_of_ms"]) == _AS_OF_MS
    manifest = json.loads((out / "_manifest.json").read_text())
    assert (manifest["bundle_id"], manifest["space"]) == (world.bundle.id, world.bundle.space)
    assert [(part["name"], part["people"]) for part in manifest["parts"]] == [
        ("part-00000.parquet", 40),
        ("part-00001.parquet", 40),
        ("part-00002.parquet", 10),
    ]
