"""Tests of what bounds XLA's fusion on CPU."""

import functools

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


def _waves(images, scales):
  """A chain of which JAX keeps several arrays for the way back."""
  made = jnp.sin(images["faces"] * scales) + images["light"]
  return jnp.exp(jnp.tanh(made))


def _operands(rows):
  keys = jax.random.split(jax.random.key(0), 3)
  shape = (rows, 3, 2)
  faces, light = (jax.random.normal(key, shape) for key in keys[:2])
  return {"faces": faces, "light": light}, jax.random.normal(keys[2], (1, 1, 2))


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_again_is_the_function_and_its_gradient(rows):
  operands = _operands(rows)

  def run(call):
    value, pull_back = jax.vjp(call, *operands)
    return value, pull_back(jnp.cos(value))

  again = lambda *given: fusion.again(_waves, *given)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
    jax.jit(run, static_argnums=0)(again),
    run(_waves),
  )


def test_again_keeps_its_operands_alone():
  operands = _operands(4)
  kept = lambda call: jax.tree.leaves(jax.vjp(call, *operands)[1])
  own = [np.asarray(x) for x in jax.tree.leaves(operands)]
  found = kept(lambda *given: fusion.again(_waves, *given))
  known = lambda x: any(np.array_equal(x, y) for y in own)
  assert found and all(known(x) for x in found)
  assert not all(known(x) for x in kept(_waves))


def test_again_waits_for_the_cotangent():
  """In a branch: elsewhere XLA would find what it has computed already."""
  operands = _operands(4)

  def step(operands, cotangent):
    value, pull_back = jax.vjp(
      functools.partial(fusion.again, _waves), *operands
    )
    return value, pull_back(cotangent)

  cotangent = operands[0]["faces"]
  text = jax.jit(step).lower(operands, cotangent).compile().as_text()
  assert " conditional(" in text
