"""Mistakes in measuring collapse that the test must notice, and that test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from reference import collapse as reference
from variants import Variants

from facesiam_jax.metrics import collapse


def make_embeddings(seed, *, padding=True):
  """Rows off the origin, wider in some directions, some of them padding."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(11, 5)) * [3.0, 1.0, 0.5, 0.1, 0.0] + [1, 2, 0, -4, 0.5]
  weights = np.ones(11, np.float32)
  if padding:
    weights[[0, 4, 10]] = 0
    x[[0, 4, 10]] = np.nan
  return x.astype(np.float32), weights


def check_collapse_statistics(function):
  call = jax.jit(function)
  for seed in range(3):
    x, weights = make_embeddings(seed)
    wide = np.pad(x, ((0, 0), (0, 9)), constant_values=0.25)
    wide[:, 7:] += x[:, :1] * np.linspace(-1, 1, 7, dtype=np.float32)
    for embeddings in (x, wide, 1e-3 * x):
      np.testing.assert_allclose(
        call(embeddings, weights),
        reference.statistics(embeddings, weights),
        rtol=1e-5,
      )


def _changed(**parts):
  """The right statistics with some of them computed otherwise."""

  def function(x, weights=None):
    right = collapse.collapse_statistics(x, weights)
    valid = jnp.asarray(weights)[:, None] > 0
    clean = jnp.where(valid, x, 0.0)
    return right._replace(
      **{name: part(right, clean, valid) for name, part in parts.items()}
    )

  return function


def _centred(x, valid):
  mean = jnp.sum(x, axis=0, keepdims=True) / jnp.sum(valid)
  return jnp.where(valid, x - mean, 0.0)


def _rank(singular, power):
  values = singular**power
  return jnp.sum(values) ** 2 / jnp.sum(values**2)


def _singular(x):
  return jnp.linalg.svd(x, compute_uv=False)


def _entropy_rank(x):
  shares = jnp.square(_singular(x))
  shares = shares / jnp.sum(shares)
  return jnp.exp(
    -jnp.sum(jnp.where(shares > 1e-9, shares * jnp.log(shares + 1e-30), 0.0))
  )


def _padding_counts(x, weights=None):
  """Padding is taken for rows of zeros instead of being left out."""
  clean = jnp.where(jnp.asarray(weights)[:, None] > 0, x, 0.0)
  return collapse.collapse_statistics(clean)


def _across_rows(x, weights=None):
  """The mean of each row instead of the mean row."""
  clean = jnp.where(jnp.asarray(weights)[:, None] > 0, x, 0.0)
  return collapse.collapse_statistics(clean.T)


def _normalised(x, weights=None):
  """Rows scaled to unit length unasked."""
  length = jnp.sqrt(jnp.sum(jnp.square(x), axis=1, keepdims=True))
  return collapse.collapse_statistics(x / length, weights)


def check_is_collapsed(function):
  """On both sides of each border, and where only one of two says so."""
  for spread, threshold, expected in (
    (0.0, 0.05, True),
    (0.0499, 0.05, True),
    (0.05, 0.05, False),
    (0.3, 0.05, False),
    (0.3, 0.4, True),
    (1.0, 1.0, False),
    (0.0, 0.0, False),
  ):
    assert function(spread, threshold=threshold) is expected
  assert function(0.0499) is True and function(0.0501) is False
  for spread, distance, margin, expected in (
    (0.3, 0.09, 2.0, True),
    (0.3, 0.11, 2.0, False),
    (0.3, 0.1, 2.0, False),
    (0.01, 5.0, 2.0, True),
    (0.3, 0.02, 0.25, False),
    (0.3, 0.0, 0.0, False),
  ):
    assert function(spread, distance=distance, margin=margin) is expected


def _is_collapsed(
  spread, *, distance=None, margin=None, threshold=0.05, both=False, power=1
):
  """With the two conditions joined, or the distance taken otherwise."""
  if distance is None:
    return spread < threshold
  near = distance < threshold * margin**power
  return (spread < threshold and near) if both else (spread < threshold or near)


VARIANTS = {
  "metrics.is_collapsed": Variants(
    collapse.is_collapsed,
    check_is_collapsed,
    {
      "the border too": lambda s, *, threshold=0.05, **k: (
        s <= threshold or _is_collapsed(s, threshold=threshold, **k)
      ),
      "both must say so": functools.partial(_is_collapsed, both=True),
      "the distance alone": functools.partial(_is_collapsed, power=0),
      "margin squared": functools.partial(_is_collapsed, power=2),
      "distance not asked": lambda s, *, threshold=0.05, **k: s < threshold,
      "fixed threshold": lambda s, *, threshold=0.05, **k: _is_collapsed(
        s, **k
      ),
      "upside down": lambda s, **k: not _is_collapsed(s, **k),
    },
  ),
  "metrics.collapse_statistics": Variants(
    collapse.collapse_statistics,
    check_collapse_statistics,
    {
      "padding counts as zeros": _padding_counts,
      "means across rows": _across_rows,
      "rows normalised": _normalised,
      "spread squared": _changed(spread=lambda s, x, v: s.spread**2),
      "spread without the length": _changed(
        spread=lambda s, x, v: jnp.sqrt(
          jnp.sum(_centred(x, v) ** 2) / jnp.sum(v)
        )
      ),
      "an image's distance to itself counts": _changed(
        distance=lambda s, x, v: (
          s.distance * jnp.sqrt((s.num_rows - 1) / s.num_rows)
        )
      ),
      "distance squared": _changed(distance=lambda s, x, v: s.distance**2),
      "distance from the mean": _changed(
        distance=lambda s, x, v: s.distance / jnp.sqrt(2.0)
      ),
      "rank not centred": _changed(
        effective_rank=lambda s, x, v: _rank(_singular(x), 2)
      ),
      "rank of singular values": _changed(
        effective_rank=lambda s, x, v: _rank(_singular(_centred(x, v)), 1)
      ),
      "rank by entropy": _changed(
        effective_rank=lambda s, x, v: _entropy_rank(_centred(x, v))
      ),
      "all rows counted": _changed(
        num_rows=lambda s, x, v: jnp.float32(len(x))
      ),
    },
  ),
}
