"""Plausible mistakes in the spread of a logit and in kernel thresholds."""

import functools

import numpy as np
from reference import metric_cases
from reference import metrics_calibration as reference
from scipy import stats
from variants import Variants

from facesiam_jax import metrics

_PEOPLE = [
  metric_cases.people(num_people=9, seed=0),
  metric_cases.people(num_people=12, seed=1, images=2, effect=0.2, drop=0.0),
]


def check_platt_jackknife(function):
  for scores, a, b in _PEOPLE:
    for level in (0.95, 0.5):
      found = function(scores, a, b, level=level, min_people=2)
      expected = reference.platt_covariance(scores, a, b)
      np.testing.assert_allclose(
        [found.variance_w, found.covariance, found.variance_b],
        expected[[0, 0, 1], [0, 1, 1]],
        rtol=1e-6,
      )
      w, b0 = reference.platt(scores, a == b)
      at = np.array([-3.0, 0.0, 1.7])
      half = np.sqrt(
        [np.array([x, 1.0]) @ expected @ np.array([x, 1.0]) for x in at]
      )
      freedom = reference.platt_freedom(scores, a, b)
      half *= stats.t.ppf((1 + level) / 2, freedom)
      low, high = found.ends(at)
      np.testing.assert_allclose(low, w * at + b0 - half, rtol=1e-5)
      np.testing.assert_allclose(high, w * at + b0 + half, rtol=1e-5)


def _jackknife(
  scores,
  a,
  b,
  *,
  level,
  min_people,
  fit=reference.platt,
  ends=None,
  times=1.0,
  cross=1.0,
  freedom=reference.platt_freedom,
):
  """A jackknife with one thing wrong."""
  covariance = reference.platt_covariance(scores, *(ends or (a, b)), fit=fit)
  people = len({*a, *b})
  tail = (1 + level) / 2
  quantile = stats.t.ppf(tail, freedom(scores, a, b))
  return metrics.PlattSpread(
    metrics.Platt(*fit(scores, a == b)),
    covariance[0, 0] * times,
    covariance[0, 1] * times * cross,
    covariance[1, 1] * times,
    quantile,
    people,
    None,
  )


def _unbalanced(scores, same):
  """Kinds not weighted alike, which leaves the prior odds in."""
  w, b = reference.platt(scores, same)
  return np.array([w, b + np.log(np.mean(same) / (1 - np.mean(same)))])


def _one_end(scores, a, b, **kwargs):
  """Leaves out the pairs in which a person comes first."""
  # A person at the second end of an impostor pair gets a name of their own.
  other = np.where(a == b, b, b + 1000)
  covariance = reference.platt_covariance(scores, a, other)
  people = len({*a, *b})
  return metrics.platt_jackknife(scores, a, b, **kwargs)._replace(
    variance_w=covariance[0, 0] * (people - 1) / people,
    covariance=covariance[0, 1],
    variance_b=covariance[1, 1],
  )


_KERNEL_CASES = [
  *metric_cases.PAIRS[:4],
  metric_cases.pairs(5, num_genuine=40, num_impostor=300),
]


def check_fit_kernel_threshold(function):
  for scores, same in _KERNEL_CASES:
    # Of another spread each, so that their widths differ.
    scores = np.where(same == 1, 2.0 * scores + 1.0, scores)
    found = function(scores, same)
    widths = [reference.kernel_width(scores[same == kind]) for kind in (1, 0)]
    np.testing.assert_allclose(
      [found.genuine_width, found.impostor_width], widths, rtol=1e-9
    )
    expected = reference.kernel_threshold(scores, same, *widths)
    np.testing.assert_allclose(
      found.threshold, expected, rtol=0, atol=0.01 * min(widths)
    )


def _kernel(
  scores,
  same,
  *,
  width=lambda g, i: (g, i),
  threshold=reference.kernel_threshold,
):
  widths = width(
    *(reference.kernel_width(scores[same == kind]) for kind in (1, 0))
  )
  return metrics.KernelFit(threshold(scores, same, *widths), *widths)


VARIANTS = {
  "metrics.platt_jackknife": Variants(
    metrics.platt_jackknife,
    check_platt_jackknife,
    {
      "variance of the mean": lambda s, a, b, **k: _jackknife(
        s, a, b, times=1 / len({*a, *b}), **k
      ),
      "w and b apart": functools.partial(_jackknife, cross=0.0),
      "sign of the covariance": functools.partial(_jackknife, cross=-1.0),
      "normal quantile": functools.partial(_jackknife, freedom=lambda *_: 1e9),
      "kurtosis ignored": functools.partial(
        _jackknife, freedom=lambda s, a, b: len({*a, *b}) - 1
      ),
      "kurtosis where genuine pairs are alone": functools.partial(
        _jackknife,
        freedom=functools.partial(reference.platt_freedom, kinds=(True,)),
      ),
      "prior odds left in": functools.partial(_jackknife, fit=_unbalanced),
      "pairs left out at one end": _one_end,
    },
  ),
  "metrics.fit_kernel_threshold": Variants(
    metrics.fit_kernel_threshold,
    check_fit_kernel_threshold,
    {
      "Scott's factor": functools.partial(
        _kernel, width=lambda g, i: (1.06 / 0.9 * g, 1.06 / 0.9 * i)
      ),
      "one width": functools.partial(_kernel, width=lambda g, i: (g, g)),
      "widths swapped": functools.partial(_kernel, width=lambda g, i: (i, g)),
      "normal fits": functools.partial(
        _kernel,
        threshold=lambda s, same, *_: (
          metrics.fit_gaussian_threshold(s, same).threshold
        ),
      ),
      "equal errors": functools.partial(
        _kernel,
        threshold=lambda s, same, *_: metrics.eer(s, same).threshold,
      ),
      "half-way": functools.partial(
        _kernel,
        threshold=lambda s, same, *_: (
          (s[same == 1].mean() + s[same == 0].mean()) / 2
        ),
      ),
    },
  ),
}
