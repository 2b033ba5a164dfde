"""How good probabilities and likelihood ratios are, not only their order.

`cllr` and `min_cllr` measure log likelihood ratios and do not depend on how
many pairs are genuine; `brier`, `ece` and `nll` measure probabilities at the
prior of the pairs they are given, so their values from sets with other shares
of genuine pairs cannot be compared.
"""

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks, isotonic
from facesiam_jax.metrics import tally as tally_lib

_LN_2 = np.log(2.0)


def cllr(llrs: ArrayLike, same: ArrayLike) -> float:
  """Computes the cost of log likelihood ratios, C_llr.

    (mean_genuine log2(1 + e^-l) + mean_impostor log2(1 + e^l)) / 2
  Batch meaning: all pairs together make one number.

  Args:
    llrs: natural log likelihood ratio of "same person" of each pair, float [P],
      finite. A logit that holds the prior odds of its fitting set must lose
      them first, see `log_likelihood_ratio`.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The cost in bits, >= 0: 0 is perfect, 1 is what always answering 0 earns,
    and more than 1 is worse than not looking.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, or only one kind of pair.

  Degenerate input: huge ratios on the wrong side give a huge finite cost.
  Example:
    >>> cllr([0.0, 0.0, 0.0], [1, 0, 0])
    1.0

  References: Bruemmer and du Preez 2006, Application-independent evaluation of
  speaker detection, eq. 2.
  """
  values, labels = checks.check_pairs(llrs, same, "llrs")
  values = values.astype(np.float64)
  genuine = np.logaddexp(0, -values[labels]).mean()
  impostor = np.logaddexp(0, values[~labels]).mean()
  return float((genuine + impostor) / (2 * _LN_2))


def min_cllr(scores: ArrayLike, same: ArrayLike) -> float:
  """Computes the lowest C_llr that a monotone map of the scores can reach.

  The map is fitted to these very pairs, by pooling adjacent violators with no
  pair added; `cllr` minus this is what calibration loses.
  Batch meaning: all pairs together make one number.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The cost in bits, 0..1; it depends on the order of the scores only.

  Raises:
    ValueError: as `cllr`, of `scores`.

  Degenerate input: perfect separation gives 0; all scores equal, or with the
  wrong sign, give 1.
  Example:
    >>> round(min_cllr([0.9, 0.4, 0.6, 0.1], [1, 1, 0, 0]), 4)
    0.5

  References: Bruemmer and du Preez 2006, section on discrimination and
  calibration.
  """
  counts = tally_lib.tally(scores, same)
  genuine, impostor = counts.genuine[::-1], counts.impostor[::-1]
  ends = isotonic.block_ends(genuine, impostor)
  g = np.diff(np.cumsum(genuine)[ends - 1], prepend=0)
  i = np.diff(np.cumsum(impostor)[ends - 1], prepend=0)
  # A block of one kind of pair has an infinite ratio, and costs nothing.
  mixed = (g > 0) & (i > 0)
  g, i = g[mixed], i[mixed]
  odds = (g / counts.num_genuine) / (i / counts.num_impostor)
  on_genuine = g @ np.log1p(1 / odds) / counts.num_genuine
  on_impostor = i @ np.log1p(odds) / counts.num_impostor
  return float((on_genuine + on_impostor) / (2 * _LN_2))


def ece(probabilities: ArrayLike, same: ArrayLike, *, bins: int = 15) -> float:
  """Computes the expected calibration error of "same person".

    sum_b (n_b / P) |share of genuine pairs in b - mean probability in b|
  over bins of equal width, closed on the right. It depends on the number of
  bins and is biased upwards on few pairs: state both numbers with it.
  Batch meaning: all pairs together make one number.

  Args:
    probabilities: of "same person" for each pair, float [P], 0..1.
    same: 1 = same person, 0 = not, [P].
    bins: number of bins, >= 1.

  Returns:
    The error in 0..1; 0 is perfect.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, numbers
      outside 0..1, labels other than 0 and 1, only one kind of pair, or fewer
      than one bin.

  Degenerate input: empty bins count nothing; one bin compares the two means.
  Example:
    >>> round(ece([0.9, 0.8, 0.3, 0.1], [1, 1, 0, 0], bins=2), 4)
    0.175

  References: Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, On
  calibration of modern neural networks (there of the winning class).
  """
  values, labels = _check_probabilities(probabilities, same)
  if bins < 1:
    raise ValueError(f"bins must be at least 1, got {bins}")
  edges = np.arange(1, bins) / bins
  place = np.searchsorted(edges, values, side="left")
  gap = np.bincount(place, labels - values, minlength=bins)
  return float(np.abs(gap).sum() / values.size)


def brier(probabilities: ArrayLike, same: ArrayLike) -> float:
  """Computes the Brier score, the mean square error of probabilities.

    mean (p - same)^2
  Batch meaning: all pairs together make one number.

  Args:
    probabilities: of "same person" for each pair, float [P], 0..1.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The score in 0..1; 0 is perfect, and always answering 1/2 earns 0.25.

  Raises:
    ValueError: as `ece`.

  Degenerate input: certain and wrong everywhere gives 1.
  Example:
    >>> brier([1.0, 0.5], [1, 0])
    0.125

  References: Brier 1950, Verification of forecasts expressed in terms of
  probability (halved for two classes).
  """
  values, labels = _check_probabilities(probabilities, same)
  return float(np.square(values - labels).mean())


def nll(logits: ArrayLike, same: ArrayLike) -> float:
  """Computes the mean negative log likelihood of the labels, from logits.

    mean ln(1 + e^-z) over genuine and ln(1 + e^z) over impostor pairs
  From logits, not probabilities: those round to 0 and 1, whose logarithm is
  infinite. Pairs are not weighted by kind, unlike in `cllr`.
  Batch meaning: all pairs together make one number.

  Args:
    logits: logit of "same person" of each pair at the prior of these pairs,
      float [P], finite.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The mean in nats, >= 0; ln 2 where every logit is 0.

  Raises:
    ValueError: as `cllr`, of `logits`.

  Degenerate input: huge logits on the wrong side give a huge finite value.
  Example:
    >>> round(nll([0.0, 0.0], [1, 0]), 4)
    0.6931

  References: Good 1952, Rational decisions (the logarithmic score).
  """
  values, labels = checks.check_pairs(logits, same, "logits")
  values = values.astype(np.float64)
  return float(np.logaddexp(0, np.where(labels, -values, values)).mean())


def _check_probabilities(
  probabilities: ArrayLike, same: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
  """Returns probabilities and labels, both float64 [P]."""
  values, labels = checks.check_pairs(probabilities, same, "probabilities")
  if values.min() < 0 or values.max() > 1:
    raise ValueError(
      f"probabilities must lie in 0..1, got {values.min():g}..{values.max():g}"
    )
  return values.astype(np.float64), labels.astype(np.float64)
