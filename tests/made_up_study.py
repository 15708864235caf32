"""A study of round, made-up figures, so that what a page must say is known without training anything."""

from __future__ import annotations

import numpy as np

from marquee.bundle.v1 import bundle_pb2
from training.report.study import (
    Choice,
    Curve,
    Difference,
    Film,
    MovieMap,
    Neighbours,
    Origin,
    Pass,
    Sample,
    SeedMean,
    Slice,
    Study,
)

LAST = {
    "sequence": 0.170,
    "pooled": 0.150,
    "transitions+ease": 0.133,
    "recency_ease": 0.128,
    "ease": 0.084,
    "ials": 0.077,
    "item_knn": 0.071,
    "popularity": 0.043,
}
USERS = {"sequence": 0.375, "pooled": 0.384, "ease": 0.371, "ials": 0.345, "item_knn": 0.3, "popularity": 0.146}
_BEYOND = {"coverage@10": 0.2, "distinct_lists@10": 0.99, "popularity_bias@10": 1.2, "novelty@10": 3.4}
_WORDS = ("Harbour", "Winter", "Glass", "Letters", "Orchard", "Signal", "Night", "Paper", "River", "Clock")


def figure(
    system: str, protocol: str, name: str, value: float, *, targets: str = "all", half: float = 0.025, n: int = 600
) -> bundle_pb2.Metric:
    """Makes a figure with an interval of twice `half`."""
    low, high = max(value - half, 0.0), value + half
    return bundle_pb2.Metric(
        system=system, protocol=protocol, targets=targets, name=name, value=value, n=n, low=low, high=high
    )


