"""Generates MovieLens-like data with order in it: `python -m training.generate --out DIR --people U --movies N ...`.

Every movie belongs to one topic. A person's next movie is, in this order of chance:

1. the preferred successor of the movie before (`Process.follow[0]`), or of the one before that (`follow[1]`), where it
   was not watched yet: successors make one closed chain through each topic;
2. otherwise a movie not watched yet, drawn by popularity from the current topic, which
   - stays that of the movie before (`stay`), or
   - is one of the person's few favourite topics (`wander`), or
   - moves along a fixed sparse graph to one of its neighbours (`neighbours`).

So the topic is a Markov chain that anybody can read off the last movie, and what comes next depends on the last two
movies far more than on all of the rest: an order-blind model sees a bag of topics. Popularity is a power law within a
topic and over topics, history lengths have a power-law tail, ratings depend on person, movie and topic, and time runs
in sessions: seconds within one, days to years between two. `Process` holds all constants.

All movies, people and ratings are invented. The same seed, sizes, constants and NumPy give the same bytes.
"""

from training.generate.files import write_generated
from training.generate.process import Process, World, build_world

__all__ = ["Process", "World", "build_world", "write_generated"]
