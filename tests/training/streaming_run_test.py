"""Runs on a streaming feed: they learn the same, and resume bit for bit."""

import json
import multiprocessing
import os
import signal
import time

import jax
import numpy as np
import pytest
import record_set
import tiny

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import loop, metric_writer, run

pytestmark = pytest.mark.slow


def _config(folder, **changes):
  fields = {"feed__kind": "streaming", "feed__threads": 2, **changes}
  config = tiny.config("supcon", num_steps=8, **fields)
  with config.unlocked():
    config.dataset.name = "record_set:load"
    config.dataset.data_dir = str(folder)
  return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The tiny faces in ArrayRecord files."""
  faces = tiny.Faces()
  images = [*faces.images]
  return record_set.write(
    tmp_path_factory.mktemp("set"), images, faces.identity_ids
  )


def _weights(folder):
  bundle = bundle_lib.load(folder / "bundle")
  return [np.asarray(x) for x in jax.tree.leaves(bundle.variables)]


def _assert_same_run(whole, folder):
  for a, b in zip(_weights(whole), _weights(folder), strict=True):
    np.testing.assert_array_equal(a, b)
  assert (folder / "metrics.jsonl").read_bytes() == (
    whole / "metrics.jsonl"
  ).read_bytes()


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
  """A streaming run that was never stopped."""
  workdir = tmp_path_factory.mktemp("whole") / "run"
  run.train(_config(folder), workdir)
  return workdir


def test_streaming_and_resident_runs_learn_the_same(folder, whole, tmp_path):
  run.train(_config(folder, feed__kind="resident"), tmp_path)
  curves = [
    [row["loss"] for row in metric_writer.read_metrics(workdir)]
    for workdir in (whole, tmp_path)
  ]
  assert len(curves[0]) > 8
  np.testing.assert_allclose(*curves, rtol=1e-5)


def test_readers_do_not_change_a_bit(folder, whole, tmp_path):
  config = _config(folder, feed__threads=5, feed__prefetch=1)
  run.train(config, tmp_path)
  np.testing.assert_equal(_weights(tmp_path), _weights(whole))


class _Stop(Exception):
  """What the test stops a run with."""


@pytest.mark.parametrize("num_lines", [1, 6])
def test_a_stopped_run_ends_with_the_same_bits(
  folder, whole, tmp_path, monkeypatch, num_lines
):
  write = metric_writer.MetricWriter.write
  lines = []

  def stopping(self, step, split, values):
    write(self, step, split, values)
    lines.append(step)
    if len(lines) == num_lines:
      raise _Stop

  with monkeypatch.context() as patch:
    patch.setattr(metric_writer.MetricWriter, "write", stopping)
    with pytest.raises(_Stop):
      run.train(_config(folder), tmp_path)
  run.train(_config(folder), tmp_path)
  _assert_same_run(whole, tmp_path)


def _train(folder, workdir):
  jax.config.update("jax_num_cpu_devices", 8)
  run.train(_config(folder), workdir)


def test_a_killed_run_ends_with_the_same_bits(folder, whole, tmp_path):
  context = multiprocessing.get_context("spawn")
  process = context.Process(target=_train, args=(folder, tmp_path / "run"))
  process.start()
  checkpoints = tmp_path / "run" / "checkpoints"
  deadline = time.monotonic() + 240
  while time.monotonic() < deadline and process.is_alive():
    if checkpoints.is_dir() and any(checkpoints.glob("4*")):
      os.kill(process.pid, signal.SIGKILL)
      break
    time.sleep(0.01)
  process.join()
  assert process.exitcode == -signal.SIGKILL
  run.train(_config(folder), tmp_path / "run")
  _assert_same_run(whole, tmp_path / "run")


def test_a_feed_too_large_is_refused_before_training(folder, tmp_path):
  config = _config(folder, feed__kind="resident", feed__memory_gb=1e-6)
  with pytest.raises(errors.UserError, match="config.feed.memory_gb"):
    run.train(config, tmp_path)


@pytest.mark.parametrize(
  "field, value",
  [("kind", "lazy"), ("memory_gb", 0.0), ("threads", -1), ("prefetch", 0)],
)
def test_feed_fields_are_checked(field, value):
  config = tiny.config(**{f"feed__{field}": value})
  with pytest.raises(errors.UserError, match=f"config.feed.{field} must be"):
    config_lib.validate(config)


def test_a_streaming_run_makes_one_step_a_call(folder, tmp_path):
  config = _config(folder, steps_per_call=4, log_every=4, eval_every=4)
  with config.unlocked():
    config.checkpoint_every = 4
  assert loop.resolve_steps_per_call(config) == 4
  assert loop.resolve_steps_per_call(config, streamed=True) == 1
  run.train(config, tmp_path)
  times = (tmp_path / "times.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in times] == [4, 8]