def films(count: int) -> list[Film]:
    """Makes films, the best known first."""
    genres = ("Drama", "Comedy", "Action", "Crime", "Horror", "Animation", "Sci-Fi", "Western")
    return [
        Film(
            f"{_WORDS[n % 10]} of {_WORDS[(n * 7 + n // 10) % 10]}{'' if n < 100 else f' {n}'}",
            1950 + n % 70 if n % 17 else None,
            (genres[(n + n // 8) % 8],),
            max(1, 300 - n),
        )
        for n in range(count)
    ]


def study(**changes: object) -> Study:
    """Makes the study; `changes` replace its fields."""
    figures = [
        *(
            figure(system, "last", name, value * share, targets=targets)
            for targets in ("all", "liked")
            for system, value in LAST.items()
            for name, share in (("recall@10", 1.0), ("recall@50", 2.0), ("ndcg@10", 0.5), ("mrr@10", 0.4))
        ),
        *(
            figure(system, "users", name, value * share, half=0.01)
            for system, value in USERS.items()
            for name, share in (("recall@20", 1.0), ("recall@50", 1.2), ("ndcg@100", 1.1), ("mrr@10", 0.8))
        ),
        *(
            figure(system, "time", name, value * share, half=0.1, n=27)
            for system, value in LAST.items()
            for name, share in (("recall@10", 0.7), ("ndcg@10", 0.4))
        ),
        *(
            bundle_pb2.Metric(system=system, protocol="last", targets="all", name=name, value=value, n=600)
            for system in LAST
            for name, value in _BEYOND.items()
        ),
    ]
    made = Study(
        origin=_origin(),
        figures=figures,
        seeds=[
            SeedMean(tower, seed, "last", "all", "recall@10", LAST[tower] + 0.001 * (seed - 1))
            for tower in ("pooled", "sequence")
            for seed in range(3)
        ],
        differences=_differences(),
        choice=Choice(
            "sequence",
            "mean NDCG@10 on validation, liked targets",
            {"pooled": 0.071, "sequence": 0.078},
            {"pooled": 0.081, "sequence": 0.083},
        ),
        curves=_curves(),
        slices=_slices(),
        map=MovieMap("sequence", "t-SNE of the item vectors", films(400), _plane(400)),
        neighbours=[
            Neighbours(film, [(near, 0.9 - 0.05 * n) for n, near in enumerate(films(30)[-6:])]) for film in films(6)
        ],
        samples=_samples(),
        settings={
            "ease": {"last": {"penalty": 100.0}, "users": {"penalty": 300.0}},
            "pooled": {"tower": {"dimension": 64, "half_lives": [2.0, 8.0]}, "training": {"seed": 0}},
        },
        timings_s={"last pooled: train": 51.23, "last pooled: export and evaluate": 9.5},
        ann=[
            bundle_pb2.Metric(system="index", protocol="last", targets="all", name="ann_recall@100", value=1.0, n=600)
        ],
    )
    return made._replace(**changes)  # type: ignore[arg-type]


def _origin() -> Origin:
    dataset = bundle_pb2.Dataset(
        name="made-up", fingerprint="0f" * 32, events=100_836, users=610, movies=9_742, simulated=True
    )
    return Origin(
        dataset=dataset,
        period="1996-03-29 to 2018-09-24",
        seeds=[0, 1, 2],
        versions={"python": "3.11.9", "torch": "2.13.0"},
        machine="2 cores, x86_64, Linux",
        created_at="2026-11-24T12:00:00+00:00",
        command="python -m training.report --data made-up --out report",
        code=["ab" * 32],
        notes=[],
    )


def _differences() -> list[Difference]:
    return [
        *(
            Difference(tower, other, "last", "all", name, LAST[tower] - LAST[other], low, 0.11, 600)
            for tower in ("pooled", "sequence")
            for other in ("ease", "transitions+ease")
            for name, low in (("recall@10", 0.01), ("ndcg@10", -0.002))
        ),
        *(
            Difference(tower, other, "users", "all", name, 0.013, low, 0.02, 610)
            for tower in ("pooled", "sequence")
            for other in ("ease", "ials")
            for name, low in (("recall@20", 0.004), ("ndcg@100", 0.003))
        ),
        Difference("pooled", "sequence", "last", "liked", "recall@10", -0.02, -0.03, -0.01, 480),
    ]


def _curves() -> list[Curve]:
    return [
        Curve(tower, seed, [_pass(tower, seed, number) for number in range(passes)], passes - 3)
        for tower, passes in (("pooled", 12), ("sequence", 18))
        for seed in range(3)
    ]


def _pass(tower: str, seed: int, number: int) -> Pass:
    top = (0.071 if tower == "pooled" else 0.078) + 0.001 * seed
    return Pass(
        3.0 + 4.0 / (number + 1),
        2 * top * (1 - 0.6**number),
        top * (1 - 0.6**number),
        4.0 if tower == "pooled" else 16.0,
    )


def _slices() -> list[Slice]:
    systems = ("sequence", "pooled", "transitions+ease", "ease", "popularity")
    parts = {
        "history length": ("1–20", "21–50", "51–200", "over 200"),
        "popularity of the target": ("1 (most)", "2", "3", "4–10", "cold"),
        "decade of the target": ("before 1970", "1970s", "1980s", "1990s", "2000s", "2010s"),
    }
    return [
        Slice(by, label, figure(system, "last", "recall@10", LAST[system] / (place + 1), half=0.03, n=150 - 20 * place))
        for by, labels in parts.items()
        for place, label in enumerate(labels)
        for system in systems
    ]


def _samples() -> list[Sample]:
    shown = films(60)
    lists = {
        system: [(film, n == 2 and system == "sequence") for n, film in enumerate(shown[10 * place : 10 * place + 10])]
        for place, system in enumerate(("sequence", "ease", "popularity"))
    }
    return [Sample(shown[40:48], 31, shown[2:3], lists), Sample(shown[50:53], 0, shown[5:7], lists)]


def _plane(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(8, 2)) * 30
    return np.stack([centres[(n + n // 8) % 8] + rng.normal(size=2) * 7 for n in range(count)])
