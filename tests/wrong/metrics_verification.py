"""Plausible mistakes in the metrics of verification."""

import numpy as np
from reference import metric_cases
from reference import metrics as reference
from variants import Variants

from facesiam_jax import metrics

_TARGETS = [0.0, 0.03, 0.1, 1 / 3, 0.5, 1.0]
_CLOSE = {"rtol": 0, "atol": 1e-12}


def _thresholds(scores):
  return [*scores, scores[0] + 1e-9, scores.mean(), -np.inf, np.inf]


def check_roc(function):
  for scores, same in metric_cases.PAIRS:
    points = np.array(reference.points(scores, same))
    thresholds, fmr, tar = function(scores, same)
    np.testing.assert_array_equal(fmr, points[:, 0])
    np.testing.assert_allclose(tar, 1 - points[:, 1], **_CLOSE)
    distinct = np.unique(scores)[::-1]
    np.testing.assert_array_equal(thresholds, [np.inf, *distinct])


def check_det_points(function):
  for scores, same in metric_cases.PAIRS:
    points = np.array(reference.points(scores, same))
    thresholds, fmr, fnmr = function(scores, same)
    np.testing.assert_array_equal(np.stack([fmr, fnmr], 1), points)
    distinct = np.unique(scores)[::-1]
    np.testing.assert_array_equal(thresholds, [np.inf, *distinct])


def check_auc(function):
  for scores, same in metric_cases.PAIRS:
    expected = reference.auc(scores, same)
    np.testing.assert_allclose(function(scores, same), expected, **_CLOSE)


def check_eer(function):
  for scores, same in metric_cases.PAIRS:
    rocch, raw, threshold = function(scores, same)
    np.testing.assert_allclose(
      [rocch, raw],
      [reference.eer_rocch(scores, same), reference.eer_raw(scores, same)],
      **_CLOSE,
    )
    _check_balance(scores, same, threshold)


def _check_balance(scores, same, threshold):
  """No other threshold has FMR and FNMR nearer to each other."""
  fmr, fnmr = reference.fmr_fnmr(scores, same, threshold)
  best = min(abs(a - b) for a, b in reference.points(scores, same))
  np.testing.assert_allclose(abs(fmr - fnmr), best, **_CLOSE)
  # It keeps clear of the scores, where it can.
  if scores.min() < threshold < scores.max():
    assert threshold not in scores


def check_threshold_at_eer(function):
  for scores, same in metric_cases.PAIRS:
    _check_balance(scores, same, function(scores, same))


def check_error_rates_at(function):
  for scores, same in metric_cases.PAIRS:
    for threshold in _thresholds(scores):
      expected = reference.fmr_fnmr(scores, same, threshold)
      np.testing.assert_array_equal(function(scores, same, threshold), expected)


def check_accuracy_at(function):
  for scores, same in metric_cases.PAIRS:
    for threshold in _thresholds(scores):
      fmr, fnmr = reference.fmr_fnmr(scores, same, threshold)
      right = [
        (score >= threshold) == bool(label)
        for score, label in zip(scores, same, strict=True)
      ]
      expected = [sum(right) / len(right), (1 - fmr + 1 - fnmr) / 2]
      np.testing.assert_allclose(
        function(scores, same, threshold), expected, **_CLOSE
      )


def check_tar_at_far(function):
  for scores, same in metric_cases.PAIRS:
    for target in _TARGETS:
      tar, threshold = function(scores, same, target)
      expected, place = reference.tar_at_far(scores, same, target)
      if place is None:
        place = np.nextafter(scores.max(), np.inf)
      np.testing.assert_allclose(tar, expected, **_CLOSE)
      np.testing.assert_array_equal(threshold, place)


def check_threshold_at_fmr(function):
  for scores, same in metric_cases.PAIRS:
    for target in _TARGETS:
      _, place = reference.tar_at_far(scores, same, target)
      if place is None:
        place = np.nextafter(scores.max(), np.inf)
      np.testing.assert_array_equal(function(scores, same, target), place)


def _flipped(function):
  """Labels the other way round."""
  return lambda scores, same, *rest: function(scores, 1 - same, *rest)


def _negated(function):
  """Distances taken for similarities."""
  return lambda scores, same, *rest: function(-scores, same, *rest)


def _in_order(scores, same):
  """A curve with a point for each pair: ties get an order."""
  order = np.argsort(-scores, kind="stable")
  hits = np.append(0, np.cumsum(same[order])) / same.sum()
  accepts = np.append(0, np.cumsum(1 - same[order])) / (1 - same).sum()
  return np.append(np.inf, scores[order]), accepts, hits


def _strict_auc(scores, same):
  genuine, impostor = scores[same == 1], scores[same == 0]
  return np.mean(genuine[:, None] > impostor[None])


def _generous_auc(scores, same):
  genuine, impostor = scores[same == 1], scores[same == 0]
  return np.mean(genuine[:, None] >= impostor[None])


def _auc_of_ranks(scores, same):
  ranks = np.empty(scores.size)
  ranks[np.argsort(scores, kind="stable")] = np.arange(1, scores.size + 1)
  num = same.sum()
  won = ranks[same == 1].sum() - num * (num + 1) / 2
  return won / (num * (same.size - num))


def _nearest_eer(scores, same):
  """The mean of both rates where they are nearest, no interpolation."""
  det = metrics.det_points(scores, same)
  best = np.argmin(np.abs(det.fmr - det.fnmr))
  rate = (det.fmr[best] + det.fnmr[best]) / 2
  return rate, rate, metrics.threshold_at_eer(scores, same)


def _eer(scores, same, change):
  found = metrics.eer(scores, same)
  return change(found.rocch, found.raw, found.threshold)


