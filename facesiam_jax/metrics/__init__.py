"""Exact metrics of verification and identification, and their calibration."""

from facesiam_jax.metrics.calibration import (
  MIN_PEOPLE,
  Bootstrap,
  Platt,
  fit_platt,
  person_bootstrap,
)
from facesiam_jax.metrics.identification import (
  RankCounts,
  cmc,
  one_shot_accuracy,
  rank_counts,
)
from facesiam_jax.metrics.tally import Accuracy, Eer, ErrorRates, TarAtFar
from facesiam_jax.metrics.verification import (
  Det,
  Roc,
  accuracy_at,
  auc,
  det_points,
  eer,
  error_rates_at,
  roc,
  tar_at_far,
  threshold_at_eer,
  threshold_at_fmr,
)

__all__ = [
  "Accuracy",
  "Bootstrap",
  "Det",
  "Eer",
  "ErrorRates",
  "MIN_PEOPLE",
  "Platt",
  "RankCounts",
  "Roc",
  "TarAtFar",
  "accuracy_at",
  "auc",
  "cmc",
  "det_points",
  "eer",
  "error_rates_at",
  "fit_platt",
  "one_shot_accuracy",
  "person_bootstrap",
  "rank_counts",
  "roc",
  "tar_at_far",
  "threshold_at_eer",
  "threshold_at_fmr",
]
