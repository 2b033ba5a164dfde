"""All-pairs distances and similarities: their tests, and wrong variants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from reference import ops as reference
from variants import Variants

from facesiam_jax import ops
from wrong.ops import Case, F, G, X, Y, with_gradients

_ONES = np.ones((5, 4), np.float32)


def equations(jaxpr):
  """All equations of a jaxpr and of those inside it."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")
    ):
      if hasattr(inner, "eqns"):
        yield from equations(getattr(inner, "jaxpr", inner))


def _pairs(loop, x=X, y=Y, **others):
  loop_ = lambda x, y: reference.by_pairs(loop, x, y)
  return Case(loop_, x, y[:4], **others)


def _check_products(function):
  """One matrix product forward, and every one at full precision."""
  forward = jax.make_jaxpr(function)(X, Y[:4])
  backward = jax.make_jaxpr(with_gradients(function))(X, Y[:4], _ONES)
  find = lambda jaxpr: [
    equation.params["precision"]
    for equation in equations(jaxpr.jaxpr)
    if equation.primitive.name == "dot_general"
  ]
  assert len(find(forward)) == 1
  assert len(find(backward)) >= 3
  for precision in find(backward):
    assert precision == (lax.Precision.HIGHEST,) * 2, precision


def _check_memory(function):
  """No array as large as [A, B, D], forward or backward."""
  blocked = functools.partial(function, block_rows=2)
  jaxpr = jax.make_jaxpr(with_gradients(blocked))(X, Y[:4], _ONES)
  sizes = [
    out.aval.size
    for equation in equations(jaxpr.jaxpr)
    for out in equation.outvars
  ]
  assert max(sizes) < 5 * 4 * 3, max(sizes)


def _check_clamped(function):
  """Near-duplicates, of which rounding makes some squares negative."""
  _check_products(function)
  compiled = jax.jit(function)
  for seed in range(40):
    x = np.random.default_rng(seed).normal(size=(5, 3)).astype(np.float32)
    y = x[:4] * np.float32(1.0001)
    assert np.min(compiled(100 * x, 100 * y)) >= 0


def _check_mixed_scales(function):
  """Rows of all magnitudes beside each other, zero rows too."""
  _check_products(function)
  powers = np.float32([1e-30, 1e-10, 1.0, 1e30, 0.0])[:, None]
  x, y = X * powers, Y[:4] * powers[[3, 0, 4, 2]]
  expected = np.asarray(reference.by_pairs(reference.euclidean, x, y))
  np.testing.assert_allclose(function(x, y), expected, rtol=1e-5)
  _, grads = jax.jit(with_gradients(function))(x, y, _ONES)
  differences = np.float64(x[:, None]) - np.float64(y[None])
  slopes = differences / np.where(expected > 0, expected, 1.0)[..., None]
  np.testing.assert_allclose(grads[0], slopes.sum(1), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(grads[1], -slopes.sum(0), rtol=1e-5, atol=1e-5)


def _norm(x):
  return jnp.sqrt(jnp.sum(x * x, -1))


def _diff(x, y):
  return x[:, None] - y[None]


def _squares(x, y):
  return jnp.sum(x * x, -1)[:, None] + jnp.sum(y * y, -1)[None]


def _plain_dot(x, y):
  return jnp.matmul(x, y.T)


def _dot(x, y):
  return jnp.matmul(x, y.T, precision="highest")


def _whole(terms):
  """All pairs at once, from the terms of one."""
  return lambda x, y, block_rows=None: jnp.sum(
    terms(*jnp.broadcast_arrays(x[:, None], y[None])), -1
  )


def _kept_l1(x, y, block_rows=None):
  """Block-wise, but the backward pass keeps all blocks."""
  return lax.map(lambda row: jnp.sum(jnp.abs(row[None] - y), -1), x)


def _root_of_squared(x, y):
  return ops.safe_sqrt(ops.pairwise_squared_distance(x, y))


def _one_scale(x, y):
  scale = jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(y)))
  return scale * _root_of_squared(x / scale, y / scale)


