"""Tests of what bounds XLA's fusion on CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax import fusion


@pytest.mark.parametrize("batch", [0, 3, 8, 9, 24])
def test_settled_images_are_the_same(batch):
  images = jnp.arange(batch * 6, dtype=jnp.float32).reshape(batch, 3, 2, 1)
  np.testing.assert_array_equal(jax.jit(fusion.settled)(images), images)
  weights = images + 1
  gradient = jax.grad(lambda x: (fusion.settled(x) * weights).sum())(images)
  np.testing.assert_array_equal(gradient, weights)


def test_settled_images_are_computed_before_they_are_read():
  """XLA must not see through the loop, or it would fuse again."""
  images = jnp.ones((24, 4, 4, 1))
  program = jax.jit(lambda x: fusion.settled(jnp.exp(x))[:, ::-1] + 1)
  assert " while(" in program.lower(images).compile().as_text()


def _pair(images, weights):
  return {"sum": (images * weights).sum(0), "twice": 2 * images}


@pytest.mark.parametrize("first", [-1.0, 0.0, 2.0, np.nan])
def test_apart_is_the_function_whatever_the_numbers(first):
  images = jnp.arange(6, dtype=jnp.float32).reshape(3, 2)
  weights = jnp.ones((3, 2)).at[0, 0].set(first)
  expected = _pair(images, weights)
  for run in (fusion.apart, jax.jit(fusion.apart, static_argnums=0)):
    jax.tree.map(
      np.testing.assert_array_equal, run(_pair, images, weights), expected
    )


def test_apart_of_empty_arrays_and_of_many():
  empty = jnp.zeros((0, 2))
  np.testing.assert_array_equal(fusion.apart(jnp.sum, empty), 0)
  rows = jnp.asarray([[-1.0, 2.0], [3.0, -4.0]])
  sums = jax.vmap(lambda row: fusion.apart(jnp.sum, row))(rows)
  np.testing.assert_array_equal(sums, [1, -1])


def test_apart_is_computed_by_itself():
  """XLA must keep the condition, or it would fuse again."""

  def program(images):
    made = jnp.maximum(images + 1, 0)
    turned = fusion.apart(lambda x: x.T + 1, made)
    return made, turned * 2

  text = jax.jit(program).lower(jnp.ones((24, 16))).compile().as_text()
  assert " conditional(" in text
