"""Metrics against scikit-learn and PML's AccuracyCalculator."""

from typing import Any

import numpy as np
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.utils.accuracy_calculator import (
  AccuracyCalculator,
)
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn import calibration, isotonic, linear_model
from sklearn import metrics as peer
from sklearn.model_selection import LeaveOneGroupOut

from facesiam_jax import metrics
from peers.compare import Batch, Case


def _pairs(b: Batch) -> tuple[np.ndarray, np.ndarray]:
  return b["scores"].astype(np.float64), b["labels"]


def _probabilities(b: Batch) -> tuple[np.ndarray, np.ndarray]:
  scores, labels = _pairs(b)
  return 1 / (1 + np.exp(0.3 - 1.7 * scores)), labels


def _of_pairs(function, *fields: str, **options):
  def ours(b: Batch) -> Any:
    found = function(*_pairs(b), **options)
    rows = [getattr(found, field) for field in fields] or [found]
    return np.concatenate([np.ravel(row) for row in rows])

  return ours


def _accuracy(b: Batch) -> tuple[float, float]:
  scores, labels = _pairs(b)
  said = scores >= 0.6
  return (
    peer.accuracy_score(labels, said),
    peer.balanced_accuracy_score(labels, said),
  )


def _rates(b: Batch) -> tuple[float, float]:
  scores, labels = _pairs(b)
  (tn, fp), (fn, tp) = peer.confusion_matrix(labels, scores >= 0.6)
  return fp / (fp + tn), fn / (fn + tp)


def _roc(b: Batch) -> np.ndarray:
  scores, labels = _pairs(b)
  fpr, tpr, cuts = peer.roc_curve(labels, scores, drop_intermediate=False)
  # The first threshold is infinite in both.
  return np.concatenate([fpr, tpr, cuts[1:]])


def _our_roc(b: Batch) -> np.ndarray:
  curve = metrics.roc(*_pairs(b))
  return np.concatenate([curve.fmr, curve.tar, curve.thresholds[1:]])


def _det(b: Batch) -> np.ndarray:
  scores, labels = _pairs(b)
  fpr, fnr, cuts = peer.det_curve(labels, scores, drop_intermediate=False)
  finite = np.isfinite(cuts)
  return np.concatenate([x[finite] for x in (fpr, fnr, cuts)])


def _our_det(b: Batch) -> np.ndarray:
  """Ours in scikit-learn's order, without the ends that it leaves out."""
  theirs = peer.det_curve(*_pairs(b)[::-1], drop_intermediate=False)[2]
  curve = metrics.det_points(*_pairs(b))
  kept = np.isin(curve.thresholds, theirs[np.isfinite(theirs)])
  return np.concatenate(
    [x[kept][::-1] for x in (curve.fmr, curve.fnmr, curve.thresholds)]
  )


def _k_fold(b: Batch) -> np.ndarray:
  scores, labels = _pairs(b)
  found = []
  splits = LeaveOneGroupOut().split(scores, labels, b["folds"])
  for others, own in splits:
    fpr, tpr, cuts = peer.roc_curve(
      labels[others], scores[others], drop_intermediate=False
    )
    genuine = labels[others].mean()
    # Rounded: equally good thresholds are to be equal, the highest is first.
    right = np.round(tpr * genuine + (1 - fpr) * (1 - genuine), 9)
    best = int(np.argmax(right))
    cut = (
      cuts[best]
      if best == 0
      else (cuts[best] + np.append(cuts, -np.inf)[best + 1]) / 2
    )
    found.append(peer.accuracy_score(labels[own], scores[own] >= cut))
  error = np.std(found, ddof=1) / len(found) ** 0.5
  return np.array([np.mean(found), error, *found])


def _our_k_fold(b: Batch) -> np.ndarray:
  found = metrics.k_fold_accuracy(*_pairs(b), b["folds"])
  return np.array([found.mean, found.standard_error, *found.accuracies])


# Calibration


