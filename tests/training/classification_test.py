"""Tests of class centres that are sharded over the devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from facesiam_jax import errors, parallel
from facesiam_jax.data import resident, streaming
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib

PEOPLE = 1000
PLAIN = {
  "optimizer__learning_rate": 1.0,
  "optimizer__weight_decay": 0.0,
  "optimizer__momentum": 0.0,
  "encoder__name": "run_test_encoders:Normed",
  "encoder__args": {},
}


def _recipe(objective, people, args=(), **changes):
  config = tiny.config(objective, **{**PLAIN, **changes})
  with config.unlocked():
    config.objective.args = {"num_images": 16, **dict(args)}
  recipe = recipe_lib.make_recipe(config)
  return dataclasses.replace(recipe, num_people=people)


def _thousand():
  """Two images of each of a thousand people."""
  images = np.random.default_rng(0).integers(0, 256, (2 * PEOPLE, 8, 8, 1))
  return resident.make_resident(
    images.astype(np.uint8), np.repeat(np.arange(PEOPLE), 2)
  )


def _step(recipe, state, devices):
  """Gradients (SGD at rate 1) and metrics of one step from a state."""
  mesh = parallel.make_mesh(devices)
  data = parallel.replicate(_thousand(), mesh)
  specs = recipe_lib.partition(recipe, state)
  placed = jax.device_put(
    state, jax.tree.map(lambda s: jax.sharding.NamedSharding(mesh, s), specs)
  )
  steps = step_lib.make_train_steps(recipe, mesh, 1, state_spec=specs)
  after, metrics = steps(placed, data)
  gradients = jax.tree.map(
    lambda a, b: np.asarray(a) - np.asarray(b), state.params, after.params
  )
  return gradients, {k: float(v[0]) for k, v in metrics.items()}


def _assert_same(found, expected):
  """Loss and norm to 1e-6, the gradient to 1e-5 of its norm."""
  for name in ("loss", "grad_norm", "spread"):
    np.testing.assert_allclose(found[1][name], expected[1][name], rtol=2e-6)
  norm = float(optax.tree.norm(expected[0]))
  difference = jax.tree.map(np.subtract, found[0], expected[0])
  # The parameters' own rounding is in the difference.
  assert float(optax.tree.norm(difference)) <= 1e-5 * max(norm, 1.0)
  assert norm > 0.1


@pytest.fixture(scope="module")
def start():
  """A state of PartialFc on the host, and the same for dense centres."""
  recipe = _recipe("partial_fc", PEOPLE)
  state = jax.device_get(recipe_lib.init_state(recipe, (8, 8, 1), PEOPLE))
  centers = state.params["objective"]["centers"]
  assert centers.shape == (1024, 4)
  dense = dataclasses.replace(
    state,
    params={**state.params, "objective": {"centers": centers[:PEOPLE]}},
  )
  return state, dense


@pytest.mark.parametrize("count", [1, 2, 8])
def test_sharded_centres_learn_as_dense_ones(devices, start, count):
  state, dense = start
  expected = _step(_recipe("margin_softmax", PEOPLE), dense, devices[:1])
  recipe = _recipe("partial_fc", PEOPLE)
  found = _step(recipe, state, devices[:count])
  centers = found[0]["objective"]["centers"]
  assert not np.any(centers[PEOPLE:]), "rows of nobody stay as they are"
  found[0]["objective"]["centers"] = centers[:PEOPLE]
  _assert_same(found, expected)


def test_clipping_sees_the_norm_of_all_shards(devices, start):
  state, _ = start
  recipe = _recipe("partial_fc", PEOPLE, optimizer__clip_norm=0.25)
  gradients, metrics = _step(recipe, state, devices)
  assert metrics["grad_norm"] > 0.5
  np.testing.assert_allclose(optax.tree.norm(gradients), 0.25, rtol=1e-4)


def test_a_sample_is_the_same_on_any_number_of_devices(devices, start):
  state, _ = start
  recipe = _recipe("partial_fc", PEOPLE, {"sample_fraction": 0.1})
  one = _step(recipe, state, devices[:1])
  eight = _step(recipe, state, devices)
  _assert_same(eight, one)
  touched = np.any(one[0]["objective"]["centers"] != 0, axis=1)
  # Those of the batch and others, a hundred in all; the gradient of one or
  # another is too small to move a float32.
  assert 95 <= touched.sum() <= 100


def test_an_uneven_split_is_refused(devices):
  mesh = parallel.make_mesh(devices[:3])
  with pytest.raises(errors.UserError, match="1024 rows .* over 3 devices"):
    recipe_lib.init_on_mesh(_recipe("partial_fc", 8), (8, 8, 1), 8, mesh)


def test_no_device_draws_more_than_its_share(devices):
  mesh = parallel.make_mesh(devices)
  recipe = _recipe("partial_fc", 8, optimizer__name="adamw", ema_decay=0.9)
  state = recipe_lib.init_on_mesh(recipe, (8, 8, 1), 8, mesh)
  alone = recipe_lib.init_state(recipe, (8, 8, 1), 8)
  sharded = 0
  for (path, leaf), expected in zip(
    jax.tree_util.tree_leaves_with_path(state),
    jax.tree.leaves(alone),
    strict=True,
  ):
    np.testing.assert_allclose(leaf, expected, rtol=1e-6)
    rows = {shard.data.shape[:1] for shard in leaf.addressable_shards}
    if leaf.shape[:1] == (1024,):
      assert rows == {(128,)}, path
      sharded += 1
  assert sharded == 4  # centres, their average, Adam's two moments


def test_a_million_classes_take_an_eighth_of_each_device(devices):
  """What XLA says of the compiled step: nothing is allocated here."""
  people, dim = 1_000_000, 512
  recipe = _recipe(
    "partial_fc",
    people,
    {"sample_fraction": 0.1},
    optimizer__name="adamw",
    encoder__name="run_test_encoders:Normed",
    encoder__args={"dim": dim},
  )
  mesh = parallel.make_mesh(devices)
  state = jax.eval_shape(
    lambda: recipe_lib.init_state(recipe, (8, 8, 1), people)
  )
  specs = recipe_lib.partition(recipe, state)
  batch = streaming.Batch(
    jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.uint8),
    jax.ShapeDtypeStruct((16,), jnp.int32),
  )
  steps = step_lib.make_train_steps(
    recipe, mesh, 1, streamed=True, state_spec=specs
  )
  memory = steps.lower(state, batch).compile().memory_analysis()
  shard = -(-people // 1024) * 1024 * dim * 4 // 8
  # The centres and Adam's two moments of them, and little else.
  assert 3 * shard <= memory.argument_size_in_bytes <= 3.01 * shard
  assert memory.alias_size_in_bytes >= 3 * shard, "updated in place"
  # Of the step's own: the gradient of the shard and what it is made of. All
  # centres would be 8 shards, with the optimizer's state 24.
  assert memory.temp_size_in_bytes <= 4 * shard
