"""The gate: what is not of one piece, or worse than what is served, is not published without --force."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from marquee.bundle.format import (
    CATALOG,
    EVALUATION,
    FILES,
    HISTORY_IDS,
    HISTORY_TABLE,
    INDEX,
    ITEM_TOWER,
    ITEM_VECTORS,
    MOVIE_IDS,
    PROBES,
    USER_TOWER,
    Bundle,
    BundleWriter,
)
from marquee.bundle.gate import Evaluation, check_gate
from marquee.bundle.probes import TOP, Probes, read_probes, write_npz, write_probes
from marquee.bundle.registry import Registry
from marquee.engine.index import Index
from marquee.engine.kinds import write_index
from marquee.errors import GateRefused
from tests.bundles import make_bundle
from tests.rigs import ROOT

MOVIES = 60
Change = Callable[[Bundle], None]
Values = npt.NDArray[np.float64]
Rows = npt.NDArray[np.generic]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("good") / "bundle", movies=MOVIES, seed=1)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Is a bundle of another space, with another catalogue, and as good."""
    return make_bundle(tmp_path_factory.mktemp("other") / "bundle", movies=MOVIES + 1, seed=2)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def changed(bundle: Bundle, folder: Path, *changes: Change) -> Bundle:
    """Copies a bundle, changes files of the copy, and finishes it as an export would: every hash is right."""
    with BundleWriter(folder) as writer:
        for name in FILES:
            shutil.copyfile(bundle.file(name), writer.folder / name)
        draft = Bundle(writer.folder, "", bundle.manifest)
        for change in changes:
            change(draft)
        manifest = type(bundle.manifest)()
        manifest.CopyFrom(bundle.manifest)
        return writer.finish(manifest, bundle.report())


@contextlib.contextmanager
def unchanged(registry: Registry) -> Iterator[None]:
    pointer = registry.root / "registry.json"
    before = pointer.read_bytes() if pointer.exists() else b""
    yield
    assert (pointer.read_bytes() if pointer.exists() else b"") == before


def refusal(registry: Registry, bundle: Bundle) -> str:
    """Publishes a bundle that the gate must refuse; returns why, after publishing it by force."""
    with unchanged(registry), pytest.raises(GateRefused) as refused:
        registry.publish(bundle.path, check=check_gate)
    assert refused.value.message.startswith("refused: ")
    before = registry.read().generation if (registry.root / "registry.json").exists() else 0
    pointer = registry.publish(bundle.path, check=None)
    assert pointer.generation == before + 1
    assert pointer.role(bundle.id)
    assert pointer.history[-1].what.endswith(", without the gate")
    return refused.value.message


def command(registry: Registry, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "marquee.bundle", *arguments, f"--registry={registry.root}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_good_bundle_passes(registry: Registry, good: Bundle, other: Bundle) -> None:
    assert registry.publish(good.path, check=check_gate).standby == good.id
    registry.activate(confirm=None)
    assert registry.publish(other.path, check=check_gate).standby == other.id


def test_a_copy_with_nothing_changed_is_the_same_bundle(good: Bundle, tmp_path: Path) -> None:
    assert changed(good, tmp_path / "same").id == good.id


def with_probes(draft: Bundle, change: Callable[[Probes], Probes]) -> None:
    write_probes(draft.file(PROBES), change(read_probes(draft)))


def turn_a_vector(probes: Probes) -> Probes:
    """Turns the third probe's vector by 1 - cos = 2e-5, twice what is allowed."""
    vectors = probes.vectors.copy()
    cosine = 1 - 2e-5
    aside = np.roll(vectors[2], 1)
    aside -= (aside @ vectors[2]) * vectors[2]
    vectors[2] = cosine * vectors[2] + np.sqrt(1 - cosine**2) * aside / np.linalg.norm(aside)
    return probes._replace(vectors=vectors)


def expect_other_movies(probes: Probes) -> Probes:
    top_ids = probes.top_ids.copy()
    top_ids[4] = np.setdiff1d(3 * np.arange(MOVIES) + 1, top_ids[4])[:TOP]
    return probes._replace(top_ids=top_ids)


def forget_an_event(probes: Probes) -> Probes:
    """Leaves the vectors as they were, of histories that were longer by their last event."""
    offsets = probes.offsets - (np.arange(len(probes.offsets)) > 3)
    last = int(probes.offsets[4]) - 1
    return probes._replace(
        movie_ids=np.delete(probes.movie_ids, last),
        kinds=np.delete(probes.kinds, last),
        values=np.delete(probes.values, last),
        times_ms=np.delete(probes.times_ms, last),
        offsets=offsets,
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (turn_a_vector, rf"{USER_TOWER}: probe 2 is off by 1 - cos = 2\.0\de-05"),
        (expect_other_movies, f"{INDEX}: probe 4 finds"),
        (forget_an_event, f"{USER_TOWER}: probe 3 is off by 1 - cos"),
    ],
)
def test_probes_that_are_not_answered_as_recorded_are_refused(
    registry: Registry, good: Bundle, tmp_path: Path, change: Callable[[Probes], Probes], why: str
) -> None:
    bundle = changed(good, tmp_path / "off", lambda draft: with_probes(draft, change))
    message = refusal(registry, bundle)
    assert re.search(why, message), message


