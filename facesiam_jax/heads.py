"""Heads: from two embeddings to the logit of "same person".

Each head is a Flax module over a pure function of the same name. All are
symmetric in their two inputs to the bit, and all give a logit:
`jax.nn.sigmoid` of it is the probability.

`metric` names the score that decides a head's logit, for a gallery to search
by: "euclidean" or "l1" (distances) or "cosine" (a similarity); `from_scores`
turns such scores into logits. "head" says that no single score does, so that
only the head itself can compare. `monotone` constrains a weight's sign by
w = -softplus(v) or softplus(v): the less alike never get the higher logit.
"""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike

from facesiam_jax import ops
from facesiam_jax.ops import checks, norms
from facesiam_jax.ops.logits import (
  abs_difference_logistic,
  chi_square_logistic,
  cosine_logistic,
  euclidean_logistic,
  l1_logistic,
)

__all__ = [
  "AbsDifferenceLogistic",
  "ChiSquareLogistic",
  "CosineLogistic",
  "EuclideanLogistic",
  "L1Logistic",
  "abs_difference_logistic",
  "chi_square_logistic",
  "cosine_logistic",
  "create",
  "euclidean_logistic",
  "l1_logistic",
]

_FEATURES = {
  "abs": norms.absolute,
  "relu": jax.nn.relu,
  "softplus": jax.nn.softplus,
}


def raw_weight(size: ArrayLike) -> np.ndarray:
  """Returns the raw parameter of a monotone head whose weight has this size.

  Args:
    size: > 0, float [...].

  Returns:
    v with softplus(v) = size, float64 [...].
  """
  # v = log(exp(size) - 1), written without overflow.
  size = np.asarray(size, np.float64)
  return size + np.log(-np.expm1(-size))


def _weight_of(
  module: Any, name: str, init: float, sign: int, shape: tuple[int, ...] = ()
) -> jax.Array:
  """A head's weight: the parameter `name`, or of one sign from `raw_name`."""
  if not module.monotone:
    return module.param(name, lambda _: jnp.full(shape, init, jnp.float32))
  size = sign * init
  if size <= 0:
    wanted = "negative" if sign < 0 else "positive"
    raise ValueError(
      f"init_{name} must be {wanted} where monotone, so that alike means the "
      f"same person; got {init}."
    )
  raw = raw_weight(size)
  init_raw = lambda _: jnp.full(shape, raw, jnp.float32)
  return sign * jax.nn.softplus(module.param(f"raw_{name}", init_raw))


def _bias_of(module: Any) -> jax.Array:
  return module.param("bias", lambda _: jnp.float32(module.init_bias))


class _OfDistance(nn.Module):
  """Common to heads with one weight for a distance."""

  init_weight: float = -1.0
  init_bias: float = 1.0
  monotone: bool = True

  def setup(self) -> None:
    self.w = _weight_of(self, "weight", self.init_weight, -1)
    self.b = _bias_of(self)


