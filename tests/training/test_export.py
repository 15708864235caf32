"""What is exported computes what was trained: ONNX against PyTorch, FAISS against NumPy, and a revision."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from marquee.bundle import format
from marquee.bundle.catalog import Catalog
from marquee.bundle.format import Bundle
from marquee.bundle.gate import check_gate
from marquee.bundle.registry import Registry
from marquee.bundle.v1.bundle_pb2 import Manifest
from marquee.engine.encoder import Encoder
from marquee.engine.index import Index
from marquee.errors import BundleError, DataError, GateRefused, RegistryError
from marquee.features import LIKED, Events
from marquee.movies import MovieRecord
from tests.bundles import make_bundle
from tests.conftest import Planted
from tests.planted import FILMS_OF_A_TASTE, taste_of
from tests.rigs import publish
from training import refresh as refreshing
from training.__main__ import main as training
from training.config import TrainConfig
from training.export import export_towers, random_input
from training.model import TOWERS, TowerConfig, TwoTower
from training.refresh import refresh
from training.train import Trained, spec_of

NOW = 1_600_000_000_000


@pytest.fixture(scope="module", params=TOWERS)
def towers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """Exports towers with random weights everywhere, so that no part is hidden by a zero."""
    torch.manual_seed(5)
    config = TowerConfig(kind=request.param, dimension=16, max_history=20)
    model = TwoTower(config, torch.ones(300)).eval()
    for weights in model.parameters():
        weights.data += 0.2 * torch.randn_like(weights)
    trained = Trained(model, TrainConfig(), spec_of(config), np.ones((300, 24), np.int64), [], 0)
    folder = tmp_path_factory.mktemp("towers")
    export_towers(trained, folder)
    return trained, folder


@pytest.mark.parametrize(("people", "length"), [(1, 1), (1, 20), (2, 3), (7, 5), (64, 20), (257, 2)])
def test_onnx_runtime_gives_pytorchs_vectors(towers: tuple[Trained, Path], people: int, length: int) -> None:
    import onnxruntime

    trained, folder = towers
    session = onnxruntime.InferenceSession(str(folder / format.USER_TOWER))
    inputs = random_input(np.random.default_rng(people), people, length, 300, trained.spec)
    rows = trained.model.ids.weight.detach()[torch.from_numpy(inputs.rows)]
    with torch.no_grad():
        expected = trained.model.user_tower(rows, *(torch.from_numpy(column) for column in inputs[1:])).numpy()
    feeds = {"rows": rows.numpy()} | {name: getattr(inputs, name) for name in ("ratings", "ages", "gaps", "kinds")}
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, atol=2e-6)


def test_without_each_event_is_the_vector_of_the_history_without_it(towers: tuple[Trained, Path]) -> None:
    trained, folder = towers
    ids, rng = np.arange(1, 301), np.random.default_rng(3)
    for name in (format.HISTORY_IDS, format.MOVIE_IDS):
        np.save(folder / name, ids)
    for name in (format.HISTORY_TABLE, format.ITEM_VECTORS):
        np.save(folder / name, trained.model.ids.weight.detach().numpy())
    encoder = Encoder(Bundle(folder, "", Manifest(features=trained.spec)))
    for length in (1, 2, 13, 20, 21, 35):
        times_ms = np.sort(NOW - rng.integers(0, 10**9, length))
        whole = history(rng.choice(ids, length, replace=False))._replace(times_ms=times_ms)
        without = encoder.prepare_without_each(whole, NOW, 1000)
        vectors_KD = encoder.run(without.tower)
        assert len(vectors_KD) == min(length, 20)
        for vector, left_out in zip(vectors_KD, without.events.movie_ids, strict=True):
            expected, _ = encoder.encode(whole.take(whole.movie_ids != left_out), NOW)
            np.testing.assert_allclose(vector, expected, atol=2e-6)


@pytest.mark.parametrize("movies", [1, 2, 300])
def test_onnx_runtime_gives_pytorchs_movies(towers: tuple[Trained, Path], movies: int) -> None:
    import onnxruntime

    trained, folder = towers
    session = onnxruntime.InferenceSession(str(folder / format.ITEM_TOWER))
    rng = np.random.default_rng(movies)
    content_NT = rng.integers(0, trained.spec.content_buckets, (movies, 24)) * (rng.random((movies, 24)) < 0.5)
    rows_ND = trained.model.ids.weight.detach()[:movies]
    with torch.no_grad():
        expected = trained.model.item_tower(rows_ND, torch.from_numpy(content_NT))
    found = session.run(None, {"rows": rows_ND.numpy(), "content": content_NT})
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_allclose(theirs, ours.numpy(), atol=2e-6)


def test_the_exported_files_hold_no_path_of_this_machine(towers: tuple[Trained, Path]) -> None:
    _, folder = towers
    for name in (format.USER_TOWER, format.ITEM_TOWER):
        data = (folder / name).read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in data
        assert b".py" not in data
        onnx.checker.check_model(onnx.load_model_from_string(data))


def test_padding_does_not_change_a_vector(planted: Planted) -> None:
    encoder = Encoder(planted.bundle)
    people = [history(range(1, 1 + count)) for count in (0, 1, 4, 30)]
    together = encoder.encode_batch([encoder.prepare(events, NOW) for events in people])
    alone = np.stack([encoder.encode(events, NOW)[0] for events in people])
    np.testing.assert_allclose(together, alone, atol=2e-6)


def test_the_index_gives_numpys_order(planted: Planted) -> None:
    index = Index(planted.bundle)
    vectors = np.asarray(planted.bundle.array(format.ITEM_VECTORS))
    ids = np.asarray(planted.bundle.array(format.MOVIE_IDS))
    rng = np.random.default_rng(0)
    for _ in range(20):
        query = rng.normal(size=index.dimension).astype(np.float32)
        query /= np.linalg.norm(query)
        scores = np.round(vectors @ query, 6)
        expected = ids[np.lexsort((ids, -scores))][:20]
        found = index.search(query, 20)
        np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:20], atol=2e-6)
        assert len(set(found.movie_ids) & set(expected)) >= 19  # the last place may be a tie of rounding


def history(movie_ids: object, kind: int = LIKED) -> Events:
    ids = np.array(list(movie_ids), np.int64)  # type: ignore[call-overload]
    times = NOW - np.arange(len(ids), 0, -1, dtype=np.int64) * 60_000
    return Events(ids, np.full(len(ids), kind), np.zeros(len(ids), np.float32), times)


NEW = MovieRecord(5000, "Newcomer", 2024, ("Drama",))


@pytest.fixture(scope="module")
def revision(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Is the planted bundle with one movie more, and without the one that sorts first."""
    return refresh(planted.bundle, [NEW], [1], tmp_path_factory.mktemp("revision") / "bundle")


