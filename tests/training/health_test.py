"""Tests of what happens to batches that are not finite, and to a collapse."""

import json
import logging

import jax
import numpy as np
import pytest
import run_test_objectives
import tiny

from facesiam_jax import errors, parallel
from facesiam_jax.data import resident
from facesiam_jax.training import loop, metric_writer
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib

BAD = run_test_objectives.BAD_STEP


def _config(bad="nan", always=False, **changes):
  config = tiny.config(
    "supcon",
    objective__name="run_test_objectives:BadBatch",
    encoder__name="run_test_encoders:Normed",
    encoder__args={},
    ema_decay=0.5,
    **changes,
  )
  with config.unlocked():
    config.objective.args = {
      "num_people": 4, "images_per_person": 4, "bad": bad, "always": always
    }  # fmt: skip
  return config


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_bad_batch_updates_nothing_on_any_device(devices, bad):
  recipe = recipe_lib.make_recipe(_config(bad))
  mesh = parallel.make_mesh(devices[:2])
  split = tiny.split()
  data = parallel.replicate(
    resident.make_resident(split.images, split.identity_ids), mesh
  )
  state = recipe_lib.init_on_mesh(recipe, (16, 16, 1), 8, mesh)
  steps = step_lib.make_train_steps(recipe, mesh, 1)
  seen = []
  for _ in range(BAD + 2):
    state, metrics = steps(state, data)
    seen.append((jax.device_get(state), metrics))
    for leaf in jax.tree.leaves(state):
      first, second = (np.asarray(s.data) for s in leaf.addressable_shards)
      np.testing.assert_array_equal(first, second)
  losses = [float(metrics["loss"][0]) for _, metrics in seen]
  assert not np.isfinite(losses[BAD]) and np.isfinite(losses[BAD + 1])
  before, at = seen[BAD - 1][0], seen[BAD][0]
  assert int(at.step) == int(before.step) + 1
  for a, b in zip(
    jax.tree.leaves(at.replace(step=before.step)),
    jax.tree.leaves(before),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  after = seen[BAD + 1][0]
  assert np.any(after.params["encoder"]["Dense_0"]["kernel"]
                != at.params["encoder"]["Dense_0"]["kernel"])  # fmt: skip


def test_skipping_counts_names_and_goes_on(tmp_path, caplog):
  config = _config(on_nan="skip", log_every=2)
  with caplog.at_level(logging.WARNING):
    state = loop.fit(config, tmp_path, tiny.split(), None)
  assert int(state.step) == config.num_steps
  rows = metric_writer.read_metrics(tmp_path)
  assert [row["skipped"] for row in rows] == [0.0, 1.0, 0.0]
  assert all(np.isfinite(row["loss"]) for row in rows)
  told = [r.getMessage() for r in caplog.records if "skipped" in r.message]
  assert len(told) == 1 and f"in step {BAD + 1};" in told[0]
  batch = json.loads((tmp_path / f"bad-batch-{BAD + 1}.json").read_text())
  # The objective draws image 0 alone there; the tiny people are in order.
  assert batch["images"] == [0] * 16 and batch["identity_ids"] == [0] * 16


def test_stopping_names_step_batch_and_checkpoint(tmp_path):
  config = _config(log_every=2)
  with pytest.raises(errors.UserError) as caught:
    loop.fit(config, tmp_path, tiny.split(), None)
  text = str(caught.value)
  assert f"the loss became nan in step {BAD + 1};" in text
  assert f"bad-batch-{BAD + 1}.json: training images 0, 0" in text
  assert f"last good checkpoint is {tmp_path / 'checkpoints' / '2'}" in text
  assert "clip_norm" in text and "on_nan" in text


def test_skipping_stops_where_nothing_is_learned(tmp_path):
  config = _config(always=True, on_nan="skip", log_every=2)
  with pytest.raises(errors.UserError, match="became nan in step"):
    loop.fit(config, tmp_path, tiny.split(), None)


def test_a_collapse_can_stop_the_run(tmp_path):
  config = tiny.config(
    "supcon",
    on_collapse="stop",
    encoder__name="run_test_encoders:Constant",
    encoder__args={},
  )
  with pytest.raises(errors.UserError, match="step 1 .* has collapsed; its"):
    loop.fit(config, tmp_path, tiny.split(), None)
  assert (tmp_path / "bad-batch-1.json").exists()
