"""Tests of the optimizer: schedules, decay, groups, clipping, freezing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from facesiam_jax import encoders, parallel
from facesiam_jax.data import resident
from facesiam_jax.training import loop
from facesiam_jax.training import optimizer as optimizer_lib
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib

RATE = 0.2


def _made(num_steps=10, **changes):
  names = {f"optimizer__{name}": value for name, value in changes.items()}
  config = tiny.config(optimizer__learning_rate=RATE, **names)
  return optimizer_lib.make_optimizer(config.optimizer, num_steps)


def _expected_rate(step, num_steps, schedule, warmup, final, step_at, factor):
  """The rate by the words of the config, in plain Python."""
  if step < warmup:
    return RATE * step / warmup
  if schedule == "constant":
    return RATE
  if schedule == "step":
    return RATE * factor ** sum(step >= round(a * num_steps) for a in step_at)
  share = min((step - warmup) / (num_steps - warmup), 1.0)
  return RATE * (final + (1 - final) * (1 + np.cos(np.pi * share)) / 2)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_schedules_are_as_written(schedule, warmup):
  made = _made(
    20,
    schedule=schedule,
    warmup_steps=warmup,
    final=0.1,
    step_at=(0.5, 0.8),
    step_factor=0.3,
  ).schedule
  expected = [
    _expected_rate(step, 20, schedule, warmup, 0.1, (0.5, 0.8), 0.3)
    for step in range(22)
  ]
  # A step decays from its own step on, not from the one after.
  found = [float(made(jnp.int32(step))) for step in range(22)]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_cosine_ends_at_zero_by_default():
  made = _made(20, schedule="cosine").schedule
  assert float(made(20)) == 0.0 and float(made(0)) == pytest.approx(RATE)


def _params(seed=0):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return {
    "encoder": {"conv": {"kernel": normal(2, 3), "bias": normal(3)}},
    "head": {"scale": normal()},
    "objective": {"centers": normal(4, 3)},
  }


def _steps(optimizer, num_steps, frozen_steps=0):
  params, grads = _params(), [_params(seed + 1) for seed in range(num_steps)]
  state = optimizer.init(params)
  for step, grad in enumerate(grads):
    params, state = optimizer.update(
      grad,
      state,
      params,
      step=jnp.int32(step),
      norm=optax.tree.norm(grad),
      frozen=step < frozen_steps,
    )
  return params, state


def _sgd_by_hand(num_steps, decay, momentum, multipliers, clip):
  """SGD with momentum and decay, float64, one leaf at a time."""
  params = jax.tree.map(lambda x: np.asarray(x, np.float64), _params())
  speed = jax.tree.map(np.zeros_like, params)
  for step in range(num_steps):
    grads = jax.tree.map(lambda x: np.asarray(x, np.float64), _params(step + 1))
    norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(grads)))
    cut = min(1, clip / norm) if clip else 1
    for group, rate in multipliers.items():
      add = lambda p, g, v, c=cut: (
        momentum * v + g * c + decay * p * (p.ndim > 1)
      )
      speed[group] = jax.tree.map(
        add, params[group], grads[group], speed[group]
      )
      params[group] = jax.tree.map(
        lambda p, v, r=rate: p - RATE * r * v, params[group], speed[group]
      )
  return params


@pytest.mark.parametrize("clip", [0.0, 1.5])
def test_sgd_with_everything_is_as_by_hand(clip):
  optimizer = _made(
    name="sgd",
    schedule="constant",
    weight_decay=0.3,
    momentum=0.8,
    head_multiplier=0.5,
    objective_multiplier=4.0,
    clip_norm=clip,
  )
  multipliers = {"encoder": 1.0, "head": 0.5, "objective": 4.0}
  found, _ = _steps(optimizer, 3)
  expected = _sgd_by_hand(3, 0.3, 0.8, multipliers, clip)
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_is_optax_s(name):
  found, _ = _steps(_made(name=name, schedule="constant", weight_decay=0.1), 4)
  theirs = optax.adam(RATE)
  if name == "adamw":
    theirs = optax.adamw(
      RATE,
      weight_decay=0.1,
      mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
    )
  expected = _params()
  state = theirs.init(expected)
  for step in range(4):
    updates, state = theirs.update(_params(step + 1), state, expected)
    expected = optax.apply_updates(expected, updates)
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_frozen_gathers_nothing_and_starts_as_new(name):
  optimizer = _made(name=name, schedule="constant", weight_decay=0.1)
  params, state = _steps(optimizer, 2, frozen_steps=2)
  fresh = optimizer.init(_params())
  for found, before in (
    (params["encoder"], _params()["encoder"]),
    (state["encoder"], fresh["encoder"]),
  ):
    for a, b in zip(
      jax.tree.leaves(found), jax.tree.leaves(before), strict=True
    ):
      np.testing.assert_array_equal(a, b)
  assert not np.array_equal(
    params["objective"]["centers"], _params()["objective"]["centers"]
  )


# Named so by every family; everything else is a kernel, or a ViT's places.
_EXEMPT = ("bias", "scale", "slope", "mean", "var")


@pytest.mark.parametrize("name", encoders.names())
def test_decay_spares_biases_and_normalisation_of_every_encoder(name):
  entry = encoders.catalogue.find(name)
  image = jax.ShapeDtypeStruct(
    (1, entry.size, entry.size, entry.channels), "f4"
  )
  shapes = jax.eval_shape(
    lambda x: encoders.create(name).init(jax.random.key(0), x), image
  )["params"]
  marks = jax.tree_util.tree_leaves_with_path(optimizer_lib.decayed(shapes))
  assert marks
  for path, decays in marks:
    assert decays == (path[-1].key not in _EXEMPT), path


def _states(config, devices, num_steps):
  """States after each step, at `devices`, as the loop makes them."""
  recipe = recipe_lib.make_recipe(config)
  split = tiny.split()
  mesh = parallel.make_mesh(devices)
  data = parallel.replicate(
    resident.make_resident(split.images, split.identity_ids), mesh
  )
  state = recipe_lib.init_on_mesh(recipe, (16, 16, 1), 8, mesh)
  states = [jax.device_get(state)]
  for step in range(num_steps):
    frozen = step < config.optimizer.freeze_steps
    steps = step_lib.make_train_steps(recipe, mesh, 1, frozen=frozen)
    state, _ = steps(state, data)
    states.append(jax.device_get(state))
  return states


def test_a_frozen_encoder_is_frozen_to_the_bit(devices):
  config = tiny.config(
    "margin_softmax",
    optimizer__freeze_steps=2,
    optimizer__name="adamw",
    encoder__name="run_test_encoders:Normed",
    encoder__args={},
  )
  before, _, frozen, after = _states(config, devices[:2], 3)
  part = lambda s: (s.params["encoder"], s.batch_stats, s.opt_state["encoder"])
  for a, b in zip(
    jax.tree.leaves(part(before)), jax.tree.leaves(part(frozen)), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  centers = lambda s: s.params["objective"]["centers"]
  assert np.any(centers(frozen) != centers(before))
  changed = [
    np.any(a != b)
    for a, b in zip(
      jax.tree.leaves(part(frozen)), jax.tree.leaves(part(after)), strict=True
    )
  ]
  assert all(changed)


@pytest.mark.slow
def test_a_run_unfreezes_by_itself(tmp_path):
  config = tiny.config(
    "margin_softmax",
    optimizer__freeze_steps=4,
    encoder__name="run_test_encoders:Normed",
    encoder__args={},
  )
  state = loop.fit(config, tmp_path, tiny.split(), None)
  start = recipe_lib.init_state(recipe_lib.make_recipe(config), (16, 16, 1), 8)
  moved = jax.tree.map(
    lambda a, b: np.any(np.asarray(a) != b), start.params, state.params
  )
  assert all(jax.tree.leaves(moved["encoder"]))
