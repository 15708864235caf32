"""Trains, measures and exports the towers."""

import os

# PyTorch reads it once, at its first tensor: large ones then lie in huge pages, where there are any. Each step makes
# and frees the same hundreds of MB, and the faults of small pages are a good part of what it costs.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