def _ece(b: Batch) -> float:
  values, labels = _probabilities(b)
  share, mean = calibration.calibration_curve(labels, values, n_bins=15)
  edges = np.linspace(0, 1, 16)[1:-1]
  counts = np.bincount(np.searchsorted(edges, values), minlength=15)
  return float(np.abs(share - mean) @ counts[counts > 0] / values.size)


def _nll(b: Batch) -> float:
  values, labels = _probabilities(b)
  return peer.log_loss(labels, values)


def _our_nll(b: Batch) -> float:
  scores, labels = _pairs(b)
  return metrics.nll(1.7 * scores - 0.3, labels)


def _with_ends(b: Batch) -> np.ndarray:
  """scikit-learn's isotonic map of the pairs and a pair of each at the ends."""
  scores, labels = _pairs(b)
  ends = [scores.min() - 1, scores.max() + 1]
  x = np.concatenate([scores, ends, ends])
  y = np.concatenate([labels, [0, 0, 1, 1]])
  fitted = isotonic.IsotonicRegression().fit(x, y)
  p = fitted.predict(scores)
  return np.log(p / (1 - p)) - np.log(y.sum() / (y.size - y.sum()))


def _our_isotonic(b: Batch) -> np.ndarray:
  scores, labels = _pairs(b)
  return metrics.fit_isotonic(scores, labels).llr(scores)


def _min_cllr(b: Batch) -> float:
  scores, labels = _pairs(b)
  p = isotonic.IsotonicRegression().fit_transform(scores, labels)
  prior = labels.mean()
  sure = np.isclose(p, 0) | np.isclose(p, 1)
  q = np.where(sure, 0.5, p)
  ratio = q / (1 - q) * (1 - prior) / prior
  cost = np.where(labels, np.log2(1 + 1 / ratio), np.log2(1 + ratio))
  cost = np.where(sure, 0.0, cost)
  return float(cost[labels == 1].mean() + cost[labels == 0].mean()) / 2


def _logistic(x, y, weights, intercept: bool) -> Any:
  model = linear_model.LogisticRegression(
    C=np.inf, fit_intercept=intercept, solver="newton-cholesky", tol=1e-10
  )
  return model.fit(x[:, None], y, weights)


def _platt(b: Batch) -> tuple[float, float]:
  """Platt's soft targets as two weighted copies of each pair."""
  scores, labels = _pairs(b)
  good, bad = labels.sum(), (1 - labels).sum()
  share = np.where(labels, (good + 1) / (good + 2), 1 / (bad + 2))
  weights = np.where(labels, 0.5 / good, 0.5 / bad)
  model = _logistic(
    np.tile(scores, 2),
    np.repeat([1, 0], scores.size),
    np.concatenate([weights * share, weights * (1 - share)]),
    True,
  )
  return model.coef_[0, 0], model.intercept_[0]


def _temperature(b: Batch) -> float:
  scores, labels = _pairs(b)
  weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (1 - labels).sum())
  return 1 / _logistic(scores, labels, weights, False).coef_[0, 0]


# Retrieval


def _similarity(b: Batch) -> np.ndarray:
  x = b["x"].astype(np.float64)
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  return x @ x.T


def _pml(name: str):
  calculator = AccuracyCalculator(
    include=(name,),
    device=torch.device("cpu"),
    knn_func=CustomKNN(CosineSimilarity()),
    kmeans_func=lambda *unused: None,
  )
  return lambda b: calculator.get_accuracy(b["x"], b["ids"])[name]


def _retrieval(name: str, peer_name: str) -> Case:
  function = getattr(metrics, name)
  return Case(
    f"metrics.{name}",
    f"PML AccuracyCalculator {peer_name}",
    "numpy",
    lambda b: function(_similarity(b), b["ids"]),
    _pml(peer_name),
    tolerance=1e-6,
  )


def _classes(b: Batch) -> np.ndarray:
  return b["logits"].astype(np.float64)


