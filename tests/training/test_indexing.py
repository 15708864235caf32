"""The export chooses an index, tunes it until it finds what was asked for, and says so; a revision keeps it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee.bundle.format import INDEX, Bundle
from marquee.bundle.v1 import bundle_pb2
from marquee.engine.index import Index, Quality
from marquee.engine.kinds import EXACT, HNSW, IVF, IVF_FP16, IVF_SQ8, KINDS, Spec, read_spec
from marquee.errors import BundleError, ConfigError
from marquee.features import Floats
from marquee.movies import MovieRecord
from tests.bundles import draft_of, make_bundle
from tests.conftest import Planted
from training import indexing
from training.__main__ import main as training
from training.indexing import IndexConfig, Sample, describe, sample_queries, write_chosen_index
from training.refresh import refresh

MOVIES = 4000


def unit(vectors: np.ndarray) -> Floats:
    found: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return found


@pytest.fixture(scope="module")
def made_up() -> Floats:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((50, 16))
    return unit(centres[rng.integers(0, 50, MOVIES)] + 0.8 * rng.standard_normal((MOVIES, 16)))


def chosen(folder: Path, vectors_ND: Floats, config: IndexConfig) -> tuple[Bundle, bundle_pb2.IndexReport]:
    draft = draft_of(folder, np.arange(1, len(vectors_ND) + 1), vectors_ND)
    return draft, write_chosen_index(draft, sample_queries(vectors_ND[:0], vectors_ND, seed=0), config)


def recall(index: Index, sample: Sample) -> float:
    """Counts by ids, over all of the sample: the vectors of these tests have no ties."""
    shares = []
    for query_D in sample.vectors_QD:
        truth = index.search(query_D, 100, quality=Quality.EXACT).movie_ids
        shares.append(np.mean(np.isin(truth, index.search(query_D, 100).movie_ids)))
    return float(np.mean(shares))


def test_a_small_catalogue_is_searched_exactly_and_says_so(planted: Planted) -> None:
    assert planted.bundle.manifest.index.kind == EXACT
    report = planted.bundle.report().index
    assert (report.kind, report.recall, report.recall_target, report.at) == (EXACT, 1.0, 0.99, 100)
    movies = planted.bundle.manifest.movies
    assert report.reason == f"every vector is compared: {movies} movies are fewer than 100,000"
    assert report.bytes == planted.bundle.file(INDEX).stat().st_size
    assert report.queries_of == "people"
    assert describe(report).startswith(f"index exact: {report.reason}; ")


@pytest.mark.parametrize("target", [0.98, 0.99])
def test_a_large_one_is_tuned_until_it_finds_the_target(
    tmp_path: Path, made_up: Floats, monkeypatch: pytest.MonkeyPatch, target: float
) -> None:
    monkeypatch.setattr(indexing, "FEWEST_APPROXIMATE", MOVIES)
    draft, report = chosen(tmp_path, made_up, IndexConfig(recall=target))
    assert draft.manifest.index.kind == report.kind == IVF_FP16
    parameters = read_spec(draft.manifest.index, draft.path).parameters
    assert parameters["nlist"] == 128  # the power of two that is nearest to 2 * sqrt(4000) = 126
    assert 13 < parameters["nprobe"] < 128
    assert report.reason.startswith("4,000 movies are 4,000 or more; with nlist = 128, nprobe = ")
    assert (report.queries, report.queries_of, report.recall_target) == (200, "movies", target)
    found = recall(Index(draft), sample_queries(made_up[:0], made_up, seed=0))
    assert found >= target
    assert report.recall == pytest.approx(found, abs=0.01)
    fewer = Spec(IVF_FP16, {"nlist": 128, "nprobe": parameters["nprobe"] // 2})
    draft.manifest.index.CopyFrom(fewer.message())
    assert recall(Index(draft), sample_queries(made_up[:0], made_up, seed=0)) < target


@pytest.mark.parametrize("kind", [IVF, IVF_FP16, IVF_SQ8, HNSW])
def test_the_same_vectors_and_seed_give_the_same_index(tmp_path: Path, made_up: Floats, kind: str) -> None:
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        draft, report = chosen(tmp_path / name, made_up, IndexConfig(kind, 0.95))
        assert report.kind == kind
        assert report.recall >= 0.94
        made.append((draft.file(INDEX).read_bytes(), draft.manifest.index.SerializeToString(deterministic=True)))
    assert made[0] == made[1]


def test_a_target_that_is_missed_is_told(tmp_path: Path) -> None:
    # In 8 bits hundreds of movies in a row are the same, and those that are rescored may be any of them.
    angle_N = np.concatenate([np.linspace(0, 0.05, 2000), np.linspace(1, 3, 2000)])
    vectors_ND = np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1).astype(np.float32)
    _, report = chosen(tmp_path, vectors_ND, IndexConfig(IVF_SQ8, 1.0))
    assert report.recall < 1.0
    assert report.reason.endswith("(target 1), which misses the target")


def test_queries_are_people_where_there_are_some() -> None:
    rng = np.random.default_rng(0)
    people_QD, vectors_ND = unit(rng.standard_normal((60, 8))), unit(rng.standard_normal((30, 8)))
    some, few = sample_queries(people_QD, vectors_ND, 1), sample_queries(people_QD[:10], vectors_ND, 1)
    assert (some.of, few.of) == ("people", "movies")
    assert sorted(some.vectors_QD.tolist()) == sorted(people_QD.tolist())
    np.testing.assert_allclose(np.linalg.norm(few.vectors_QD, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"kind": "annoy"}, "--index is 'annoy'; name one of auto, exact, ivf, "),
        ({"recall": 0.0}, "--index-recall is 0.0: name a share above 0, at most 1"),
        ({"recall": 1.01}, "--index-recall is 1.01: name a share"),
        ({"recall": float("nan")}, "--index-recall is nan: name a share"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(config: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        IndexConfig(**config)  # type: ignore[arg-type]
    assert error.value.message.startswith(why)


def test_a_recall_that_cannot_be_is_told_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert training(["--data", "nowhere", "--index-recall", "99"]) == 1
    assert "--index-recall is 99.0: name a share above 0, at most 1" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_revision_has_an_index_of_the_same_kind_and_parameters(tmp_path: Path, kind: str) -> None:
    small = {EXACT: {}, HNSW: {"m": 4, "ef_construction": 20, "ef_search": 20}}.get(kind, {"nlist": 5, "nprobe": 4})
    base = make_bundle(tmp_path / "base", movies=80, index=Spec(kind, small))
    new = MovieRecord(9001, "New", 2020, ("Drama",))
    revision = refresh(base, [new], [1], tmp_path / "revision")
    assert revision.manifest.index == base.manifest.index
    assert (revision.space, revision.manifest.movies) == (base.space, 80)
    index = Index(revision)
    index.probe(revision)
    assert index.kind == kind
    assert index.search(index.vectors(np.array([9001]))[0], 1).movie_ids.tolist() == [9001]


def test_a_revision_with_fewer_movies_than_lists_is_refused(tmp_path: Path) -> None:
    base = make_bundle(tmp_path / "base", movies=20, index=Spec(IVF, {"nlist": 20, "nprobe": 4}))
    with pytest.raises(BundleError, match="cannot spread 19 movies over nlist = 20 lists"):
        refresh(base, [], [1], tmp_path / "revision")
