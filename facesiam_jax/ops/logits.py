"""The pure functions under the heads, public as `facesiam_jax.heads.NAME`."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax.ops import checks, norms, rowwise

__all__ = [
  "abs_difference_logistic",
  "chi_square_logistic",
  "cosine_logistic",
  "euclidean_logistic",
  "l1_logistic",
]


def _affine(
  name: str, scores: ArrayLike, weight: ArrayLike, bias: ArrayLike
) -> jax.Array:
  weight, bias = jnp.asarray(weight), jnp.asarray(bias)
  if weight.shape or bias.shape:
    raise ValueError(
      f"weight and bias must be scalars, got shapes {weight.shape} and "
      f"{bias.shape}."
    )
  scores = checks.floats(name, scores)
  return weight.astype(jnp.float32) * scores + bias.astype(jnp.float32)


def euclidean_logistic(
  distances: ArrayLike,
  weight: ArrayLike,
  bias: ArrayLike,
  *,
  squared: bool = False,
) -> jax.Array:
  """Returns the logit w d + b of "same person" from a distance.

  Batch meaning: elements are independent.

  Args:
    distances: d, plain Euclidean distances, float [...], >= 0; up to 1e18 if
      they are to be squared.
    weight: w, scalar; negative, so that near means same.
    bias: b, scalar.
    squared: whether the logit is w d^2 + b.

  Returns:
    Logits, float32 [...].

  Raises:
    ValueError: if distances are empty or not floating, or w or b is no scalar.

  Example:
    >>> euclidean_logistic(jnp.array([0.5, 2.0]), -2.0, 3.0).tolist()
    [2.0, -1.0]

  References: cursifrancesco, Siamese neural networks, sigma(w d + b).
  """
  distances = checks.floats("distances", distances)
  if squared:
    distances = jnp.square(distances)
  return _affine("distances", distances, weight, bias)


def l1_logistic(
  distances: ArrayLike, weight: ArrayLike, bias: ArrayLike
) -> jax.Array:
  """Returns the logit w d + b of "same person" from an L1 distance.

  Batch meaning: elements are independent.

  Args:
    distances: d, city-block distances, float [...], >= 0.
    weight: w, scalar; negative, so that near means same.
    bias: b, scalar.

  Returns:
    Logits, float32 [...].

  Raises:
    ValueError: as `euclidean_logistic`.

  Example:
    >>> l1_logistic(jnp.array([1.0, 4.0]), -0.5, 1.0).tolist()
    [0.5, -1.0]
  """
  return _affine("distances", distances, weight, bias)


def cosine_logistic(
  similarities: ArrayLike, scale: ArrayLike, bias: ArrayLike
) -> jax.Array:
  """Returns the logit alpha s + beta of "same person" from a cosine.

  Batch meaning: elements are independent.

  Args:
    similarities: s, cosines, float [...], in [-1, 1].
    scale: alpha, scalar; positive, so that alike means same.
    bias: beta, scalar; -alpha times the cosine at probability 1/2.

  Returns:
    Logits, float32 [...].

  Raises:
    ValueError: as `euclidean_logistic`.

  Example:
    >>> cosine_logistic(jnp.array([1.0, 0.0]), 10.0, -5.0).tolist()
    [5.0, -5.0]
  """
  return _affine("similarities", similarities, scale, bias)


def _weighted_sum(
  terms: jax.Array, weight: ArrayLike, bias: ArrayLike
) -> jax.Array:
  weight, bias = jnp.asarray(weight), jnp.asarray(bias)
  if weight.shape != terms.shape[1:] or bias.shape:
    raise ValueError(
      f"weight must have shape {terms.shape[1:]} for embeddings {terms.shape} "
      f"and bias be a scalar, got shapes {weight.shape} and {bias.shape}."
    )
  # Not a matrix product: a row's logit must not depend on the rows beside it.
  weighted = terms * weight.astype(jnp.float32)[None, :]
  return jnp.sum(weighted, axis=-1) + bias.astype(jnp.float32)


def abs_difference_logistic(
  x: ArrayLike, y: ArrayLike, weight: ArrayLike, bias: ArrayLike
) -> jax.Array:
  """Returns logits from the absolute differences of the embeddings' entries.

    sum over k of w_k |x_k - y_k|, + b
  Batch meaning: rows are independent.

  Args:
    x: embeddings, float [B, D].
    y: embeddings, float [B, D].
    weight: w, float [D]; negative entries make near mean same.
    bias: b, scalar.

  Returns:
    Logits, float32 [B].

  Raises:
    ValueError: if a rank is not 2, the shapes differ, a dtype is not floating,
      there are no rows, or weight or bias does not fit.

  Degenerate input: gradient 0 for each entry in which the rows are equal.
  Example:
    >>> x, y = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 1.0]])
    >>> abs_difference_logistic(x, y, jnp.array([-1.0, 0.5]), 2.0).tolist()
    [0.5]

  References: Koch et al. 2015, Siamese networks for one-shot recognition;
    Taigman et al. 2014, DeepFace.
  """
  x, y = checks.rows(x, y)
  return _weighted_sum(norms.absolute(x - y), weight, bias)


def chi_square_logistic(
  x: ArrayLike, y: ArrayLike, weight: ArrayLike, bias: ArrayLike
) -> jax.Array:
  """Returns logits from the weighted chi-square terms of two feature vectors.

    sum over k of w_k (x_k - y_k)^2 / (x_k + y_k), + b
  Batch meaning: rows are independent.

  Args:
    x: features, float [B, D], >= 0.
    y: features, float [B, D], >= 0.
    weight: w, float [D]; negative entries make near mean same.
    bias: b, scalar.

  Returns:
    Logits, float32 [B].

  Raises:
    ValueError: as `abs_difference_logistic`.

  Degenerate input: 0 / 0 counts as 0, with gradient 0; for features below 0
  see `ops.chi_square_terms`.
  Example:
    >>> x, y = jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 2.0]])
    >>> chi_square_logistic(x, y, jnp.array([-1.0, 0.5]), 2.0).tolist()
    [2.0]

  References: Taigman et al. 2014, DeepFace, weighted chi-square similarity.
  """
  return _weighted_sum(rowwise.chi_square_terms(x, y), weight, bias)
