"""What the axes of a DET plot need: normal deviates, their range, corners."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import verification


def corners(det: verification.Det) -> verification.Det:
  """Leaves out points inside straight runs: one score in fifty is a corner."""
  moves = np.diff(det.fnmr) != 0
  kept = np.append(True, moves) | np.append(moves, True)
  return verification.Det(*(values[kept] for values in det))


def deviate(rates: ArrayLike) -> np.ndarray:
  """Normal deviates of rates; those of 0 and 1 lie far outside any plot."""
  clipped = np.clip(np.asarray(rates, float), 1e-9, 1 - 1e-9)
  return np.array([NormalDist().inv_cdf(rate) for rate in clipped])


def det_range(dets: Sequence[verification.Det]) -> tuple[float, float]:
  """Least and greatest rate on the axes: the rates measured, and a margin."""
  rates = np.concatenate([[*d.fmr, *d.fnmr] for d in dets])
  inside = rates[(rates > 0) & (rates < 1)]
  low = min(0.05, inside.min() / 1.5) if inside.size else 0.05
  return max(1e-5, float(low)), 0.9
