"""Tests of a run of two processes with two devices each, by launch/local.py."""

import json
import os
import re
import signal

import jax
import numpy as np
import pytest
import tiny
import tiny_recipe
import train_command

from facesiam_jax import parallel
from facesiam_jax.training import loop, metric_writer, run

pytestmark = pytest.mark.slow

LONG = ("--config.num_steps=200", "--config.log_every=4")
LONG += ("--config.eval_every=20", "--config.checkpoint_every=20")


@pytest.fixture(scope="module", autouse=True)
def _ended():
  """Leaves no process behind."""
  yield
  train_command.end_all()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
  """What an undisturbed run of two processes leaves behind and says."""
  folder = tmp_path_factory.mktemp("two")
  return folder, train_command.finish(train_command.train_two(folder))


def _alone(folder, monkeypatch, num_devices):
  """Metrics of the same run in this process, on so many of its devices."""
  config = tiny_recipe.get_config()
  data = tiny.load(config.dataset, config.image_size)
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  monkeypatch.setattr(parallel, "make_mesh", lambda: mesh)
  splits = [run.split_of(data, p) for p in (data.train, data.validation)]
  loop.fit(config, folder, *splits)
  return metric_writer.read_metrics(folder)


@pytest.mark.parametrize(
  "num_devices",
  [1, 4, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 8))],
)
def test_two_processes_learn_as_one(two, tmp_path, monkeypatch, num_devices):
  one = _alone(tmp_path, monkeypatch, num_devices)
  both = metric_writer.read_metrics(two[0])
  assert len(one) == len(both) == 9
  for a, b in zip(one, both, strict=True):
    assert (a["step"], a["split"]) == (b["step"], b["split"])
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
  np.testing.assert_allclose(one[0]["loss"], both[0]["loss"], rtol=1e-6)


def _is_gloo(line):
  """Whether a line holds words of Gloo alone: its threads mix them."""
  words = r"\[Gloo\]|Rank|is|connected|to|peer|ranks|Expected|number|of|[\d.:]"
  return not re.sub(words, "", line).strip()


def test_only_process_0_writes_and_speaks(two):
  folder, spoken = two
  (said, told), (other_said, other_told) = (
    ["\n".join(train_command.said_by(number, text)) for text in spoken]
    for number in range(2)
  )
  assert "fingerprint" in said and "images/s" in told
  others = [x for x in other_said.splitlines() if not _is_gloo(x)]
  assert not others and "images/s" not in other_told
  assert len(list((folder / "tensorboard").iterdir())) == 1
  assert (folder / "bundle" / "bundle.json").exists()
  kept = {int(path.name) for path in (folder / "checkpoints").iterdir()}
  assert {4, 6} <= kept
  assert kept == {int(p.stem) for p in (folder / "manifests").glob("*.json")}
  facts = json.loads((folder / "run.json").read_text())
  assert facts["processes"] == 2
  assert [one["process"] for one in facts["devices"]] == [0, 0, 1, 1]


def test_sigterm_to_one_stops_both_at_one_step(tmp_path):
  launcher = train_command.train_two(tmp_path, *LONG)
  train_command.wait_for_lines(launcher, tmp_path, 2)
  os.kill(train_command.child(launcher, 1), signal.SIGTERM)
  _, told = train_command.finish(launcher, status=75)
  saved = [
    text.split("saved at step ")[1].split()[0]
    for number in range(2)
    for text in train_command.said_by(number, told)
    if "saved at step " in text
  ]
  assert len(saved) == 2 and len(set(saved)) == 1
  assert 0 < int(saved[0]) < 200
  assert (tmp_path / "checkpoints" / saved[0]).is_dir()


@pytest.fixture(scope="module")
def long_two(tmp_path_factory):
  """An undisturbed run that is long enough to be killed in."""
  folder = tmp_path_factory.mktemp("long")
  train_command.finish(train_command.train_two(folder, *LONG))
  return folder


@pytest.mark.soak
@pytest.mark.parametrize("lines", [1, 12, 17, 30, 47])
def test_killed_processes_end_with_the_same_bits(long_two, tmp_path, lines):
  """One dies at once; the launcher ends the other."""
  launcher = train_command.train_two(tmp_path, *LONG, grace_s=0)
  train_command.wait_for_lines(launcher, tmp_path, lines)
  os.kill(train_command.child(launcher, 1), signal.SIGKILL)
  _, told = train_command.finish(launcher, status=128 + signal.SIGKILL)
  assert "process 1 was killed by SIGKILL; ending the other 1" in told
  assert not (tmp_path / "bundle").exists()
  train_command.finish(train_command.train_two(tmp_path, *LONG))
  train_command.assert_same_run(tmp_path, long_two)


def test_a_failure_does_not_wait_for_the_others(two):
  """Another config is refused by process 0, which holds the directory."""
  launcher = train_command.train_two(two[0], "--config.seed=3", grace_s=0)
  _, told = train_command.finish(launcher, status=1)
  assert "differs in seed" in told
  # Process 1 loses its peer, and under load it may be gone before process 0.
  assert re.search(
    r"process [01] ended with status 1; ending the other 1", told
  )
