"""The pooled user tower. B people, L history length (newest event first), D dimension, H pooling heads, M = H x D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone uses
from torch import Tensor, nn

from marquee.features import AGE_EDGES_S, DISLIKED, GAP_EDGES_S, KINDS, LIKED, NOT_INTERESTED

if TYPE_CHECKING:
    from training.model import TowerConfig

# Events after which a stated like, and a stated dislike, pull half as strongly: the newest like leads, dislikes last.
SAID_HALF_LIVES = (1.0, 50.0)
# At the start, heads count e^3 times as much in their own case, and e^-3 times in the other.
_FIRST_GATE = 3.0
# An age in these buckets is below a day: the person is still here.
_SOON = sum(edge <= 86400.0 for edge in AGE_EDGES_S)
# Buckets of log2 of the number of events.
_COUNT_BUCKETS = 15


class BucketTable(nn.Module):
    """Is an embedding of K buckets, read by matrix product: its gradient costs half of nn.Embedding's."""

    one_hot_KK: Tensor

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, width))
        self.register_buffer("one_hot_KK", torch.eye(buckets), persistent=False)

    def forward(self, buckets: Tensor) -> Tensor:
        """Returns the rows of bucket numbers, of the numbers' shape plus one axis."""
        if not self.training:
            return F.embedding(buckets, self.weight)
        # F.one_hot would write the same anew, and as int64.
        return F.embedding(buckets, self.one_hot_KK) @ self.weight


class Said(nn.Module):
    """Lets what people say (likes and dislikes, not ratings) pull the query, towards and away.

    Rating data holds no such events to learn from, and whoever says so expects to see it. Training goes without the
    pull, or it would learn to undo it.
    """

    fading_L2: Tensor
    pull_2: Tensor
    said_K2: Tensor

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        ranks_L1 = torch.arange(config.longest_history, dtype=torch.float32)[:, None]
        self.register_buffer("pull_2", torch.tensor([config.like_pull, -config.dislike_pull]), persistent=False)
        self.register_buffer("said_K2", kinds_among([LIKED], [DISLIKED, NOT_INTERESTED]), persistent=False)
        self.register_buffer("fading_L2", 0.5 ** (ranks_L1 / torch.tensor(SAID_HALF_LIVES)), persistent=False)

    def weights(self, kinds_BL: Tensor) -> Tensor:
        """Weighs events by what they say, [B, L, 2]: liked, and disliked."""
        return self.fading_L2[: kinds_BL.shape[1]] * F.embedding(kinds_BL, self.said_K2)

    def pull(self, user_BD: Tensor, weights_BL2: Tensor, said_B2D: Tensor) -> Tensor:
        """Moves queries by the rows of what was said, `said_B2D`, summed under `weights`."""
        pull_B2 = self.pull_2 * weights_BL2.sum(dim=1).clamp(max=1.0)
        return unit(user_BD + (pull_B2[:, None] @ unit(said_B2D))[:, 0])


def kinds_among(*columns: Sequence[int]) -> Tensor:
    """Makes a table of kinds, [KINDS, columns]: 1 where a kind is among a column's.

    Read by kind, it is one node of the exported graph where comparisons are several, and each costs the served tower
    about half a microsecond.
    """
    return torch.tensor([[float(kind in column) for column in columns] for kind in range(KINDS)])


def unit(rows: Tensor) -> Tensor:
    """Normalises rows to length 1, as F.normalize does, without its Expand in the exported graph."""
    lengths: Tensor = rows.norm(dim=-1, keepdim=True)
    return rows / lengths.clamp_min(1e-12)


def nobody(dimension: int) -> nn.Parameter:
    """Makes the query of somebody without events, a unit vector: fitted once the item vectors are final."""
    return nn.Parameter(torch.full((dimension,), dimension**-0.5), requires_grad=False)


