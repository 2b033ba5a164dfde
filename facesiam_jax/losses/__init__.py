"""Losses: pure functions that return (values, weights), one per example.

The caller forms sum(v w) / max(sum(w), 1) over the global batch, which
`facesiam_jax.ops.masked_mean` does on one device. Nothing here is jitted.
"""

from facesiam_jax.losses.adaptive_margin import (
  NormStatistics,
  adaface,
  elasticface,
  magface,
  update_norm_statistics,
)
from facesiam_jax.losses.batchwise import n_pair, nt_xent, supcon
from facesiam_jax.losses.margin_softmax import (
  arcface,
  combined_margin,
  cosface,
  sphereface,
  sphereface_annealing,
  sub_center,
)
from facesiam_jax.losses.pair_weighting import circle, multi_similarity
from facesiam_jax.losses.pairwise import (
  binary_cross_entropy,
  contrastive,
  margin_loss,
)
from facesiam_jax.losses.partial_fc import partial_fc
from facesiam_jax.losses.proxies import center, proxy_anchor, update_centers
from facesiam_jax.losses.softmax import softmax_cross_entropy
from facesiam_jax.losses.triplet import (
  csc413_as_run,
  csc413_as_written,
  soft_margin_triplet,
  triplet_margin,
)

__all__ = [
  "NormStatistics",
  "adaface",
  "arcface",
  "binary_cross_entropy",
  "center",
  "circle",
  "combined_margin",
  "contrastive",
  "cosface",
  "csc413_as_run",
  "csc413_as_written",
  "elasticface",
  "magface",
  "margin_loss",
  "multi_similarity",
  "n_pair",
  "nt_xent",
  "partial_fc",
  "proxy_anchor",
  "soft_margin_triplet",
  "softmax_cross_entropy",
  "sphereface",
  "sphereface_annealing",
  "sub_center",
  "supcon",
  "triplet_margin",
  "update_centers",
  "update_norm_statistics",
]
