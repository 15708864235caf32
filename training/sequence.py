"""The sequence user tower, a causal transformer over the shared table.

B people, L history length (newest event first), D dimension, H attention heads, E = D / H.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone uses
from torch import Tensor, nn

from marquee.features import AGE_EDGES_S, GAP_EDGES_S, KINDS
from training.pooled import BucketTable, Said, nobody

if TYPE_CHECKING:
    from training.model import TowerConfig

_DISTANCE_BUCKETS = 24


class Block(nn.Module):
    """Is a pre-norm transformer block whose attention is biased by the distance between events."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dimension = config.dimension
        self.heads, self.dropout = config.heads, config.dropout
        self.before_attention, self.before_mlp = nn.LayerNorm(dimension), nn.LayerNorm(dimension)
        self.qkv = nn.Linear(dimension, 3 * dimension)
        self.out = nn.Linear(dimension, dimension)
        self.distance = BucketTable(_DISTANCE_BUCKETS, config.heads)
        self.mlp = nn.Sequential(nn.Linear(dimension, 4 * dimension), nn.GELU(), nn.Linear(4 * dimension, dimension))

    def forward(self, x_BLD: Tensor, distance_LL: Tensor, masked_BLL: Tensor, newest_only: bool) -> Tensor:
        """Returns [B, L, D], or [B, 1, D] where only the newest event's is asked for."""
        read_BLD = self.before_attention(x_BLD)
        if newest_only:
            x_BLD, distance_LL, masked_BLL = x_BLD[:, :1], distance_LL[:1], masked_BLL[:, :1]
        x_BLD = x_BLD + self._drop(self._attend(read_BLD, distance_LL, masked_BLL, newest_only))
        return x_BLD + self._drop(self.mlp(self.before_mlp(x_BLD)))

    def _attend(self, read_BLD: Tensor, distance_LL: Tensor, masked_BLL: Tensor, newest_only: bool) -> Tensor:
        q, k, v = (self._split(part) for part in self.qkv(read_BLD).chunk(3, dim=2))
        if newest_only:
            q = q[:, :, :1]
        scores_BHLL = q @ k.transpose(2, 3) / math.sqrt(q.shape[3]) + self.distance(distance_LL).permute(2, 0, 1)
        weights_BHLL = torch.softmax(scores_BHLL.masked_fill(masked_BLL[:, None], -1e4), dim=3)
        out: Tensor = self.out((weights_BHLL @ v).transpose(1, 2).flatten(2))
        return out

    def _split(self, x_BLD: Tensor) -> Tensor:
        people, length, dimension = x_BLD.shape
        return x_BLD.reshape(people, length, self.heads, dimension // self.heads).transpose(1, 2)

    def _drop(self, x_BLD: Tensor) -> Tensor:
        return F.dropout(x_BLD, self.dropout, self.training)


class SequenceUserTower(nn.Module):
    """Reads a history event by event; the newest event's state, and how long ago it was, make the query.

    An event is its movie's row, its rating, kind and gap to the event before. Attention knows distances in events, not
    places, so that the state of any event is what it would be, were that event the newest: training uses them all.
    Source: Kang and McAuley, "Self-attentive sequential recommendation" (ICDM 2018).
    """

    buckets_LL: Tensor

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dimension, length = config.dimension, config.longest_history
        self.dropout = config.dropout
        self.scale = nn.Parameter(torch.tensor(math.sqrt(dimension)))
        self.rating, self.kind = nn.Linear(1, dimension, bias=False), BucketTable(KINDS, dimension)
        self.gap = BucketTable(len(GAP_EDGES_S) + 3, dimension)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(dimension)
        self.age = BucketTable(len(AGE_EDGES_S) + 2, dimension)
        self.nothing = nn.Parameter(torch.randn(dimension) * 0.05)
        self.refine = nn.Sequential(
            nn.Linear(2 * dimension, config.hidden), nn.GELU(), nn.Linear(config.hidden, dimension)
        )
        self.said = Said(config)
        self.nobody_D = nobody(dimension)
        ranks_L = torch.arange(length)
        older_LL = ranks_L[None] - ranks_L[:, None]
        self.register_buffer("buckets_LL", distance_buckets(older_LL), persistent=False)

    def states(
        self, rows_BLD: Tensor, ratings_BL: Tensor, gaps_BL: Tensor, kinds_BL: Tensor, *, newest_only: bool
    ) -> Tensor:
        """Reads histories; returns the state after each event [B, L, D], or after the newest [B, 1, D]."""
        length = rows_BLD.shape[1]
        x_BLD = rows_BLD * self.scale + self.rating(ratings_BL[..., None]) + self.kind(kinds_BL) + self.gap(gaps_BL)
        x_BLD = F.dropout(x_BLD, self.dropout, self.training)
        ranks_L = torch.arange(length, device=rows_BLD.device)
        # An event reads itself and older ones, which stand to its right; itself even where it is padding.
        newer_LL = ranks_L[None] < ranks_L[:, None]
        other_LL = ranks_L[None] != ranks_L[:, None]
        masked_BLL = newer_LL | ((kinds_BL == 0)[:, None] & other_LL)
        for number, block in enumerate(self.blocks, 1):
            last = newest_only and number == len(self.blocks)
            x_BLD = block(x_BLD, self.buckets_LL[:length, :length], masked_BLL, last)
        states_BLD: Tensor = self.norm(x_BLD)
        return states_BLD

    def query(self, states_BD: Tensor, ages_B: Tensor, real_B: Tensor) -> Tensor:
        """Turns states into L2-normalised queries at the ages of their newest events; [..., D]."""
        states_BD = torch.where(real_B[..., None], states_BD, self.nothing)
        return F.normalize(states_BD + self.refine(torch.cat([states_BD, self.age(ages_B)], dim=-1)), dim=-1)

    def forward(
        self, rows_BLD: Tensor, ratings_BL: Tensor, ages_BL: Tensor, gaps_BL: Tensor, kinds_BL: Tensor
    ) -> Tensor:
        """Returns L2-normalised query vectors [B, D]; padding is kind 0."""
        states_BD = self.states(rows_BLD, ratings_BL, gaps_BL, kinds_BL, newest_only=True)[:, 0]
        user_BD = self.query(states_BD, ages_BL[:, 0], kinds_BL[:, 0] != 0)
        if self.training:
            return user_BD
        user_BD = torch.where((kinds_BL[:, 0] != 0)[:, None], user_BD, self.nobody_D)
        said_BL2 = self.said.weights(kinds_BL)
        return self.said.pull(user_BD, said_BL2, said_BL2.transpose(1, 2) @ rows_BLD)


def distance_buckets(distances: Tensor) -> Tensor:
    """Buckets distances in events: 0 to 15 each their own, farther ones by powers of the root of 2."""
    far = 16 + (2 * torch.log2(distances.clamp(min=16).float() / 16)).floor().to(torch.int64)
    return torch.where(distances < 16, distances.clamp(min=0), far).clamp(max=_DISTANCE_BUCKETS - 1)
