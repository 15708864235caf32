"""Movies that training never saw, and people without a history: what is asked, figures by hand, planted content."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rich.console import Console

from marquee.bundle.format import Bundle
from marquee.engine.encoder import Encoder
from marquee.engine.index import Index
from marquee.features import LIKED, WATCHED, Events, Floats, Int64s, TowerInput
from marquee.movies import MovieRecord
from tests.logs import log_of
from tests.planted import FILMS_OF_A_TASTE, START, TASTES, taste_of, write_planted
from training.baselines.content import ContentConfig, ContentKnn, content_grid
from training.cold import (
    AMONG_COLD,
    COLD_IN_ALL,
    CONTENT_KNN,
    EMPTY,
    EMPTY_UNSEEN,
    MODEL,
    POPULARITY,
    TARGETS,
    ColdSplit,
    Towers,
    among_cold,
    cold_in_all,
    exported_towers,
    hidden_movies,
    hide_movies,
    main,
    measure_cold,
    measure_content_knn,
    measure_empty_history,
    trained_towers,
)
from training.config import TrainConfig
from training.data import Dataset, load_dataset
from training.export import export
from training.model import TowerConfig
from training.records import Run, merge, paired
from training.refresh import refresh
from training.split import Queries, splits
from training.train import Trained, spec_of, train

TOWER = TowerConfig(dimension=16)
SPEC = spec_of(TOWER)


def with_telling_content(folder: Path) -> Path:
    """Writes the planted data with genres that name the taste, so that content can carry a movie nobody watched."""
    write_planted(folder)
    with (folder / "movies.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("movieId", "title", "genres"))
        writer.writerows((n, f"Film {n} (1990)", taste_of(n)) for n in range(1, 4 * FILMS_OF_A_TASTE + 1))
    return folder


class Cold(NamedTuple):
    """Is planted data with hidden movies, and towers that were trained without them."""

    folder: Path
    data: Dataset
    cold: ColdSplit
    trained: Trained
    towers: Towers


@pytest.fixture(scope="module")
def planted_cold(tmp_path_factory: pytest.TempPathFactory) -> Cold:
    folder = with_telling_content(tmp_path_factory.mktemp("telling") / "data")
    data = load_dataset(folder)
    cold = hide_movies(data, splits(data, SPEC, "users")[0], hidden_movies(data), SPEC)
    config = TrainConfig(objective="next", epochs=12, id_dropout=0.3, threads=1)
    trained = train(cold.data, cold.split, TOWER, config, Console(file=io.StringIO()))
    return Cold(folder, data, cold, trained, trained_towers(trained, data, cold.data))


def test_a_twentieth_of_the_movies_with_events_is_hidden_the_same_ones_every_time(planted_cold: Cold) -> None:
    hidden = hidden_movies(planted_cold.data)
    assert len(hidden) == 8
    np.testing.assert_array_equal(hidden, planted_cold.cold.hidden)
    assert len(hidden_movies(planted_cold.data, share=0.001)) == 1


def test_what_is_trained_on_knows_nothing_of_hidden_movies(planted_cold: Cold) -> None:
    data, cold = planted_cold.data, planted_cold.cold
    gone = set(data.movie_ids[cold.hidden].tolist())
    assert len(cold.data.movies) == len(data.movies) - 8
    assert not gone & set(cold.data.movie_ids.tolist())
    whole = splits(data, SPEC, "users")[0]
    kept = ~np.isin(whole.train.items, cold.hidden)
    np.testing.assert_array_equal(cold.data.movie_ids[cold.split.train.items], data.movie_ids[whole.train.items[kept]])
    np.testing.assert_array_equal(cold.split.train.times_ms, whole.train.times_ms[kept])
    warm = ~np.isin(whole.validation.targets, cold.hidden)
    targets = data.movie_ids[whole.validation.targets[warm]]
    np.testing.assert_array_equal(cold.data.movie_ids[cold.split.validation.targets], targets)


def test_people_are_asked_for_all_their_hidden_movies_by_histories_without_any(planted_cold: Cold) -> None:
    data, cold = planted_cold.data, planted_cold.cold
    _, positions = cold.test.history_positions()
    assert len(positions)
    assert not np.isin(cold.test.log.items[positions], cold.hidden).any()
    for query, user in enumerate(cold.test.users.tolist()):
        theirs = data.items[data.users == user]
        asked = cold.test.targets[cold.test.offsets[query] : cold.test.offsets[query + 1]]
        assert sorted(asked.tolist()) == sorted(theirs[np.isin(theirs, cold.hidden)].tolist())


def test_histories_end_where_they_did_but_for_hidden_movies(planted_cold: Cold) -> None:
    cold = planted_cold.cold
    for query in range(cold.whole.size):
        read = cold.unread.events(query, planted_cold.data.movie_ids)
        whole = cold.whole.events(query, planted_cold.data.movie_ids)
        visible = ~np.isin(whole.movie_ids, planted_cold.data.movie_ids[cold.hidden])
        np.testing.assert_array_equal(read.movie_ids, whole.movie_ids[visible])


def asked(targets: list[list[int]], *histories: list[int]) -> Queries:
    """Makes a query of each history of items, all watched a second apart."""
    log = log_of(*((user, item, WATCHED) for user, items in enumerate(histories) for item in items))
    counts = [len(each) for each in targets]
    flat = np.array([item for each in targets for item in each], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    users = np.arange(len(histories))
    as_of_ms = np.full(len(histories), 10**6)
    return Queries(log, users, log.starts[1:], as_of_ms, flat, offsets, np.ones(len(flat), bool))


FILMS = [
    MovieRecord(1, "", None, ("Space", "War")),
    MovieRecord(2, "", None, ("Love",)),
    MovieRecord(3, "", None, ("Space",)),
    MovieRecord(4, "", None, ("Love", "War")),
]


def test_content_knn_is_a_mean_of_cosines() -> None:
    scorer = ContentKnn(FILMS, ContentConfig(idf=False))
    scores = scorer.scores(asked([[2], [3]], [0, 1], [1]), np.array([2, 3]))
    root = 2**-0.5
    np.testing.assert_allclose(scores, [[(root + 0) / 2, (1 / 2 + root) / 2], [0, root]], rtol=1e-6)


def test_content_knn_counts_the_nearest_only_and_weighs_by_rating() -> None:
    queries = asked([[2]], [0, 1])
    nearest = ContentKnn(FILMS, ContentConfig(idf=False, neighbours=1)).scores(queries, np.array([2, 3]))
    np.testing.assert_allclose(nearest, [[2**-0.5, 2**-0.5]], rtol=1e-6)
    rated = queries._replace(log=queries.log._replace(kinds=np.array([1, 1], np.uint8), values=np.array([5, 0.5])))
    liked = ContentKnn(FILMS, ContentConfig(idf=False, rating_power=1.0)).scores(rated, np.array([2, 3]))
    np.testing.assert_allclose(liked, [[2.25 * 2**-0.5 / 2, 2.25 * 0.5 / 2]], rtol=1e-6)


def test_content_knn_knows_nothing_without_content_or_history() -> None:
    bare = [MovieRecord(n, "", None, ()) for n in (1, 2, 3)]
    for config in content_grid():
        assert not ContentKnn(bare, config).scores(asked([[2]], [0, 1]), np.array([2])).any()
    queries = asked([[2]], [0, 1])
    empty = queries._replace(ends=queries.starts)
    assert not ContentKnn(FILMS, ContentConfig()).scores(empty, np.array([2, 3])).any()


def made_up(planted_cold: Cold, hidden: Int64s, test: Queries, whole: Queries) -> ColdSplit:
    return planted_cold.cold._replace(hidden=hidden, test=test, whole=whole, unread=whole)


def only(figures_Q: Floats) -> list[float]:
    return [round(float(figure), 6) for figure in figures_Q]


def test_recall_and_ndcg_among_hidden_movies_by_hand(planted_cold: Cold) -> None:
    hidden = np.arange(100, 112)
    queries = asked([[100], [101, 111]], [0], [1])
    cold = made_up(planted_cold, hidden, queries, queries)
    descending = -np.arange(12, dtype=np.float32)
    record = among_cold(planted_cold.data, cold, Run(MODEL, 0), np.stack([descending, descending]))
    assert only(record.mean(MODEL, "recall@10", AMONG_COLD)) == [1.0, 1 / 2]
    assert only(record.mean(MODEL, "recall@20", AMONG_COLD)) == [1.0, 1.0]
    second = (1 / np.log2(3)) / (1 / np.log2(2) + 1 / np.log2(3))
    assert only(record.mean(MODEL, "ndcg@10", AMONG_COLD)) == [1.0, round(second, 6)]


def test_the_share_of_hidden_movies_in_whole_rankings_by_hand(planted_cold: Cold) -> None:
    # Items 0 to 4 are hidden and score highest; the first person has seen 0 and 1, the second asks for no hidden movie.
    queries = asked([[2, 60, 61, 62], [70]], [0, 1], [50])
    cold = made_up(planted_cold, np.arange(5), queries, queries)
    descending = -np.arange(len(planted_cold.data.movies), dtype=np.float32)
    record = cold_in_all(
        planted_cold.data, cold, Run(MODEL, 0), lambda part: np.broadcast_to(descending, (part.size, len(descending)))
    )
    assert only(record.mean(MODEL, "share@10", COLD_IN_ALL)) == [0.3, 0.5]
    assert only(record.mean(MODEL, "share@50", COLD_IN_ALL)) == [3 / 50, 5 / 50]
    assert only(record.mean(TARGETS, "share@10", COLD_IN_ALL)) == [1 / 4, 0]
    recall = record.mean(MODEL, "recall@10", COLD_IN_ALL)
    assert recall[0] == 1.0
    assert np.isnan(recall[1])


def test_the_empty_history_and_popularity_by_hand(planted_cold: Cold) -> None:
    data, split = planted_cold.data, splits(planted_cold.data, SPEC, "last")[0]
    people_N = np.bincount(split.fit.items, minlength=len(data.movies)).astype(np.float32)
    order = np.argsort(-people_N, kind="stable").tolist()
    # The second person has seen two of the first ten, so that the twelfth moves up to the tenth place.
    queries = asked([[order[9]], [order[11]], [order[12]]], [order[20]], order[:2], order[:2])
    # A tower of one dimension whose answer is 1 ranks by the vectors alone: here the least popular first.
    towers = Towers(lambda inputs: np.ones((len(inputs.rows), 1), np.float32), -people_N[:, None], SPEC)
    record = measure_empty_history(data, split._replace(test=queries), towers, 0)
    assert only(record.mean(POPULARITY, "recall@10", EMPTY)) == [1, 0, 0]
    assert only(record.mean(POPULARITY, "recall@10", EMPTY_UNSEEN)) == [1, 1, 0]
    assert only(record.mean(MODEL, "recall@10", EMPTY)) == [0, 0, 0]
    rare = asked([[int(np.argmin(people_N))]], [order[0]])
    record = measure_empty_history(data, split._replace(test=rare), towers, 0)
    assert only(record.mean(MODEL, "recall@10", EMPTY)) == [1]


def test_content_carries_movies_that_nobody_watched(planted_cold: Cold) -> None:
    data, cold = planted_cold.data, planted_cold.cold
    knn, config = measure_content_knn(data, cold)
    assert config in content_grid()
    record = merge([measure_cold(data, cold, planted_cold.towers, 0), knn])
    # Few of the eight hidden movies are of a person's taste.
    drawn = measure_cold(data, cold, planted_cold.towers._replace(encode=drawn_vectors), 0)
    chance = np.nanmean(drawn.mean(MODEL, "ndcg@10", AMONG_COLD))
    for system in (MODEL, CONTENT_KNN):
        assert np.nanmean(record.mean(system, "ndcg@10", AMONG_COLD)) > chance + 0.2
    assert paired(record, MODEL, CONTENT_KNN, "ndcg@10", AMONG_COLD).n == cold.test.size


def drawn_vectors(inputs: TowerInput) -> Floats:
    """Answers with what has nothing to do with the history."""
    return np.random.default_rng(0).normal(size=(len(inputs.rows), TOWER.dimension)).astype(np.float32)


def refreshed(planted_cold: Cold, folder: Path) -> tuple[Bundle, Bundle]:
    base = export(planted_cold.cold.data, planted_cold.cold.split, planted_cold.trained, {}, folder / "base", "least")
    new = [planted_cold.data.movies[item] for item in planted_cold.cold.hidden]
    return base, refresh(base, new, [], folder / "revision")


def test_a_refreshed_movie_is_what_was_measured_and_found_by_a_history_of_similar_movies(
    planted_cold: Cold, tmp_path: Path
) -> None:
    base, revision = refreshed(planted_cold, tmp_path)
    assert revision.space == base.space
    encoder, index = Encoder(revision), Index(revision)
    new_ids = planted_cold.data.movie_ids[planted_cold.cold.hidden]
    expected = planted_cold.towers.vectors_ND[planted_cold.cold.hidden]
    np.testing.assert_allclose(index.vectors(new_ids), expected, atol=1e-5)
    old = exported_towers(base).vectors_ND
    np.testing.assert_allclose(index.vectors(planted_cold.cold.data.movie_ids), old, atol=1e-5)
    is_new = np.isin(index.movie_ids, new_ids)
    for taste in {taste_of(int(movie_id)) for movie_id in new_ids}:
        vector, _ = encoder.encode(liked(taste, new_ids), (START + 10**8) * 1000)
        theirs = [movie_id for movie_id in new_ids.tolist() if taste_of(movie_id) == taste]
        nearest = index.search(vector, len(theirs), is_new).movie_ids.tolist()
        assert sorted(nearest) == theirs
        assert set(theirs) & set(index.search(vector, FILMS_OF_A_TASTE + 10).movie_ids.tolist())


def liked(taste: str, but: Int64s) -> Events:
    first = 1 + TASTES.index(taste) * FILMS_OF_A_TASTE
    ids = np.setdiff1d(np.arange(first, first + FILMS_OF_A_TASTE), but)[:6].astype(np.int64)
    times = START * 1000 + np.arange(len(ids), dtype=np.int64)
    return Events(ids, np.full(len(ids), LIKED), np.zeros(len(ids), np.float32), times)


def test_the_command_prints_every_figure_with_its_interval(
    planted_cold: Cold, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--epochs", "1", "--seeds", "1", "--folds", "1", "--dimension", "8", "--threads", "1")
    assert main(["--data", str(planted_cold.folder), *quick]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data: 8 of 160 movies with events are hidden; the tower is pooled"
    for start in ("model - content_knn users cold ", "model               last  empty history", "targets "):
        assert any(line.startswith(start) and " to " in line for line in lines)


def test_a_missing_folder_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path / "nowhere")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
