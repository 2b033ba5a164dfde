"""Losses: pure functions that return (values, weights), one per example.

The caller forms sum(v w) / max(sum(w), 1) over the global batch, which
`facesiam_jax.ops.masked_mean` does on one device. Nothing here is jitted.
"""

from facesiam_jax.losses.batchwise import supcon
from facesiam_jax.losses.pairwise import binary_cross_entropy, contrastive
from facesiam_jax.losses.triplet import triplet_margin

__all__ = [
  "binary_cross_entropy",
  "contrastive",
  "supcon",
  "triplet_margin",
]
