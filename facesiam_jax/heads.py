"""Heads: from two embeddings to the logit of "same person".

Each head is a Flax module over a pure function. All are symmetric in their
two inputs to the bit, and all give a logit: `jax.nn.sigmoid` of it is the
probability. `metric` names the score a head needs from a gallery search:
"euclidean" (a distance) or "cosine" (a similarity).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike

from facesiam_jax import ops


def euclidean_logistic(
  distances: ArrayLike, weight: ArrayLike, bias: ArrayLike
) -> jax.Array:
  """Returns the logit w d + b of "same person" from a distance.

  Args:
    distances: Euclidean distances, float [...], >= 0.
    weight: w, scalar; negative, so that near means same.
    bias: b, scalar.

  Returns:
    Logits, float32 [...].

  References: cursifrancesco, Siamese neural networks, sigma(w d + b).
  """
  distances = jnp.asarray(distances).astype(jnp.float32)
  return jnp.asarray(weight) * distances + jnp.asarray(bias)


def cosine_logistic(
  similarities: ArrayLike, scale: ArrayLike, bias: ArrayLike
) -> jax.Array:
  """Returns the logit alpha s + beta of "same person" from a cosine.

  Args:
    similarities: cosines, float [...], in [-1, 1].
    scale: alpha, scalar; positive, so that alike means same.
    bias: beta, scalar; -alpha times the cosine at probability 1/2.

  Returns:
    Logits, float32 [...].
  """
  similarities = jnp.asarray(similarities).astype(jnp.float32)
  return jnp.asarray(scale) * similarities + jnp.asarray(bias)


class EuclideanLogistic(nn.Module):
  """sigma(w |x - y| + b) with w = -softplus(v), so that w < 0 always.

  Attributes:
    init_weight: initial w, < 0.
    init_bias: initial b.
  """

  init_weight: float = -1.0
  init_bias: float = 1.0
  metric = "euclidean"

  def setup(self) -> None:
    if self.init_weight >= 0:
      raise ValueError(
        "init_weight must be negative, since a larger distance means a "
        f"different person; got {self.init_weight}."
      )
    # softplus(v) = |w|  <=>  v = log(exp(|w|) - 1)
    raw = jnp.float32(np.log(np.expm1(-self.init_weight)))
    self.raw_weight = self.param("raw_weight", lambda _: raw)
    self.bias = self.param("bias", lambda _: jnp.float32(self.init_bias))

  def __call__(self, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Returns logits float32 [B] of the pairs (x_i, y_i), float [B, D]."""
    return self.from_scores(ops.euclidean_distance(x, y))

  def from_scores(self, distances: ArrayLike) -> jax.Array:
    """Returns the logits of Euclidean distances, float [...]."""
    weight = -jax.nn.softplus(self.raw_weight)
    return euclidean_logistic(distances, weight, self.bias)


class CosineLogistic(nn.Module):
  """sigma(alpha cos(x, y) + beta) with alpha = softplus(v) > 0.

  Attributes:
    init_scale: initial alpha, > 0.
    init_bias: initial beta.
  """

  init_scale: float = 10.0
  init_bias: float = -5.0
  metric = "cosine"

  def setup(self) -> None:
    if self.init_scale <= 0:
      raise ValueError(
        "init_scale must be positive, since a larger cosine means the same "
        f"person; got {self.init_scale}."
      )
    raw = jnp.float32(np.log(np.expm1(self.init_scale)))
    self.raw_scale = self.param("raw_scale", lambda _: raw)
    self.bias = self.param("bias", lambda _: jnp.float32(self.init_bias))

  def __call__(self, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Returns logits float32 [B] of the pairs (x_i, y_i), float [B, D]."""
    return self.from_scores(ops.cosine_similarity(x, y))

  def from_scores(self, similarities: ArrayLike) -> jax.Array:
    """Returns the logits of cosines, float [...]."""
    scale = jax.nn.softplus(self.raw_scale)
    return cosine_logistic(similarities, scale, self.bias)


_HEADS: dict[str, type[nn.Module]] = {
  "euclidean_logistic": EuclideanLogistic,
  "cosine_logistic": CosineLogistic,
}


def create(name: str, **args: Any) -> nn.Module:
  """Returns the head called `name`.

  Args:
    name: "euclidean_logistic" or "cosine_logistic".
    **args: the head's attributes.

  Returns:
    A Flax module with `metric`, `__call__` and `from_scores`.

  Raises:
    ValueError: for an unknown name or attribute.
  """
  if name not in _HEADS:
    raise ValueError(f"unknown head {name!r}; choose from {sorted(_HEADS)}.")
  try:
    return _HEADS[name](**args)
  except TypeError as error:
    raise ValueError(f"head {name!r}: {error}.") from error
