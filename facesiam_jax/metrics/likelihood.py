"""Likelihood ratios, priors and probabilities, and temperature scaling.

A network's logit answers for the mix of pairs it was fitted to. The log
likelihood ratio is that logit without the prior odds of the mix; a probability
needs a prior again, the one of the place of use:
  l = logit - ln(num_genuine / num_impostor),  p = sigma(l + ln(pi / (1 - pi)))
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks

_STEPS = 200
_PRECISION = 1e-12


def log_likelihood_ratio(
  logits: ArrayLike, *, num_genuine: int, num_impostor: int
) -> np.ndarray:
  """Takes the prior odds of the fitting set out of logits.

    l = logit - ln(num_genuine / num_impostor)
  For logits of a model fitted to pairs as they come. `fit_platt` and
  `fit_isotonic` have done it already; so has a network trained on as many
  genuine as impostor pairs.
  Batch meaning: entries are independent.

  Args:
    logits: logit of "same person", float [P], finite.
    num_genuine: genuine pairs the model was fitted to, >= 1.
    num_impostor: impostor pairs it was fitted to, >= 1; with weighted pairs,
      the sums of weights.

  Returns:
    Natural log likelihood ratios, float64 [P].

  Raises:
    ValueError: naming the argument, for another rank, no entry, NaN, infinity
      or a number of pairs that is not positive.

  Degenerate input: equal numbers change nothing.
  Example:
    >>> log_likelihood_ratio([0.0], num_genuine=1, num_impostor=100).round(4)
    array([4.6052])

  References: Bruemmer and du Preez 2006, Application-independent evaluation of
  speaker detection.
  """
  values = checks.check_floats("logits", logits, 1).astype(np.float64)
  numbers = {"num_genuine": num_genuine, "num_impostor": num_impostor}
  for name, value in numbers.items():
    if not 0 < value < math.inf:
      raise ValueError(f"{name} must be positive, got {value}")
  return values - math.log(num_genuine / num_impostor)


def probability(llrs: ArrayLike, *, prior: float) -> np.ndarray:
  """Computes the probability of "same person" at a prior.

    p = sigma(l + ln(prior / (1 - prior)))
  There is no probability without a prior: at a door where one in a thousand is
  an impostor, and in a search of a thousand people, the same likelihood ratio
  means something else.
  Batch meaning: entries are independent.

  Args:
    llrs: natural log likelihood ratios, float [P], finite.
    prior: probability of "same person" before looking, inside 0..1.

  Returns:
    Probabilities, float64 [P], in 0..1; small ones keep their digits.

  Raises:
    ValueError: naming the argument, for another rank, no entry, NaN, infinity,
      or a prior that is 0, 1 or beyond.

  Degenerate input: a log likelihood ratio of 0 gives the prior.
  Example:
    >>> probability([0.0, 5.0], prior=0.01).round(4).tolist()
    [0.01, 0.5999]

  References: Bruemmer and du Preez 2006.
  """
  values = checks.check_floats("llrs", llrs, 1).astype(np.float64)
  checks.check_inside("prior", prior)
  logits = values + math.log(prior) - math.log1p(-prior)
  # exp of a negative number only: no overflow, and small values stay exact.
  small = np.exp(-np.abs(logits))
  return np.where(logits < 0, small, 1.0) / (1 + small)


def fit_temperature(logits: ArrayLike, same: ArrayLike) -> float:
  """Fits the temperature T of sigma(logit / T).

  Minimises the cross-entropy with each kind of pair weighted to one half in
  total, so that, as with `fit_platt`, the result is for even odds whatever the
  mix of pairs. T > 1 says that the logits were too sure. It cannot mend a wrong
  offset: subtract prior odds first, or use `fit_platt`.
  Batch meaning: all pairs together make one number.

  Args:
    logits: logit of "same person" of each pair, float [P], finite.
    same: 1 = same person, 0 = not, [P].

  Returns:
    T > 0; divide logits by it.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, or only one kind of pair; or if no T is best:
      all logits have the right sign (T would be 0), or genuine pairs do not
      have the higher logits on average (T would be infinite).

  Degenerate input: see the last two cases above.
  Example:
    >>> round(fit_temperature([4.0, 4.0, -4.0, -4.0, -4.0, 4.0],
    ...                       [1, 1, 1, 0, 0, 0]), 3)
    5.771

  References: Guo et al. 2017, On calibration of modern neural networks.
  """
  values, labels = checks.check_pairs(logits, same, "logits")
  # Positive = right; then the loss is the mean of softplus(-right * scale).
  right = np.where(labels, values, -values.astype(np.float64))
  weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
  if not (right < 0).any():
    raise ValueError(
      "logits all have the right sign: the temperature would be 0"
    )
  if not weights @ right > 0:
    raise ValueError(
      "logits of genuine pairs must be higher than those of impostor pairs on "
      "average: the temperature would be infinite"
    )
  unit = float(np.abs(right).max())
  return unit / _best_scale(right / unit, weights)


def _best_scale(right: np.ndarray, weights: np.ndarray) -> float:
  """Root of the slope of the convex loss, by Newton kept inside a bracket."""
  low, high, scale = 0.0, math.inf, 1.0
  for _ in range(_STEPS):
    # sigma(-right * scale), the share by which each pair is still wrong.
    wrong = 0.5 * (1 - np.tanh(0.5 * scale * right))
    slope = -float((weights * right) @ wrong)
    low, high = (scale, high) if slope < 0 else (low, scale)
    bend = float((weights * right * right) @ (wrong * (1 - wrong)))
    trial = scale - slope / bend if bend > 0 else math.nan
    if not low < trial < high:
      trial = 2 * scale if high == math.inf else (low + high) / 2
    if abs(trial - scale) <= _PRECISION * scale:
      return trial
    scale = trial
  return scale
