"""Tests of facesiam_jax.encoders.initializers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax.encoders import initializers


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (7, 2), (3, 3, 1, 6)])
def test_he_normal_is_flax_s_to_the_bit(shape):
  key = jax.random.key(5)
  expected = jax.nn.initializers.he_normal()(key, shape, jnp.float32)
  np.testing.assert_array_equal(initializers.he_normal(key, shape), expected)


def test_he_normal_draws_in_one_dimension():
  """What makes it compile quickly."""
  jaxpr = jax.make_jaxpr(lambda key: initializers.he_normal(key, (3, 3, 4, 5)))(
    jax.random.key(0)
  )
  drawn = [
    equation.outvars[0].aval.shape
    for equation in jaxpr.jaxpr.eqns
    if equation.primitive.name != "reshape"
  ]
  assert drawn and all(len(shape) <= 1 for shape in drawn)


def test_degenerate_shapes():
  key = jax.random.key(0)
  assert initializers.he_normal(key, (0, 3)).shape == (0, 3)
  assert initializers.he_normal(key, (4,)).dtype == jnp.float32