def shuffle_vectors(draft: Bundle) -> None:
    """Moves a tenth of the item vectors to other movies, and builds the index from them."""
    vectors_ND = np.load(draft.file(ITEM_VECTORS))
    rows = np.random.default_rng(1).choice(len(vectors_ND), len(vectors_ND) // 10, replace=False)
    vectors_ND[rows] = vectors_ND[np.roll(rows, 1)]
    np.save(draft.file(ITEM_VECTORS), vectors_ND)
    write_index(draft.file(INDEX), vectors_ND)


def record_probes_again(draft: Bundle) -> None:
    """Records as right what the index answers now."""
    index, probes = Index(draft), read_probes(draft)
    top_ids = np.stack([index.search(vector, TOP).movie_ids for vector in probes.vectors])
    assert not np.array_equal(top_ids, probes.top_ids)
    write_probes(draft.file(PROBES), probes._replace(top_ids=top_ids))


def test_shuffled_item_vectors_are_refused_by_the_probes(registry: Registry, good: Bundle, tmp_path: Path) -> None:
    bundle = changed(good, tmp_path / "shuffled", shuffle_vectors)
    assert bundle.space == good.space
    assert f"{INDEX}: probe " in refusal(registry, bundle)


def test_shuffled_item_vectors_are_refused_where_the_probes_were_recorded_from_them(
    registry: Registry, good: Bundle, tmp_path: Path
) -> None:
    bundle = changed(good, tmp_path / "shuffled", shuffle_vectors, record_probes_again)
    Index(bundle).probe(bundle)
    message = refusal(registry, bundle)
    assert (
        f"{ITEM_VECTORS}: {MOVIES // 10} of {MOVIES} vectors are not what the item tower makes of the movie" in message
    )


def take(draft: Bundle, other: Bundle, *names: str) -> None:
    for name in names:
        shutil.copyfile(other.file(name), draft.file(name))


@pytest.mark.parametrize(
    "names",
    [
        [USER_TOWER],
        [ITEM_TOWER],
        [USER_TOWER, ITEM_TOWER],
        [HISTORY_IDS],
        [HISTORY_TABLE],
        [HISTORY_IDS, HISTORY_TABLE],
        [MOVIE_IDS],
        [ITEM_VECTORS],
        [INDEX],
        [MOVIE_IDS, ITEM_VECTORS, INDEX],
        [MOVIE_IDS, ITEM_VECTORS, INDEX, CATALOG],
        [PROBES],
        [USER_TOWER, HISTORY_IDS, HISTORY_TABLE, PROBES],
    ],
    ids="+".join,
)
def test_pieces_of_two_bundles_are_refused_though_every_hash_is_right(
    registry: Registry, good: Bundle, other: Bundle, tmp_path: Path, names: list[str]
) -> None:
    refusal(registry, changed(good, tmp_path / "pieces", lambda draft: take(draft, other, *names)))


@pytest.mark.parametrize("name", sorted(FILES - {HISTORY_IDS, HISTORY_TABLE}))
@pytest.mark.parametrize(
    "content", [b"", b"not what it should be", b"PK\3\4 no zip file"], ids=["empty", "text", "zip"]
)
def test_a_file_that_cannot_be_read_is_refused_though_its_hash_is_right(
    registry: Registry, good: Bundle, tmp_path: Path, name: str, content: bytes
) -> None:
    bundle = changed(good, tmp_path / "broken", lambda draft: _overwrite(draft.file(name), content))
    assert name in refusal(registry, bundle)


def _overwrite(file: Path, content: bytes) -> None:
    file.write_bytes(content)


@pytest.mark.parametrize("name", [HISTORY_IDS, HISTORY_TABLE, MOVIE_IDS, ITEM_VECTORS])
@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[:-1],
        lambda rows: rows[:0],
        lambda rows: np.concatenate((rows, 7 * rows[:1])),
        lambda rows: rows[..., None],
        lambda rows: np.full(rows.shape, "text"),
    ],
    ids=["a-row-less", "no-rows", "a-row-more", "a-dimension-more", "text"],
)
def test_arrays_that_do_not_fit_each_other_are_refused(
    registry: Registry, good: Bundle, tmp_path: Path, name: str, change: Callable[[Rows], Rows]
) -> None:
    def apply(draft: Bundle) -> None:
        np.save(draft.file(name), change(np.load(draft.file(name))))

    refusal(registry, changed(good, tmp_path / "misfit", apply))


