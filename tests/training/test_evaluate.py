"""The evaluation of an exported bundle: the engine's lists, the index against NumPy, and the gate's record."""

from __future__ import annotations

import numpy as np
import pytest

from marquee.bundle.format import ITEM_VECTORS
from marquee.bundle.gate import read_evaluation
from marquee.engine.encoder import Encoder
from marquee.engine.index import Index, Quality
from tests.conftest import Planted
from tests.planted import FILMS_OF_A_TASTE
from training.baselines.suite import LIST_LENGTH
from training.data import Dataset, load_dataset
from training.evaluate import ann_recall, evaluate, query_vectors, ranked_lists
from training.metrics import top_k
from training.records import SLICE
from training.split import Split, splits


@pytest.fixture(scope="module")
def data(planted: Planted) -> Dataset:
    return load_dataset(planted.data)


@pytest.fixture(scope="module")
def last(planted: Planted, data: Dataset) -> Split:
    return splits(data, planted.bundle.features, "last")[0]


@pytest.mark.parametrize("protocol", ["last", "users"])
def test_lists_are_numpys_over_the_exported_vectors_whoever_asks(
    planted: Planted, data: Dataset, protocol: str
) -> None:
    queries = splits(data, planted.bundle.features, protocol)[0].test
    encoder, index = Encoder(planted.bundle), Index(planted.bundle)
    vectors = np.asarray(planted.bundle.array(ITEM_VECTORS))
    scores = np.round(query_vectors(data, queries, encoder) @ vectors.T, 6)
    expected = top_k(scores, queries.seen(len(data.movies)), LIST_LENGTH)
    found = ranked_lists(data, queries, index, query_vectors(data, queries, encoder))
    assert found.shape == (queries.size, LIST_LENGTH)
    assert np.mean(found == expected) > 0.999, "but for ties of rounding"


def test_the_gates_record_holds_the_queries_and_their_figures(planted: Planted, data: Dataset, last: Split) -> None:
    metrics, record = evaluate(data, last, Encoder(planted.bundle), Index(planted.bundle))
    stored = read_evaluation(planted.bundle)
    np.testing.assert_array_equal(record.queries, stored.queries)
    np.testing.assert_array_equal(record.model, stored.model)
    values = {(one.system, one.targets, one.name): one.value for one in metrics}
    assert values["model", "all", "ndcg@10"] == pytest.approx(record.model.mean(), abs=1e-6)
    assert values["popularity", "all", "ndcg@10"] == pytest.approx(record.popularity.mean(), abs=1e-6)
    scores = query_vectors(data, last.test, Encoder(planted.bundle)) @ np.asarray(planted.bundle.array(ITEM_VECTORS)).T
    best = np.where(last.test.seen(len(data.movies)), -1.0, scores).max(axis=1)
    assert values["model", "all", "score@1"] == pytest.approx(best.mean(), abs=1e-5)
    assert not any(SLICE in name for _, _, name in values)
    assert {system for system, _, _ in values} == {"model", "popularity", "ease", "recency_ease", "index"}


def test_an_exact_index_finds_all_that_numpy_finds(planted: Planted, data: Dataset, last: Split) -> None:
    vectors = query_vectors(data, last.test, Encoder(planted.bundle))
    metric = ann_recall("last", Index(planted.bundle), vectors)
    assert (metric.system, metric.name, metric.value) == ("index", "ann_recall@100", 1.0)
    assert metric.n == last.test.size


class HalfBlind(Index):
    """Is an index that never finds the first half of the movies, as a bad approximate one might not."""

    def search(self, query_D, k, allowed_N=None, quality=Quality.BALANCED):  # type: ignore[no-untyped-def]
        return super().search(query_D, k, np.arange(self.count) >= self.count // 2)


def test_an_index_that_misses_movies_is_seen(planted: Planted, data: Dataset, last: Split) -> None:
    vectors = query_vectors(data, last.test, Encoder(planted.bundle))
    index = HalfBlind(planted.bundle)
    exact = np.argsort(-(vectors @ np.asarray(planted.bundle.array(ITEM_VECTORS)).T), axis=1)[:, :100]
    expected = np.mean(exact >= index.count // 2)
    assert ann_recall("last", index, vectors).value == pytest.approx(expected, abs=1e-3)
    assert index.count == 4 * FILMS_OF_A_TASTE
