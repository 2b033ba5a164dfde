"""Tests of the training step: right, and the same on any number of devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from facesiam_jax import parallel
from facesiam_jax.data import resident
from facesiam_jax.training import loop, objectives
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib

# The losses are mapped over devices in tests of their own; here it is the step,
# once with the head's parameters and once with the objective's.
OBJECTIVES = (
  "pair_bce",
  "margin_softmax",
  pytest.param("triplet", marks=pytest.mark.soak),
  pytest.param("contrastive", marks=pytest.mark.soak),
  pytest.param("supcon", marks=pytest.mark.soak),
  pytest.param("batch_hard_triplet", marks=pytest.mark.soak),
  pytest.param("semi_hard_triplet", marks=pytest.mark.soak),
)


@functools.cache
def _begun(objective, changes):
  """The recipe, and data and state before the first step on the host."""
  recipe = recipe_lib.make_recipe(tiny.config(objective, **dict(changes)))
  split = tiny.split()
  data = resident.make_resident(split.images, split.identity_ids)
  state = recipe_lib.init_state(
    recipe, split.images.shape[1:], data.index.counts.shape[0]
  )
  return recipe, jax.device_get(state), data


@functools.cache
def _steps(objective, num_devices, chunk, changes):
  """Compiled once for all tests that run the same program."""
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  recipe = _begun(objective, changes)[0]
  return mesh, step_lib.make_train_steps(recipe, mesh, chunk)


def _setup(objective, num_devices, chunk=1, **changes):
  changes = tuple(sorted(changes.items()))
  _, state, data = _begun(objective, changes)
  mesh, steps = _steps(objective, num_devices, chunk, changes)
  return (
    steps,
    parallel.replicate(state, mesh),
    parallel.replicate(data, mesh),
  )


def _run(objective, num_devices, num_steps, chunk=1, **changes):
  steps, state, data = _setup(objective, num_devices, chunk, **changes)
  losses = []
  for _ in range(num_steps // chunk):
    state, metrics = steps(state, data)
    losses.extend(np.asarray(metrics["loss"]))
  return state, np.array(losses)


def _plain_loss(recipe, data):
  """The same step on one device, with no mapping and no collective."""
  rows = recipe.objective.draw(data.index, recipe.draw_key(), jnp.int32(0))
  positions = jnp.arange(len(rows))
  ids = jnp.asarray(data.identity_ids)[rows]
  drawn = jnp.asarray(data.images)[rows]
  images = recipe_lib.training_images(recipe, drawn, positions, 0)
  dropout_key = recipe.step_key(recipe_lib.DROPOUT, 0)

  def loss(params):
    embeddings = recipe.encoder.apply(
      {"params": params["encoder"]},
      images,
      train=True,
      rows=positions,
      rngs={"dropout": dropout_key},
    )
    batch = objectives.Embedded(
      embeddings, ids, positions, embeddings, ids, params["objective"]
    )
    terms = recipe.objective.terms(recipe_lib.apply_head(recipe, params), batch)
    total = jnp.maximum(jnp.sum(terms.weights), 1.0)
    return jnp.sum(terms.values * terms.weights) / total

  return loss


def _assert_moved_by(grads, before, after):
  norm = float(optax.tree.norm(grads))
  assert norm > 1e-3
  moved = jax.tree.map(lambda a, b: a - np.asarray(b), before, after)
  difference = jax.tree.map(lambda a, b: a - b, moved, grads)
  # The parameters' own rounding, 6e-8 of their size, is in the difference.
  assert float(optax.tree.norm(difference)) <= 1e-5 * max(norm, 1.0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_device_counts_agree_with_plain_gradients(objective):
  """SGD at rate 1: the parameters move by exactly the gradient."""
  fast = {"optimizer__learning_rate": 1.0, "optimizer__weight_decay": 0.0}
  fast["optimizer__momentum"] = 0.0
  recipe, state, data = _begun(objective, tuple(sorted(fast.items())))
  plain = jax.jit(jax.value_and_grad(_plain_loss(recipe, data)))
  loss, grads = plain(state.params)
  for count in (1, 2, 8):
    after, losses = _run(objective, count, 1, **fast)
    np.testing.assert_allclose(losses[0], loss, rtol=1e-6)
    _assert_moved_by(grads, state.params, after.params)
  # What a forgotten or doubled collective would give is seen.
  wrong = jax.tree.map(lambda g: 2 * g, grads)
  with pytest.raises(AssertionError):
    _assert_moved_by(wrong, state.params, after.params)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_copies_are_identical_to_the_bit_after_three_steps(objective):
  state, _ = _run(objective, 8, 3, ema_decay=0.9)
  for leaf in jax.tree.leaves(state):
    copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
    assert len(copies) == 8
    for copy in copies[1:]:
      np.testing.assert_array_equal(copy, copies[0])


def test_runs_are_repeatable_and_depend_on_the_seed():
  first, losses = _run("supcon", 2, 3)
  again, losses_again = _run("supcon", 2, 3)
  np.testing.assert_array_equal(losses, losses_again)
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)
  _, other = _run("supcon", 2, 3, seed=1)
  assert np.any(other != losses)


def test_several_steps_a_call_learn_the_same():
  _, one = _run("pair_bce", 8, 4, ema_decay=0.9)
  _, four = _run("pair_bce", 8, 4, chunk=4, ema_decay=0.9)
  np.testing.assert_allclose(four, one, rtol=1e-5)


def test_moving_average_follows_the_formula():
  steps, state, data = _setup("pair_bce", 8, ema_decay=0.9)
  expected = jax.device_get(state.params)
  for n in range(4):
    state, _ = steps(state, data)
    decay = min(0.9, (1 + n) / (10 + n))
    expected = jax.tree.map(
      lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new),
      expected,
      state.params,
    )
  for a, b in zip(
    jax.tree.leaves(expected), jax.tree.leaves(state.ema_params), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  assert state.eval_params is state.ema_params


@pytest.mark.parametrize(
  "objective, frozen, changes",
  [
    ("supcon", False, {"ema_decay": 0.9}),
    ("supcon", True, {}),
    ("supcon", False, {"accumulate": 2}),
    ("partial_fc", False, {"optimizer__clip_norm": 1.0}),
  ],
)
def test_no_host_work_and_no_recompilation_within_steps(
  devices, objective, frozen, changes
):
  dense = {"encoder__name": "run_test_encoders:Normed", "encoder__args": {}}
  config = tiny.config(objective, **dense, **changes)
  recipe = dataclasses.replace(recipe_lib.make_recipe(config), num_people=8)
  mesh = parallel.make_mesh(devices[:2])
  split = tiny.split()
  data = parallel.replicate(
    resident.make_resident(split.images, split.identity_ids), mesh
  )
  state = recipe_lib.init_on_mesh(recipe, split.images.shape[1:], 8, mesh)
  specs = recipe_lib.partition(recipe, state)
  steps = step_lib.make_train_steps(
    recipe, mesh, 1, frozen=frozen, state_spec=specs
  )
  jaxpr = str(steps.trace(state, data).jaxpr)
  assert "callback" not in jaxpr
  state, _ = steps(state, data)
  with jax.transfer_guard("disallow"):
    for _ in range(3):
      state, _ = steps(state, data)
  assert steps._cache_size() == 1


def test_a_whole_run_compiles_its_steps_once(tmp_path, monkeypatch):
  """From the start, and again when resumed from a checkpoint."""
  made = []
  make = step_lib.make_train_steps

  def making(*args, **settings):
    made.append(make(*args, **settings))
    return made[-1]

  monkeypatch.setattr(step_lib, "make_train_steps", making)
  for num_steps in (4, 6):
    config = tiny.config("supcon", num_steps=num_steps)
    loop.fit(config, tmp_path, tiny.split(), None)
  assert [steps._cache_size() for steps in made] == [1, 1]


def test_learns_to_tell_the_tiny_people_apart():
  state, losses = _run(
    "supcon",
    1,
    60,
    optimizer__name="adamw",
    optimizer__learning_rate=5e-3,
    augment__rotation_deg=0.0,
  )
  assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
  assert int(state.step) == 60


def test_dropout_is_on_in_training():
  """Without it the loss of the first step is another."""
  recipe, state, data = _begun("pair_bce", ())
  config = tiny.config("pair_bce")
  with config.unlocked():
    config.encoder.args = {**config.encoder.args.to_dict(), "dropout": 0.0}
  without = recipe_lib.make_recipe(config)
  assert recipe.encoder != without.encoder
  losses = [
    float(jax.jit(_plain_loss(r, data))(state.params))
    for r in (recipe, without)
  ]
  assert losses[0] != losses[1]
