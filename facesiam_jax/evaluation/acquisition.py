"""Photos without a usable face: counted, and measured as refusals.

Error rates of faces alone leave out the photos in which none was found, which
are the hard ones. Here these are failures to acquire, a person of whom every
photo fails is a failure to enrol, and all rates are measured a second time with
every pair that such a photo is in as one that was not accepted.

References: ISO/IEC 19795-1 (failure to enrol, failure to acquire, generalised
false accept and false reject rates).
"""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import protocols


def acquisition_report(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  failed_ids: ArrayLike,
  reasons: Sequence[str],
  threshold: float | None,
  **settings: Any,
) -> dict[str, Any]:
  """Counts photos without a usable face, and measures again with them.

  A pair with such a photo scores below all others and below the threshold: of
  one person it is a false non-match, of two people it is no false match.

  Args:
    similarity: of the N photos with a face, float [N, N]; see
      `protocols.verification_report`.
    identity_ids: person of each of them, int [N].
    failed_ids: person of each photo without a usable face, int [F].
    reasons: what kept each of those from being used, length F.
    threshold: decision threshold in the unit of `similarity`, or None.
    **settings: as those of `protocols.verification_report`.

  Returns:
    A dict that JSON can hold: num_photos (N + F) and num_people, of all photos;
    failures_to_acquire and failures_to_enrol, each with "count" and "of", of
    photos and of people; reasons, reason -> number of photos; with_failures,
    the `verification_report` of all photos, or null where F is 0.

  Raises:
    ValueError: if there are not as many reasons as failed photos, or as
      `protocols.verification_report`.

  >>> similarity = np.array([[0, 9, 1, 2], [9, 0, 3, 1], [1, 3, 0, 8],
  ...                        [2, 1, 8, 0]])
  >>> found = acquisition_report(similarity, [5, 5, 7, 7], [5], ["no face"], 5)
  >>> found["failures_to_acquire"], found["with_failures"]["fnmr"]
  ({'count': 1, 'of': 5}, 0.5)
  """
  scores = np.asarray(similarity, np.float64)
  used, failed = np.asarray(identity_ids), np.asarray(failed_ids, np.int64)
  if failed.shape != (len(reasons),):
    raise ValueError(
      f"reasons must be as many as failed_ids, got {len(reasons)} and "
      f"{failed.shape}"
    )
  everybody = np.concatenate([used, failed])
  people, num_failed = np.unique(everybody).size, failed.size
  with_failures = None
  if num_failed:
    known = [scores.min(), scores.max(), 0 if threshold is None else threshold]
    floor = min(known) - 1 - max(map(abs, known)) / 2**20
    every = np.full((everybody.size,) * 2, floor)
    every[: used.size, : used.size] = scores
    with_failures = protocols.verification_report(
      every, everybody, threshold, **settings
    )
  return {
    "num_photos": int(everybody.size),
    "num_people": int(people),
    "failures_to_acquire": {"count": num_failed, "of": int(everybody.size)},
    "failures_to_enrol": {
      "count": int(people - np.unique(used).size),
      "of": int(people),
    },
    "reasons": dict(sorted(collections.Counter(reasons).items())),
    "with_failures": with_failures,
  }
