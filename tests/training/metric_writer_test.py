"""Tests of facesiam_jax.training.metric_writer."""

import json
import os
import pathlib

import event_files
import pytest
from tensorboardX.proto import event_pb2

from facesiam_jax.training import metric_writer


def _write(folder, first, last, step=-1):
  with metric_writer.MetricWriter(folder, step) as writer:
    for number in range(first, last + 1):
      writer.write(number, "train", {"loss": 1.0 / number})
      writer.write_time(number, {"seconds": 0.5})


def test_rows_times_and_events(tmp_path):
  _write(tmp_path, 1, 2)
  assert metric_writer.read_metrics(tmp_path) == [
    {"step": 1, "split": "train", "loss": 1.0},
    {"step": 2, "split": "train", "loss": 0.5},
  ]
  times = (tmp_path / "times.jsonl").read_text().splitlines()
  assert json.loads(times[1]) == {"step": 2, "seconds": 0.5}
  scalars = {
    (value.tag, event.step): value.simple_value
    for event in event_files.read(tmp_path / "tensorboard")
    for value in event.summary.value
  }
  assert scalars == {
    ("train/loss", 1): 1.0,
    ("train/loss", 2): 0.5,
    ("time/seconds", 1): 0.5,
    ("time/seconds", 2): 0.5,
  }


def test_resuming_cuts_back_and_says_so(tmp_path):
  _write(tmp_path, 1, 4)
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 5, "spl')  # torn by a kill
  _write(tmp_path, 3, 4, step=2)
  rows = metric_writer.read_metrics(tmp_path)
  assert [row["step"] for row in rows] == [1, 2, 3, 4]
  starts = [
    event.step
    for event in event_files.read(tmp_path / "tensorboard")
    if event.session_log.status == event_pb2.SessionLog.START
  ]
  assert starts == [0, 3]
  assert len(list((tmp_path / "tensorboard").glob("events*"))) == 2


def test_a_full_disk_is_an_error_and_stays_the_first_one(tmp_path):
  full = pathlib.Path("/dev/full")
  if not full.exists():
    pytest.skip("there is no /dev/full on this machine")
  with pytest.raises(OSError, match="No space left") as caught:
    with metric_writer.MetricWriter(tmp_path, -1) as writer:
      writer._files["metrics"].close()
      writer._files["metrics"] = full.open("ab", buffering=0)
      try:
        writer.write(1, "train", {"loss": 1.0})
      finally:
        writer._files["metrics"].close()
  assert caught.value.errno == 28
  assert os.path.getsize(tmp_path / "times.jsonl") == 0
