"""Tests of stopping when asked to: saved, told, resumed to the same bits."""

import os
import signal
import time

import jax
import numpy as np
import pytest
import tiny
import train_command

from facesiam_jax.training import loop, metric_writer, preemption


class _At(preemption.Watch):
  """Is asked to stop after one step."""

  def __init__(self, step):
    super().__init__()
    self.step = step

  def stops_at(self, step, num_steps=1):
    del num_steps
    return step == self.step


def _fit(folder, watch=None):
  config = tiny.config(
    "supcon", ema_decay=0.9, num_steps=9, log_every=3, eval_every=3,
    checkpoint_every=3,
  )  # fmt: skip
  return loop.fit(config, folder, tiny.split(), None, watch=watch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run that nothing stopped: its state and its lines of metrics."""
  folder = tmp_path_factory.mktemp("whole")
  state = jax.device_get(_fit(folder))
  return state, (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
  "steps",
  [(1, 2, 8), *(pytest.param(n, marks=pytest.mark.soak) for n in ((4,), (6,)))],
)
def test_stopped_between_lines_ends_with_the_same_bits(whole, tmp_path, steps):
  for step in steps:
    with pytest.raises(preemption.Preempted, match=f"saved at step {step}"):
      _fit(tmp_path, _At(step))
    assert (tmp_path / "checkpoints" / str(step)).is_dir()
    assert (tmp_path / "manifests" / f"{step}.json").exists()
  state = jax.device_get(_fit(tmp_path))
  for a, b in zip(
    jax.tree.leaves(state), jax.tree.leaves(whole[0]), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole[1]


def test_a_signal_is_noted_in_the_loop_and_ends_the_rest():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.Watch().installed() as watch:
    with watch.deferred():
      assert not watch.stops_at(1)
      os.kill(os.getpid(), signal.SIGTERM)
      assert watch.stops_at(2)
    with pytest.raises(preemption.Preempted, match="saved at step 2"):
      watch.stop(2)
    with pytest.raises(preemption.Preempted):
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(1)
  assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_saves_and_a_second_one_does_not_wait():
  with preemption.Watch().installed() as watch:
    with watch.deferred():
      os.kill(os.getpid(), signal.SIGINT)
      assert watch.stops_at(1)
      with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    with pytest.raises(KeyboardInterrupt):
      watch.stop(1)


@pytest.fixture(autouse=True)
def _ended():
  """Leaves no process behind."""
  yield
  train_command.end_all()


_LONG = ("--config.num_steps=200", "--config.log_every=5")
_LONG += ("--config.eval_every=100", "--config.checkpoint_every=100")


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_75(tmp_path):
  process = train_command.train(tmp_path, *_LONG)
  train_command.wait_for_lines(process, tmp_path, 3)
  process.terminate()
  _, told = train_command.finish(process, status=75)
  assert "run the same command again to go on" in told
  rows = metric_writer.read_metrics(tmp_path)
  (saved,) = (int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert rows[-1]["step"] <= saved < 200
  assert not (tmp_path / "bundle").exists()
  train_command.finish(train_command.train(tmp_path, *_LONG))
  steps = [r["step"] for r in metric_writer.read_metrics(tmp_path)]
  assert steps == sorted(steps) and steps[-1] == 200
  assert (tmp_path / "bundle" / "bundle.json").exists()
