"""Norms, means and row-wise distances: their tests, and wrong variants.

The all-pairs functions are in ops_pairwise.py, which tests them alike.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from jax import lax
from reference import ops as reference
from variants import Variants

from facesiam_jax import ops

_RNG = np.random.default_rng(0)
X = np.float32(_RNG.normal(size=(5, 3)))
Y = np.float32(_RNG.normal(size=(5, 3)))
# Features are not negative.
F, G = np.abs(X), np.abs(Y)
_NAN_ROW = 4


def with_gradients(function):
  """(x, y, cotangent) -> (value, gradients)."""

  def run(x, y, cotangent):
    value, pull = jax.vjp(function, x, y)
    return value, pull(cotangent)

  return run


@dataclasses.dataclass(frozen=True)
class Case:
  """The test of a function of two matrices.

  Attributes:
    loop: the float64 reference.
    x: float32 [A, D].
    y: float32 [B, D].
    degree: what power of a common scale the function grows with.
    scales: of the inputs, at which it must be right.
    noise: what may be left where a row meets its own copy.
    still: whether the gradient is 0 there.
    structure: further test, of the function.
  """

  loop: Callable[..., Any]
  x: Any
  y: Any
  degree: int
  scales: tuple[float, ...] = (1.0, 1e-30, 1e30)
  noise: float = 1e-6
  still: bool = True
  structure: Callable[..., None] = lambda function: None

  @functools.cached_property
  def cotangent(self):
    shape = np.shape(self.loop(self.x, self.y))
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)

  @functools.cached_property
  def gradients(self):
    weights = np.asarray(self.cotangent, np.float64)
    total = lambda x, y: np.sum(weights * np.asarray(self.loop(x, y)))
    return (
      numeric.gradient(lambda x: total(x, self.y), self.x),
      numeric.gradient(lambda y: total(self.x, y), self.y),
    )

  def scaled(self, scale):
    return self.x * np.float32(scale), self.y * np.float32(scale)

  def check_values(self, function):
    expected = np.asarray(self.loop(self.x, self.y))
    for scale in self.scales:
      actual = function(*self.scaled(scale))
      assert actual.shape == expected.shape
      np.testing.assert_allclose(
        np.asarray(actual, np.float64) / float(scale) ** self.degree,
        expected,
        rtol=1e-5,
        atol=0 if self.degree else 1e-6,
      )

  def check_gradients(self, function):
    """Small cotangents too: those of a mean times a small scale."""
    for scale in self.scales:
      for small in (1.0, 1e-8) if self.degree == 1 else (1.0,):
        weights = self.cotangent * np.float32(small)
        _, grads = function(*self.scaled(scale), weights)
        unit = small * float(scale) ** (self.degree - 1)
        for grad, expected in zip(grads, self.gradients, strict=True):
          grad = np.asarray(grad, np.float64) / unit
          numeric.assert_gradients_close(grad, expected, rtol=1e-5)

  def check_kinks(self, function):
    """Equal and zero rows give what they should, and finite gradients."""
    x, y = self.x.copy(), self.y.copy()
    y[0] = x[0]
    x[1] = y[2] = x[3] = y[3] = 0.0
    expected = np.asarray(self.loop(x, y))
    value, grads = function(x, y, np.ones_like(self.cotangent))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=self.noise)
    for grad in grads:
      assert np.all(np.isfinite(grad))
      if len(x) == len(y):
        np.testing.assert_array_equal(grad[3], 0.0)
      if len(x) == len(y) and self.still:
        np.testing.assert_allclose(grad[0], 0.0, atol=1e-6)
    x[_NAN_ROW] = np.nan
    value, _ = function(x, y, self.cotangent)
    assert np.all(np.isnan(value[_NAN_ROW]))
    np.testing.assert_allclose(
      value[:_NAN_ROW], expected[:_NAN_ROW], rtol=1e-5, atol=self.noise
    )

  def __call__(self, function):
    self.check_values(jax.jit(function))
    self.structure(function)
    compiled = jax.jit(with_gradients(function))
    self.check_gradients(compiled)
    self.check_kinks(compiled)


def _rows(loop, x=X, y=Y, **others):
  return Case(lambda x, y: reference.by_rows(loop, x, y), x, y, **others)


def _check_root(function):
  x = np.float32([4.0, 0.0, -2.0, 1e-30, 1e30, 2.0])
  value, grad = jax.jit(
    lambda x: (function(x), jax.grad(lambda x: jnp.sum(function(x)))(x))
  )(x)
  expected = [reference.root(v) for v in x.tolist()]
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  positive = np.float64(np.where(x > 0, x, np.inf))
  np.testing.assert_allclose(grad, 0.5 / np.sqrt(positive), rtol=1e-6)
  assert np.isnan(function(np.float32([np.nan]))[0])


def _check_unit(function):
  loop = lambda x, y: [reference.unit(row) for row in x]
  two = lambda x, y: function(x) + jnp.zeros_like(y)
  Case(loop, X, Y, degree=0, still=False)(two)
  # Any number of axes before the last.
  np.testing.assert_array_equal(function(X[None])[0], function(X))


def _check_mean(function):
  values = np.float32([1.0, -2.0, np.nan, 5.0, 0.25])
  for weights in (
    np.float32([1, 0.5, 0, 2, 1]),
    np.float32([0.25, 0, 0, 0.5, 0]),
    np.zeros(5, np.float32),
  ):
    value, grad = jax.value_and_grad(function)(values, weights)
    expected = reference.mean(values, weights)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    slopes = weights / max(float(np.sum(weights)), 1.0)
    np.testing.assert_allclose(grad, slopes, rtol=1e-6)
  column = values.reshape(5, 1)[:2]
  np.testing.assert_allclose(function(column, np.ones((2, 1))), -0.5)


def _check_slope_at_zero(function):
  """From the right: features are not negative."""
  grad = jax.grad(lambda x: jnp.sum(function(x, G)))(np.zeros_like(G))
  np.testing.assert_allclose(grad, -3.0, rtol=1e-6)


def _norm(x, **others):
  return jnp.sqrt(jnp.sum(x * x, -1, **others))


def _largest(x):
  return jnp.max(jnp.abs(x), -1, keepdims=True)


def _one_where(x, y):
  squared = jnp.sum((x - y) ** 2, -1)
  return jnp.where(squared > 0, jnp.sqrt(squared), 0.0)


def _ratio(x, y):
  return (x - y) / jnp.maximum(jnp.abs(x) + jnp.abs(y), 1e-30)


def _masked_sum(values, weights):
  return jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)


def _unmasked_mean(values, weights):
  return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)


_WRONG_TERMS = {
  "times a half": lambda x, y: 0.5 * ops.chi_square_terms(x, y),
  "plain for squared": lambda x, y: jnp.abs(_ratio(x, y)),
  "no mask": lambda x, y: (x - y) ** 2 / (x + y),
  "one where": lambda x, y: jnp.where(
    x + y == 0, 0.0, (x - y) * ((x - y) / (x + y))
  ),
  "epsilon below": lambda x, y: (x - y) ** 2 / (x + y + 1e-6),
  "squared below": lambda x, y: _ratio(x, y) ** 2,
  "the square formed": lambda x, y: (
    (x - y) ** 2 / jnp.maximum(x + y, np.float32(1e-37))
  ),
  "slope 0 at 0": lambda x, y: ops.chi_square_terms(jax.nn.relu(x), y),
}
VARIANTS = {
  "ops.safe_sqrt": Variants(
    ops.safe_sqrt,
    _check_root,
    {
      "plain": jnp.sqrt,
      "one where": lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0),
      "epsilon": lambda x: jnp.sqrt(jnp.maximum(x, 0.0) + 1e-12),
      "clamped": lambda x: jnp.sqrt(jnp.maximum(x, 1e-12)),
      "NaN is zero": lambda x: jnp.where(
        x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0
      ),
      "absolute": lambda x: ops.safe_sqrt(jnp.abs(x)),
    },
  ),
  "ops.l2_normalize": Variants(
    ops.l2_normalize,
    _check_unit,
    {
      "squared norm": lambda x: x / jnp.sum(x * x, -1, keepdims=True),
      "wrong axis": lambda x: ops.l2_normalize(jnp.swapaxes(x, 0, -1)).T,
      "whole array": lambda x: x / _norm(x.ravel()),
      "largest": lambda x: x / _largest(x),
      "l1": lambda x: x / jnp.sum(jnp.abs(x), -1, keepdims=True),
      "epsilon": lambda x: x / (_norm(x, keepdims=True) + 1e-6),
      "not scaled": lambda x: (
        x * lax.rsqrt(jnp.maximum(_norm(x, keepdims=True) ** 2, 1e-37))
      ),
      "NaN at zero": lambda x: (
        x / _largest(x) / _norm(x / _largest(x), keepdims=True)
      ),
    },
  ),
  "ops.masked_mean": Variants(
    ops.masked_mean,
    _check_mean,
    {
      "sum": _masked_sum,
      "count": lambda v, w: _masked_sum(v, w) / v.size,
      "no mask": _unmasked_mean,
      "mask after": lambda v, w: jnp.nan_to_num(_unmasked_mean(v, w)),
      "weights as a mask": lambda v, w: ops.masked_mean(v, w > 0),
      "0 / 0": lambda v, w: _masked_sum(v, w) / jnp.sum(w),
    },
  ),
  "ops.squared_distance": Variants(
    ops.squared_distance,
    _rows(reference.squared, degree=2, scales=(1.0, 1e-15, 1e18)),
    {
      "plain for squared": lambda x, y: _norm(x - y),
      "wrong axis": lambda x, y: jnp.sum((x - y) ** 2, 0),
      "mean": lambda x, y: jnp.mean((x - y) ** 2, -1),
      "l1": lambda x, y: jnp.sum(jnp.abs(x - y), -1),
      "sum": lambda x, y: jnp.sum((x + y) ** 2, -1),
      "half": lambda x, y: 0.5 * jnp.sum((x - y) ** 2, -1),
      "expanded": lambda x, y: (
        _norm(x) ** 2 + _norm(y) ** 2 - 2 * jnp.sum(x * y, -1)
      ),
    },
  ),
  "ops.euclidean_distance": Variants(
    ops.euclidean_distance,
    _rows(reference.euclidean, degree=1),
    {
      "squared": ops.squared_distance,
      "l1": ops.l1_distance,
      "wrong axis": lambda x, y: jnp.sqrt(jnp.sum((x - y) ** 2, 0)),
      "epsilon": lambda x, y: jnp.sqrt(ops.squared_distance(x, y) + 1e-12),
      "not scaled": lambda x, y: ops.safe_sqrt(ops.squared_distance(x, y)),
      "one where": _one_where,
      "NaN at zero": lambda x, y: (
        _norm((x - y) / _largest(x - y)) * _largest(x - y)[:, 0]
      ),
      "gradient through the scale": lambda x, y: (
        _norm((x - y) / lax.stop_gradient(_largest(x - y) + 1e-37))
        * lax.stop_gradient(_largest(x - y) + 1e-37)[:, 0]
      ),
    },
  ),
  "ops.cosine_similarity": Variants(
    ops.cosine_similarity,
    _rows(reference.cosine, degree=0),
    {
      "dot": lambda x, y: jnp.sum(x * y, -1),
      "one side": lambda x, y: jnp.sum(ops.l2_normalize(x) * y, -1),
      "distance": lambda x, y: 1.0 - ops.cosine_similarity(x, y),
      "squared norms": lambda x, y: (
        jnp.sum(x * y, -1) / (_norm(x) ** 2 * _norm(y) ** 2)
      ),
      "not scaled": lambda x, y: (
        jnp.sum(x * y, -1) / jnp.maximum(_norm(x) * _norm(y), 1e-8)
      ),
      "clipped": lambda x, y: jnp.clip(ops.cosine_similarity(x, y), -0.9, 0.9),
    },
  ),
  "ops.l1_distance": Variants(
    ops.l1_distance,
    _rows(reference.l1, degree=1),
    {
      "euclidean": ops.euclidean_distance,
      "signed": lambda x, y: jnp.sum(x - y, -1),
      "mean": lambda x, y: jnp.mean(jnp.abs(x - y), -1),
      "largest": lambda x, y: jnp.max(jnp.abs(x - y), -1),
      "wrong axis": lambda x, y: jnp.sum(jnp.abs(x - y), 0),
      "smooth": lambda x, y: jnp.sum(jnp.sqrt((x - y) ** 2 + 1e-6), -1),
      "slope 1 at 0": lambda x, y: jnp.sum(jnp.abs(x - y), -1),
    },
  ),
  "ops.chi_square_terms": Variants(
    ops.chi_square_terms,
    _rows(reference.chi_terms, F, G, degree=1, structure=_check_slope_at_zero),
    _WRONG_TERMS,
  ),
  "ops.chi_square_distance": Variants(
    ops.chi_square_distance,
    _rows(reference.chi, F, G, degree=1, structure=_check_slope_at_zero),
    {
      **{
        name: lambda x, y, wrong=wrong: jnp.sum(wrong(x, y), -1)
        for name, wrong in _WRONG_TERMS.items()
      },
      "mean": lambda x, y: jnp.mean(ops.chi_square_terms(x, y), -1),
      "root": lambda x, y: ops.safe_sqrt(ops.chi_square_distance(x, y)),
    },
  ),
}
