"""How sure the logit is that Platt's method fits, over people."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import cells, checks, intervals
from facesiam_jax.metrics.calibration import MIN_PEOPLE, Platt, fit_platt

_BINS = 1024
_NEWTON_STEPS = 50
_CLOSE = 1e-9


class PlattSpread(NamedTuple):
  """A fitted logit w * score + b and the covariance of (w, b) over people.

  Attributes:
    platt: the fit.
    variance_w: of w.
    covariance: of w and b.
    variance_b: of b.
    quantile: how many standard deviations the interval reaches to either side.
    people: number of people in the pairs.
    reason: one sentence where there is no interval, and the numbers above but
      for `platt` and `people` are then NaN; else None.
  """

  platt: Platt
  variance_w: float
  covariance: float
  variance_b: float
  quantile: float
  people: int
  reason: str | None

  def ends(self, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of the interval of the logit at scores.

    Args:
      scores: float [...].

    Returns:
      (low, high), float64 [...]; NaN where there is no interval.
    """
    scores = np.asarray(scores, np.float64)
    # Rounding may leave a variance just below 0.
    variance = np.maximum(
      scores**2 * self.variance_w
      + 2 * scores * self.covariance
      + self.variance_b,
      0.0,
    )
    logits = self.platt.w * scores + self.platt.b
    half = self.quantile * np.sqrt(variance)
    return logits - half, logits + half


def platt_jackknife(
  scores: ArrayLike,
  people_a: ArrayLike,
  people_b: ArrayLike,
  *,
  level: float = 0.95,
  min_people: int = MIN_PEOPLE,
) -> PlattSpread:
  """Estimates how far `fit_platt` would move with other people.

  Each person a in turn is left out, with all pairs they are in, and (w, b)
  fitted to the others; of n people, with t_a = (w, b) without a,
    covariance = (n - 1) / n sum_a (t_a - mean t) (t_a - mean t)^T
  For speed the scores of more than 1,024 pairs of a kind are binned, as many
  pairs a bin.
  The interval takes Student's quantile, with degrees of freedom from the
  kurtosis of the logits t_a at the mean genuine or impostor score, whichever
  has fewer: people who alone decide the fit say less than their number.
  Batch meaning: all pairs together make one map.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    people_a: person at one end of each pair, integer or string [P].
    people_b: person at the other end, [P]; a pair is genuine if the same.
    level: of confidence at any one score, inside 0..1.
    min_people: with fewer people in either kind of pair there is no interval.

  Returns:
    The PlattSpread.

  Raises:
    ValueError: as `fit_platt`, for a level out of range, or people that are
      neither integers nor strings.

  Degenerate input: fewer than `min_people` people have no interval, nor have
  pairs that cannot be fitted when one person is left out.
  Example:
    >>> platt_jackknife([0.9, 0.2, 0.1], [1, 1, 2], [1, 2, 3]).reason
    'an interval needs at least 30 people, the genuine pairs have 1'

  References: Efron and Stein 1981, The jackknife estimate of variance; Platt
  1999.
  """
  scores = checks.check_floats("scores", scores, 1)
  known, ends = checks.check_ends(people_a, people_b, scores.shape)
  same = ends[0] == ends[1]
  platt = fit_platt(scores, same)
  checks.check_inside("level", level)
  nan = float("nan")
  refused = PlattSpread(platt, nan, nan, nan, nan, known.size, None)
  for name, kind in (("genuine", same), ("impostor", ~same)):
    number = np.unique(ends[:, kind]).size
    if number < min_people:
      return refused._replace(
        reason=f"an interval needs at least {min_people} people, the {name} "
        f"pairs have {number}"
      )
  moved = _moved(scores.astype(np.float64), platt, same, ends)
  if moved is None:
    return refused._replace(
      reason="without one of the people the logit cannot be fitted"
    )
  covariance = moved.T @ moved * (known.size - 1) / known.size
  means = (np.array([scores[kind].mean(), 1.0]) for kind in (same, ~same))
  freedom = min(cells.freedom(moved @ mean) for mean in means)
  return PlattSpread(
    platt,
    float(covariance[0, 0]),
    float(covariance[0, 1]),
    float(covariance[1, 1]),
    intervals.student(freedom, level),
    known.size,
    None,
  )


def _moved(
  scores: np.ndarray, platt: Platt, same: np.ndarray, ends: np.ndarray
) -> np.ndarray | None:
  """(w, b) without each person less their mean, float64 [people, 2].

  None where a fit fails.
  """
  number = int(ends.max()) + 1
  # Newton is well conditioned on standardised scores.
  centre, scale = float(scores.mean()), float(scores.std())
  bins = [
    _binned((scores[kind] - centre) / scale, ends[:, kind], number)
    for kind in (same, ~same)
  ]
  if not all(one.left.any(axis=1).all() for one in bins):
    return None
  fits = _fits(bins, np.array([platt.w * scale, platt.b + platt.w * centre]))
  if not np.isfinite(fits).all():
    return None
  # Of (w, b): w = w' / scale, b = b' - w' centre / scale.
  back = np.array([[1 / scale, 0.0], [-centre / scale, 1.0]])
  return (fits - fits.mean(axis=0)) @ back.T


class _Bins(NamedTuple):
  """Scores of one kind of pair, binned.

  Attributes:
    scores: mean of each bin, float64 [bins].
    left: pairs in it that do not have a person, float64 [people, bins].
  """

  scores: np.ndarray
  left: np.ndarray


def _binned(scores: np.ndarray, ends: np.ndarray, num_people: int) -> _Bins:
  """Bins as many pairs each; each pair its own where there are few."""
  order = np.argsort(scores, kind="stable")
  place = np.empty(scores.size, np.int64)
  size = min(_BINS, scores.size)
  place[order] = np.arange(scores.size) * size // scores.size
  total = np.bincount(place)
  own = np.bincount(ends[0] * size + place, minlength=num_people * size)
  other = ends[0] != ends[1]
  own += np.bincount(
    ends[1, other] * size + place[other], minlength=num_people * size
  )
  means = np.bincount(place, scores) / total
  return _Bins(means, (total - own.reshape(num_people, size)).astype(float))


def _fits(bins: list[_Bins], start: np.ndarray) -> np.ndarray:
  """Fits (w, b) without each person in turn, float64 [people, 2]."""
  fits = np.tile(start, (len(bins[0].left), 1))
  for _ in range(_NEWTON_STEPS):
    slope, hessian = np.zeros_like(fits), np.zeros((len(fits), 2, 2))
    for genuine, (scores, left) in zip((True, False), bins, strict=True):
      number = left.sum(axis=1, keepdims=True)
      target = (number + 1 if genuine else 1) / (number + 2)
      p = 0.5 * (1 + np.tanh(0.5 * (fits[:, :1] * scores + fits[:, 1:])))
      weights = left / (2 * number)
      powers = np.stack([scores, np.ones_like(scores)], axis=1)
      slope += (weights * (p - target)) @ powers
      squares = powers[:, :, None] * powers[:, None, :]
      bend = (weights * p * (1 - p)) @ squares.reshape(-1, 4)
      hessian += bend.reshape(-1, 2, 2)
    hessian += 1e-12 * np.eye(2)
    step = np.linalg.solve(hessian, slope[:, :, None])[:, :, 0]
    fits = fits - step
    if not np.abs(step).max() > _CLOSE:
      break
  return fits
