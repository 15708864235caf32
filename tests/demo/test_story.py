"""The demo's story on catalogues that it was not written for, and the people whom it finds in the data."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from rich.console import Console

from clients.demo.__main__ import main
from clients.demo.data import user_ids, work_folder
from clients.demo.story import tell
from marquee.client import Recommender
from services.user_encoder.__main__ import main as user_encoder
from tests.bundles import make_bundle
from tests.rigs import ROOT, publish, service_process

HEADER = "userId,movieId,rating,timestamp\n"


def story(folder: Path, movies: int, ratings: str) -> str:
    registry = publish(folder / "registry", make_bundle(folder / "bundle", movies=movies)).root
    (folder / "ratings.csv").write_text(ratings)
    store = folder / "features.sqlite"
    assert user_encoder(["import-events", "--data", str(folder), "--store", str(store)]) == 0
    told = io.StringIO()
    with contextlib.ExitStack() as stack:
        encoder = stack.enter_context(service_process("user_encoder", folder, registry, f"--store={store}"))
        retriever = stack.enter_context(service_process("retriever", folder, registry))
        addresses = (f"127.0.0.1:{encoder.port}", f"127.0.0.1:{retriever.port}")
        marquee = stack.enter_context(Recommender(*addresses, deadline_s=10.0))
        tell(marquee, user_ids(folder), Console(file=told, width=120))
    return told.getvalue()


def test_the_story_needs_no_film_that_it_names(tmp_path: Path) -> None:
    # The first person's only row is no event, so the store does not have them.
    told = story(tmp_path, 50, HEADER + "7,1,99,5\n8,1,4.5,5\n8,4,2,6\n")
    assert "Person 8, known from the data" in told
    assert "2 events; loved" in told
    assert "After liking" in told
    assert "After disliking" in told


def test_a_catalogue_of_eight_films_is_enough(tmp_path: Path) -> None:
    told = story(tmp_path, 8, HEADER + "1,1,4,5\n")
    assert "After liking" in told
    assert "After disliking" in told


def test_steps_without_films_are_left_out_with_a_sentence(tmp_path: Path) -> None:
    told = story(tmp_path, 6, HEADER + "".join(f"1,{3 * number + 1},4,5\n" for number in range(6)))
    assert "Nothing is left to recommend" in told
    assert "No film is left to" in told


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ratings.csv", '\ufefftimestamp,"userId",movieId,rating\n1,"a,b",1,4\n2,"a,b",2,4\n3,c,1,4\n'.encode()),
        ("ratings.dat", b"a,b::1::4::1\r\na,b::2::4::2\r\nc::1::4::3\r\n"),
    ],
)
def test_people_are_read_from_the_data(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert list(user_ids(tmp_path)) == ["a,b", "c"]


def test_a_folder_without_ratings_is_refused_before_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films.csv").touch()
    assert main(["--data", str(tmp_path), "--work", str(tmp_path / "work")]) == 1
    printed, told = capfd.readouterr()
    assert f"demo: {tmp_path} holds neither ratings.csv nor ratings.dat; set DATA to a folder with" in told
    assert "Training" not in printed
    assert not (tmp_path / "work").exists()


def test_data_sets_of_one_name_share_no_folder(tmp_path: Path) -> None:
    work = Path("work")
    one, other = (work_folder(work, tmp_path / folder / "ml") for folder in "ab")
    assert one != other
    assert one.name.startswith("ml-")
    assert work_folder(work, ROOT / "data" / "sample") == work / "sample"
    assert work_folder(work, tmp_path / "sample") != work / "sample"
