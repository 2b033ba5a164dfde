"""Metrics of a run: JSON lines, TensorBoard events, a file of times.

metrics.jsonl holds values that the config determines, so two runs of one
config write the same bytes; what depends on the machine goes to times.jsonl.
"""

import contextlib
import errno
import json
import os
import pathlib
import time
from typing import Any

import numpy as np

from facesiam_jax import files, parallel
from facesiam_jax.training import closing


def _read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  if not path.exists():
    return []
  rows = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break  # a kill in the middle of a write leaves a torn last line
  return rows


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the rows of a run's metrics.jsonl, [] if there is none.

  Args:
    workdir: the run's directory.

  Returns:
    Dictionaries with "step", "split" ("train" or "validation") and values.
  """
  return _read_lines(pathlib.Path(workdir) / "metrics.jsonl")


class _Events:
  """A file of TensorBoard events, written as they come.

  tensorboardX's own SummaryWriter writes from a thread; once that thread has
  met a full disk it is gone, and the run waits for it for ever.
  """

  def __init__(self, folder: pathlib.Path, first_step: int) -> None:
    # Heavy: loaded by those who write events, not by those who read metrics.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    self._make_event, self._summary = event_pb2.Event, summary
    folder.mkdir(exist_ok=True)
    # Names tell files apart by the second: two runs in one need another mark.
    suffix = f".{time.time_ns()}"
    prefix = str(folder / "events")
    self._writer = event_file_writer.EventsWriter(prefix, suffix)
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    # Has TensorBoard forget what a killed run wrote from there on.
    self._write(first_step, session_log=start)

  def _write(self, step: int, **content: Any) -> None:
    event = self._make_event(wall_time=time.time(), step=step, **content)
    self._writer.write_event(event)

  def add(self, prefix: str, values: dict[str, float], step: int) -> None:
    """Writes scalars through to the disk."""
    for name, value in values.items():
      self._write(step, summary=self._summary.scalar(f"{prefix}/{name}", value))
    self._writer.flush()

  def add_histogram(self, name: str, values: np.ndarray, step: int) -> None:
    """Writes a histogram of finite numbers."""
    self._write(step, summary=self._summary.histogram(name, values, "auto"))
    self._writer.flush()

  def add_image(self, name: str, pixels: np.ndarray, step: int) -> None:
    """Writes an image, uint8 [H, W, C]."""
    self._write(
      step, summary=self._summary.image(name, pixels, dataformats="HWC")
    )
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


class MetricWriter(closing.Closing):
  """Appends rows to metrics.jsonl and times.jsonl and to TensorBoard events.

  On construction both files are cut back to rows up to `step`, so that a run
  resumed from a checkpoint at `step` ends with the files of a run that was
  never stopped.
  """

  def __init__(self, workdir: str | os.PathLike[str], step: int) -> None:
    folder = pathlib.Path(workdir)
    with contextlib.ExitStack() as stack:
      self._files = {}
      for name in ("metrics", "times"):
        path = folder / f"{name}.jsonl"
        self._cut_back(path, step)
        self._files[name] = stack.enter_context(path.open("ab", buffering=0))
      self._events = _Events(folder / "tensorboard", step + 1)
      stack.callback(self._events.close)
      self._stack = stack.pop_all()

  @staticmethod
  def _cut_back(path: pathlib.Path, step: int) -> None:
    rows = [row for row in _read_lines(path) if row["step"] <= step]
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    files.write(path, lines)

  def _append(self, name: str, row: dict[str, Any]) -> None:
    line = json.dumps(row, sort_keys=True) + "\n"
    # Unbuffered, so that a line that did not fit is not tried again later.
    if self._files[name].write(line.encode()) < len(line):
      raise OSError(
        errno.ENOSPC, os.strerror(errno.ENOSPC), self._files[name].name
      )

  def write(self, step: int, split: str, values: dict[str, float]) -> None:
    """Writes deterministic values of a step.

    Args:
      step: number of finished steps.
      split: "train" or "validation".
      values: finite floats by name.
    """
    self._append("metrics", {"step": step, "split": split, **values})
    self._events.add(split, values, step)

  def write_time(self, step: int, values: dict[str, float]) -> None:
    """Writes what depends on the machine: seconds, images a second.

    Args:
      step: number of finished steps.
      values: floats by name.
    """
    self._append("times", {"step": step, **values})
    self._events.add("time", values, step)

  def write_pictures(
    self,
    step: int,
    histograms: dict[str, np.ndarray],
    image: np.ndarray | None,
  ) -> None:
    """Writes what only TensorBoard shows.

    Args:
      step: number of finished steps.
      histograms: numbers by name; those that are not finite are left out.
      image: uint8 [H, W, C]; None for none.
    """
    for name, values in histograms.items():
      finite = values[np.isfinite(values)]
      if len(finite):
        self._events.add_histogram(f"embeddings/{name}", finite, step)
    if image is not None:
      self._events.add_image("triplets/hardest", image, step)

  def close(self) -> None:
    """Closes all files.

    Raises:
      OSError: if the disk is full.
    """
    self._stack.close()


class NoWriter(MetricWriter):
  """Stands in for `MetricWriter` in the processes that do not write."""

  def __init__(self) -> None:
    self._stack = contextlib.ExitStack()

  def write(self, step: int, split: str, values: dict[str, float]) -> None:
    """Writes nothing."""

  def write_pictures(
    self,
    step: int,
    histograms: dict[str, np.ndarray],
    image: np.ndarray | None,
  ) -> None:
    """Writes nothing."""

  def write_time(self, step: int, values: dict[str, float]) -> None:
    """Writes nothing."""


def open_writer(workdir: str | os.PathLike[str], step: int) -> MetricWriter:
  """Returns the writer of this process: process 0 writes for all.

  Args:
    workdir: the run's directory.
    step: rows after it are cut off, see `MetricWriter`.
  """
  return MetricWriter(workdir, step) if parallel.is_main() else NoWriter()
