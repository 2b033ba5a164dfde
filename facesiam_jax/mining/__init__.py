"""Mining: which pairs and triplets of a batch matter, inside jit.

Everything has a fixed shape: a miner returns indices with weights, or masks,
never a list whose length depends on the data. The anchors are a device's own
rows, the columns the rows of all devices, so what is mined does not depend on
the number of devices. Nothing holds B x B x B numbers, and with `by_blocks`
nothing holds B x B either. Nothing here is jitted.

A NaN in a row that counts is mined first, so that it reaches the loss instead
of being passed over; a NaN in a row of padding changes nothing.
"""

from facesiam_jax.mining.blocks import by_blocks, sum_over_triplets
from facesiam_jax.mining.drawn import distance_weighted
from facesiam_jax.mining.pairs import PairMasks, all_triplets, multi_similarity
from facesiam_jax.mining.triplets import (
  Triplets,
  batch_easy_positive,
  batch_hard,
  semi_hard,
)

__all__ = [
  "PairMasks",
  "Triplets",
  "all_triplets",
  "batch_easy_positive",
  "batch_hard",
  "by_blocks",
  "distance_weighted",
  "multi_similarity",
  "semi_hard",
  "sum_over_triplets",
]
