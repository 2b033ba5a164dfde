"""From a trained network to logits and thresholds, on people it has not seen.

The scores come from validation people, or from all training people by
cross-fitting: each is scored by an inner network trained without them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from facesiam_jax import heads, metrics
from facesiam_jax.metrics import kernel, tally
from facesiam_jax.metrics import thresholds as thresholds_lib
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import state as state_lib

_TARGETS = (0.01, 0.1)
_RESAMPLES = 500
# Maximum-likelihood thresholds by name: where two densities cross.
LIKELIHOOD: dict[str, Callable[[tally.Tally], Any]] = {
  "ml_gaussian": thresholds_lib.gaussian_fit_of,
  "ml_kernel": kernel.kernel_fit_of,
}


class NothingLearned(ValueError):
  """Photos of one person are less alike to a network than photos of two."""


@dataclasses.dataclass(frozen=True)
class Scores:
  """Scores of all pairs of images of one group of people, or of several.

  Attributes:
    values: the head's logit of each pair, float32 [P]; before training where
      the head is still to be fitted.
    people_a: person of the first image, int32 [P].
    people_b: person of the second image, int32 [P].
  """

  values: np.ndarray
  people_a: np.ndarray
  people_b: np.ndarray

  @property
  def same(self) -> np.ndarray:
    """1 = same person, 0 = two people, int32 [P]."""
    return (self.people_a == self.people_b).astype(np.int32)


def pool(parts: list[Scores]) -> Scores:
  """Returns the pairs of all groups; no pair crosses two groups."""
  return Scores(
    *(
      np.concatenate([getattr(part, field.name) for part in parts])
      for field in dataclasses.fields(Scores)
    )
  )


def score_pairs(
  recipe: recipe_lib.Recipe,
  state: state_lib.TrainState,
  embeddings: np.ndarray,
  identity_ids: np.ndarray,
) -> Scores:
  """Scores every pair of images.

  Args:
    recipe: of the network.
    state: of the network, with its head.
    embeddings: of people it was not trained on, float32 [N, D].
    identity_ids: int32 [N].

  Returns:
    Scores of the N (N - 1) / 2 pairs.
  """
  i, j = np.triu_indices(len(identity_ids), 1)
  head = jax.device_get(state.eval_params["head"])
  compare = jax.jit(recipe_lib.apply_head(recipe, {"head": head}))
  values = np.asarray(compare(embeddings[i], embeddings[j]))
  return Scores(values, identity_ids[i], identity_ids[j])


def _scaled(name: str, value: Any, scale: float, offset: float) -> np.ndarray:
  """One parameter of a head whose logit is to be scale * logit + offset."""
  value = np.asarray(value, np.float64)
  if name == "bias":
    value = scale * value + offset
  elif name.startswith("raw_"):
    # softplus(raw) is the weight.
    value = heads.raw_weight(scale * np.logaddexp(0.0, value))
  else:
    value = scale * value
  return np.asarray(value, np.float32)


def scale_head(
  params: dict[str, Any], scores: Scores
) -> tuple[dict[str, Any], np.ndarray]:
  """Scales and shifts a head's logit by Platt's method.

  Args:
    params: of one of `heads`, or of another whose logit is linear in them and
      whose names are like theirs.
    scores: its logits.

  Returns:
    (params, logits): of the fitted head, and what it says of the pairs,
    float32 [P]: log likelihood ratios, at even odds whatever the mix of the
    fitting pairs.

  Raises:
    NothingLearned: if photos of one person are less alike than photos of two.
  """
  scale, offset = metrics.fit_platt(scores.values, scores.same)
  if scale <= 0:
    raise NothingLearned(
      "two images of one person are less alike than images of two people: "
      f"the fitted scale is {scale:.3g}; train longer."
    )
  fitted = {
    name: _scaled(name, value, scale, offset) for name, value in params.items()
  }
  logits = np.float64(scale) * scores.values + np.float64(offset)
  return fitted, logits.astype(np.float32)


def fit_head(
  recipe: recipe_lib.Recipe, state: state_lib.TrainState, scores: Scores
) -> tuple[dict[str, Any], np.ndarray]:
  """Returns the head: as trained, or fitted to the scores.

  Args:
    recipe: of the network.
    state: its state.
    scores: of people it was not trained on, from `score_pairs`.

  Returns:
    (variables, logits): of the recipe's head, and what it says of the pairs,
    float32 [P]; see `scale_head`.

  Raises:
    ValueError: if a head that is to be fitted is not monotone, or the network
      has learned nothing.
  """
  params = jax.device_get(state.eval_params["head"])
  if recipe.objective.trains_head:
    return {"params": params}, scores.values
  if not getattr(recipe.head, "monotone", False):
    raise ValueError(
      "an objective that does not train the head needs one with monotone=True,"
      f" such as 'cosine_logistic', got {recipe.head!r}."
    )
  params, logits = scale_head(params, scores)
  return {"params": params}, logits


def threshold_name(target_fmr: float) -> str:
  """Returns the name of a threshold: "eer" for 0, else like "fmr_0.01"."""
  return f"fmr_{target_fmr:g}" if target_fmr else "eer"


def _threshold(counts: tally.Tally, target_fmr: float) -> float:
  if target_fmr:
    return tally.tar_at_far_of(counts, target_fmr).threshold
  return tally.eer_of(counts).threshold


def _likelihood(counts: tally.Tally, name: str) -> float:
  """A maximum-likelihood threshold; NaN where the densities have none."""
  try:
    return LIKELIHOOD[name](counts).threshold
  except ValueError:
    return math.nan


def thresholds(
  logits: np.ndarray, scores: Scores, target_fmrs: Sequence[float]
) -> dict[str, dict[str, Any]]:
  """Computes thresholds on the logits, with what they did where calibrated.

  Args:
    logits: of the pairs of `scores`, float32 [P].
    scores: the pairs.
    target_fmrs: error rates wanted besides the usual ones, 0..1; 0 adds none.

  Returns:
    By name ("eer", "fmr_0.01", "ml_gaussian", ...): "logit", "target" (None
    unless it is of an FMR), "fmr" and "fnmr" there, and "interval", the 95 %
    interval of the logit over people drawn anew, with "interval_reason" where
    there is none and "interval_caution" where its cover is not near 95 %. A
    maximum-likelihood threshold is left out where the densities do not cross
    between their means.
  """
  targets = {
    threshold_name(t): t for t in sorted({0.0, *_TARGETS, *target_fmrs})
  }
  counts = tally.tally(logits, scores.same)
  found = {name: _threshold(counts, t) for name, t in targets.items()}
  for name in LIKELIHOOD:
    if math.isfinite(logit := _likelihood(counts, name)):
      found[name] = logit
  bootstrap = metrics.person_bootstrap(
    lambda resample: {
      name: _threshold(resample, targets[name])
      if name in targets
      else _likelihood(resample, name)
      for name in found
    },
    logits,
    scores.people_a,
    scores.people_b,
    resamples=_RESAMPLES,
  )
  return {
    name: _entry(counts, logit, targets.get(name), name, bootstrap)
    for name, logit in found.items()
  }


def _entry(
  counts: tally.Tally,
  logit: float,
  target: float | None,
  name: str,
  bootstrap: metrics.Bootstrap,
) -> dict[str, Any]:
  rates = tally.error_rates_of(counts, logit)
  interval = bootstrap.intervals and list(bootstrap.intervals[name])
  reason = bootstrap.reason
  if interval and not all(map(math.isfinite, interval)):
    interval, reason = None, "with other people the densities do not cross"
  return {
    "logit": float(logit),
    "target": target or None,
    "fmr": float(rates.fmr),
    "fnmr": float(rates.fnmr),
    "interval": interval,
    "interval_reason": reason,
    "interval_caution": interval and bootstrap.caution,
  }


def probability_record(logits: np.ndarray, scores: Scores) -> dict[str, Any]:
  """Says how far fitted logits would move with other people.

  Args:
    logits: of the pairs of `scores`, of a head that was fitted to them, [P].
    scores: the pairs.

  Returns:
    For `bundle.json`: variances and covariance of slope and offset of the
    logit, the quantile and level of an interval, and the reason if there is
    none, all other numbers then null.
  """
  spread = metrics.platt_jackknife(logits, scores.people_a, scores.people_b)
  numbers = {
    name: getattr(spread, name) if spread.reason is None else None
    for name in ("variance_w", "covariance", "variance_b", "quantile")
  }
  return {"method": "platt", **numbers, "level": 0.95, "reason": spread.reason}