CASES = [
  Case(
    "metrics.auc",
    "scikit-learn roc_auc_score",
    "numpy",
    _of_pairs(metrics.auc),
    lambda b: peer.roc_auc_score(*_pairs(b)[::-1]),
    tolerance=1e-12,
  ),
  Case(
    "metrics.roc",
    "scikit-learn roc_curve",
    "numpy",
    _our_roc,
    _roc,
    tolerance=1e-12,
    why="with drop_intermediate=False; its default drops points on "
    "straight lines.",
  ),
  Case(
    "metrics.det_points",
    "scikit-learn det_curve",
    "numpy",
    _our_det,
    _det,
    tolerance=1e-12,
    verdict="same but for the ends",
    why="scikit-learn leaves out points at either end where one error "
    "rate stays at 0 or 1; those that it has are equal.",
  ),
  Case(
    "metrics.accuracy_at",
    "scikit-learn accuracy_score, balanced_accuracy_score",
    "numpy",
    _of_pairs(metrics.accuracy_at, "raw", "balanced", threshold=0.6),
    _accuracy,
    tolerance=1e-12,
  ),
  Case(
    "metrics.error_rates_at",
    "scikit-learn confusion_matrix",
    "numpy",
    _of_pairs(metrics.error_rates_at, "fmr", "fnmr", threshold=0.6),
    _rates,
    tolerance=1e-12,
  ),
  Case(
    "metrics.k_fold_accuracy",
    "scikit-learn LeaveOneGroupOut, roc_curve",
    "numpy",
    _our_k_fold,
    _k_fold,
    tolerance=1e-12,
  ),
  Case(
    "metrics.brier",
    "scikit-learn brier_score_loss",
    "numpy",
    lambda b: metrics.brier(*_probabilities(b)),
    lambda b: peer.brier_score_loss(*_probabilities(b)[::-1]),
    tolerance=1e-12,
  ),
  Case(
    "metrics.nll",
    "scikit-learn log_loss",
    "numpy",
    _our_nll,
    _nll,
    tolerance=1e-12,
  ),
  Case(
    "metrics.ece",
    "scikit-learn calibration_curve",
    "numpy",
    lambda b: metrics.ece(*_probabilities(b)),
    _ece,
    tolerance=1e-12,
  ),
  Case(
    "metrics.fit_isotonic",
    "scikit-learn IsotonicRegression",
    "numpy",
    _our_isotonic,
    _with_ends,
    tolerance=1e-9,
    why="given the pair of each kind that ours adds at either end, and "
    "less the prior odds.",
  ),
  Case(
    "metrics.min_cllr",
    "scikit-learn IsotonicRegression",
    "numpy",
    _of_pairs(metrics.min_cllr),
    _min_cllr,
    tolerance=1e-9,
  ),
  Case(
    "metrics.fit_platt",
    "scikit-learn LogisticRegression",
    "numpy",
    lambda b: tuple(metrics.fit_platt(*_pairs(b))),
    _platt,
    tolerance=1e-6,
    why="given Platt's targets and both kinds of pair weighted to one half.",
  ),
  Case(
    "metrics.fit_temperature",
    "scikit-learn LogisticRegression",
    "numpy",
    _of_pairs(metrics.fit_temperature),
    _temperature,
    tolerance=1e-6,
    why="without an intercept, both kinds of pair weighted to one half.",
  ),
  Case(
    "metrics.rank_k",
    "scikit-learn top_k_accuracy_score",
    "numpy",
    lambda b: [
      metrics.rank_k(_classes(b), b["ids"], np.arange(10), k=k) for k in (1, 3)
    ],
    lambda b: [
      peer.top_k_accuracy_score(
        b["ids"], _classes(b), k=k, labels=np.arange(10)
      )
      for k in (1, 3)
    ],
    tolerance=1e-12,
  ),
  _retrieval("map_at_r", "mean_average_precision_at_r"),
  _retrieval("r_precision", "r_precision"),
  _retrieval("precision_at_1", "precision_at_1"),
]
