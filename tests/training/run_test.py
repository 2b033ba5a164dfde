"""Tests of whole runs: resume bit for bit, stop on NaN, one at a time."""

import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import time

import event_files
import jax
import numpy as np
import pytest
import tiny

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.training import checkpoint, loop, metric_writer, run
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import workdir as workdir_lib

pytestmark = pytest.mark.slow


class _Stop(Exception):
  """What the tests stop a run with."""


def _stop_after(monkeypatch, num_lines):
  """Makes the run fail after writing so many lines of training metrics."""
  write = metric_writer.MetricWriter.write
  lines = []

  def stopping(self, step, split, values):
    write(self, step, split, values)
    lines.append(step)
    if len(lines) == num_lines:
      raise _Stop

  monkeypatch.setattr(metric_writer.MetricWriter, "write", stopping)


def _weights(folder):
  bundle = bundle_lib.load(folder / "bundle")
  return [np.asarray(x) for x in jax.tree.leaves(bundle.variables)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A run that was never stopped."""
  folder = tmp_path_factory.mktemp("whole") / "run"
  run.train(tiny.config(ema_decay=0.9), folder)
  return folder


@pytest.mark.parametrize(
  "num_lines",
  [5, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 8))],
)
def test_a_stopped_run_ends_with_the_same_bits(
  whole, tmp_path, monkeypatch, num_lines
):
  folder = tmp_path / "run"
  config = tiny.config(ema_decay=0.9)
  with monkeypatch.context() as patch:
    _stop_after(patch, num_lines)
    with pytest.raises(_Stop):
      run.train(config, folder)
  resumed = run.train(config, folder)
  for a, b in zip(_weights(whole), _weights(folder), strict=True):
    np.testing.assert_array_equal(a, b)
  assert resumed.fingerprint == bundle_lib.load(whole / "bundle").fingerprint
  assert (folder / "metrics.jsonl").read_bytes() == (
    whole / "metrics.jsonl"
  ).read_bytes()


def _check_events(folder, evaluated):
  """Scalars at each line; histograms and triplets at each evaluation."""
  found = {}
  for event in event_files.read(folder):
    for value in event.summary.value:
      kind = value.WhichOneof("value")
      found.setdefault((kind, value.tag), []).append(event.step)
  assert found["simple_value", "train/loss"] == [1, 2, 3, 4, 5, 6]
  pictured = {
    ("simple_value", "validation/loss"),
    ("histo", "embeddings/length"),
    ("histo", "embeddings/same_person"),
    ("histo", "embeddings/different_people"),
    ("image", "triplets/hardest"),
  }
  assert all(found[one] == evaluated for one in pictured)


def test_what_a_run_leaves_behind(whole):
  rows = metric_writer.read_metrics(whole)
  train_rows = [row for row in rows if row["split"] == "train"]
  assert [row["step"] for row in train_rows] == [1, 2, 3, 4, 5, 6]
  validation = [row["step"] for row in rows if row["split"] == "validation"]
  assert validation == [2, 4, 6]
  run_facts = json.loads((whole / "run.json").read_text())
  assert len(run_facts["devices"]) == 8 and run_facts["versions"]["jax"]
  if (pathlib.Path(__file__).parents[2] / ".git").exists():
    assert re.fullmatch("[0-9a-f]{40}(-dirty)?", run_facts["commit"])
  assert workdir_lib.read_config(whole).ema_decay == 0.9
  overview = (whole / "parameters.txt").read_text().splitlines()
  assert overview[0].startswith("encoder/") and overview[-1].startswith("all")
  times = (whole / "times.jsonl").read_text().splitlines()
  assert len(times) == 6 and "images_per_second" in json.loads(times[0])
  _check_events(whole / "tensorboard", validation)
  kept = {int(path.name) for path in (whole / "checkpoints").iterdir()}
  losses = {r["step"]: r["loss"] for r in rows if r["split"] == "validation"}
  best = min(losses, key=losses.__getitem__)
  assert kept == {4, 6, best}
  manifests = {int(p.stem) for p in (whole / "manifests").glob("*.json")}
  assert manifests == kept


def test_training_again_changes_nothing(whole):
  before = (whole / "metrics.jsonl").read_bytes(), _weights(whole)
  run.train(tiny.config(ema_decay=0.9), whole)
  assert (whole / "metrics.jsonl").read_bytes() == before[0]
  for a, b in zip(_weights(whole), before[1], strict=True):
    np.testing.assert_array_equal(a, b)


def test_flipped_bit_falls_back_to_the_checkpoint_before(whole, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  files = [
    path
    for path in (folder / "checkpoints" / "6").rglob("*")
    if path.is_file() and path.parent.name == "d"
  ]
  damaged = max(files, key=lambda path: path.stat().st_size)
  data = bytearray(damaged.read_bytes())
  data[len(data) // 2] ^= 1
  damaged.write_bytes(data)
  run.train(tiny.config(ema_decay=0.9), folder)
  for a, b in zip(_weights(whole), _weights(folder), strict=True):
    np.testing.assert_array_equal(a, b)


def test_all_checkpoints_damaged_is_an_error(whole, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  for manifest in (folder / "manifests").glob("*.json"):
    manifest.write_text("{}")
  with pytest.raises(errors.UserError, match="every checkpoint in .* damaged"):
    run.train(tiny.config(ema_decay=0.9), folder)


def test_another_config_is_refused_and_named(whole):
  with pytest.raises(errors.UserError, match="differs in num_steps, seed"):
    run.train(tiny.config(ema_decay=0.9, seed=3, num_steps=8), whole)


def test_two_runs_at_once_are_refused(whole):
  with workdir_lib.locked(whole):
    with pytest.raises(errors.UserError, match="another run is at work"):
      run.train(tiny.config(ema_decay=0.9), whole)


def test_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
  config = tiny.config(
    optimizer__learning_rate=1e30, optimizer__weight_decay=0.0
  )
  with pytest.raises(errors.UserError, match="learning_rate"):
    run.train(config, tmp_path)
  assert not (tmp_path / "bundle").exists()
  for row in metric_writer.read_metrics(tmp_path):
    assert all(np.isfinite(v) for v in row.values() if v != row["split"])
  saver = checkpoint.Checkpointer(tmp_path)
  recipe = recipe_lib.make_recipe(config)
  restored = saver.restore_latest(recipe_lib.init_state(recipe, (16, 16, 1), 4))
  saver.close()
  if restored is not None:
    params = restored[0].params
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(params))


def test_cross_fitting_scores_every_training_person(tmp_path):
  config = tiny.config(
    "supcon",
    calibration__kind="cross_fit",
    calibration__inner_folds=2,
    calibration__inner_steps=2,
    dataset__num_validation=0,
    # Three people of eight images also divide by eight devices.
    objective__args={"num_people": 4, "images_per_person": 8},
  )
  bundle = run.train(config, tmp_path)
  calibration = bundle.spec["calibration"]
  # Six people in two groups of three, six images each: pairs within a group.
  assert calibration["num_people"] == 6
  assert calibration["num_genuine"] == 6 * 15
  assert calibration["num_impostor"] == 2 * (18 * 17 // 2 - 3 * 15)
  assert {"eer", "fmr_0.01", "fmr_0.1"} <= set(bundle.thresholds)
  for number in range(2):
    inner = tmp_path / f"inner-{number}"
    assert metric_writer.read_metrics(inner)[-1]["step"] == 2


def test_uneven_batch_is_refused(tmp_path):
  config = tiny.config(objective__args={"num_pairs": 12})
  with pytest.raises(errors.UserError, match="24 images does not divide"):
    run.train(config, tmp_path)


def _train_in_process(folder):
  jax.config.update("jax_num_cpu_devices", 8)
  run.train(tiny.config(ema_decay=0.9), folder)


def _kill_when(folder, condition, process):
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline and process.is_alive():
    if condition(folder):
      os.kill(process.pid, signal.SIGKILL)
      break
    time.sleep(0.01)
  process.join()


def _kill_and_resume(whole, folder, condition):
  context = multiprocessing.get_context("spawn")
  process = context.Process(target=_train_in_process, args=(folder,))
  process.start()
  _kill_when(folder, condition, process)
  assert process.exitcode in (0, -signal.SIGKILL)
  run.train(tiny.config(ema_decay=0.9), folder)
  for a, b in zip(_weights(whole), _weights(folder), strict=True):
    np.testing.assert_array_equal(a, b)
  assert (folder / "metrics.jsonl").read_bytes() == (
    whole / "metrics.jsonl"
  ).read_bytes()
  for a, b in zip(_last_state(whole), _last_state(folder), strict=True):
    np.testing.assert_array_equal(a, b)
  return process.exitcode


def _last_state(folder):
  """The whole state after the last step, the optimizer's too."""
  recipe = recipe_lib.make_recipe(tiny.config(ema_decay=0.9))
  with checkpoint.Checkpointer(folder) as saver:
    template = recipe_lib.init_state(recipe, (16, 16, 1), 4)
    state, _ = saver.restore_latest(template)
  assert int(state.step) == 6
  return jax.tree.leaves(state)


def test_killed_while_saving_ends_with_the_same_bits(whole, tmp_path):
  saving = lambda f: any((f / "checkpoints").glob("4*"))
  code = _kill_and_resume(whole, tmp_path / "run", saving)
  assert code == -signal.SIGKILL, "the run ended before it could be killed"


@pytest.mark.parametrize(
  "attempt",
  [4, 8, *(pytest.param(n, marks=pytest.mark.soak) for n in range(10, 28))],
)
def test_killed_at_any_moment(whole, tmp_path, attempt):
  """Kills spread over the run: at each line of metrics, and between.

  With the one above three here and twenty more in the soak.
  """

  def moment(folder):
    lines = len(metric_writer.read_metrics(folder))
    if lines < 1 + attempt % 9:
      return False
    time.sleep(0.003 * attempt)
    return True

  _kill_and_resume(whole, tmp_path / "run", moment)


def test_no_space_left_is_told_and_nothing_is_half_written(
  tmp_path, monkeypatch
):
  """Orbax fails as on a full disk; the run is resumed when there is room."""
  save = checkpoint.ocp.CheckpointManager.save

  def full(self, step, *args, **kwargs):
    if step == 4:
      raise OSError(28, "No space left on device")
    return save(self, step, *args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.ocp.CheckpointManager, "save", full)
    with pytest.raises(errors.UserError, match="no space left"):
      run.train(tiny.config(ema_decay=0.9), tmp_path)
  assert not (tmp_path / "bundle").exists()
  assert sorted(p.name for p in (tmp_path / "manifests").iterdir()) == [
    "2.json"
  ]
  run.train(tiny.config(ema_decay=0.9), tmp_path)
  assert (tmp_path / "bundle" / "bundle.json").exists()


def test_a_profile_is_written_where_asked_for(whole, tmp_path):
  assert not (whole / "profile").exists()
  run.train(tiny.config(ema_decay=0.9), tmp_path, profile=True)
  assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_config_read_back_is_the_config(tmp_path):
  config = tiny.config()
  with workdir_lib.locked(tmp_path) as folder:
    workdir_lib.claim(folder, config)
  assert not config_lib.differences(config, workdir_lib.read_config(tmp_path))


def test_workdir_that_is_a_file(tmp_path):
  path = pathlib.Path(tmp_path / "file")
  path.write_text("")
  with pytest.raises(errors.UserError, match="is a file"):
    run.train(tiny.config(), path)


def test_the_time_of_a_line_includes_its_steps(tmp_path, monkeypatch):
  """Steps are only handed to the device until their figures are asked for."""
  reported = loop._Run.reported

  def slow(self):
    time.sleep(0.2)
    return reported(self)

  monkeypatch.setattr(loop._Run, "reported", slow)
  run.train(tiny.config(ema_decay=0.9), tmp_path)
  lines = (tmp_path / "times.jsonl").read_text().splitlines()
  assert all(json.loads(line)["seconds"] >= 0.2 for line in lines)


def test_workdir_that_is_a_bucket(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.UserError, match="gs://bucket/run is no folder"):
    run.train(tiny.config(), "gs://bucket/run")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate, warned", [(0.0, True), (0.05, False)])
def test_a_collapsed_run_is_told_of(tmp_path, caplog, rate, warned):
  """An encoder whose weights are zero but for a bias embeds all alike."""
  config = tiny.config("supcon", optimizer__learning_rate=rate)
  if warned:
    with config.unlocked():
      config.encoder.name = "run_test_encoders:Constant"
      config.encoder.args = {}
  loop.fit(config, tmp_path, tiny.split(), None)
  said = [r for r in caplog.records if "has collapsed" in r.message]
  assert len(said) == int(warned)
  rows = metric_writer.read_metrics(tmp_path)
  assert all(0 <= row["spread"] <= 1 for row in rows)
