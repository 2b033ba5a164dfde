"""Search of a gallery: pure functions of arrays, JAX alone.

Exact, but for `top_k_inverted`: all exact results are totally ordered (score
descending, then id ascending), and their bits do not depend on how queries are
batched, on where a row lies in the gallery, on what other rows there are or on
the number of devices.
"""

from facesiam_jax.gallery.search.compact import (
  DTYPES,
  Certified,
  Compact,
  compress,
  first_look,
  top_k_compact,
)
from facesiam_jax.gallery.search.inverted import (
  Inverted,
  num_lists_for,
  top_k_inverted,
)
from facesiam_jax.gallery.search.inverted import build as build_inverted
from facesiam_jax.gallery.search.ordering import (
  Found,
  FoundPeople,
  best_per_person,
  merge,
)
from facesiam_jax.gallery.search.people import (
  RULES,
  RankedPeople,
  top_k_people,
)
from facesiam_jax.gallery.search.rows import BLOCK, NO_MATCH
from facesiam_jax.gallery.search.scores import METRICS, Head, pair_cost
from facesiam_jax.gallery.search.sharded import (
  CompactShards,
  Shards,
  candidate_searcher,
  people_searcher,
  place,
  searcher,
)
from facesiam_jax.gallery.search.templates import top_k

__all__ = [
  "BLOCK",
  "Certified",
  "Compact",
  "CompactShards",
  "DTYPES",
  "Found",
  "FoundPeople",
  "Head",
  "Inverted",
  "METRICS",
  "NO_MATCH",
  "RULES",
  "RankedPeople",
  "Shards",
  "best_per_person",
  "build_inverted",
  "candidate_searcher",
  "compress",
  "first_look",
  "merge",
  "num_lists_for",
  "pair_cost",
  "people_searcher",
  "place",
  "searcher",
  "top_k",
  "top_k_compact",
  "top_k_inverted",
  "top_k_people",
]
