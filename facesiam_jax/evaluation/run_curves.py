"""The curves of a training run, for its report."""

import os

import numpy as np

from facesiam_jax.training import metric_writer


def training_curves(
  workdir: str | os.PathLike[str],
) -> dict[str, tuple[list[float], list[float]]] | None:
  """Returns a run's curves of loss and accuracy by step, None if it has none.

  Args:
    workdir: the run's directory.

  Returns:
    "training_loss", "validation_accuracy", ... -> (steps, values).
  """
  curves: dict[str, tuple[list[float], list[float]]] = {}
  labels = {"train": "training", "validation": "validation"}
  for row in metric_writer.read_metrics(workdir):
    for name in ("loss", "accuracy"):
      series = curves.setdefault(f"{labels[row['split']]}_{name}", ([], []))
      series[0].append(row["step"])
      series[1].append(row[name])
  return curves or None


def lowest(steps: list[float], losses: list[float]) -> tuple[float, float]:
  """Returns where a noisy curve is lowest, and how low, by a running mean.

  Args:
    steps: where the loss was measured, rising, at least one.
    losses: its values.

  Returns:
    (step, value) of the lowest mean over a tenth of the curve; the step is in
    the middle of that tenth.
  """
  width = max(1, len(losses) // 10)
  kernel = np.full(width, 1.0 / width)
  smooth = np.convolve(np.asarray(losses, np.float64), kernel, mode="valid")
  first = int(np.argmin(smooth))
  return float(steps[first + width // 2]), float(smooth[first])
