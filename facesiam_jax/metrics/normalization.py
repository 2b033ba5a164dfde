"""Score normalisation by a cohort of people known to be somebody else.

A face that resembles everybody gets high scores against everybody. Its scores
against a cohort, a set of images of other people, say how high; subtracting
their mean and dividing by their standard deviation puts all faces on one scale,
so that one threshold fits them all. Nobody of the cohort may be enrolled or a
probe.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks

# Standard deviations of cosines are near 0.1; much below, the cohort is broken.
SD_FLOOR = 1e-3


class Cohort(NamedTuple):
  """Mean and standard deviation of each image's cohort scores, float64 [N]."""

  mean: np.ndarray
  sd: np.ndarray


def cohort_statistics(
  cohort_scores: ArrayLike,
  *,
  top_k: int | None = None,
  sd_floor: float = SD_FLOOR,
) -> Cohort:
  """Computes the mean and standard deviation of each image's cohort scores.

  With `top_k` only an image's highest scores count: the cohort adapts to it.
  For pairs (i, j) in a list, take the statistics once and index them.
  Batch meaning: rows are independent.

  Args:
    cohort_scores: similarity of each image (row) to each image of the cohort
      (column), float [N, C], finite.
    top_k: number of highest scores used, 1..C; None means all.
    sd_floor: standard deviations below it are raised to it, > 0, in the unit
      of the scores.

  Returns:
    The Cohort; standard deviations with ddof=0, at least `sd_floor`.

  Raises:
    ValueError: naming the argument, for another rank, no entry, NaN, infinity,
      `top_k` out of range, or a floor that is not positive.

  Degenerate input: a cohort of one image has standard deviation `sd_floor`.
  Example:
    >>> stats = cohort_statistics([[0.0, 2.0, 4.0]], top_k=2)
    >>> stats.mean.tolist(), stats.sd.tolist()
    ([3.0], [1.0])

  References: Sturim and Reynolds 2005, Speaker adaptive cohort selection;
  Matejka et al. 2017, Analysis of score normalization in multilingual speaker
  recognition.
  """
  return _statistics("cohort_scores", cohort_scores, top_k, sd_floor)


def z_norm(
  scores: ArrayLike,
  enrolled_cohort: ArrayLike,
  *,
  top_k: int | None = None,
  sd_floor: float = SD_FLOOR,
) -> np.ndarray:
  """Normalises scores by the cohort scores of the enrolled images.

    (s - mean_e) / sd_e
  Batch meaning: enrolled images are independent of each other.

  Args:
    scores: enrolled image (row) against probe (column), float [E, P], finite.
    enrolled_cohort: enrolled images against the cohort, float [E, C].
    top_k: as `cohort_statistics`.
    sd_floor: as `cohort_statistics`.

  Returns:
    Scores in standard deviations above the cohort, float64 [E, P].

  Raises:
    ValueError: naming the argument, as `cohort_statistics`, or if the numbers
      of rows differ.

  Degenerate input: a cohort without spread divides by `sd_floor`.
  Example:
    >>> z_norm([[5.0, 3.0]], [[1.0, 3.0]]).tolist()
    [[3.0, 1.0]]

  References: Auckenthaler, Carey and Lloyd-Thomas 2000, Score normalization for
  text-independent speaker verification systems.
  """
  matrix = checks.check_floats("scores", scores, 2).astype(np.float64)
  stats = _statistics("enrolled_cohort", enrolled_cohort, top_k, sd_floor)
  _check_rows("enrolled_cohort", stats, "rows", matrix.shape, 0)
  return (matrix - stats.mean[:, None]) / stats.sd[:, None]


def t_norm(
  scores: ArrayLike,
  probe_cohort: ArrayLike,
  *,
  top_k: int | None = None,
  sd_floor: float = SD_FLOOR,
) -> np.ndarray:
  """Normalises scores by the cohort scores of the probes.

    (s - mean_p) / sd_p
  Batch meaning: probes are independent of each other.

  Args:
    scores: enrolled image (row) against probe (column), float [E, P], finite.
    probe_cohort: probes against the cohort, float [P, C].
    top_k: as `cohort_statistics`.
    sd_floor: as `cohort_statistics`.

  Returns:
    Scores in standard deviations above the cohort, float64 [E, P].

  Raises:
    ValueError: naming the argument, as `cohort_statistics`, or if there are not
      as many rows in `probe_cohort` as columns in `scores`.

  Degenerate input: a cohort without spread divides by `sd_floor`.
  Example:
    >>> t_norm([[5.0, 3.0]], [[1.0, 3.0], [3.0, 3.0]], sd_floor=0.5).tolist()
    [[3.0, 0.0]]

  References: Auckenthaler, Carey and Lloyd-Thomas 2000.
  """
  matrix = checks.check_floats("scores", scores, 2).astype(np.float64)
  stats = _statistics("probe_cohort", probe_cohort, top_k, sd_floor)
  _check_rows("probe_cohort", stats, "columns", matrix.shape, 1)
  return (matrix - stats.mean) / stats.sd


def s_norm(
  scores: ArrayLike,
  enrolled_cohort: ArrayLike,
  probe_cohort: ArrayLike,
  *,
  top_k: int | None = None,
  sd_floor: float = SD_FLOOR,
) -> np.ndarray:
  """Normalises scores by both sides: the mean of `z_norm` and `t_norm`.

  It is symmetric: exchanging enrolled images and probes transposes the result.
  With `top_k` this is the adaptive S-norm.
  Batch meaning: each score depends on its own two images only.

  Args:
    scores: enrolled image (row) against probe (column), float [E, P], finite.
    enrolled_cohort: enrolled images against the cohort, float [E, C].
    probe_cohort: probes against the cohort, float [P, C'].
    top_k: as `cohort_statistics`.
    sd_floor: as `cohort_statistics`.

  Returns:
    Scores in standard deviations above the cohort, float64 [E, P].

  Raises:
    ValueError: as `z_norm` and `t_norm`.

  Degenerate input: a cohort without spread divides by `sd_floor`.
  Example:
    >>> s_norm([[5.0]], [[1.0, 3.0]], [[2.0, 6.0]]).tolist()
    [[1.75]]

  References: Shum et al. 2010, Unsupervised speaker adaptation based on the
  cosine similarity for text-independent speaker verification.
  """
  z = z_norm(scores, enrolled_cohort, top_k=top_k, sd_floor=sd_floor)
  return (z + t_norm(scores, probe_cohort, top_k=top_k, sd_floor=sd_floor)) / 2


def _statistics(
  name: str, values: ArrayLike, top_k: int | None, sd_floor: float
) -> Cohort:
  matrix = checks.check_floats(name, values, 2).astype(np.float64)
  size = matrix.shape[1]
  if top_k is not None:
    if not 1 <= top_k <= size:
      raise ValueError(
        f"top_k must lie in 1..{size}, the columns of {name}, got {top_k}"
      )
    matrix = np.partition(matrix, size - top_k, axis=1)[:, size - top_k :]
  if not sd_floor > 0:
    raise ValueError(f"sd_floor must be positive, got {sd_floor}")
  return Cohort(matrix.mean(axis=1), np.maximum(matrix.std(axis=1), sd_floor))


def _check_rows(
  name: str, stats: Cohort, what: str, shape: tuple[int, ...], axis: int
) -> None:
  if stats.mean.size != shape[axis]:
    raise ValueError(
      f"{name} must have one row for each of the {what} of scores {shape}, got "
      f"{stats.mean.size} rows"
    )