class EuclideanLogistic(_OfDistance):
  """sigma(w |x - y| + b), or sigma(w |x - y|^2 + b).

  Attributes:
    init_weight: initial w, < 0.
    init_bias: initial b.
    monotone: whether w < 0 always.
    squared: whether the distance is squared; its gradient then vanishes where
      two embeddings meet, instead of keeping its length.
  """

  squared: bool = False
  metric = "euclidean"

  def __call__(self, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Returns logits float32 [B] of the pairs (x_i, y_i), float [B, D]."""
    if self.squared:
      return ops.squared_distance(x, y) * self.w + self.b
    return self.from_scores(ops.euclidean_distance(x, y))

  def from_scores(self, distances: ArrayLike) -> jax.Array:
    """Returns the logits of plain Euclidean distances, float [...]."""
    return euclidean_logistic(distances, self.w, self.b, squared=self.squared)


class L1Logistic(_OfDistance):
  """sigma(w sum_k |x_k - y_k| + b).

  Attributes:
    init_weight: initial w, < 0; the L1 distance is up to sqrt(D) times the
      Euclidean one, which the default allows for at D = 100.
    init_bias: initial b.
    monotone: whether w < 0 always.
  """

  init_weight: float = -0.1
  metric = "l1"

  def __call__(self, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Returns logits float32 [B] of the pairs (x_i, y_i), float [B, D]."""
    return self.from_scores(ops.l1_distance(x, y))

  def from_scores(self, distances: ArrayLike) -> jax.Array:
    """Returns the logits of L1 distances, float [...]."""
    return l1_logistic(distances, self.w, self.b)


class CosineLogistic(nn.Module):
  """sigma(alpha cos(x, y) + beta).

  Attributes:
    init_scale: initial alpha, > 0.
    init_bias: initial beta.
    monotone: whether alpha > 0 always.
  """

  init_scale: float = 10.0
  init_bias: float = -5.0
  monotone: bool = True
  metric = "cosine"

  def setup(self) -> None:
    self.alpha = _weight_of(self, "scale", self.init_scale, 1)
    self.beta = _bias_of(self)

  def __call__(self, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Returns logits float32 [B] of the pairs (x_i, y_i), float [B, D]."""
    return self.from_scores(ops.cosine_similarity(x, y))

  def from_scores(self, similarities: ArrayLike) -> jax.Array:
    """Returns the logits of cosines, float [...]."""
    return cosine_logistic(similarities, self.alpha, self.beta)


class _ElementWise(nn.Module):
  """Common to heads with one weight for each entry of an embedding."""

  init_weight: float = -0.1
  init_bias: float = 1.0
  monotone: bool = False
  metric = "head"

  def _parameters(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    name = "raw_weight" if self.monotone else "weight"
    shape = x.shape[1:]
    # Flax's own error would not name the embeddings.
    found = jnp.shape(self.get_variable("params", name, jnp.zeros(shape)))
    if found != shape:
      raise ValueError(f"x has shape {x.shape}, but the weight {found}.")
    weight = _weight_of(self, "weight", self.init_weight, -1, shape)
    return weight, _bias_of(self)

  def from_scores(self, scores: ArrayLike) -> jax.Array:
    """Raises ValueError: no single score decides the logit."""
    raise ValueError(
      f"{type(self).__name__} is no function of one score (metric 'head'): "
      "call it with both embeddings."
    )


class AbsDifferenceLogistic(_ElementWise):
  """sigma(sum_k w_k |x_k - y_k| + b), one weight an entry.

  Attributes:
    init_weight: initial value of every w_k; see `L1Logistic`.
    init_bias: initial b.
    monotone: whether every w_k < 0 always; the papers leave them free.
  """

  @nn.compact
  def __call__(self, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Returns logits float32 [B] of the pairs (x_i, y_i), float [B, D]."""
    x, y = checks.rows(x, y)
    return abs_difference_logistic(x, y, *self._parameters(x))


class ChiSquareLogistic(_ElementWise):
  """sigma(sum_k w_k (x_k - y_k)^2 / (x_k + y_k) + b), one weight an entry.

  Attributes:
    init_weight: initial value of every w_k; see `L1Logistic`.
    init_bias: initial b.
    monotone: whether every w_k < 0 always; the paper leaves them free.
    features: what makes embeddings >= 0 first: "softplus", "relu" or "abs".
  """

  features: str = "softplus"

  @nn.compact
  def __call__(self, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Returns logits float32 [B] of the pairs (x_i, y_i), float [B, D]."""
    if self.features not in _FEATURES:
      raise ValueError(
        f"features must be one of {sorted(_FEATURES)}, got {self.features!r}."
      )
    x, y = checks.rows(x, y)
    of = _FEATURES[self.features]
    return chi_square_logistic(of(x), of(y), *self._parameters(x))


_HEADS: dict[str, type[nn.Module]] = {
  "abs_difference_logistic": AbsDifferenceLogistic,
  "chi_square_logistic": ChiSquareLogistic,
  "cosine_logistic": CosineLogistic,
  "euclidean_logistic": EuclideanLogistic,
  "l1_logistic": L1Logistic,
}


def _class_of(name: str) -> Any:
  if name in _HEADS:
    return _HEADS[name]
  module_name, colon, attribute = name.partition(":")
  if not colon:
    raise ValueError(
      f"unknown head {name!r}; choose from {sorted(_HEADS)}, or an import path "
      "package.module:Class."
    )
  try:
    return getattr(importlib.import_module(module_name), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise ValueError(f"head {name!r} cannot be imported: {error}.") from error


def create(name: str, **args: Any) -> nn.Module:
  """Returns the head of a name.

  Args:
    name: one of this module's functions ("l1_logistic"), or an import path
      "package.module:Class" of one's own head.
    **args: the head's attributes; lists become tuples, so that arguments read
      back from JSON work.

  Returns:
    A Flax module with `metric`, `__call__` and `from_scores`.

  Raises:
    ValueError: if the name is unknown, the path cannot be imported or is no
      such module, or an argument is not one of its attributes.
  """
  head = _class_of(name)
  if not (isinstance(head, type) and issubclass(head, nn.Module)):
    raise ValueError(f"head {name!r} is not a flax.linen.Module class.")
  frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in args.items()}
  try:
    made = head(**frozen)
  except TypeError as error:
    raise ValueError(f"head {name!r}: {error}.") from error
  for attribute in ("metric", "from_scores"):
    if not hasattr(made, attribute):
      raise ValueError(f"head {name!r} has no {attribute}; see heads.py.")
  return made