@pytest.mark.parametrize("name", [USER_TOWER, ITEM_TOWER, HISTORY_TABLE, ITEM_VECTORS, INDEX, PROBES])
def test_pieces_of_another_dimension_are_refused(registry: Registry, good: Bundle, tmp_path: Path, name: str) -> None:
    narrow = make_bundle(tmp_path / "narrow", movies=MOVIES, seed=1, dimension=8)
    refusal(registry, changed(good, tmp_path / "mixed", lambda draft: take(draft, narrow, name)))


def evaluate(draft: Bundle, model: Values, *, first: int = 1, popularity: float = 0.1) -> None:
    """Writes an evaluation: NDCG@10 of queries first, first + 1, …"""
    queries = np.arange(first, first + len(model), dtype=np.uint64)
    flat = np.full(len(model), popularity, np.float32)
    write_npz(draft.file(EVALUATION), Evaluation(queries, model.astype(np.float32), flat)._asdict())


def of(*parts: tuple[int, float]) -> Values:
    """Writes values: (30, 0.5) is thirty times 0.5."""
    return np.concatenate([np.full(count, value) for count, value in parts])


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (of((40, 0.09)), r"NDCG@10 0\.0900 on 40 queries, below popularity's 0\.1000"),
        # 1/40 * 3.96 = 0.099
        (of((39, 0.0), (1, 3.96)), r"NDCG@10 0\.0990 on 40 queries, below popularity's 0\.1000"),
        (of((39, 0.5), (1, np.nan)), r"NDCG@10 nan on 40 queries"),
        (of((0, 0.0)), "has no queries"),
    ],
    ids=["everywhere", "on-average", "not-a-number", "no-queries"],
)
def test_a_model_that_is_not_as_good_as_popularity_is_refused(
    registry: Registry, good: Bundle, tmp_path: Path, model: Values, why: str
) -> None:
    bundle = changed(good, tmp_path / "worse", partial(evaluate, model=model))
    message = refusal(registry, bundle)
    assert re.search(why, message), message


def test_a_model_as_good_as_popularity_passes(registry: Registry, good: Bundle, tmp_path: Path) -> None:
    bundle = changed(good, tmp_path / "equal", partial(evaluate, model=of((40, 0.1))))
    assert registry.publish(bundle.path, check=check_gate).standby == bundle.id


class Case(NamedTuple):
    """Is a candidate's evaluation: NDCG@10 of the queries from `first` on. The active bundle has 0.5 on 1 to 40."""

    model: Values
    first: int = 1


