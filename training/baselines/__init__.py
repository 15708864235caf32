"""What a two-tower has to beat: each baseline is tuned on validation and refitted with it, in the same run."""

from training.baselines.ease import Ease, RecencyEase
from training.baselines.factors import Factors
from training.baselines.neighbours import Neighbours
from training.baselines.popularity import Popularity
from training.baselines.suite import SUITES, Fitted, baseline_lists, fit_baselines, left_out
from training.baselines.transitions import TransitionsEase

__all__ = [
    "SUITES",
    "Ease",
    "Factors",
    "Fitted",
    "Neighbours",
    "Popularity",
    "RecencyEase",
    "TransitionsEase",
    "baseline_lists",
    "fit_baselines",
    "left_out",
]
