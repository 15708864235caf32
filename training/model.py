"""The two towers. Letters in tensor names:

B people (or targets) in a batch, L history length, N movies, T content tokens, D dimension, H pooling heads.

Both towers read one table: the row of a movie is its id embedding plus the embedding of its content. The item tower
turns a row into the movie's vector; the user tower pools the rows of a person's history. Scores are cosines.
Source: Uber's two-tower practice; the shared table is their "layer sharing".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone uses
from torch import Tensor, nn

from marquee.errors import ConfigError
from marquee.features import AGE_EDGES_S, DISLIKED, GAP_EDGES_S, KINDS, LIKED, NOT_INTERESTED

# Events after which a stated like, and a stated dislike, pull half as strongly: the newest like leads, dislikes last.
SAID_HALF_LIVES = (1.0, 50.0)


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """Shapes the towers.

    `dimension` is the length of rows and vectors; `half_lives` are where the pooling heads start, in events.
    `like_pull` and `dislike_pull` say how far, in lengths of the query, what a person has just said moves it.
    """

    kind: str = "pooled"
    dimension: int = 64
    hidden: int = 128
    max_history: int = 64
    half_lives: tuple[float, ...] = (2.0, 8.0, 50.0)
    like_pull: float = 0.7
    dislike_pull: float = 0.5
    content_buckets: int = 16384
    max_content_tokens: int = 24

    def __post_init__(self) -> None:
        if self.kind != "pooled":
            raise ConfigError(f"tower is {self.kind!r}; the one there is so far is 'pooled'")
        if not 2 <= self.dimension <= 128:
            raise ConfigError(f"dimension is {self.dimension}; it must be 2 to 128")
        if self.max_history < 1 or not self.half_lives or min(self.half_lives) <= 0:
            raise ConfigError("max_history must be at least 1 and every one of half_lives above 0")


class History(NamedTuple):
    """Holds the user tower's input as tensors, newest event first; all [B, L] but `rows`, which is [B, L, D]."""

    rows: Tensor
    ratings: Tensor
    ages: Tensor
    gaps: Tensor
    kinds: Tensor


class BucketTable(nn.Module):
    """Is an embedding of a few buckets, read by matrix product: its gradient costs half of nn.Embedding's."""

    def __init__(self, buckets: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, width))

    def forward(self, buckets: Tensor) -> Tensor:
        """Returns the rows of bucket numbers, of the numbers' shape plus one axis."""
        return F.one_hot(buckets, len(self.weight)).to(self.weight.dtype) @ self.weight


class ContentBags:
    """Holds the content tokens of N movies without their padding."""

    def __init__(self, content_NT: Tensor) -> None:
        real_NT = content_NT != 0
        count_N = real_NT.sum(dim=1)
        self.tokens = content_NT[real_NT]
        self.offsets = count_N.cumsum(0) - count_N
        self.scale_N1 = count_N.clamp(min=1).float().rsqrt()[:, None]


class PooledUserTower(nn.Module):
    """Pools a history with learned recency and rating weights, then refines the pool by an MLP.

    Each head starts with its own half-life in events. What people say (likes and dislikes, not ratings) pulls the query
    besides, towards and away: rating data holds no such events to learn from, and whoever says so expects to see it.
    Training goes without the pull, or it would learn to undo it.
    """

    fading_L2: Tensor
    pull_2: Tensor

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        heads, dimension = len(config.half_lives), config.dimension
        ranks = torch.arange(config.max_history, dtype=torch.float32)
        half_lives = torch.tensor(config.half_lives)
        self.rank_logits_HL = nn.Parameter(-math.log(2.0) * ranks[None] / half_lives[:, None])
        self.age_logits = BucketTable(len(AGE_EDGES_S) + 2, heads)
        self.gap_logits = BucketTable(len(GAP_EDGES_S) + 3, heads)
        self.kind_gain = BucketTable(KINDS, heads)
        self.rating_gain = nn.Linear(1, heads)
        self.mix = nn.Linear(heads * dimension, dimension, bias=False)
        self.refine = nn.Sequential(
            nn.Linear(heads * dimension + 1, config.hidden), nn.GELU(), nn.Linear(config.hidden, dimension)
        )
        self.register_buffer("pull_2", torch.tensor([config.like_pull, -config.dislike_pull]), persistent=False)
        self.register_buffer("fading_L2", 0.5 ** (ranks[:, None] / torch.tensor(SAID_HALF_LIVES)), persistent=False)
        nn.init.zeros_(self.rating_gain.weight)
        nn.init.ones_(self.rating_gain.bias)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(dimension).repeat(1, heads) / heads)

    def forward(
        self, rows_BLD: Tensor, ratings_BL: Tensor, ages_BL: Tensor, gaps_BL: Tensor, kinds_BL: Tensor
    ) -> Tensor:
        """Returns L2-normalised query vectors [B, D]; padding is kind 0."""
        length = rows_BLD.shape[1]
        real_BL = kinds_BL != 0
        disliked_BL = (kinds_BL == DISLIKED) | (kinds_BL == NOT_INTERESTED)
        logits_BLH = self.rank_logits_HL[:, :length].T[None] + self.age_logits(ages_BL) + self.gap_logits(gaps_BL)
        weights_BLH = torch.softmax(logits_BLH.masked_fill(~real_BL[..., None], -1e4), dim=1) * real_BL[..., None]
        gains_BLH = self.rating_gain(ratings_BL[..., None]) + self.kind_gain(kinds_BL)
        liked_BLH = weights_BLH * gains_BLH * ~disliked_BL[..., None]
        said_BL2 = self.fading_L2[:length] * torch.stack([kinds_BL == LIKED, disliked_BL], dim=2)
        # One product for all heads and what was said: each further use of rows_BLD would add a gradient of its size.
        pooled_BHD = torch.cat([liked_BLH, said_BL2], dim=2).transpose(1, 2) @ rows_BLD
        pools_BHD, said_B2D = pooled_BHD[:, :-2], pooled_BHD[:, -2:]
        pools_BM = pools_BHD.flatten(1)
        count_B1 = torch.log1p(real_BL.sum(dim=1, keepdim=True).to(pools_BM.dtype))
        user_BD = F.normalize(self.mix(pools_BM) + self.refine(torch.cat([pools_BM, count_B1], dim=1)), dim=-1)
        if self.training:
            return user_BD
        pull_B2 = self.pull_2 * said_BL2.sum(dim=1).clamp(max=1.0)
        return F.normalize(user_BD + (pull_B2[:, None] @ F.normalize(said_B2D, dim=-1))[:, 0], dim=-1)


