"""Offline scoring: `python -m clients.batch` recommends for everybody into Parquet."""
