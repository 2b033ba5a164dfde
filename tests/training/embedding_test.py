"""Tests of accumulation: parts of a batch are as the one big batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from facesiam_jax import errors, parallel
from facesiam_jax.data import resident
from facesiam_jax.training import loop
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib

PLAIN = {
  "optimizer__learning_rate": 1.0,
  "optimizer__weight_decay": 0.0,
  "optimizer__momentum": 0.0,
}


def _one_step(objective, devices, **changes):
  """Parameters before, after a step at rate 1, and the loss."""
  config = tiny.config(objective, **PLAIN, **changes)
  recipe = recipe_lib.make_recipe(config)
  mesh = parallel.make_mesh(devices)
  split = tiny.split()
  data = parallel.replicate(
    resident.make_resident(split.images, split.identity_ids), mesh
  )
  state = recipe_lib.init_on_mesh(recipe, (16, 16, 1), 8, mesh)
  before = jax.device_get(state)
  after, metrics = step_lib.make_train_steps(recipe, mesh, 1)(state, data)
  gradient = jax.tree.map(
    np.subtract, before.params, jax.device_get(after.params)
  )
  return gradient, jax.device_get(after), float(metrics["loss"][0])


@pytest.mark.parametrize(
  "objective, num_devices, parts",
  [
    ("supcon", 2, 4),
    ("pair_bce", 1, 2),
    ("batch_hard_triplet", 1, 8),
    ("triplet", 2, 3),  # 8 rows a part: triplets lie across two of them
    pytest.param("contrastive", 2, 2, marks=pytest.mark.soak),
  ],
)
def test_parts_are_as_one_batch(devices, objective, num_devices, parts):
  """The tiny encoder drops out, row by row, and normalises no batch."""
  whole, _, loss = _one_step(objective, devices[:num_devices])
  in_parts, _, again = _one_step(
    objective, devices[:num_devices], accumulate=parts
  )
  np.testing.assert_allclose(again, loss, rtol=1e-6)
  norm = float(optax.tree.norm(whole))
  difference = optax.tree.norm(jax.tree.map(np.subtract, whole, in_parts))
  assert norm > 1e-3
  assert float(difference) <= 1e-5 * max(norm, 1.0)


def test_batch_normalisation_is_of_each_part(devices):
  """What the config's comment says; and running statistics see all parts."""
  normed = {"encoder__name": "run_test_encoders:Normed", "encoder__args": {}}
  _, whole, loss = _one_step("supcon", devices[:2], **normed)
  _, parts, other = _one_step("supcon", devices[:2], accumulate=2, **normed)
  assert abs(loss - other) > 1e-5 * abs(loss)
  old = recipe_lib.init_state(
    recipe_lib.make_recipe(tiny.config("supcon", **normed)), (16, 16, 1), 8
  )
  for a, b, c in zip(
    *(jax.tree.leaves(s.batch_stats) for s in (old, whole, parts)), strict=True
  ):
    assert np.any(a != b) and np.any(b != c)


def test_parts_that_do_not_divide_are_refused(tmp_path):
  config = tiny.config("supcon", accumulate=3)
  with pytest.raises(errors.UserError, match="config.accumulate=3 does not"):
    loop.fit(config, tmp_path, tiny.split(), None)


def _dtypes(jaxpr, name, found):
  """Dtypes of the results of a primitive, in all nested programs."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == name:
      found.add(str(equation.outvars[0].aval.dtype))
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        _dtypes(inner, name, found)
  return found


def test_bfloat16_computes_with_float32_parameters_and_loss(devices):
  config = tiny.config(
    "margin_softmax",
    encoder__name="iresnet18",
    encoder__args={
      "stage_sizes": (1,), "width": 4, "dim": 6, "size": 16, "dtype": "bfloat16"
    },
  )  # fmt: skip
  recipe = recipe_lib.make_recipe(config)
  mesh = parallel.make_mesh(devices[:2])
  state = jax.eval_shape(lambda: recipe_lib.init_state(recipe, (16, 16, 1), 8))
  assert {str(x.dtype) for x in jax.tree.leaves(state.params)} == {"float32"}
  split = tiny.split()
  data = resident.make_resident(split.images, split.identity_ids)
  steps = step_lib.make_train_steps(recipe, mesh, 1)
  after, metrics = jax.eval_shape(steps, state, data)
  assert {str(x.dtype) for x in jax.tree.leaves(metrics)} == {"float32"}
  assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(
    lambda x: x.dtype, state
  )
  jaxpr = steps.trace(state, data).jaxpr
  assert "bfloat16" in _dtypes(jaxpr.jaxpr, "conv_general_dilated", set())
  # The logits' own matrix products.
  assert "float32" in _dtypes(jaxpr.jaxpr, "dot_general", set())
  assert jnp.result_type(*jax.tree.leaves(after.opt_state["encoder"])) == "f4"
