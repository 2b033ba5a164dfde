"""Calibrating a bundle, trained here or imported, on people it has not seen.

The encoder stays; the head's logit becomes the log likelihood ratio of "same
person" on the people that are given, and the thresholds are measured on them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors, metrics
from facesiam_jax.training import calibrate, open_set

_MIN_PEOPLE = 2
# Every pair is scored and drawn anew many times: 4.5 million of them.
MAX_PHOTOS = 3000


class Recalibrated(NamedTuple):
  """A calibrated bundle, and what it says of the pairs.

  Attributes:
    spec: for `bundle.save`.
    variables: for `bundle.save`.
    logits: log likelihood ratios of the pairs, float32 [P].
  """

  spec: dict[str, Any]
  variables: dict[str, Any]
  logits: np.ndarray


def some_photos(people: np.ndarray, most: int) -> np.ndarray:
  """Chooses photos of as many people as possible, the same every time.

  Args:
    people: number of each photo's person, int [N].
    most: number of photos, >= 2.

  Returns:
    Rows of at most so many photos, rising: of every person as many as all can
    have, but two where even that is too many, and then of fewer people.
  """
  if len(people) <= most:
    return np.arange(len(people))
  order = np.random.default_rng(0).permutation(len(people))
  # The place of each photo among those of its person, in this order.
  place = np.empty(len(people), np.int64)
  seen: dict[int, int] = {}
  for row in order:
    person = int(people[row])
    place[row] = seen[person] = seen.get(person, -1) + 1
  each = 2
  while np.count_nonzero(place < each + 1) <= most:
    each += 1
  rows = order[place[order] < each]
  if len(rows) > most:
    kept = rows[place[rows] == 1][: most // 2]
    rows = rows[np.isin(people[rows], people[kept])]
  return np.sort(rows)


def check_people(people: np.ndarray) -> None:
  """Refuses people of whom no two photos, or too many, can be compared.

  Args:
    people: number of each photo's person, int [N].

  Raises:
    errors.UserError: if there are not two people, one of them with two
      photos, or more than `MAX_PHOTOS` photos.
  """
  known, counts = np.unique(people, return_counts=True)
  if len(known) < _MIN_PEOPLE or counts.max() < 2:
    raise errors.UserError(
      f"{len(known)} people with at most {counts.max(initial=0)} photos each "
      "cannot calibrate anything; give two people or more, and two photos or "
      "more of each."
    )
  if len(people) > MAX_PHOTOS:
    raise errors.UserError(
      f"{len(people)} photos are more than are compared with each other; "
      f"give at most {MAX_PHOTOS}, of as many people as possible."
    )


def score(
  bundle: bundle_lib.Bundle, embeddings: np.ndarray, people: np.ndarray
) -> calibrate.Scores:
  """Scores every pair of photos by the bundle's own head.

  Args:
    bundle: the recogniser.
    embeddings: float32 [N, D].
    people: number of each photo's person, int [N].

  Returns:
    Logits of the N (N - 1) / 2 pairs.

  Raises:
    errors.UserError: see `check_people`.
  """
  people = np.asarray(people)
  check_people(people)
  logits = bundle.logits_matrix(embeddings, embeddings)
  i, j = np.triu_indices(len(people), 1)
  return calibrate.Scores(logits[i, j], people[i], people[j])


def fit_head(
  bundle: bundle_lib.Bundle, scores: calibrate.Scores
) -> tuple[dict[str, Any], np.ndarray]:
  """Fits the head by Platt's method.

  Args:
    bundle: the recogniser.
    scores: its logits, from `score`.

  Returns:
    (variables, logits): of the fitted head, and what it says of the pairs,
    float32 [P].

  Raises:
    errors.UserError: if photos of one person are less alike than photos of
      two.
  """
  try:
    params, logits = calibrate.scale_head(
      bundle.variables["head"]["params"], scores
    )
  except calibrate.NothingLearned as error:
    raise errors.UserError(
      "to this bundle two photos of one person look less alike than photos of "
      "two people; check that each folder holds one person, and how the "
      "photos are cropped."
    ) from error
  return {"params": params}, logits


def _check_supported(
  logits: np.ndarray, scores: calibrate.Scores, target_fmr: float
) -> None:
  try:
    metrics.supported_threshold_at_fmr(
      logits, scores.people_a, scores.people_b, target_fmr
    )
  except ValueError as error:
    raise errors.UserError(
      f"--target_fmr={target_fmr:g}: {error}; give more people, a larger "
      "--target_fmr, or --target_fmr=0 for the threshold of equal errors."
    ) from error


def recalibrate(
  bundle: bundle_lib.Bundle,
  scores: calibrate.Scores,
  target_fmrs: Sequence[float],
) -> Recalibrated:
  """Returns what `bundle.save` needs for the calibrated bundle.

  Args:
    bundle: the recogniser.
    scores: its logits of people it was not trained on, from `score`.
    target_fmrs: shares of impostors that thresholds may accept, 0..1, at least
      one; 0 for the threshold of equal errors. The first is the default.

  Returns:
    The Recalibrated: as the bundle's, but for the head, the thresholds, the
    calibration and "calibrated".

  Raises:
    errors.UserError: if the people do not suffice for a target, or the
      bundle cannot tell them apart.
  """
  head, logits = fit_head(bundle, scores)
  for target in target_fmrs:
    if target:
      _check_supported(logits, scores, target)
  found = calibrate.thresholds(logits, scores, target_fmrs)
  for name, threshold in list(found.items()):
    if threshold["target"] not in (None, *target_fmrs):
      try:
        _check_supported(logits, scores, threshold["target"])
      except errors.UserError:
        # Nobody asked for it, and too few people stand behind it.
        del found[name]
  spec = {
    **bundle.spec,
    "calibrated": True,
    "thresholds": found,
    "default_threshold": calibrate.threshold_name(target_fmrs[0]),
    "calibration": {
      "kind": "people",
      "target_fmr": target_fmrs[0],
      "cllr": float(metrics.cllr(logits, scores.same)),
      "min_cllr": float(metrics.min_cllr(logits, scores.same)),
      "num_people": len(np.union1d(scores.people_a, scores.people_b)),
      "num_genuine": int(np.sum(scores.same)),
      "num_impostor": int(np.sum(1 - scores.same)),
      "open_set": open_set.record(logits, scores, found),
      "probability": calibrate.probability_record(logits, scores),
    },
  }
  variables = {"encoder": bundle.variables["encoder"], "head": head}
  return Recalibrated(spec, variables, logits)