WORSE = {
    # Mean -0.01 in every resample.
    "a-little-everywhere": Case(of((40, 0.49))),
    # Mean 1/40 * (30 * -0.1 + 10 * 0.1) = -0.05, standard error sqrt(0.0075 / 40) = 0.0137: bound -0.027.
    "mostly": Case(of((30, 0.4), (10, 0.6))),
    # On the 20 queries in common 0.1 worse, though the mean of all its own is 0.7.
    "where-both-were-measured": Case(of((20, 0.4), (20, 1.0)), first=21),
}
NOT_WORSE = {
    "equal": Case(of((40, 0.5))),
    "better": Case(of((40, 0.6))),
    # Mean 1/40 * (20 * -0.3 + 20 * 0.28) = -0.01, standard error 0.29 / sqrt(40) = 0.046: bound +0.066.
    "within-noise": Case(of((20, 0.2), (20, 0.78))),
    # Mean -0.0125, but (39/40)^40 = 36 % of the resamples do not draw the one query that it lost.
    "by-one-query": Case(of((39, 0.5), (1, 0.0))),
    # On the 20 queries in common 0.1 better, though the mean of all its own is 0.35.
    "where-both-were-measured": Case(of((20, 0.6), (20, 0.1)), first=21),
    "nothing-in-common": Case(of((40, 0.2)), first=41),
}


@pytest.fixture
def served(registry: Registry, good: Bundle, tmp_path: Path) -> Bundle:
    """Makes a bundle active that has 0.5 on each of 40 queries."""
    bundle = changed(good, tmp_path / "served", partial(evaluate, model=of((40, 0.5))))
    registry.publish(bundle.path, check=check_gate)
    registry.activate(confirm=None)
    return bundle


@pytest.mark.parametrize("case", WORSE.values(), ids=WORSE)
@pytest.mark.parametrize("space", ["the-same-space", "a-new-space"])
def test_a_bundle_significantly_worse_than_the_active_one_is_refused(
    registry: Registry, served: Bundle, other: Bundle, tmp_path: Path, space: str, case: Case
) -> None:
    source = served if space == "the-same-space" else other
    bundle = changed(source, tmp_path / "worse", partial(evaluate, model=case.model, first=case.first))
    message = refusal(registry, bundle)
    assert f"bundle {bundle.id[:12]} is worse than the active {served.id[:12]}: NDCG@10 -0." in message
    assert f"on {41 - case.first} common queries" in message


@pytest.mark.parametrize("case", NOT_WORSE.values(), ids=NOT_WORSE)
def test_a_bundle_not_significantly_worse_than_the_active_one_passes(
    registry: Registry, served: Bundle, other: Bundle, tmp_path: Path, case: Case
) -> None:
    bundle = changed(other, tmp_path / "candidate", partial(evaluate, model=case.model, first=case.first))
    pointer = registry.publish(bundle.path, check=check_gate)
    assert (pointer.active, pointer.standby) == (served.id, bundle.id)


def test_the_standby_is_no_yardstick(registry: Registry, served: Bundle, other: Bundle, tmp_path: Path) -> None:
    better = changed(other, tmp_path / "better", partial(evaluate, model=of((40, 0.9))))
    equal = changed(other, tmp_path / "equal", partial(evaluate, model=of((40, 0.5))))
    for bundle in (better, equal):
        assert registry.publish(bundle.path, check=check_gate) == registry.read()
        assert registry.read()[1:3] == (served.id, bundle.id)


def test_the_command_line_refuses_in_a_sentence_and_obeys_force(
    registry: Registry, served: Bundle, tmp_path: Path
) -> None:
    shuffled = changed(served, tmp_path / "shuffled", shuffle_vectors, record_probes_again)
    worse = changed(served, tmp_path / "worse", partial(evaluate, model=of((40, 0.4))))
    for bundle, why in ((shuffled, "vectors are not what the item tower makes"), (worse, "is worse than the active")):
        with unchanged(registry):
            refused = command(registry, "publish", str(bundle.path))
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert refused.stderr.startswith("refused: ")
        assert why in refused.stderr
    forced = command(registry, "publish", str(worse.path), "--force")
    assert (forced.returncode, forced.stderr) == (0, "")
    assert "publishing without the gate (--force)" in forced.stdout
    assert registry.read().active == worse.id


def test_the_command_line_publishes_what_passes(registry: Registry, served: Bundle, other: Bundle) -> None:
    done = command(registry, "publish", str(other.path))
    assert (done.returncode, done.stderr) == (0, "")
    assert registry.read()[1:3] == (served.id, other.id)
