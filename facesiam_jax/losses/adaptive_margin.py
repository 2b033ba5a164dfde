"""Margin-softmax losses whose margin differs from example to example.

AdaFace and MagFace take it from the embedding's norm, ElasticFace draws it.
What they need beside the batch is an explicit argument: AdaFace's running
statistics (`update_norm_statistics` gives the next ones), ElasticFace's key.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.losses import _checks, margins
from facesiam_jax.losses.softmax import (
  margin_cross_entropy,
  prepare,
  row_norms,
)

NormStatistics = margins.NormStatistics


def update_norm_statistics(
  statistics: NormStatistics,
  embeddings: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  rate: float = 0.01,
  axis_name: str | None = None,
) -> NormStatistics:
  """Moves AdaFace's statistics towards those of a batch.

    new = (1 - rate) old + rate batch
  for the mean and for the standard deviation (n - 1 in its denominator) of the
  norms, clipped to [0.001, 100]. AdaFace updates first and then takes the
  loss with the new ones.
  Batch meaning: statistics of the *global* batch; on several devices give the
  axis name, and all get the same.

  Args:
    statistics: the old ones.
    embeddings: float [B, D], not normalised; no gradient flows.
    weights: 0 = padding, float [B], which does not count; None means all ones.
    rate: in [0, 1]; the paper's momentum of 0.99 is a rate of 0.01 (the
      authors' code calls it t_alpha, and its class default is 1).
    axis_name: mesh axis over which the batch is split, or None.

  Returns:
    The new statistics, float32 scalars.

  Raises:
    ValueError: if shapes or dtypes do not fit, the batch is empty or the rate
      is out of range.

  Degenerate input: with one valid row there is no deviation and the old one
  stays; with none both stay.
  Example:
    >>> new = update_norm_statistics(
    ...   NormStatistics(), jnp.array([[10.0], [30.0]]), rate=1.0
    ... )
    >>> round(float(new.mean), 4), round(float(new.std), 4)
    (20.0, 14.1421)

  References: Kim et al. 2022, AdaFace, section 3.3.
  """
  _checks.within("rate", rate, 0.0, 1.0)
  labels = jnp.zeros(jnp.shape(embeddings)[:1], jnp.int32)
  rows, _, weights = prepare("embeddings", embeddings, labels, weights, 1)
  valid = weights > 0
  norms = jnp.clip(lax.stop_gradient(row_norms(rows)), 0.001, 100.0)

  def total(terms: jax.Array) -> jax.Array:
    own = jnp.sum(jnp.where(valid, terms, 0.0))
    return own if axis_name is None else lax.psum(own, axis_name)

  count = total(jnp.ones_like(norms))
  mean = total(norms) / jnp.maximum(count, 1.0)
  spread = total(jnp.square(norms - mean)) / jnp.maximum(count - 1.0, 1.0)
  old_mean, old_std = jax.tree.map(jnp.float32, statistics)
  new_mean = old_mean + rate * (mean - old_mean)
  new_std = old_std + rate * (jnp.sqrt(spread) - old_std)
  return NormStatistics(
    mean=jnp.where(count > 0, new_mean, old_mean),
    std=jnp.where(count > 1, new_std, old_std),
  )


def adaface(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  statistics: NormStatistics,
  scale: float = 64.0,
  margin: float = 0.4,
  concentration: float = 0.333,
) -> tuple[jax.Array, jax.Array]:
  """Computes AdaFace: the margin's kind follows the embedding's norm.

    own class: s (cos(clip(t - m z, e, pi - e)) - m - m z)
    z = clip(h (|x| - mean) / (std + e), -1, 1), e = 1e-3
  Batch meaning: rows are independent, given the statistics.

  Args:
    embeddings: float [B, D], NOT normalised: the norm is used.
    class_weights: class centres, float [C, D], any length.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    statistics: of the norms, from `update_norm_statistics` on this batch.
    scale: s, > 0.
    margin: m, in [0, pi/2].
    concentration: h, >= 0.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B]. No gradient flows through norm or statistics.

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C), or scale, margin or
      concentration is out of range.

  Degenerate input: as `margin_softmax.arcface`; where the clip holds, the own
  class has no gradient (without it, it would have the wrong sign).
  Example:
    >>> one = jnp.eye(2)
    >>> values, _ = adaface(
    ...   one, one, jnp.array([0, 1]), scale=1.0,
    ...   statistics=NormStatistics(1.0, 1.0)
    ... )
    >>> round(float(values[0]), 4)
    0.4375

  References: Kim et al. 2022, AdaFace, eq. 13-17. The authors' code also
    clamps every cosine to 1 - e; here only the own angle is clipped.
  """
  return margin_cross_entropy(
    embeddings,
    class_weights,
    labels,
    weights,
    target=lambda cosines, norms: margins.adaface(
      cosines,
      norms,
      statistics,
      margin=margin,
      concentration=concentration,
    ),
    scale=scale,
  )


def magface(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  scale: float = 64.0,
  norm_range: tuple[float, float] = (10.0, 110.0),
  margin_range: tuple[float, float] = (0.45, 0.8),
  regularizer: float = 35.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes MagFace: a longer embedding gets a larger ArcFace margin.

    cross-entropy with s cos(t + m(a)) at the own class + regularizer g(a)
    g(a) = 1 / a + a / u_a^2, a = |x| clipped to [l_a, u_a]
  m grows linearly from l_m at l_a to u_m at u_a. Both terms of an example are
  in its one value, so that the mean of the values is the paper's loss. The
  gradient flows through a: m(a) shortens, g(a) lengthens. g wins at l_a, which
  the paper asks for, when regularizer >= s k l_a^2 u_a^2 / (u_a^2 - l_a^2)
  with k the slope of m: 22.6 at the defaults.
  Batch meaning: rows are independent.

  Args:
    embeddings: float [B, D], NOT normalised: the norm is used.
    class_weights: class centres, float [C, D], any length.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    scale: s, > 0.
    norm_range: (l_a, u_a), 0 < l_a < u_a.
    margin_range: (l_m, u_m) in radians, in [0, pi/2], not falling.
    regularizer: lambda_g, >= 0; the authors train with 35 (run.sh).

  Returns:
    (values, weights): losses, float32 [B], >= 0, and the weights, float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C), or an option is out of range.

  Degenerate input: as `margin_softmax.arcface`, whose form past the bend
  t = pi - m(a) is taken too; a norm outside [l_a, u_a] has no gradient.
  Example:
    >>> one = 10 * jnp.eye(2)
    >>> values, _ = magface(
    ...   one, one, jnp.array([0, 1]), scale=1.0, regularizer=0.0
    ... )
    >>> round(float(values[0]), 4)
    0.341

  References: Meng et al. 2021, MagFace, eq. 4-6. The authors' code applies the
    margin only where cos(t) > 0.
  """
  (low, high), (low_margin, high_margin) = norm_range, margin_range
  if not 0 < low < high:
    raise ValueError(f"norm_range must have 0 < l_a < u_a, got {norm_range}.")
  if not 0 <= low_margin <= high_margin <= margins.LARGEST_ANGLE:
    raise ValueError(
      f"margin_range must have 0 <= l_m <= u_m <= pi/2, got {margin_range}."
    )
  _checks.within("regularizer", regularizer, 0.0, math.inf)
  slope = (high_margin - low_margin) / (high - low)

  def clipped(norms: jax.Array) -> jax.Array:
    # Not jnp.clip, which halves the gradient exactly at a limit.
    return jnp.where(norms < low, low, jnp.where(norms > high, high, norms))

  def target(cosines: jax.Array, norms: jax.Array) -> jax.Array:
    grown = low_margin + slope * (clipped(norms) - low)
    return margins.arcface(cosines, margin=grown)

  values, weights = margin_cross_entropy(
    embeddings, class_weights, labels, weights, target=target, scale=scale
  )
  valid = weights > 0
  rows = jnp.where(valid[:, None], jnp.asarray(embeddings), 0.0)
  sizes = clipped(row_norms(rows.astype(jnp.float32)))
  penalties = regularizer * (1.0 / sizes + sizes / high**2)
  return jnp.where(valid, values + penalties, 0.0), weights


