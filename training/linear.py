"""What the towers take from closed-form linear models: a start for the table, and a teacher. N movies, D dimension.

A linear autoencoder of low rank is a pooled two-tower whose rows are known in closed form. Started there, a pooled
tower begins near EASE instead of having to find it.
"""

from __future__ import annotations

import numpy as np
from sklearn.utils.extmath import randomized_svd

from marquee.features import Floats
from training.baselines.ease import LARGEST_SIDE, Ease
from training.baselines.interactions import watched
from training.batches import EventLog

# The spread of a started table's rows: it sets how far a step of the optimiser goes.
ROW_SCALE = 0.1


def start_rows(log: EventLog, movies: int, dimension: int, penalty: float, seed: int) -> Floats:
    """Returns rows [N, D] whose products are the ridge-regularised autoencoder of rank D.

    With X = U S V', the autoencoder is V S² / (S² + penalty) V'; a row is V's by the root of that.
    """
    rank = min(dimension, movies - 1, len(np.unique(log.users)) - 1)
    if rank < 1:
        return np.zeros((movies, dimension), np.float32)
    _, sizes, right_RN = randomized_svd(watched(log, movies), rank, n_iter=4, random_state=seed)
    rows_NR = right_RN.T * (sizes / np.sqrt(sizes**2 + penalty))
    rows_ND = np.zeros((movies, dimension), np.float32)
    rows_ND[:, :rank] = rows_NR * (ROW_SCALE / max(float(rows_NR[np.unique(log.items)].std()), 1e-12))
    return rows_ND


def teacher(log: EventLog, movies: int, penalty: float) -> Ease | None:
    """Fits EASE to learn from; None where its matrix would be too large."""
    if min(movies, len(np.unique(log.users))) > LARGEST_SIDE:
        return None
    return Ease(watched(log, movies), penalty)
