"""Which images form the next pairs, triplets, P x K or balanced batch.

Every draw is a pure function of a key, so the same key gives the same GLOBAL
batch on any number of devices: each device draws the indices of the whole
batch (a few thousand integers) and keeps its own rows.
"""

from facesiam_jax.sampling.identities import (
  IdentityIndex,
  People,
  index_identities,
)
from facesiam_jax.sampling.people import class_balanced, people_times_images
from facesiam_jax.sampling.tuples import (
  Pairs,
  Triplets,
  check_pairs,
  epoch_pairs,
  pairs,
  triplets,
)

__all__ = [
  "IdentityIndex",
  "Pairs",
  "People",
  "Triplets",
  "check_pairs",
  "class_balanced",
  "epoch_pairs",
  "index_identities",
  "pairs",
  "people_times_images",
  "triplets",
]