def elasticface(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  key: jax.Array,
  rows: ArrayLike | None = None,
  kind: str = "arc",
  scale: float = 64.0,
  margin: float | None = None,
  std: float = 0.05,
  plus: bool = False,
  axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes ElasticFace: a normal margin for each example, drawn anew.

  ArcFace ("arc") or CosFace ("cos") with margin ~ N(margin, std^2), cut to
  what those allow. With `plus` the largest of the drawn margins goes to the
  example with the smallest cosine to its class, and so on down.
  Batch meaning: rows are independent; with `plus`, all of the *global* batch
  are ranked together.

  Args:
    embeddings: float [B, D], any length (the cosine is taken).
    class_weights: class centres, float [C, D], any length.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    key: of this step and purpose; row r draws from fold_in(key, r), so that
      the draw does not depend on the number of devices.
    rows: index of each row in the global batch, int32 [B]; None means 0 to
      B - 1, which is right on one device only.
    kind: "arc" or "cos".
    scale: s, > 0.
    margin: its mean; None means 0.5 radians for "arc", 0.35 for "cos".
    std: its standard deviation, >= 0; the authors' recipes have 0.05, with
      `plus` 0.0175 for "arc".
    plus: whether to sort the margins by difficulty.
    axis_name: mesh axis over which the batch is split, for `plus`.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C), or an option is out of range.

  Degenerate input: as `margin_softmax.arcface`; padding takes no part in the
  ranking.
  Example:
    >>> one = jnp.eye(2)
    >>> values, _ = elasticface(
    ...   one, one, jnp.array([0, 1]), key=jax.random.key(0), scale=1.0, std=0.0
    ... )
    >>> round(float(values[0]), 4)
    0.3477

  References: Boutros et al. 2022, ElasticFace, eq. 6-7. The authors' code for
    "+" indexes the sorted margins by the sorting permutation instead of by
    its inverse, so that they do not follow the cosines; here they do.
  """
  if margin is None:
    margin = 0.5 if kind == "arc" else 0.35

  def target(cosines: jax.Array, norms: jax.Array) -> jax.Array:
    del norms
    return margins.elasticface(
      cosines,
      jnp.arange(len(cosines)) if rows is None else jnp.asarray(rows),
      weights,
      key=key,
      kind=kind,
      margin=margin,
      std=std,
      plus=plus,
      axis_name=axis_name,
    )

  return margin_cross_entropy(
    embeddings, class_weights, labels, weights, target=target, scale=scale
  )
