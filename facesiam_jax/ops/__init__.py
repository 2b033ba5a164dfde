"""Distances, similarities, safe norms and masked means.

Pure functions of arrays. Everything is computed in float32 whatever comes in,
matrix products with `precision=HIGHEST`, and every value and gradient is
finite where two rows coincide or a row is zero. A `distance` grows with
difference, a `similarity` with likeness, and `_sq` or "squared" says squared.

The row-wise functions compare x_i with y_i; the `pairwise_` ones compare all
rows of x with all rows of y and give [A, B].
"""

from facesiam_jax.ops.norms import l2_normalize, masked_mean, safe_sqrt
from facesiam_jax.ops.pairwise import (
  pairwise_chi_square_distance,
  pairwise_cosine_similarity,
  pairwise_dot,
  pairwise_euclidean_distance,
  pairwise_l1_distance,
  pairwise_squared_distance,
)
from facesiam_jax.ops.rowwise import (
  chi_square_distance,
  chi_square_terms,
  cosine_similarity,
  euclidean_distance,
  l1_distance,
  squared_distance,
)

__all__ = [
  "chi_square_distance",
  "chi_square_terms",
  "cosine_similarity",
  "euclidean_distance",
  "l1_distance",
  "l2_normalize",
  "masked_mean",
  "pairwise_chi_square_distance",
  "pairwise_cosine_similarity",
  "pairwise_dot",
  "pairwise_euclidean_distance",
  "pairwise_l1_distance",
  "pairwise_squared_distance",
  "safe_sqrt",
  "squared_distance",
]
