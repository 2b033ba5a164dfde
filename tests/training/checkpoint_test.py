"""Tests of checkpoints: damage is named, and fewer devices go on with them."""

import dataclasses
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from facesiam_jax import errors, parallel
from facesiam_jax.data import resident
from facesiam_jax.training import checkpoint
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib


def _saved(folder, steps=(2, 4, 6)):
  with checkpoint.Checkpointer(folder) as saver:
    for step in steps:
      state = {"x": jnp.full((50,), float(step))}
      saver.save(step, state, 1.0, {"loss": np.float32([0.1, np.nan])})


def _restored(folder):
  with checkpoint.Checkpointer(folder) as saver:
    return saver.restore_latest({"x": jnp.zeros((50,))})


def _largest(folder):
  return max(
    (p for p in folder.rglob("*") if p.is_file()),
    key=lambda path: path.stat().st_size,
  )


def _flip(folder):
  path = _largest(folder / "checkpoints" / "6")
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def _remove(folder):
  _largest(folder / "checkpoints" / "6").unlink()


def _add(folder):
  (folder / "checkpoints" / "6" / "more").write_text("")


def _drop_manifest(folder):
  (folder / "manifests" / "6.json").unlink()


def _tear_manifest(folder):
  path = folder / "manifests" / "6.json"
  path.write_text(path.read_text()[:20])


@pytest.mark.parametrize(
  "damage, told",
  [
    (_flip, "the SHA-256 of .* differs"),
    (_remove, "is missing"),
    (_add, "knows no more"),
    (_drop_manifest, "has no manifest"),
    (_tear_manifest, "6.json cannot be read"),
  ],
)
def test_damage_is_named_and_the_one_before_used(
  tmp_path, caplog, damage, told
):
  _saved(tmp_path)
  damage(tmp_path)
  with caplog.at_level(logging.WARNING):
    state, _ = _restored(tmp_path)
  np.testing.assert_array_equal(state["x"], np.full(50, 4.0))
  assert str(tmp_path / "checkpoints" / "6") in caplog.text

  assert re.search(told, caplog.text)
  # It is gone, so that the run can save that step again.
  _saved(tmp_path, steps=(6,))
  np.testing.assert_array_equal(_restored(tmp_path)[0]["x"], np.full(50, 6.0))


def test_what_was_reported_comes_back_to_the_bit(tmp_path):
  _saved(tmp_path)
  _, reported = _restored(tmp_path)
  expected = np.float32([0.1, np.nan])
  assert reported["loss"].dtype == np.float32
  np.testing.assert_array_equal(reported["loss"], expected)


def test_all_damaged_is_an_error(tmp_path):
  _saved(tmp_path, steps=(6,))
  _flip(tmp_path)
  with pytest.raises(errors.UserError, match="every checkpoint in .* damaged"):
    _restored(tmp_path)


class _Elastic:
  """One recipe's state, data and compiled steps on any number of devices."""

  def __init__(self, objective):
    config = tiny.config(
      objective,
      optimizer__momentum=0.9,
      encoder__name="run_test_encoders:Normed",
      encoder__args={},
    )
    recipe = recipe_lib.make_recipe(config)
    self.recipe = dataclasses.replace(recipe, num_people=8)
    # On the host: made once, placed anew on each mesh.
    self.begun = jax.device_get(
      recipe_lib.init_state(self.recipe, (16, 16, 1), 8)
    )
    self.specs = recipe_lib.partition(self.recipe, self.begun)

  def on(self, devices):
    """Returns (state, data, steps) on these devices."""
    mesh = parallel.make_mesh(devices)
    place = lambda spec: jax.sharding.NamedSharding(mesh, spec)
    state = jax.device_put(self.begun, jax.tree.map(place, self.specs))
    split = tiny.split()
    data = resident.make_resident(split.images, split.identity_ids)
    steps = step_lib.make_train_steps(
      self.recipe, mesh, 1, state_spec=self.specs
    )
    return state, parallel.replicate(data, mesh), steps


def _go_on(folder, template, data, steps, num_steps):
  """Restores and goes on; returns losses, the first move, the end."""
  with checkpoint.Checkpointer(folder) as saver:
    state, _ = saver.restore_latest(template)
  assert int(state.step) == 2
  before, losses = jax.device_get(state.params), []
  for number in range(num_steps):
    state, metrics = steps(state, data)
    losses.append(float(metrics["loss"][0]))
    if number == 0:
      moved = jax.tree.map(np.subtract, before, jax.device_get(state.params))
  return np.array(losses), moved, jax.device_get(state.params)


@pytest.mark.slow
@pytest.mark.parametrize(
  "objective",
  ["partial_fc", pytest.param("batch_hard_triplet", marks=pytest.mark.soak)],
)
def test_a_run_of_eight_devices_goes_on_with_fewer(
  tmp_path, devices, objective
):
  """The first step nearly to rounding; over 20 steps the bound is 1e-3."""
  elastic = _Elastic(objective)
  template, data, steps = elastic.on(devices)
  state, _, _ = elastic.on(devices)  # another copy: steps reuse its memory
  for _ in range(2):
    state, _ = steps(state, data)
  with checkpoint.Checkpointer(tmp_path) as saver:
    saver.save(2, state, None)
  expected, moved, end = _go_on(tmp_path, template, data, steps, 20)
  norm = float(optax.tree.norm(moved))
  assert norm > 1e-3
  for count in (1, 2, 4):
    fewer = elastic.on(devices[:count])
    losses, also, finish = _go_on(tmp_path, *fewer, 20)
    np.testing.assert_allclose(losses[0], expected[0], rtol=1e-6)
    apart = float(optax.tree.norm(jax.tree.map(np.subtract, moved, also)))
    # The parameters' own rounding, 6e-8 of their size, is in the difference.
    assert apart <= 1e-5 * norm + 1e-6
    apart = float(optax.tree.norm(jax.tree.map(np.subtract, end, finish)))
    print(f"{objective}, {count} devices: apart by {apart:.1e} at step 22")
    assert apart <= 1e-3 * float(optax.tree.norm(end))