class ItemTower(nn.Module):
    """Turns a movie's row into its vector, and its content into the row it has before anybody watched it."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dimension = config.dimension
        self.content = nn.Embedding(config.content_buckets + 1, dimension, padding_idx=0)
        self.refine = nn.Sequential(
            nn.Linear(2 * dimension, config.hidden), nn.GELU(), nn.Linear(config.hidden, dimension)
        )
        nn.init.normal_(self.content.weight, std=0.02)
        with torch.no_grad():
            self.content.weight[0] = 0

    def content_rows(self, content_NT: Tensor) -> Tensor:
        """Embeds content tokens (0 = padding) as rows [N, D]: their sum over the root of their number."""
        count_N1 = (content_NT != 0).sum(dim=1, keepdim=True).clamp(min=1).to(self.content.weight.dtype)
        rows_ND: Tensor = self.content(content_NT).sum(dim=1) * count_N1.rsqrt()
        return rows_ND

    def bagged_content_rows(self, bags: ContentBags) -> Tensor:
        """Computes `content_rows` without touching padding, 10 times as fast; ONNX has no such operator."""
        sums_ND: Tensor = F.embedding_bag(bags.tokens, self.content.weight, bags.offsets, mode="sum")
        return sums_ND * bags.scale_N1

    def vectors(self, rows_ND: Tensor, content_rows_ND: Tensor) -> Tensor:
        """Embeds rows and content rows as L2-normalised vectors [N, D]."""
        return F.normalize(rows_ND + self.refine(torch.cat([rows_ND, content_rows_ND], dim=1)), dim=-1)

    def forward(self, rows_ND: Tensor, content_NT: Tensor) -> tuple[Tensor, Tensor]:
        """Returns vectors and content rows, both [N, D]: what the exported item tower computes."""
        content_rows_ND = self.content_rows(content_NT)
        return self.vectors(rows_ND, content_rows_ND), content_rows_ND


class TwoTower(nn.Module):
    """Holds the shared table and both towers."""

    trained_N1: Tensor

    def __init__(self, config: TowerConfig, trained_N: Tensor) -> None:
        """Makes towers for N movies; those not marked in `trained_N` have no id half, their content carries them."""
        super().__init__()
        self.config = config
        self.ids = nn.Embedding(len(trained_N), config.dimension)
        self.register_buffer("trained_N1", trained_N.float()[:, None])
        self.item_tower = ItemTower(config)
        self.user_tower = PooledUserTower(config)
        nn.init.normal_(self.ids.weight, std=0.05)

    def table(self, bags: ContentBags, keep_N1: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns rows and content rows [N, D]; where `keep_N1` is 0 the id half is dropped and content carries it."""
        content_rows_ND = self.item_tower.bagged_content_rows(bags)
        kept_N1 = self.trained_N1 if keep_N1 is None else self.trained_N1 * keep_N1
        return self.ids.weight * kept_N1 + content_rows_ND, content_rows_ND