def _shares_of_all(scores, same, threshold):
  fmr, fnmr = metrics.error_rates_at(scores, same, threshold)
  return fmr * np.mean(same == 0), fnmr * np.mean(same)


def _above(function):
  """Accepts scores above the threshold, not at it."""
  return lambda scores, same, threshold: function(
    scores, same, np.nextafter(threshold, np.inf)
  )


def _nearest_far(scores, same, target):
  det = metrics.det_points(scores, same)
  best = np.argmin(np.abs(det.fmr - target))
  return 1 - det.fnmr[best], det.thresholds[best]


def _interpolated_far(scores, same, target):
  curve = metrics.roc(scores, same)
  threshold = metrics.threshold_at_fmr(scores, same, target)
  return np.interp(target, curve.fmr, curve.tar), threshold


def _below_target(scores, same, target):
  """FMR < target for FMR <= target."""
  return metrics.tar_at_far(scores, same, max(target - 1e-9, 0.0))


def _quantile_of_all(scores, same, target):
  threshold = np.quantile(scores, 1 - target)
  return 1 - metrics.error_rates_at(scores, same, threshold).fnmr, threshold


def _quantile_of_impostors(scores, same, target):
  threshold = np.quantile(scores[same == 0], 1 - target)
  return 1 - metrics.error_rates_at(scores, same, threshold).fnmr, threshold


_CURVES = {
  "labels flipped": _flipped,
  "distances for similarities": _negated,
}
_FAR = {
  "nearest rate": _nearest_far,
  "rate below the target only": _below_target,
  "quantile of all scores": _quantile_of_all,
  "interpolated quantile": _quantile_of_impostors,
}

VARIANTS = {
  "metrics.roc": Variants(
    metrics.roc,
    check_roc,
    {
      **{name: wrap(metrics.roc) for name, wrap in _CURVES.items()},
      "ties in an order": _in_order,
      "FNMR for TAR": metrics.det_points,
      "axes swapped": lambda *a: [metrics.roc(*a)[k] for k in (0, 2, 1)],
      "no first point": lambda *a: [part[1:] for part in metrics.roc(*a)],
    },
  ),
  "metrics.det_points": Variants(
    metrics.det_points,
    check_det_points,
    {
      **{name: wrap(metrics.det_points) for name, wrap in _CURVES.items()},
      "TAR for FNMR": metrics.roc,
      "axes swapped": lambda *a: [metrics.det_points(*a)[k] for k in (0, 2, 1)],
      "low to high": lambda *a: [p[::-1] for p in metrics.det_points(*a)],
    },
  ),
  "metrics.auc": Variants(
    metrics.auc,
    check_auc,
    {
      **{name: wrap(metrics.auc) for name, wrap in _CURVES.items()},
      "ties lost": _strict_auc,
      "ties won": _generous_auc,
      "ties ranked by place": _auc_of_ranks,
      "never below 1/2": lambda *a: max(metrics.auc(*a), 1 - metrics.auc(*a)),
    },
  ),
  "metrics.eer": Variants(
    metrics.eer,
    check_eer,
    {
      "distances for similarities": _negated(metrics.eer),
      "no interpolation": _nearest_eer,
      "hull for the raw curve": lambda s, y: _eer(
        s, y, lambda hull, raw, t: (hull, hull, t)
      ),
      "raw curve for the hull": lambda s, y: _eer(
        s, y, lambda hull, raw, t: (raw, raw, t)
      ),
      "threshold negated": lambda s, y: _eer(
        s, y, lambda hull, raw, t: (hull, raw, -t)
      ),
    },
  ),
  "metrics.error_rates_at": Variants(
    metrics.error_rates_at,
    check_error_rates_at,
    {
      "above the threshold only": _above(metrics.error_rates_at),
      "labels flipped": _flipped(metrics.error_rates_at),
      "distances for similarities": lambda s, y, t: metrics.error_rates_at(
        -s, y, -t
      ),
      "rates swapped": lambda *a: metrics.error_rates_at(*a)[::-1],
      "shares of all pairs": _shares_of_all,
    },
  ),
  "metrics.accuracy_at": Variants(
    metrics.accuracy_at,
    check_accuracy_at,
    {
      "above the threshold only": _above(metrics.accuracy_at),
      "labels flipped": _flipped(metrics.accuracy_at),
      "raw and balanced swapped": lambda *a: metrics.accuracy_at(*a)[::-1],
      "the error": lambda *a: 1 - np.array(metrics.accuracy_at(*a)),
      "raw twice": lambda *a: [metrics.accuracy_at(*a).raw] * 2,
    },
  ),
  "metrics.tar_at_far": Variants(
    metrics.tar_at_far,
    check_tar_at_far,
    {**_FAR, "interpolated TAR": _interpolated_far},
  ),
  "metrics.threshold_at_fmr": Variants(
    metrics.threshold_at_fmr,
    check_threshold_at_fmr,
    {
      name: lambda *a, wrong=wrong: wrong(*a)[1] for name, wrong in _FAR.items()
    },
  ),
  "metrics.threshold_at_eer": Variants(
    metrics.threshold_at_eer,
    check_threshold_at_eer,
    {
      "middle of all scores": lambda s, y: (s.max() + s.min()) / 2,
      "middle of the two means": lambda s, y: (
        (s[y == 1].mean() + s[y == 0].mean()) / 2
      ),
      "best accuracy": lambda s, y: max(
        s, key=lambda t: metrics.accuracy_at(s, y, t).raw
      ),
      "negated": lambda s, y: -metrics.threshold_at_eer(s, y),
      "on a score": lambda s, y: min(
        s, key=lambda t: abs(np.subtract(*metrics.error_rates_at(s, y, t)))
      ),
    },
  ),
}
