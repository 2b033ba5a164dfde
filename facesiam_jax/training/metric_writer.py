"""Metrics of a run: JSON lines, TensorBoard events, a file of times.

metrics.jsonl holds values that the config determines, so two runs of one
config write the same bytes; what depends on the machine goes to times.jsonl.
"""

import json
import os
import pathlib
from typing import Any

from facesiam_jax import files


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


class MetricWriter:
  """Appends rows to metrics.jsonl and times.jsonl and to TensorBoard events.

  On construction both files are cut back to rows up to `step`, so that a run
  resumed from a checkpoint at `step` ends with the files of a run that was
  never stopped.
  """

  def __init__(self, workdir: str | os.PathLike[str], step: int) -> None:
    # Heavy: loaded by those who write events, not by those who read metrics.
    import tensorboardX

    self._paths = {
      name: pathlib.Path(workdir) / f"{name}.jsonl"
      for name in ("metrics", "times")
    }
    for path in self._paths.values():
      self._cut_back(path, step)
    self._files = {
      name: path.open("a", encoding="utf-8")
      for name, path in self._paths.items()
    }
    self._events = tensorboardX.SummaryWriter(
      str(pathlib.Path(workdir) / "tensorboard"), purge_step=step + 1
    )

  @staticmethod
  def _cut_back(path: pathlib.Path, step: int) -> None:
    rows = [row for row in _read_lines(path) if row["step"] <= step]
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    files.write(path, lines)

  def _append(self, name: str, row: dict[str, Any]) -> None:
    self._files[name].write(json.dumps(row, sort_keys=True) + "\n")
    self._files[name].flush()

  def write(self, step: int, split: str, values: dict[str, float]) -> None:
    """Writes deterministic values of a step.

    Args:
      step: number of finished steps.
      split: "train" or "validation".
      values: finite floats by name.
    """
    self._append("metrics", {"step": step, "split": split, **values})
    for name, value in values.items():
      self._events.add_scalar(f"{split}/{name}", value, step)

  def write_time(self, step: int, values: dict[str, float]) -> None:
    """Writes what depends on the machine: seconds, images a second.

    Args:
      step: number of finished steps.
      values: floats by name.
    """
    self._append("times", {"step": step, **values})
    for name, value in values.items():
      self._events.add_scalar(f"time/{name}", value, step)

  def close(self) -> None:
    """Flushes and closes all files."""
    for file in self._files.values():
      file.close()
    self._events.close()
