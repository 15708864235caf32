"""Says in plain words whether each goal is reached, and by how much it is missed."""

from __future__ import annotations

from typing import NamedTuple

from marquee.bundle.v1 import bundle_pb2
from training.report import palette
from training.report.study import Difference, Study

RATIO = 1.5
ALLOWED_LOSS = 0.02
REACHED, MISSED, UNKNOWN, REPORTED = "reached", "missed", "not measured", "reported"
TOWERS = ("pooled", "sequence")
_USERS_GOALS = ("recall@20", "ndcg@100")


class Goal(NamedTuple):
    """Holds a goal, whether it is reached, and the figures that say so."""

    title: str
    state: str
    details: tuple[str, ...]


def goals(study: Study) -> list[Goal]:
    """Judges the goals for the tower that was chosen."""
    return [_ratio(study), _above_all(study), _last_paired(study), _users_paired(study), _liked(study), _time(study)]


def headline(judged: list[Goal]) -> str:
    """Says in one sentence how many of the goals that can be missed are reached."""
    decided = [goal for goal in judged if goal.state in (REACHED, MISSED)]
    reached = sum(goal.state == REACHED for goal in decided)
    if not decided:
        return "No goal could be judged from these runs."
    if reached == len(decided):
        return f"All {reached} goals that these runs can judge are reached."
    return f"{reached} of {len(decided)} goals are reached, {len(decided) - reached} missed."


def baselines(study: Study) -> list[str]:
    """Lists the systems that are not towers."""
    return [system for system in study.systems if system not in TOWERS]


def number(value: float) -> str:
    """Writes a share of 1 with three digits: .128, 1.000."""
    text = f"{value:.3f}".replace("-", "−")
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def signed(value: float) -> str:
    """Writes a difference with its sign: +.041, −.007."""
    return ("−" if round(value, 3) < 0 else "+") + number(abs(value))


def bounds(figure: bundle_pb2.Metric) -> str:
    """Writes a figure's interval; nothing where it has none."""
    return f"{number(figure.low)}–{number(figure.high)}" if figure.HasField("low") else ""


def _ratio(study: Study) -> Goal:
    title = f"last, all targets: at least {RATIO} times plain EASE in recall@10"
    model, ease = (study.figure(name, "last", "all", "recall@10") for name in (study.choice.tower, "ease"))
    if model is None or ease is None:
        return Goal(title, UNKNOWN, ("the model or EASE was not measured on last",))
    against = f"{number(model.value)} against {number(ease.value)}"
    if model.value >= RATIO * ease.value:
        times = f"{model.value / ease.value:.2f} times ({against})" if ease.value else against
        return Goal(title, REACHED, (times,))
    missing = RATIO * ease.value - model.value
    return Goal(title, MISSED, (f"{model.value / ease.value:.2f} times ({against}); {number(missing)} are missing",))


def _above_all(study: Study) -> Goal:
    title = "last, all targets: above every baseline in recall@10 and NDCG@10"
    behind, nearest = [], []
    for name in ("recall@10", "ndcg@10"):
        model = study.figure(study.choice.tower, "last", "all", name)
        others = [one for system in baselines(study) if (one := study.figure(system, "last", "all", name))]
        if model is None or not others:
            return Goal(title, UNKNOWN, (f"{name} was not measured on last",))
        behind += [_behind(model, other) for other in others if model.value <= other.value]
        best = max(others, key=lambda other: other.value)
        nearest.append(f"{palette.metric(name)} {number(model.value)}; best baseline {_told(best)}")
    return Goal(title, MISSED, tuple(behind)) if behind else Goal(title, REACHED, tuple(nearest))


def _behind(model: bundle_pb2.Metric, other: bundle_pb2.Metric) -> str:
    gap = number(other.value - model.value)
    place = "no more than" if gap == number(0.0) else f"{gap} below"
    return f"{palette.metric(model.name)} {number(model.value)} is {place} {_told(other)}"


def _told(figure: bundle_pb2.Metric) -> str:
    return f"{palette.system(figure.system).label} {number(figure.value)}"


def _last_paired(study: Study) -> Goal:
    title = "last, all targets: paired 95 % bound against plain EASE above zero in recall@10"
    return _paired(title, study, "last", [("ease", "recall@10")])


def _users_paired(study: Study) -> Goal:
    title = "users, all targets: paired 95 % bounds against EASE and iALS above zero in recall@20 and NDCG@100"
    return _paired(title, study, "users", [(against, name) for against in ("ease", "ials") for name in _USERS_GOALS])


def _paired(title: str, study: Study, protocol: str, wanted: list[tuple[str, str]]) -> Goal:
    found = [study.difference(study.choice.tower, against, protocol, "all", name) for against, name in wanted]
    known = [one for one in found if one is not None]
    if len(known) < len(wanted):
        return Goal(title, UNKNOWN, (f"a system that it takes was not measured on {protocol}",))
    state = REACHED if all(one.low > 0 for one in known) else MISSED
    return Goal(title, state, tuple(map(_difference, known)))


def _difference(one: Difference) -> str:
    interval = f"({signed(one.low)} to {signed(one.high)})"
    return f"{palette.metric(one.name)} {signed(one.value)} {interval} against {palette.system(one.against).label}"


def _liked(study: Study) -> Goal:
    title = f"last: the default tower loses at most {ALLOWED_LOSS:.0%} on all targets to the other".replace(
        "%", "\N{NO-BREAK SPACE}%"
    )
    figures = [one for tower in TOWERS if (one := study.figure(tower, "last", "all", "recall@10"))]
    mine = next((one for one in figures if one.system == study.choice.tower), None)
    best = max(figures, key=lambda one: one.value, default=None)
    if mine is None or best is None or len(figures) < len(TOWERS):
        return Goal(title, UNKNOWN, ("it takes both towers on last",))
    if mine is best:
        told = f"the default is the better one on all targets: R@10 {number(mine.value)}"
        return Goal(title, REACHED, (told,))
    loss = 1 - mine.value / best.value if best.value else 0.0
    detail = f"R@10 {number(mine.value)}, {loss:.1%} below {_told(best)}".replace("%", "\N{NO-BREAK SPACE}%")
    return Goal(title, REACHED if loss <= ALLOWED_LOSS else MISSED, (detail,))


def _time(study: Study) -> Goal:
    title = "time: reported with its number of people"
    figure = study.figure(study.choice.tower, "time", "all", "recall@10")
    if figure is None:
        return Goal(title, UNKNOWN, ("time was not measured",))
    return Goal(title, REPORTED, (f"R@10 {number(figure.value)} ({bounds(figure)}), n = {figure.n}",))
