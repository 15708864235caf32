"""The two towers. Letters in tensor names:

B people (or targets) in a batch, L history length, N movies, T content tokens, D dimension.

Both towers read one table: the row of a movie is its id embedding plus the embedding of its content. The item tower
turns a row into the movie's vector; a user tower (`pooled.py`, `sequence.py`) turns the rows of a person's history into
the query. Scores are cosines.
Source: Uber's two-tower practice; the shared table is their "layer sharing".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone uses
from torch import Tensor, nn

from marquee.errors import ConfigError
from training.pooled import PooledUserTower
from training.sequence import SequenceUserTower

if TYPE_CHECKING:
    from training.teacher import LowRank

TOWERS = ("pooled", "sequence")


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """Shapes the towers.

    `dimension` is the length of rows and vectors. `max_history` 0 takes what suits the kind: a pool can read all of a
    long history, attention pays for its square. `half_lives` are where the pooling heads start, in events.
    `blocks`, `heads` and `dropout` are the transformer's. `like_pull` and `dislike_pull` say how far, in lengths of the
    query, what a person has just said moves it. `shared_table` off gives the user tower a table of its own.
    """

    kind: str = "pooled"
    dimension: int = 128
    hidden: int = 128
    max_history: int = 0
    half_lives: tuple[float, ...] = (2.0, 8.0, 50.0, float("inf"))
    blocks: int = 2
    heads: int = 2
    dropout: float = 0.2
    like_pull: float = 0.8
    dislike_pull: float = 0.5
    content_buckets: int = 16384
    max_content_tokens: int = 24
    content: bool = True
    shared_table: bool = True

    def __post_init__(self) -> None:
        if self.kind not in TOWERS:
            raise ConfigError(f"tower is {self.kind!r}; it must be one of {', '.join(TOWERS)}")
        if not 2 <= self.dimension <= 128:
            raise ConfigError(f"dimension is {self.dimension}; it must be 2 to 128")
        if self.max_history < 0 or not self.half_lives or min(self.half_lives) <= 0:
            raise ConfigError("max_history must not be negative and every one of half_lives above 0")
        if self.kind == "sequence" and (self.blocks < 1 or self.heads < 1 or self.dimension % self.heads):
            raise ConfigError(
                f"blocks is {self.blocks} and heads {self.heads}: both must be at least 1, and heads divide the "
                f"dimension, {self.dimension}"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; it must be in [0, 1)")

    @property
    def longest_history(self) -> int:
        """Says how many of the newest events the user tower reads."""
        return self.max_history or {"pooled": 1000, "sequence": 200}[self.kind]


class ContentBags:
    """Holds the content tokens of N movies without their padding, and the movies of each token."""

    def __init__(self, content_NT: Tensor) -> None:
        real_NT = content_NT != 0
        count_N = real_NT.sum(dim=1)
        self.tokens = content_NT[real_NT]
        self.offsets = count_N.cumsum(0) - count_N
        self.scale_N1 = count_N.clamp(min=1).float().rsqrt()[:, None]
        self.sorted_tokens, order = torch.sort(self.tokens, stable=True)
        self.movies = torch.repeat_interleave(count_N)[order]


class BagSums(torch.autograd.Function):
    """Sums the rows of each movie's tokens, [N, D], as F.embedding_bag does.

    The gradient sums the rows of each token's movies, which are sorted once: PyTorch's own sorts in every step.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bags: ContentBags) -> Tensor:
        """Sums over tokens."""
        ctx.bags, ctx.rows = bags, len(weight)
        sums_ND: Tensor = F.embedding_bag(bags.tokens, weight, bags.offsets, mode="sum")
        return sums_ND

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Sums over movies."""
        bags, (gradient_ND,) = ctx.bags, gradients
        every = torch.arange(ctx.rows, device=gradient_ND.device)
        offsets = torch.searchsorted(bags.sorted_tokens, every)
        return F.embedding_bag(bags.movies, gradient_ND, offsets, mode="sum"), None


class ItemTower(nn.Module):
    """Turns a movie's row into its vector, and its content into the row it has before anybody watched it."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dimension = config.dimension
        self.content = nn.Embedding(config.content_buckets + 1, dimension, padding_idx=0)
        last = nn.Linear(config.hidden, dimension)
        self.refine = nn.Sequential(nn.Linear(2 * dimension, config.hidden), nn.GELU(), last)
        nn.init.normal_(self.content.weight, std=0.02)
        with torch.no_grad():
            self.content.weight[0] = 0
            # The rows alone begin as good vectors.
            last.weight.mul_(0.3)
            last.bias.zero_()
            if not config.content:
                self.content.weight.zero_()
        self.content.weight.requires_grad_(config.content)

    def content_rows(self, content_NT: Tensor) -> Tensor:
        """Embeds content tokens (0 = padding) as rows [N, D]: their sum over the root of their number."""
        count_N1 = (content_NT != 0).sum(dim=1, keepdim=True).clamp(min=1).to(self.content.weight.dtype)
        rows_ND: Tensor = self.content(content_NT).sum(dim=1) * count_N1.rsqrt()
        return rows_ND

    def bagged_content_rows(self, bags: ContentBags) -> Tensor:
        """Computes `content_rows` without touching padding, 10 times as fast; ONNX has no such operator."""
        sums_ND: Tensor = BagSums.apply(self.content.weight, bags)  # type: ignore[no-untyped-call]
        return sums_ND * bags.scale_N1

    @torch.no_grad()
    def start_bare(self) -> None:
        """Lets content say nothing at first, and adds 1 to the last entry of rows: all that unknown ones have."""
        last = self.refine[-1]
        assert isinstance(last, nn.Linear)
        for parameter in (self.content.weight, last.weight, last.bias):
            parameter.zero_()
        last.bias[-1] = 1.0

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

    def __init__(self, config: TowerConfig, trained_N: Tensor, temperature: float = 0.08) -> None:
        """Makes towers for N movies; those not marked in `trained_N` have no id half, their content carries them.

        The temperature divides cosines in training; it is a parameter, which may be held fixed.
        """
        super().__init__()
        self.config = config
        self.ids = nn.Embedding(len(trained_N), config.dimension)
        self.register_buffer("trained_N1", trained_N.float()[:, None])
        self.item_tower = ItemTower(config)
        self.user_tower: nn.Module = {"pooled": PooledUserTower, "sequence": SequenceUserTower}[config.kind](config)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.own_rows = None if config.shared_table else nn.Embedding(len(trained_N), config.dimension)
        nn.init.normal_(self.ids.weight, std=0.05)
        if self.own_rows is not None:
            nn.init.normal_(self.own_rows.weight, std=0.05)

    @torch.no_grad()
    def start_at(self, linear: LowRank) -> None:
        """Makes pooled towers that rank as a linear model of a rank below the dimension, whatever its rows' lengths.

        Movies' vectors get the length 1 from their last entry, in which no query has a part. Source: Bachrach et al.,
        "Speeding up the Xbox recommender system using a Euclidean transformation for inner-product spaces" (RecSys
        2014).
        """
        assert isinstance(self.user_tower, PooledUserTower)
        rows_MR = torch.from_numpy(linear.rows_MR)
        rows_MR = rows_MR / rows_MR.norm(dim=1).max()
        rows_ND = torch.zeros_like(self.ids.weight)
        rows_ND[linear.movies_M, : rows_MR.shape[1]] = rows_MR
        # The item tower adds 1.
        rows_ND[linear.movies_M, -1] = (1.0 - rows_MR.square().sum(dim=1)).clamp(min=0.0).sqrt() - 1.0
        self.ids.weight.copy_(rows_ND)
        if self.own_rows is not None:
            self.own_rows.weight.copy_(rows_ND)
        self.item_tower.start_bare()
        self.user_tower.start_at(torch.from_numpy(linear.mix_RR))

    @property
    def temperature(self) -> Tensor:
        """Returns what cosines are divided by."""
        return self.log_temperature.exp()

    def history_rows(self, rows_ND: Tensor) -> Tensor:
        """Selects the rows that the user tower reads: the table's, unless it has its own."""
        return rows_ND if self.own_rows is None else self.own_rows.weight

    def table(self, bags: ContentBags, keep_N1: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns rows and content rows [N, D]; where `keep_N1` is 0 the id half is dropped and content carries it."""
        content_rows_ND = self.item_tower.bagged_content_rows(bags)
        kept_N1 = self.trained_N1 if keep_N1 is None else self.trained_N1 * keep_N1
        return self.ids.weight * kept_N1 + content_rows_ND, content_rows_ND
