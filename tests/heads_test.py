"""Tests of facesiam_jax.heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import losses as reference

from facesiam_jax import heads

NAMES = ("cosine_logistic", "euclidean_logistic")


def _embeddings():
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, 9, 5)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_symmetric_to_the_bit(name):
  x, y = _embeddings()
  head = heads.create(name)
  variables = head.init(jax.random.key(0), x, y)
  np.testing.assert_array_equal(
    head.apply(variables, x, y), head.apply(variables, y, x)
  )


def test_euclidean_logistic_is_w_d_plus_b():
  x, y = _embeddings()
  head = heads.create("euclidean_logistic", init_weight=-3.0, init_bias=0.7)
  variables = head.init(jax.random.key(0), x, y)
  expected = [
    -3.0 * reference.distance(a, b) + 0.7 for a, b in zip(x, y, strict=True)
  ]
  np.testing.assert_allclose(head.apply(variables, x, y), expected, rtol=1e-5)


def test_cosine_logistic_is_alpha_s_plus_beta():
  x, y = _embeddings()
  head = heads.create("cosine_logistic", init_scale=12.0, init_bias=-4.0)
  variables = head.init(jax.random.key(0), x, y)
  expected = [
    12.0 * reference.cosine(a, b) - 4.0 for a, b in zip(x, y, strict=True)
  ]
  np.testing.assert_allclose(
    head.apply(variables, x, y), expected, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize("raw", [-20.0, 0.0, 20.0])
def test_the_sign_cannot_be_learned_away(raw):
  """Whatever the parameter becomes, a nearer pair has the higher logit."""
  near, far = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
  for name, parameter in (
    ("euclidean_logistic", "raw_weight"),
    ("cosine_logistic", "raw_scale"),
  ):
    head = heads.create(name)
    params = {parameter: jnp.float32(raw), "bias": jnp.float32(0.0)}
    same = head.apply({"params": params}, near, near + 0.01)
    other = head.apply({"params": params}, near, far)
    assert float(same[0]) > float(other[0])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_at_equal_and_zero_rows(name):
  x = jnp.asarray(_embeddings()[0]).at[0].set(0.0)
  head = heads.create(name)
  variables = head.init(jax.random.key(0), x, x)
  grads = jax.grad(lambda x: jnp.sum(head.apply(variables, x, x)))(x)
  assert np.all(np.isfinite(grads))


def test_parameters_are_strongly_typed():
  """A weak type would become strong on restoring and compile anew."""
  x, y = _embeddings()
  for name in NAMES:
    for leaf in jax.tree.leaves(
      heads.create(name).init(jax.random.key(0), x, y)
    ):
      assert not leaf.weak_type and leaf.dtype == jnp.float32


def test_wrong_names_and_signs_are_refused():
  x, y = _embeddings()
  with pytest.raises(ValueError, match="unknown head 'nope'"):
    heads.create("nope")
  with pytest.raises(ValueError, match="cosine_logistic"):
    heads.create("cosine_logistic", wrong=1)
  with pytest.raises(ValueError, match="init_weight must be negative"):
    heads.create("euclidean_logistic", init_weight=1.0).init(
      jax.random.key(0), x, y
    )
  with pytest.raises(ValueError, match="init_scale must be positive"):
    heads.create("cosine_logistic", init_scale=0.0).init(
      jax.random.key(0), x, y
    )