def test_a_revision_is_of_the_same_space_and_passes_the_gate(planted: Planted, revision: Bundle) -> None:
    assert revision.space == planted.bundle.space
    assert revision.id != planted.bundle.id
    assert revision.manifest.revision != planted.bundle.manifest.revision
    assert revision.report().carried_from == planted.bundle.id
    check_gate(revision, planted.bundle)


def test_a_revision_leaves_every_other_history_and_vector_as_it_was(planted: Planted, revision: Bundle) -> None:
    before, after = Encoder(planted.bundle), Encoder(revision)
    rng = np.random.default_rng(1)
    for count in (0, 1, 3, 20):
        events = history(rng.choice(np.arange(2, 150), count, replace=False))
        np.testing.assert_array_equal(before.encode(events, NOW)[0], after.encode(events, NOW)[0])
    ids = np.arange(2, 161, dtype=np.int64)
    np.testing.assert_array_equal(Index(planted.bundle).vectors(ids), Index(revision).vectors(ids))


def test_a_new_movie_is_found_and_counts_in_a_history_of_its_own(planted: Planted, revision: Bundle) -> None:
    encoder, index = Encoder(revision), Index(revision)
    assert index.search(index.vectors(np.array([NEW.movie_id]))[0], 1).movie_ids.tolist() == [NEW.movie_id]
    assert index.rows(np.array([1])).tolist() == []
    nothing, counted = encoder.encode(history([]), NOW)[0], encoder.encode(history([NEW.movie_id]), NOW)
    assert counted[1].used == 1
    assert not np.array_equal(counted[0], nothing)
    assert Encoder(planted.bundle).encode(history([NEW.movie_id]), NOW)[1].unknown == 1


def test_a_removed_movie_still_counts_in_histories(revision: Bundle) -> None:
    assert Encoder(revision).encode(history([1, 2]), NOW)[1].used == 2


def test_a_revision_of_a_revision_keeps_the_space_and_can_bring_a_movie_back(
    planted: Planted, revision: Bundle, tmp_path: Path
) -> None:
    first = MovieRecord(1, "Film 1", 1961, ("Comedy",))
    again = refresh(revision, [first], [NEW.movie_id], tmp_path / "bundle")
    assert again.space == planted.bundle.space
    assert len(again.array(format.HISTORY_IDS)) == len(revision.array(format.HISTORY_IDS))
    one = np.array([1])
    np.testing.assert_allclose(Index(again).vectors(one), Index(planted.bundle).vectors(one), atol=1e-6)


