"""The map of the movie space: a projection on a plane and labels that do not lie on each other.

N movies, D dimension, L labels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from sklearn.manifold import TSNE

from training.report import palette
from training.report.charts import HALO, Chart, canvas, styled
from training.report.study import Film, MovieMap

MOST, LABELS = 1500, 90
_SIZE_IN = (11.0, 8.0)
_FEWEST_FOR_TSNE = 60
_DOTS_PT = (2.6, 3.8, 5.2, 6.6, 8.2)
_FONT_PT, _GAP_PX = 8.6, 6.0
# Where a label may stand, as (horizontal, vertical) of its anchor: right of its point first.
_PLACES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))

Doubles = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


class Box(NamedTuple):
    """Is a rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Says whether two rectangles share a point inside."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top


def project(vectors_ND: npt.NDArray[np.float32], seed: int = 0) -> tuple[Doubles, str]:
    """Lays unit vectors on a plane, near ones near each other; returns [N, 2] and the method's name."""
    if len(vectors_ND) < _FEWEST_FOR_TSNE:
        return _principal(vectors_ND.astype(np.float64)), "two principal components"
    start_N2 = _principal(vectors_ND.astype(np.float64))
    start_N2 *= 1e-4 / max(float(start_N2[:, 0].std()), 1e-12)
    tsne = TSNE(perplexity=min(30, len(vectors_ND) // 4), init=start_N2.astype(np.float32), random_state=seed)
    return tsne.fit_transform(vectors_ND.astype(np.float32)).astype(np.float64), "t-SNE of the item vectors"


def _principal(vectors_ND: Doubles) -> Doubles:
    centred_ND = vectors_ND - vectors_ND.mean(axis=0)
    left_NR, scales_R, axes_RD = np.linalg.svd(centred_ND, full_matrices=False)
    # A component's sign is free: the largest part of its axis is made positive.
    signs_R = np.sign(axes_RD[np.arange(len(axes_RD)), np.argmax(np.abs(axes_RD), axis=1)])
    plane_NR = left_NR * scales_R * signs_R
    return np.pad(plane_NR[:, :2], ((0, 0), (0, max(0, 2 - plane_NR.shape[1]))))


def main_genre(film: Film) -> str:
    """Names the genre that a film is coloured by: the most telling one of its own."""
    return next((genre for genre in palette.GENRES if genre in film.genres), "other")


@styled
def draw(movie_map: MovieMap) -> Chart:
    """Draws the map: colour is the main genre, size the number of ratings; the best known films are named."""
    figure, axes = canvas(*_SIZE_IN)
    tips: dict[str, list[str]] = {}
    genres = np.array([main_genre(film) for film in movie_map.films])
    steps_N = _steps([film.ratings for film in movie_map.films])
    for genre, colour in palette.GENRES.items():
        for step, size in enumerate(_DOTS_PT):
            of_N = (genres == genre) & (steps_N == step)
            group = f"films-{genre.lower()}-{step}"
            x, y = movie_map.xy_N2[of_N].T
            axes.plot(x, y, "o", color=colour.light, alpha=0.8, markersize=size, markeredgewidth=0, gid=group)
            tips[group] = [movie_map.films[number].name for number in np.flatnonzero(of_N)]
        if genre in genres:
            axes.plot([], [], "o", color=colour.light, markersize=7, label=genre)
    axes.set_axis_off()
    axes.margins(0.03)
    figure.legend(
        loc="outside lower center",
        ncols=10,
        columnspacing=1.2,
        handletextpad=0.1,
        markerscale=1.4,
        labelcolor=palette.INK["text"].light,
    )
    figure.draw_without_rendering()
    named = _label(axes, movie_map)
    return Chart("map", _told(movie_map, named), figure, tips)


def _steps(ratings: list[int]) -> Int64s:
    """Sorts films into as many steps of fame as there are sizes of dots."""
    share_N = np.sqrt(np.array(ratings, float) / max(*ratings, 1))
    return np.minimum((share_N * len(_DOTS_PT)).astype(np.int64), len(_DOTS_PT) - 1)


def _told(movie_map: MovieMap, named: list[str]) -> str:
    count = len(movie_map.films)
    return f"Map of {count:,} films by {movie_map.method}; near films have near vectors. Named: {', '.join(named)}."


def _label(axes: Axes, movie_map: MovieMap) -> list[str]:
    """Names films in their order until no place is free; returns the names."""
    points_N2 = axes.transData.transform(movie_map.xy_N2)
    shown = [_short(film.title) for film in movie_map.films[: 3 * LABELS]]
    sizes = [_extent(axes, text) for text in shown]
    frame = Box(*axes.get_window_extent().extents)
    placed = place(points_N2, sizes, frame, LABELS)
    back = axes.transData.inverted()
    for number, box in placed.items():
        x, y = back.transform((box.left, box.bottom))
        axes.text(x, y, shown[number], fontsize=_FONT_PT, gid=HALO, va="baseline", in_layout=False)
    return [movie_map.films[number].name for number in placed]


def _short(title: str) -> str:
    title = title.partition(" (")[0] or title
    return title if len(title) <= 30 else title[:29].rstrip() + "…"


def _extent(axes: Axes, text: str) -> tuple[float, float]:
    drawn = axes.text(0, 0, text, fontsize=_FONT_PT, in_layout=False)
    box = drawn.get_window_extent()
    drawn.remove()
    return box.width, box.height


def place(points_N2: Doubles, sizes: list[tuple[float, float]], frame: Box, most: int) -> dict[int, Box]:
    """Finds boxes for labels of the first points, in their order: in the frame, and none on another or on a dot named.

    All in pixels. Returns the boxes by the point's number; points for which no place is free are left out.
    """
    placed: dict[int, Box] = {}
    dots: list[Box] = []
    for number, (size, point) in enumerate(zip(sizes, points_N2.tolist(), strict=False)):
        dot = Box(point[0] - _GAP_PX, point[1] - _GAP_PX, point[0] + _GAP_PX, point[1] + _GAP_PX)
        if len(placed) == most:
            break
        taken = [*placed.values(), *dots]
        if any(dot.meets(box) for box in placed.values()):
            continue
        free = (box for box in _candidates(point, size) if _inside(box, frame))
        found = next((box for box in free if not any(box.meets(other) for other in taken)), None)
        if found is not None:
            placed[number] = found
            dots.append(dot)
    return placed


def _candidates(point: list[float], size: tuple[float, float]) -> list[Box]:
    (x, y), (width, height) = point, size
    boxes = []
    for across, up in _PLACES:
        left = x + _GAP_PX if across > 0 else x - width - _GAP_PX if across < 0 else x - width / 2
        bottom = y + _GAP_PX if up > 0 else y - height - _GAP_PX if up < 0 else y - height / 2
        boxes.append(Box(left, bottom, left + width, bottom + height))
    return boxes


def _inside(box: Box, frame: Box) -> bool:
    return frame.left <= box.left and box.right <= frame.right and frame.bottom <= box.bottom and box.top <= frame.top