class PooledUserTower(nn.Module):
    """Pools a history with learned recency and rating weights, then refines the pool by an MLP.

    Each head starts with its own half-life in events; an infinite one weighs all events alike. How much each head
    counts depends on how many events there are and on how long ago the newest was: right after an event the newest few
    tell most, years later all of them do.
    """

    padding_K1: Tensor
    liked_K1: Tensor
    count_buckets: Tensor
    log_counts: Tensor

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        heads, dimension = len(config.half_lives), config.dimension
        ranks = torch.arange(config.longest_history, dtype=torch.float32)
        self.rank_logits_HL = nn.Parameter(-math.log(2.0) * ranks[None] / torch.tensor(config.half_lives)[:, None])
        self.age_logits = BucketTable(len(AGE_EDGES_S) + 2, heads)
        self.gap_logits = BucketTable(len(GAP_EDGES_S) + 3, heads)
        self.kind_gain = BucketTable(KINDS, heads)
        self.rating_gain = nn.Linear(1, heads)
        self.count_gate = BucketTable(_COUNT_BUCKETS, heads)
        self.age_gate = BucketTable(len(AGE_EDGES_S) + 2, heads)
        self.mix = nn.Linear(heads * dimension, dimension, bias=False)
        last = nn.Linear(config.hidden, dimension)
        self.refine = nn.Sequential(nn.Linear(heads * dimension + 1, config.hidden), nn.GELU(), last)
        self.said = Said(config)
        self.nobody_D = nobody(dimension)
        real = set(range(1, KINDS))
        self.register_buffer("padding_K1", -1e4 * kinds_among([0]), persistent=False)
        self.register_buffer("liked_K1", kinds_among(sorted(real - {DISLIKED, NOT_INTERESTED})), persistent=False)
        counts = torch.arange(config.longest_history + 1)
        self.register_buffer("count_buckets", _count_buckets(counts), persistent=False)
        self.register_buffer("log_counts", torch.log1p(counts.float())[:, None], persistent=False)
        nn.init.zeros_(self.rating_gain.weight)
        nn.init.ones_(self.rating_gain.bias)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(dimension).repeat(1, heads) / heads)
            last.weight.mul_(0.3)
            self.age_gate.weight.copy_(_first_gates(config.half_lives))

    @torch.no_grad()
    def start_at(self, mix_RR: Tensor) -> None:
        """Makes the query a pool times `mix_RR`; where that is nothing, it leans to movies of long rows."""
        rank, last = len(mix_RR), self.refine[-1]
        assert isinstance(last, nn.Linear)
        dimension = last.out_features
        mix_DD = torch.zeros(dimension, dimension)
        mix_DD[:rank, :rank] = mix_RR.T / mix_RR.abs().max().clamp(min=1e-12)
        self.mix.weight.copy_(mix_DD.repeat(1, self.mix.in_features // dimension))
        last.weight.zero_()
        last.bias.zero_()
        # So little that it counts only where nothing is known of a history's movies.
        last.bias[-1] = -1e-3

    def forward(
        self, rows_BLD: Tensor, ratings_BL: Tensor, ages_BL: Tensor, gaps_BL: Tensor, kinds_BL: Tensor
    ) -> Tensor:
        """Returns L2-normalised query vectors [B, D]; padding is kind 0."""
        ranks_LH = self.rank_logits_HL.T[: rows_BLD.shape[1]]
        logits_BLH = ranks_LH + self.age_logits(ages_BL) + self.gap_logits(gaps_BL)
        weights_BLH = torch.softmax(logits_BLH + F.embedding(kinds_BL, self.padding_K1), dim=1)
        gains_BLH = self.rating_gain(ratings_BL[..., None]) + self.kind_gain(kinds_BL)
        liked_BLH = weights_BLH * gains_BLH * F.embedding(kinds_BL, self.liked_K1)
        said_BL2 = self.said.weights(kinds_BL)
        # One product for all heads and what was said, which training does without.
        summed_BLH = liked_BLH if self.training else torch.cat([liked_BLH, said_BL2], dim=2)
        pooled_BHD = summed_BLH.transpose(1, 2) @ rows_BLD
        count_B = kinds_BL.clamp(max=1).sum(dim=1)
        heads_BHD = pooled_BHD[:, : len(self.rank_logits_HL)]
        pools_BM = (heads_BHD * self._gates(count_B, ages_BL[:, 0])[..., None]).flatten(1)
        counted_BM = torch.cat([pools_BM, F.embedding(count_B, self.log_counts)], dim=1)
        user_BD = unit(self.mix(pools_BM) + self.refine(counted_BM))
        if self.training:
            return user_BD
        user_BD = torch.where(count_B[:, None] > 0, user_BD, self.nobody_D)
        return self.said.pull(user_BD, said_BL2, pooled_BHD[:, -2:])

    def _gates(self, count_B: Tensor, newest_age_B: Tensor) -> Tensor:
        return torch.exp(self.count_gate(self.count_buckets[count_B]) + self.age_gate(newest_age_B))


def _count_buckets(counts: Tensor) -> Tensor:
    return torch.log2(counts.clamp(min=1).float()).ceil().to(torch.int64).clamp(max=_COUNT_BUCKETS - 1)


def _first_gates(half_lives: tuple[float, ...]) -> Tensor:
    """Lets heads of all events lead where the newest is old, and the others where it is not; [ages, H]."""
    every_H = torch.tensor([1.0 if math.isinf(half_life) else -1.0 for half_life in half_lives])
    late_A = torch.tensor([1.0 if bucket > _SOON else -1.0 for bucket in range(len(AGE_EDGES_S) + 2)])
    return _FIRST_GATE * late_A[:, None] * every_H
