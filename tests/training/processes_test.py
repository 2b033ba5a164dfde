"""Tests of a run of two processes with two devices each."""

import numpy as np
import pytest
import train_command

from facesiam_jax.training import metric_writer

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
  processes = train_command.train_two(folder)
  return folder, [train_command.finish(process) for process in processes]


def test_two_processes_learn_as_one(two, tmp_path):
  train_command.finish(train_command.train(tmp_path, cpu_devices=4))
  one, both = map(metric_writer.read_metrics, (tmp_path, two[0]))
  assert len(one) == len(both) == 9
  for a, b in zip(one, both, strict=True):
    assert (a["step"], a["split"]) == (b["step"], b["split"])
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
  np.testing.assert_allclose(one[0]["loss"], both[0]["loss"], rtol=1e-6)


def test_only_process_0_writes_and_speaks(two):
  folder, ((said, told), (other_said, other_told)) = two
  assert "fingerprint" in said and "images/s" in told
  others = [x for x in other_said.splitlines() if not x.startswith("[Gloo]")]
  assert not others and "images/s" not in other_told
  assert len(list((folder / "tensorboard").iterdir())) == 1
  assert (folder / "bundle" / "bundle.json").exists()
  kept = {int(path.name) for path in (folder / "checkpoints").iterdir()}
  assert {4, 6} <= kept
  assert kept == {int(p.stem) for p in (folder / "manifests").glob("*.json")}


def test_sigterm_to_one_stops_both_at_one_step(tmp_path):
  processes = train_command.train_two(tmp_path, *LONG)
  train_command.wait_for_lines(processes[0], tmp_path, 2)
  processes[1].terminate()
  told = [train_command.finish(process, status=75)[1] for process in processes]
  (step,) = {text.split("saved at step ")[1].split()[0] for text in told}
  assert 0 < int(step) < 200
  assert (tmp_path / "checkpoints" / step).is_dir()


@pytest.fixture(scope="module")
def long_two(tmp_path_factory):
  """An undisturbed run that is long enough to be killed in."""
  folder = tmp_path_factory.mktemp("long")
  for process in train_command.train_two(folder, *LONG):
    train_command.finish(process)
  return folder


@pytest.mark.soak
@pytest.mark.parametrize("lines", [1, 12, 17, 30, 47])
def test_killed_processes_end_with_the_same_bits(long_two, tmp_path, lines):
  """One dies at once, the other when its launcher notices."""
  processes = train_command.train_two(tmp_path, *LONG)
  train_command.wait_for_lines(processes[0], tmp_path, lines)
  for process in reversed(processes):
    process.kill()
    process.communicate()
  assert not (tmp_path / "bundle").exists()
  for process in train_command.train_two(tmp_path, *LONG):
    train_command.finish(process)
  train_command.assert_same_run(tmp_path, long_two)


def test_a_failure_does_not_wait_for_the_others(two):
  """Another config is refused by process 0, which holds the directory."""
  processes = train_command.train_two(two[0], "--config.seed=3")
  _, told = train_command.finish(processes[0], status=1)
  assert "differs in seed" in told
  processes[1].kill()
  processes[1].communicate()