VARIANTS = {
  "ops.pairwise_dot": Variants(
    ops.pairwise_dot,
    _pairs(
      reference.dot,
      degree=2,
      scales=(1.0, 1e-15, 1e18),
      still=False,
      structure=_check_products,
    ),
    {
      "default precision": _plain_dot,
      "cosine": ops.pairwise_cosine_similarity,
      "transposed": lambda x, y: _dot(y, x),
      "rounded": lambda x, y: _dot(
        x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
      ).astype(jnp.float32),
      "negative": lambda x, y: -_dot(x, y),
    },
  ),
  "ops.pairwise_cosine_similarity": Variants(
    ops.pairwise_cosine_similarity,
    _pairs(reference.cosine, degree=0, structure=_check_products),
    {
      "default precision": lambda x, y: _plain_dot(
        ops.l2_normalize(x), ops.l2_normalize(y)
      ),
      "dot": ops.pairwise_dot,
      "one side": lambda x, y: _dot(ops.l2_normalize(x), y),
      "distance": lambda x, y: 1.0 - ops.pairwise_cosine_similarity(x, y),
      "transposed": lambda x, y: ops.pairwise_cosine_similarity(y, x),
      "not scaled": lambda x, y: (
        _dot(x, y) / jnp.maximum(_norm(x)[:, None] * _norm(y)[None], 1e-8)
      ),
    },
  ),
  "ops.pairwise_squared_distance": Variants(
    ops.pairwise_squared_distance,
    _pairs(
      reference.squared,
      degree=2,
      scales=(1.0, 1e-15, 1e18),
      noise=1e-5,
      structure=_check_clamped,
    ),
    {
      "default precision": lambda x, y: jnp.maximum(
        _squares(x, y) - 2 * _plain_dot(x, y), 0
      ),
      "not clamped": lambda x, y: _squares(x, y) - 2 * _dot(x, y),
      "product once": lambda x, y: jnp.maximum(_squares(x, y) - _dot(x, y), 0),
      "plain for squared": ops.pairwise_euclidean_distance,
      "all differences": lambda x, y: jnp.sum(_diff(x, y) ** 2, -1),
      "plus": lambda x, y: jnp.abs(_squares(x, y) + 2 * _dot(x, y)),
    },
  ),
  "ops.pairwise_euclidean_distance": Variants(
    ops.pairwise_euclidean_distance,
    _pairs(
      reference.euclidean, degree=1, noise=2e-3, structure=_check_mixed_scales
    ),
    {
      "squared": ops.pairwise_squared_distance,
      "not scaled": _root_of_squared,
      "one scale": _one_scale,
      "epsilon": lambda x, y: jnp.sqrt(
        ops.pairwise_squared_distance(x, y) + 1e-6
      ),
      "l1": ops.pairwise_l1_distance,
      "all differences": lambda x, y: ops.pairwise_euclidean_distance(
        x, y, direct=True
      ),
    },
  ),
  "ops.pairwise_l1_distance": Variants(
    ops.pairwise_l1_distance,
    _pairs(reference.l1, degree=1, structure=_check_memory),
    {
      "euclidean": lambda x, y, **_: ops.pairwise_euclidean_distance(x, y),
      "all at once": _whole(lambda x, y: jnp.abs(x - y)),
      "all kept": _kept_l1,
      "mean": lambda x, y, **_: ops.pairwise_l1_distance(x, y) / x.shape[1],
      "signed": _whole(lambda x, y: x - y),
      "transposed": lambda x, y, **_: ops.pairwise_l1_distance(y, x),
    },
  ),
  "ops.pairwise_chi_square_distance": Variants(
    ops.pairwise_chi_square_distance,
    _pairs(reference.chi, F, G, degree=1, structure=_check_memory),
    {
      "all at once": _whole(
        lambda x, y: (x - y) * ((x - y) / jnp.maximum(x + y, np.float32(1e-37)))
      ),
      "times a half": lambda x, y, **_: (
        0.5 * ops.pairwise_chi_square_distance(x, y)
      ),
      "squared": lambda x, y, **_: ops.pairwise_squared_distance(x, y),
      "no mask": _whole(lambda x, y: (x - y) ** 2 / (x + y)),
      "epsilon below": _whole(lambda x, y: (x - y) ** 2 / (x + y + 1e-6)),
    },
  ),
}