def test_changed_content_moves_one_vector_and_no_history_row(planted: Planted, tmp_path: Path) -> None:
    renamed = MovieRecord(10, "Another Name Altogether", 1970, ("Western", "Musical"))
    changed = refresh(planted.bundle, [renamed], [], tmp_path / "bundle")
    old, new = Index(planted.bundle), Index(changed)
    assert not np.array_equal(old.vectors(np.array([10])), new.vectors(np.array([10])))
    others = np.array([i for i in range(1, 161) if i != 10], np.int64)
    np.testing.assert_array_equal(old.vectors(others), new.vectors(others))
    np.testing.assert_array_equal(planted.bundle.array(format.HISTORY_TABLE), changed.array(format.HISTORY_TABLE))


def test_a_movie_that_is_not_there_cannot_be_removed(planted: Planted, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="movie 999999 cannot be removed"):
        refresh(planted.bundle, [], [999999], tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_the_refresh_command_publishes_and_says_so(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = publish(tmp_path / "registry", planted.bundle)
    (tmp_path / "new.csv").write_text('movieId,title,genres\n7001,"Tale, A (2020)",Drama|War\n')
    arguments = ["--registry", str(registry.root), "--movies", str(tmp_path / "new.csv"), "--remove", "3"]
    assert refreshing.main(arguments) == 0
    assert "1 added or changed, 1 removed" in capsys.readouterr().out
    active = format.open_bundle(registry.bundle_path(registry.read().active))
    assert active.space == planted.bundle.space
    ids = np.asarray(active.array(format.MOVIE_IDS)).tolist()
    assert 7001 in ids
    assert 3 not in ids


def test_a_row_that_leaves_cells_empty_keeps_what_was_known(planted: Planted, tmp_path: Path) -> None:
    full = MovieRecord(20, "Full", 1990, ("War",), "fr", "1990-02-03", 101, ("A. B.",), ("C. D.",), "imdb:tt0000020")
    known = refresh(planted.bundle, [full], [], tmp_path / "known")
    again = refresh(known, [MovieRecord(20, "Fuller", None, ("Drama",))], [], tmp_path / "again")
    with Catalog(again.file(format.CATALOG)) as catalog:
        movie = catalog.get(20)
    with Catalog(planted.bundle.file(format.CATALOG)) as catalog:
        rated = catalog.get(20)
    assert movie is not None
    assert rated is not None
    expected = full._replace(title="Fuller", genres=("Drama",))
    assert movie == expected._replace(mean_rating=rated.mean_rating, rating_count=rated.rating_count)


def test_two_refreshes_at_once_lose_neither(planted: Planted, tmp_path: Path) -> None:
    registry = publish(tmp_path / "registry", planted.bundle)
    added = [MovieRecord(8001, "One", 2020, ("Drama",)), MovieRecord(8002, "Two", 2021, ("Comedy",))]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda movie: refreshing.publish_refresh(registry, [movie], []), added))
    active = registry.open(registry.read().active)
    assert {8001, 8002} <= set(np.asarray(active.array(format.MOVIE_IDS)).tolist())


def test_a_bundle_that_was_forced_in_can_be_refreshed(tmp_path: Path) -> None:
    poor = make_bundle(tmp_path / "poor", quality=0.0)
    registry = publish(tmp_path / "registry", poor)
    with pytest.raises(GateRefused):
        check_gate(poor, None)
    revision, _ = refreshing.publish_refresh(registry, [NEW], [])
    assert registry.read().active == revision.id


@pytest.mark.parametrize("what", ["a folder of something else", "a file"])
def test_what_is_no_bundle_is_never_replaced_by_one(
    planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    place = tmp_path / "thesis"
    if what == "a file":
        place.write_text("years of work")
    else:
        place.mkdir()
        (place / "thesis.txt").write_text("years of work")
    assert training(["--data", str(planted.data), "--out", str(place)]) == 1
    assert "holds something that is not a bundle" in capsys.readouterr().err
    with pytest.raises(BundleError, match="not a bundle"):
        refresh(planted.bundle, [NEW], [], place)
    assert (place if what == "a file" else place / "thesis.txt").read_text() == "years of work"


def test_a_refresh_without_a_registry_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refreshing.main(["--registry", str(tmp_path / "none"), "--remove", "3"]) == 1
    assert "there is no registry here" in capsys.readouterr().err
    with pytest.raises(RegistryError):
        refreshing.publish_refresh(Registry(tmp_path / "none"), [], [3])


def test_the_tastes_of_the_planted_films_are_what_the_tests_think() -> None:
    assert taste_of(1) == taste_of(FILMS_OF_A_TASTE) != taste_of(FILMS_OF_A_TASTE + 1)
