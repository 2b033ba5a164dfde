"""Margins: the cosine to one's own class -> what the softmax sees of it.

Each function here is a psi of
  L = -log e^(s psi) / (e^(s psi) + sum_j e^(s cos_j)):
it makes the own class harder, and only that. The losses built on them are in
`margin_softmax` and `adaptive_margin`; `partial_fc` takes any of them.

arccos is never differentiated: its slope is -2048 one rounding step below
cosine 1 and infinite at 1. The angle's sum is expanded instead, cos(t + m) =
cos t cos m - sin t sin m, with sin t = sqrt(1 - cos^2 t) exact in value and
bounded in slope.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.losses import _checks

# The slopes of sine and angle divide by sqrt(1 - cos^2), at least by 1e-3:
# float32 cannot tell an angle below 1e-3 from its neighbours anyway.
_LEAST_SINE_SQ = 1e-6
# A larger angular margin would make the fallback rise instead of fall.
LARGEST_ANGLE = math.pi / 2
ADAFACE_EPSILON = 1e-3


class NormStatistics(NamedTuple):
  """Running mean and spread of embedding norms, AdaFace's state.

  Attributes:
    mean: running mean, float32 scalar; starts at 20.
    std: running standard deviation, float32 scalar; starts at 100.
  """

  # NumPy: as strongly typed as the updates, so that a step traces once.
  mean: ArrayLike = np.float32(20.0)
  std: ArrayLike = np.float32(100.0)


def _sine_sq(cosines: jax.Array) -> jax.Array:
  return (1.0 - cosines) * (1.0 + cosines)


@jax.custom_jvp
def _sine(cosines: jax.Array) -> jax.Array:
  """The sine of the angle with that cosine; its slope is bounded by 1000."""
  return jnp.sqrt(jnp.maximum(_sine_sq(cosines), 0.0))


@_sine.defjvp
def _sine_jvp(primals, tangents):  # type: ignore[no-untyped-def]
  (cosines,), (moved,) = primals, tangents
  floor = jnp.sqrt(jnp.maximum(_sine_sq(cosines), _LEAST_SINE_SQ))
  return _sine(cosines), -cosines / floor * moved


@jax.custom_jvp
def _angle(cosines: jax.Array) -> jax.Array:
  """The angle in radians, [0, pi]; its slope is bounded by 1000."""
  return jnp.arccos(jnp.clip(cosines, -1.0, 1.0))


@_angle.defjvp
def _angle_jvp(primals, tangents):  # type: ignore[no-untyped-def]
  (cosines,), (moved,) = primals, tangents
  floor = jnp.sqrt(jnp.maximum(_sine_sq(cosines), _LEAST_SINE_SQ))
  return _angle(cosines), -moved / floor


def cosface(cosines: ArrayLike, *, margin: ArrayLike = 0.35) -> jax.Array:
  """Returns cos(t) - margin.

  Args:
    cosines: cos(t) to the own class, float [B].
    margin: in units of cosine, a number in [0, 2] or float [B].

  Returns:
    psi, float32 [B].

  Raises:
    ValueError: if the margin is a number outside [0, 2].

  Example:
    >>> round(float(cosface(jnp.array([0.5]), margin=0.35)[0]), 4)
    0.15

  References: Wang et al. 2018, CosFace, eq. 4.
  """
  if isinstance(margin, int | float):
    _checks.within("margin", margin, 0.0, 2.0)
  return jnp.asarray(cosines).astype(jnp.float32) - margin


def arcface(
  cosines: ArrayLike, *, margin: ArrayLike = 0.5, gradient: str = "exact"
) -> jax.Array:
  """Returns cos(t + margin), and cos(t) - margin sin(margin) past pi - margin.

  Past t = pi - margin the cosine of the sum would rise again and reward a
  wrong answer; the second form keeps psi falling all the way to t = pi.
  The slope d psi / d cos(t) is sin(t + margin) / sin(t) ("exact": 1.87 at
  cosine 0.9, 0.60 at -0.5, 1 past the bend) or 1 everywhere
  ("straight_through", what insightface's arcface_torch back-propagates).

  Args:
    cosines: cos(t) to the own class, float [B].
    margin: in radians, a number in [0, pi/2] or float [B].
    gradient: "exact" or "straight_through"; the value is the same.

  Returns:
    psi, float32 [B].

  Raises:
    ValueError: if the margin is a number outside [0, pi/2] or the gradient
      has another name.

  Degenerate input: at cosine 1 or -1, and past them by rounding, value and
  slope stay finite (|slope| <= 1000).
  Example:
    >>> round(float(arcface(jnp.array([0.5]), margin=0.5)[0]), 4)
    0.0236

  References: Deng et al. 2019, ArcFace, eq. 3.
  """
  if isinstance(margin, int | float):
    _checks.within("margin", margin, 0.0, LARGEST_ANGLE)
  if gradient not in ("exact", "straight_through"):
    raise ValueError(
      f'gradient must be "exact" or "straight_through", got {gradient!r}.'
    )
  cosines = jnp.asarray(cosines).astype(jnp.float32)
  cos_margin, sin_margin = jnp.cos(margin), jnp.sin(margin)
  before = cosines * cos_margin - _sine(cosines) * sin_margin
  past = cosines - margin * sin_margin
  psi = jnp.where(cosines >= -cos_margin, before, past)
  if gradient == "straight_through":
    return cosines + lax.stop_gradient(psi - cosines)
  return psi


def combined(
  cosines: ArrayLike, *, m1: float = 1.0, m2: float = 0.3, m3: float = 0.2
) -> jax.Array:
  """Returns cos(m1 t + m2) - m3, continued so that it never rises.

  Past m1 t + m2 = pi it is cos(t) - m3 less the larger of ArcFace's m2
  sin(m2) and 1 + cos((pi - m2) / m1), which is what keeps it falling at the
  bend when m1 > 1. (1, m, 0) is `arcface`, (1, 0, m) is `cosface`.

  Args:
    cosines: cos(t) to the own class, float [B].
    m1: factor on the angle, > 0.
    m2: angle added, in radians, in [0, pi/2].
    m3: cosine subtracted, in [0, 2].

  Returns:
    psi, float32 [B].

  Raises:
    ValueError: if one of the margins is out of range.

  Degenerate input: as `arcface`.
  Example:
    >>> psi = combined(jnp.array([0.5]), m1=1.0, m2=0.3, m3=0.2)
    >>> round(float(psi[0]), 4)
    0.0217

  References: Deng et al. 2019, ArcFace, eq. 4.
  """
  _checks.above("m1", m1, 0)
  _checks.within("m2", m2, 0.0, LARGEST_ANGLE)
  _checks.within("m3", m3, 0.0, 2.0)
  if m1 == 1:
    return arcface(cosines, margin=m2) - m3
  cosines = jnp.asarray(cosines).astype(jnp.float32)
  angles = _angle(cosines)
  bend = (math.pi - m2) / m1
  drop = max(m2 * math.sin(m2), 1.0 + math.cos(min(bend, math.pi)))
  psi = jnp.where(angles <= bend, jnp.cos(m1 * angles + m2), cosines - drop)
  return psi - m3


def sphereface(
  cosines: ArrayLike, *, margin: int = 4, annealing: ArrayLike = 5.0
) -> jax.Array:
  """Returns (a cos(t) + (-1)^k cos(m t) - 2 k) / (1 + a), k = floor(m t / pi).

  cos(m t) is the Chebyshev polynomial of cos(t), so no angle is
  differentiated; k only picks the piece and carries no gradient.

  Args:
    cosines: cos(t) to the own class, float [B].
    margin: m, a whole number >= 1.
    annealing: a, >= 0: share of plain softmax, large at first
      (`sphereface_annealing`); 0 is the bare margin.

  Returns:
    psi, float32 [B].

  Raises:
    ValueError: if the margin is not a whole number >= 1 or the annealing is
      a negative number.

  Degenerate input: cosines past 1 or -1 by rounding count as the end piece.
  Example:
    >>> psi = sphereface(jnp.array([0.5]), margin=4, annealing=0.0)
    >>> round(float(psi[0]), 4)
    -1.5

  References: Liu et al. 2017, SphereFace, eq. 7; the annealing after the
    authors' caffe layer.
  """
  if not isinstance(margin, int) or margin < 1:
    raise ValueError(f"margin must be a whole number >= 1, got {margin}.")
  if isinstance(annealing, int | float):
    _checks.within("annealing", annealing, 0.0, math.inf)
  annealing = jnp.asarray(annealing, jnp.float32)
  cosines = jnp.asarray(cosines).astype(jnp.float32)
  angles = lax.stop_gradient(_angle(cosines))
  piece = jnp.clip(jnp.floor(margin * angles / jnp.pi), 0.0, margin - 1.0)
  last, polynomial = jnp.ones_like(cosines), cosines
  for _ in range(margin - 1):
    last, polynomial = polynomial, 2.0 * cosines * polynomial - last
  sign = 1.0 - 2.0 * (piece % 2.0)
  psi = sign * polynomial - 2.0 * piece
  return (annealing * cosines + psi) / (1.0 + annealing)


def adaface(
  cosines: ArrayLike,
  norms: ArrayLike,
  statistics: NormStatistics,
  *,
  margin: float = 0.4,
  concentration: float = 0.333,
) -> jax.Array:
  """Returns cos(clip(t - m z, e, pi - e)) - (m + m z), z from the norm.

  z = clip(h (|x| - mean) / (std + e), -1, 1), e = 1e-3, without gradient:
  a long embedding (a good image) gets its margin as a cosine, a short one as
  an angle. Where the clip holds the slope is 0; without it the cosine would
  rise with the angle there, which turns the gradient around.

  Args:
    cosines: cos(t) to the own class, float [B].
    norms: |x|, float [B], clipped to [0.001, 100].
    statistics: running mean and standard deviation of the norms.
    margin: m, in [0, pi/2].
    concentration: h, >= 0.

  Returns:
    psi, float32 [B].

  Raises:
    ValueError: if margin or concentration is out of range.

  Degenerate input: as `arcface`; a norm of 0 counts as 0.001.
  Example:
    >>> psi = adaface(jnp.array([0.5]), jnp.array([20.0]), NormStatistics())
    >>> round(float(psi[0]), 4)
    0.1

  References: Kim et al. 2022, AdaFace, eq. 13-17.
  """
  _checks.within("margin", margin, 0.0, LARGEST_ANGLE)
  _checks.within("concentration", concentration, 0.0, math.inf)
  cosines = jnp.asarray(cosines).astype(jnp.float32)
  norms = jnp.clip(lax.stop_gradient(jnp.asarray(norms)), 0.001, 100.0)
  mean, std = jax.tree.map(lax.stop_gradient, statistics)
  quality = concentration * (norms - mean) / (std + ADAFACE_EPSILON)
  turn = margin * jnp.clip(quality, -1.0, 1.0)
  angles = lax.stop_gradient(_angle(cosines)) - turn
  turned = cosines * jnp.cos(turn) + _sine(cosines) * jnp.sin(turn)
  end = math.cos(ADAFACE_EPSILON)
  turned = jnp.where(angles < ADAFACE_EPSILON, end, turned)
  turned = jnp.where(angles > math.pi - ADAFACE_EPSILON, -end, turned)
  return turned - (margin + turn)


def _by_difficulty(
  drawn: jax.Array,
  cosines: jax.Array,
  rows: jax.Array,
  valid: jax.Array,
  axis_name: str | None,
) -> jax.Array:
  """Deals the margins of all valid rows: the largest to the least cosine."""
  columns = drawn, cosines, rows, valid
  if axis_name is not None:
    columns = jax.tree.map(
      lambda own: lax.all_gather(own, axis_name, tiled=True), columns
    )
  all_drawn, all_cosines, all_rows, all_valid = columns
  order = jnp.lexsort((all_rows, -all_cosines, ~all_valid))
  places = jnp.arange(len(order))
  ranks = jnp.zeros_like(places).at[order].set(places)
  if axis_name is not None:
    first = lax.axis_index(axis_name) * len(drawn)
    ranks = lax.dynamic_slice_in_dim(ranks, first, len(drawn))
  dealt = jnp.sort(jnp.where(all_valid, all_drawn, jnp.inf))[ranks]
  # Padding keeps what it drew: infinity would reach the centres' gradient.
  return jnp.where(valid, dealt, drawn)


def elasticface(
  cosines: ArrayLike,
  rows: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  key: jax.Array,
  kind: str = "arc",
  margin: float = 0.5,
  std: float = 0.05,
  plus: bool = False,
  axis_name: str | None = None,
) -> jax.Array:
  """Returns `arcface` or `cosface` with a margin drawn for each example.

  Args:
    cosines: cos(t) to the own class, float [B].
    rows: index of each example in the global batch, int32 [B].
    weights: 0 = padding, float [B], which `plus` leaves out; None means ones.
    key: of this step; row r draws from fold_in(key, r).
    kind: "arc" (radians) or "cos".
    margin: mean of the margins; the draws are cut to the range of the kind.
    std: their standard deviation, >= 0.
    plus: whether the largest margin goes to the least cosine, and so on down.
    axis_name: mesh axis over which the batch is split, for `plus`.

  Returns:
    psi, float32 [B].

  Raises:
    ValueError: if the kind has another name, margin or std is out of range or
      the shapes differ.

  Degenerate input: as `arcface`.
  Example:
    >>> psi = elasticface(
    ...   jnp.array([0.5]), jnp.array([0]), key=jax.random.key(0), std=0.0
    ... )
    >>> round(float(psi[0]), 4)
    0.0236

  References: Boutros et al. 2022, ElasticFace, eq. 6-7.
  """
  if kind not in ("arc", "cos"):
    raise ValueError(f'kind must be "arc" or "cos", got {kind!r}.')
  largest = LARGEST_ANGLE if kind == "arc" else 2.0
  _checks.within("margin", margin, 0.0, largest)
  _checks.within("std", std, 0.0, math.inf)
  cosines, rows = jnp.asarray(cosines), jnp.asarray(rows)
  if rows.shape != cosines.shape:
    raise ValueError(
      f"rows must hold one index for each example, got {rows.shape} for "
      f"{cosines.shape}."
    )
  draw = lambda row: jax.random.normal(jax.random.fold_in(key, row))
  drawn = jnp.clip(margin + std * jax.vmap(draw)(rows), 0.0, largest)
  if plus:
    valid = jnp.ones(cosines.shape, bool)
    if weights is not None:
      valid = jnp.asarray(weights) > 0
    difficulty = lax.stop_gradient(cosines)
    drawn = _by_difficulty(drawn, difficulty, rows, valid, axis_name)
  if kind == "arc":
    return arcface(cosines, margin=drawn)
  return cosface(cosines, margin=drawn)
