"""Tests of facesiam_jax.ops."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util
from reference import losses as reference

from facesiam_jax import ops


def _rows(seed, shape=(7, 5)):
  x = np.random.default_rng(seed).normal(size=shape)
  return x.astype(np.float32)


def _rowwise_cases():
  return {
    "euclidean_distance": (ops.euclidean_distance, reference.distance),
    "squared_distance": (
      ops.squared_distance,
      lambda x, y: reference.distance(x, y) ** 2,
    ),
    "cosine_similarity": (ops.cosine_similarity, reference.cosine),
  }


@pytest.mark.parametrize("name", list(_rowwise_cases()))
def test_rowwise_equals_loop(name):
  function, loop = _rowwise_cases()[name]
  x, y = _rows(0), _rows(1)
  expected = [loop(a, b) for a, b in zip(x, y, strict=True)]
  np.testing.assert_allclose(function(x, y), expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    jax.jit(function)(x, y), expected, rtol=1e-5, atol=1e-6
  )


def test_reference_tells_the_distances_apart():
  """The random rows reject the usual wrong distances."""
  x, y = _rows(0), _rows(1)
  right = np.array(
    [reference.distance(a, b) for a, b in zip(x, y, strict=True)]
  )
  wrong = {
    "squared": np.sum((x - y) ** 2, axis=1),
    "l1": np.sum(np.abs(x - y), axis=1),
    "wrong axis": np.sqrt(np.sum((x - y) ** 2, axis=0)),
  }
  for name, values in wrong.items():
    assert values.shape != right.shape or not np.allclose(
      values, right, rtol=1e-2
    ), name


@pytest.mark.parametrize("name", list(_rowwise_cases()))
def test_rowwise_gradients(name):
  function, _ = _rowwise_cases()[name]
  x, y = jnp.asarray(_rows(2)), jnp.asarray(_rows(3))
  test_util.check_grads(function, (x, y), order=1, modes=["rev"], rtol=1e-2)


@pytest.mark.parametrize("name", list(_rowwise_cases()))
@pytest.mark.parametrize("case", ["equal", "zero", "both zero"])
def test_gradients_are_finite_at_kinks(name, case):
  function, _ = _rowwise_cases()[name]
  x = jnp.asarray(_rows(4))
  y = {"equal": x, "zero": jnp.zeros_like(x), "both zero": x * 0}[case]
  x = x * 0 if case == "both zero" else x
  total = lambda x, y: jnp.sum(function(x, y))
  value, grads = jax.value_and_grad(total, argnums=(0, 1))(x, y)
  chex.assert_tree_all_finite((value, grads))


def test_all_pairs_equal_rowwise():
  x, y = _rows(5, (6, 11)), _rows(6, (4, 11))
  cosines = [[reference.cosine(a, b) for b in y] for a in x]
  distances = [[reference.distance(a, b) ** 2 for b in y] for a in x]
  np.testing.assert_allclose(
    ops.pairwise_cosine_similarity(x, y), cosines, atol=1e-6
  )
  np.testing.assert_allclose(
    ops.pairwise_squared_distance(x, y), distances, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20, 1e30])
def test_normalize_at_any_magnitude(scale):
  x = _rows(7)
  np.testing.assert_allclose(
    ops.l2_normalize(x * np.float32(scale)),
    x / np.linalg.norm(x, axis=1, keepdims=True),
    rtol=1e-5,
  )


def test_normalize_gradient_is_that_of_the_formula():
  x = jnp.asarray(_rows(8))
  test_util.check_grads(ops.l2_normalize, (x,), order=1, modes=["rev"])


def test_masked_mean_ignores_what_is_masked():
  values = jnp.array([1.0, jnp.nan, 5.0])
  weights = jnp.array([1.0, 0.0, 1.0])
  value, grad = jax.value_and_grad(ops.masked_mean)(values, weights)
  assert float(value) == 3.0
  np.testing.assert_array_equal(grad, [0.5, 0.0, 0.5])
  assert float(ops.masked_mean(values, jnp.zeros(3))) == 0.0


def test_products_use_the_highest_precision():
  x = jnp.ones((4, 3))
  for function in (ops.pairwise_dot, ops.pairwise_squared_distance):
    jaxpr = str(jax.make_jaxpr(function)(x, x))
    assert "HIGHEST" in jaxpr, jaxpr


@pytest.mark.parametrize(
  "x, y",
  [
    (np.ones((3, 2), np.float32), np.ones((3, 3), np.float32)),
    (np.ones(3, np.float32), np.ones(3, np.float32)),
    (np.ones((3, 2), np.int32), np.ones((3, 2), np.int32)),
  ],
)
def test_bad_shapes_and_dtypes_are_refused(x, y):
  with pytest.raises(ValueError, match="x|y"):
    ops.euclidean_distance(x, y)


def test_bfloat16_is_computed_in_float32():
  x = jnp.asarray(_rows(9), jnp.bfloat16)
  y = jnp.asarray(_rows(10), jnp.bfloat16)
  distances = ops.euclidean_distance(x, y)
  assert distances.dtype == jnp.float32
  expected = [
    reference.distance(a, b)
    for a, b in zip(np.float32(x), np.float32(y), strict=True)
  ]
  np.testing.assert_allclose(distances, expected, rtol=1e-5)
