"""The process that generated events come from: a world of movies, and people who walk through it.

Letters in array names: K topics, M places in a topic, D neighbours, F favourites, U people of one block, E events,
N movies. A movie's slot is topic * M + place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from marquee.errors import ConfigError
from marquee.features import MAX_RATING, MIN_RATING

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Float64s = npt.NDArray[np.float64]

# Marks of who watched what are one byte each: so many are held at once.
_BLOCK_CELLS = 64_000_000
_WORLD, _LENGTHS, _PEOPLE = range(3)


@dataclass(frozen=True, slots=True)
class Process:
    """Holds the constants of the process; the package's docstring says what they do.

    Slopes are exponents of power laws over ranks, gaps are in seconds, `*_spread` are standard deviations (in stars,
    or of logarithms).
    """

    movies_per_topic: int = 100
    follow: tuple[float, float] = (0.20, 0.15)
    stay: float = 0.65
    wander: float = 0.15
    favourites: int = 3
    neighbours: tuple[float, ...] = (0.6, 0.3, 0.1)
    movie_slope: float = 1.1
    topic_slope: float = 0.8

    fewest_events: int = 20
    length_tail: float = 3.0
    longest_share: float = 0.5

    stars_mean: float = 3.4
    person_spread: float = 0.4
    movie_spread: float = 0.5
    topic_spread: float = 0.3
    event_spread: float = 0.7

    gap_s: float = 15.0
    gap_spread: float = 0.8
    session_events: float = 30.0
    sessions: float = 10.0
    shortest_break_s: float = 86_400.0
    longest_break_s: float = 2 * 365 * 86_400.0
    opened_s: int = 946_684_800  # 2000-01-01 UTC
    joining_s: int = 12 * 365 * 86_400

    def __post_init__(self) -> None:
        for name in ("follow", "neighbours"):
            if min(getattr(self, name)) < 0 or sum(getattr(self, name)) > 1 + 1e-9:
                raise ConfigError(f"Process.{name} holds chances: each from 0, together at most 1", field=name)
        if min(self.stay, self.wander) < 0 or self.stay + self.wander > 1:
            raise ConfigError("Process.stay and wander are chances: each from 0, together at most 1", field="stay")
        if self.movies_per_topic < 10:
            raise ConfigError(
                "Process.movies_per_topic is below 10: a topic needs movies to stay in", field="movies_per_topic"
            )


class World(NamedTuple):
    """Holds what all people share: movies by topic and place, and how topics follow each other.

    `weight_KM` is popularity within the topic, 0 where a place holds no movie; `successor_KM` the place that follows
    a place; `neighbour_KD` the topics that a topic moves to; `chance_K` how popular a topic is.
    """

    weight_KM: Floats
    successor_KM: Int64s
    neighbour_KD: Int64s
    chance_K: Float64s
    quality_KM: Floats

    @property
    def slots(self) -> Int64s:
        """Lists the slots that hold a movie, [N]."""
        return np.flatnonzero(self.weight_KM.ravel() > 0)


class Walks(NamedTuple):
    """Holds the events of some people, by person and in time; `people` are numbers from 0, times are UTC seconds."""

    people: npt.NDArray[np.int32]
    slots: npt.NDArray[np.int32]
    stars: Floats
    times_s: Int64s


def build_world(process: Process, movies: int, seed: int) -> World:
    """Builds the world of a seed; raises ConfigError where there are too few movies for two topics."""
    topics = movies // process.movies_per_topic
    if topics <= len(process.neighbours):
        least = (len(process.neighbours) + 1) * process.movies_per_topic
        raise ConfigError(f"--movies is {movies}: the process needs at least {least} for its topics", field="movies")
    rng = np.random.default_rng((seed, _WORLD))
    sizes_K = np.full(topics, movies // topics) + (np.arange(topics) < movies % topics)
    places = int(sizes_K.max())
    real_KM = np.arange(places) < sizes_K[:, None]
    chance_K: Float64s = (1.0 + rng.permutation(topics)) ** -np.float64(process.topic_slope)
    chance_K /= chance_K.sum()
    return World(
        weight_KM=np.where(real_KM, (1.0 + np.arange(places)) ** -process.movie_slope, 0).astype(np.float32),
        successor_KM=np.stack([_chain(rng, int(size), places) for size in sizes_K]),
        neighbour_KD=np.stack([_neighbours(rng, chance_K, topic, len(process.neighbours)) for topic in range(topics)]),
        chance_K=chance_K,
        quality_KM=rng.normal(0, process.movie_spread, (topics, places)).astype(np.float32),
    )


def _chain(rng: np.random.Generator, size: int, places: int) -> Int64s:
    """Links the first `size` places to one closed chain in a random order."""
    successor_M = np.zeros(places, np.int64)
    order = rng.permutation(size)
    successor_M[order] = np.roll(order, -1)
    return successor_M


def _neighbours(rng: np.random.Generator, chance_K: Float64s, topic: int, count: int) -> Int64s:
    chance_K = chance_K.copy()
    chance_K[topic] = 0.0
    return rng.choice(len(chance_K), count, replace=False, p=chance_K / chance_K.sum())


def history_lengths(process: Process, people: int, movies: int, events: int, seed: int) -> Int64s:
    """Shares out the events, [people]: quantiles of a power law above the fewest, scaled to sum to `events` exactly.

    Raises ConfigError where nobody could have so few or so many.
    """
    longest = int(process.longest_share * movies)
    if people < 1 or not 2 * people <= events <= people * longest:
        raise ConfigError(
            f"--events is {events:,}: {people:,} people on {movies:,} movies have from {2 * people:,} to "
            f"{people * longest:,}, and there must be a person",
            field="events",
        )
    fewest = min(process.fewest_events, events // (2 * people) + 1)
    quantile_U = (np.arange(people) + 0.5) / people
    shape_U = (1 - quantile_U) ** (-1 / process.length_tail) - 1
    low, high = 0.0, float(longest) / float(shape_U[0])
    for _ in range(100):
        scale = (low + high) / 2
        total = np.minimum(fewest + scale * shape_U, longest).sum()
        low, high = (scale, high) if total < events else (low, scale)
    exact_U = np.minimum(fewest + low * shape_U, longest)
    lengths_U = exact_U.astype(np.int64)
    short = events - int(lengths_U.sum())
    lengths_U[np.argsort(lengths_U - exact_U, kind="stable")[:short]] += 1
    return np.random.default_rng((seed, _LENGTHS)).permutation(lengths_U)


def blocks(lengths: Int64s, world: World) -> list[Int64s]:
    """Splits people into blocks whose marks fit into memory, the longest histories first."""
    people = max(1, _BLOCK_CELLS // world.weight_KM.size)
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + people] for start in range(0, len(order), people)]


def generate(process: Process, world: World, people: Int64s, lengths: Int64s, seed: int) -> Walks:
    """Generates the events of one block; `people` must have descending `lengths` [U]."""
    rng = np.random.default_rng((seed, _PEOPLE, int(people[0])))
    favourite_UF = rng.choice(len(world.chance_K), (len(people), process.favourites), p=world.chance_K)
    slots = walk(process, world, favourite_UF, lengths, rng)
    user_E = np.repeat(np.arange(len(people)), lengths)
    return Walks(
        people[user_E].astype(np.int32),
        slots,
        _stars(process, world, user_E, slots, len(people), rng),
        _times(process, lengths, user_E, rng),
    )


def walk(
    process: Process, world: World, favourite_UF: Int64s, lengths: Int64s, rng: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Draws what people watch, one step of all people at a time; returns slots [E], by person and in order."""
    people, (topics, places) = len(lengths), world.weight_KM.shape
    starts = np.cumsum(lengths) - lengths
    slots = np.zeros(int(lengths.sum()), np.int32)
    open_UKM = np.broadcast_to(world.weight_KM > 0, (people, topics, places)).copy()
    active_T = np.searchsorted(-lengths, -np.arange(int(lengths.max())))
    rows, before, earlier = np.arange(people), np.zeros(people, np.int64), np.zeros(people, np.int64)
    for step, active in enumerate(active_T.tolist()):
        rows, before, earlier, open_UKM = rows[:active], before[:active], earlier[:active], open_UKM[:active]
        topic_U = favourite_UF[:, 0]
        if step:
            topic_U = _next_topics(process, world, before // places, favourite_UF[:active], rng)
        chosen = _draw(world, open_UKM, topic_U, rng)
        chosen = _followed(process, world, open_UKM, (before, earlier)[:step], chosen, rng)
        open_UKM.reshape(active, -1)[rows, chosen] = False
        slots[starts[:active] + step] = chosen
        before, earlier = chosen, before
    return slots


def _next_topics(
    process: Process, world: World, topic_U: Int64s, favourite_UF: Int64s, rng: np.random.Generator
) -> Int64s:
    draw_U, pick_U = rng.random((2, len(topic_U)))
    edges = np.cumsum(process.neighbours)[:-1]
    moved_U = world.neighbour_KD[topic_U, np.searchsorted(edges, pick_U, side="right")]
    favourite_U = favourite_UF[np.arange(len(topic_U)), (pick_U * favourite_UF.shape[1]).astype(np.int64)]
    next_U = np.where(draw_U < process.stay + process.wander, favourite_U, moved_U)
    return np.where(draw_U < process.stay, topic_U, next_U)


def _draw(world: World, open_UKM: Bools, topic_U: Int64s, rng: np.random.Generator) -> Int64s:
    """Draws an unwatched movie of each topic by popularity; of the topic with most left, where one is used up."""
    rows, places = np.arange(len(topic_U)), world.weight_KM.shape[1]
    weight_UM = world.weight_KM[topic_U] * open_UKM[rows, topic_U]
    up_to_UM = np.cumsum(weight_UM, axis=1)
    used_up = np.flatnonzero(up_to_UM[:, -1] == 0)
    if len(used_up):
        topic_U = topic_U.copy()
        topic_U[used_up] = open_UKM[used_up].sum(axis=2).argmax(axis=1)
        up_to_UM[used_up] = np.cumsum(world.weight_KM[topic_U[used_up]] * open_UKM[used_up, topic_U[used_up]], axis=1)
    total_U = up_to_UM[:, -1]
    point_U = np.minimum(rng.random(len(topic_U), np.float32) * total_U, np.nextafter(total_U, np.float32(0)))
    slots: Int64s = topic_U * places + np.argmax(up_to_UM > point_U[:, None], axis=1)
    return slots


def _followed(
    process: Process,
    world: World,
    open_UKM: Bools,
    last: tuple[Int64s, ...],
    chosen_U: Int64s,
    rng: np.random.Generator,
) -> Int64s:
    """Puts an unwatched successor of one of the last two movies in place of what was drawn, by the chances of it."""
    draw_U, low = rng.random(len(chosen_U)), 0.0
    rows, places = np.arange(len(chosen_U)), world.weight_KM.shape[1]
    for chance, slot_U in zip(process.follow, last, strict=False):
        successor_U = slot_U // places * places + world.successor_KM.ravel()[slot_U]
        follows_U = (draw_U >= low) & (draw_U < low + chance) & open_UKM.reshape(len(rows), -1)[rows, successor_U]
        chosen_U = np.where(follows_U, successor_U, chosen_U)
        low += chance
    return chosen_U


def next_chances(process: Process, world: World, watched: Int64s) -> Float64s:
    """Computes the chance of every slot to be next after `watched` (slots in order, at least one), [K * M].

    Exact but for the person's favourites, which are taken as unknown: what no model can pass.
    """
    places = world.weight_KM.shape[1]
    weight_KM = world.weight_KM.astype(np.float64)
    weight_KM.ravel()[watched] = 0
    left_K = weight_KM.sum(axis=1)
    topic = int(watched[-1]) // places
    topic_K = process.wander * world.chance_K
    topic_K[topic] += process.stay
    topic_K[world.neighbour_KD[topic]] += (1 - process.stay - process.wander) * np.array(process.neighbours)
    chance_KM = topic_K[:, None] * weight_KM / np.maximum(left_K, 1e-300)[:, None]
    chance_S = chance_KM.ravel() / chance_KM.sum()
    taken = 0.0
    follows_S = np.zeros_like(chance_S)
    for chance, slot in zip(process.follow, watched[-1:-3:-1].tolist(), strict=False):
        successor = slot // places * places + int(world.successor_KM.ravel()[slot])
        if weight_KM.ravel()[successor] > 0:
            follows_S[successor] += chance
            taken += chance
    chances: Float64s = follows_S + (1 - taken) * chance_S
    return chances


def _stars(
    process: Process,
    world: World,
    user_E: Int64s,
    slots: npt.NDArray[np.int32],
    people: int,
    rng: np.random.Generator,
) -> Floats:
    person_U = rng.normal(0, process.person_spread, people).astype(np.float32)
    topic_UK = rng.normal(0, process.topic_spread, (people, len(world.chance_K))).astype(np.float32)
    stars_E = rng.normal(process.stars_mean, process.event_spread, len(slots)).astype(np.float32)
    stars_E += person_U[user_E] + world.quality_KM.ravel()[slots]
    stars_E += topic_UK[user_E, slots // world.weight_KM.shape[1]]
    stars: Floats = np.clip(np.round(stars_E * 2) / 2, MIN_RATING, MAX_RATING)
    return stars


def _times(process: Process, lengths: Int64s, user_E: Int64s, rng: np.random.Generator) -> Int64s:
    """Draws when people watch: at least a second apart, in sessions."""
    chance_U = np.minimum(1 / process.session_events, process.sessions / lengths)
    gap_E = np.ceil(process.gap_s * np.exp(rng.normal(0, process.gap_spread, len(user_E)))).astype(np.int64)
    breaks = np.flatnonzero(rng.random(len(user_E)) < chance_U[user_E])
    low, high = np.log([process.shortest_break_s, process.longest_break_s])
    gap_E[breaks] = np.exp(rng.uniform(low, high, len(breaks))).astype(np.int64)
    gap_E[np.cumsum(lengths) - lengths] = process.opened_s + rng.integers(0, process.joining_s, len(lengths))
    elapsed_E = np.cumsum(gap_E)
    first = np.cumsum(lengths) - lengths
    since = elapsed_E[first] - gap_E[first]
    times: Int64s = elapsed_E - since[user_E]
    return times
