"""Reads a folder of movies and events into the one dataset that training, evaluation and export share.

MovieLens folders (CSV, and the `.dat` files of 1M) and events that the live services exported as Parquet are
recognised by what lies in them; any other CSV or Parquet is described by a `ColumnMap`. Nothing is dropped in silence:
`LoadReport` counts it, reason by reason. `load_prepared` does the work once, and maps its result afterwards.
"""

from training.data.columns import ColumnMap, read_columns
from training.data.dataset import Dataset, load_dataset
from training.data.movies import load_movies
from training.data.prepared import load_prepared
from training.data.report import Dropped, LoadReport

__all__ = [
    "ColumnMap",
    "Dataset",
    "Dropped",
    "LoadReport",
    "load_dataset",
    "load_movies",
    "load_prepared",
    "read_columns",
]
