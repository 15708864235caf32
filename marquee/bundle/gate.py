"""The gate between an exported bundle and the registry: what is worse than what is served is not published.

Q queries of the evaluation, N movies, D dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.bundle.catalog import Catalog
from marquee.bundle.format import CATALOG, EVALUATION, HISTORY_IDS, HISTORY_TABLE, ITEM_VECTORS, MOVIE_IDS, Bundle
from marquee.bundle.probes import PROBE_TOLERANCE, read_npz
from marquee.errors import BundleError, GateRefused
from marquee.features import Floats, HistoryIndex, content_ids

_RESAMPLES = 2000
# With fewer common queries the data are others, or there is nothing to tell: a pair or two prove no regression.
_LEAST_COMMON = 20


class Evaluation(NamedTuple):
    """Holds per-query NDCG@10 of the `last` protocol, so that two bundles can be compared in pairs.

    `queries` [Q] are hashes of (user, target): not ids, though who has both can find a match. `model` and
    `popularity` are [Q].
    """

    queries: npt.NDArray[np.uint64]
    model: Floats
    popularity: Floats


def read_evaluation(bundle: Bundle) -> Evaluation:
    """Reads the evaluation that a bundle carries."""
    arrays = read_npz(bundle.file(EVALUATION))
    missing = set(Evaluation._fields) - set(arrays)
    if missing:
        raise BundleError(f"{bundle.file(EVALUATION)}: has no {', '.join(sorted(missing))}; export the bundle again")
    return Evaluation(
        arrays["queries"].astype(np.uint64), arrays["model"].astype(np.float32), arrays["popularity"].astype(np.float32)
    )


def check_gate(candidate: Bundle, active: Bundle | None) -> None:
    """Raises GateRefused unless the candidate answers its probes, is of one piece, and is good enough.

    Good enough: mean NDCG@10 not below popularity's, and not significantly below the active bundle's on the queries
    that both were measured on (paired bootstrap, one-sided 95 %).
    """
    try:
        check_consistent(candidate)
        evaluation = read_evaluation(candidate)
    except BundleError as error:
        raise GateRefused(f"refused: {error.message}") from error
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever pieces that do not fit make an engine raise
        raise GateRefused(
            f"refused: {candidate.path}: its pieces do not fit ({type(error).__name__}: {error}); export the "
            "bundle again"
        ) from error
    _check_popularity(candidate, evaluation)
    if active is not None:
        _check_active(candidate, evaluation, active)


def check_consistent(bundle: Bundle) -> None:
    """Raises BundleError unless towers, vectors, index, catalogue and probes are of one piece."""
    from marquee.engine.encoder import Encoder
    from marquee.engine.index import Index

    Encoder(bundle).probe(bundle)
    Index(bundle).probe(bundle)
    _check_vectors(bundle)


def _check_vectors(bundle: Bundle) -> None:
    from marquee.engine.encoder import ItemTower

    movie_ids = np.asarray(bundle.array(MOVIE_IDS), np.int64)
    catalog = Catalog(bundle.file(CATALOG))
    try:
        movies = [movie for movie in catalog.get_many(movie_ids.tolist()) if movie is not None]
    finally:
        catalog.close()
    if len(movies) != len(movie_ids):
        raise BundleError(f"{bundle.file(CATALOG)}: has {len(movies)} of the index's {len(movie_ids)} movies")
    rows = HistoryIndex(np.asarray(bundle.array(HISTORY_IDS), np.int64)).rows(movie_ids)
    if np.any(rows < 0):
        raise BundleError(f"{bundle.file(HISTORY_IDS)}: has no row for movie {movie_ids[rows < 0][0]} of the index")
    table = np.asarray(bundle.array(HISTORY_TABLE), np.float32)
    expected_ND = ItemTower(bundle).embed(table[rows], content_ids(movies, bundle.features))
    actual_ND = np.asarray(bundle.array(ITEM_VECTORS), np.float32)
    off = 1.0 - np.sum(expected_ND * actual_ND, axis=1) > PROBE_TOLERANCE
    if np.any(off):
        raise BundleError(
            f"{bundle.file(ITEM_VECTORS)}: {np.count_nonzero(off)} of {len(off)} vectors are not what the item tower "
            f"makes of the movie (first: movie {movie_ids[off][0]}); export the bundle again"
        )


def _check_popularity(candidate: Bundle, evaluation: Evaluation) -> None:
    if len(evaluation.model) == 0:
        raise GateRefused(
            f"refused: {candidate.file(EVALUATION)}: has no queries; evaluate on data that has some, or publish with "
            "--force"
        )
    model, popularity = float(evaluation.model.mean()), float(evaluation.popularity.mean())
    if not model >= popularity:
        raise GateRefused(
            f"refused: bundle {candidate.id[:12]} has NDCG@10 {model:.4f} on {len(evaluation.model)} queries, below "
            f"popularity's {popularity:.4f}; train longer or on more data, or publish with --force"
        )


def _check_active(candidate: Bundle, evaluation: Evaluation, active: Bundle) -> None:
    served = read_evaluation(active)
    _, mine, theirs = np.intersect1d(evaluation.queries, served.queries, return_indices=True)
    if len(mine) < _LEAST_COMMON:
        return
    difference = evaluation.model[mine].astype(np.float64) - served.model[theirs]
    upper = _upper_bound(difference)
    if upper < 0:
        raise GateRefused(
            f"refused: bundle {candidate.id[:12]} is worse than the active {active.id[:12]}: NDCG@10 "
            f"{difference.mean():+.4f} on {len(mine)} common queries (95 % upper bound {upper:+.4f}); "
            "find out why, or publish with --force"
        )


def _upper_bound(difference_Q: npt.NDArray[np.float64]) -> float:
    """Bounds the mean difference from above, one-sided 95 %."""
    return float(np.quantile(bootstrap_means(difference_Q), 0.95))


def bootstrap_means(values_Q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the means of 2,000 resamples of queries, with a fixed seed."""
    rng = np.random.default_rng(0)
    count = len(values_Q)
    share_Q = np.full(count, 1.0 / count)
    # In parts: all draws at once would take 16 kB a query.
    parts = [rng.multinomial(count, share_Q, 50) @ values_Q for _ in range(_RESAMPLES // 50)]
    return np.concatenate(parts) / count
