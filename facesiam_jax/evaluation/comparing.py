"""From embeddings and listed pairs to scored pairs, and from those to metrics.

Images are known by keys. A key with a row has an embedding, one without (None)
a photo in which no usable face was found, and one that is not there no photo.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.data import pairs
from facesiam_jax.evaluation import (
  many_pairs,
  pair_protocols,
  people_protocols,
  protocols,
  templates,
  triplet_protocol,
)

PEOPLE_PROTOCOLS = (
  *("all_pairs", "triplets", "one_shot", "closed_set", "open_set"),
)
# Distances of all pairs are made in blocks of so many rows.
_BLOCK = 256
# More images than these are compared without a square matrix.
MOST_IN_A_MATRIX = 5_000

Rows = Mapping[str, int | None]


class Scorer(NamedTuple):
  """How embeddings are compared.

  Attributes:
    name: of the score, "logit" or "cosine".
    unit: whether embeddings are unit rows.
    matrix: (float [Q, D], float [G, D]) -> similarity [Q, G].
    rows: (float [P, D], float [P, D]) -> similarity [P].
    threshold: in the unit of the score, or None.
  """

  name: str
  unit: bool
  matrix: Callable[[np.ndarray, np.ndarray], np.ndarray]
  rows: Callable[[np.ndarray, np.ndarray], np.ndarray]
  threshold: float | None


def scorer(bundle: bundle_lib.Bundle | None) -> Scorer:
  """Returns how a bundle compares, or cosines where there is none."""
  if bundle is None:
    unit = templates.unit_rows
    return Scorer(
      name="cosine",
      unit=True,
      matrix=lambda a, b: unit(a) @ unit(b).T,
      rows=lambda a, b: np.sum(unit(a) * unit(b), axis=1),
      threshold=None,
    )
  finite = np.isfinite(bundle.threshold)
  return Scorer(
    name="logit",
    unit=bundle.metric == "cosine",
    matrix=bundle.logits_matrix,
    rows=bundle.logits,
    threshold=float(bundle.threshold) if finite else None,
  )


def compare(
  key_pairs: pairs.KeyPairs,
  rows: Rows,
  embeddings: np.ndarray,
  score: Scorer,
  people: Mapping[str, str] | None = None,
) -> pair_protocols.Compared:
  """Scores listed pairs.

  Args:
    key_pairs: the pairs, P of them.
    rows: key -> row of its embedding, or None; see the module.
    embeddings: float [N, D].
    score: from `scorer`.
    people: key -> person, for all keys of the pairs; None where not known.

  Returns:
    The Compared; scores of pairs that were not compared are 0.
  """
  ends = [key_pairs.first, key_pairs.second]
  missing = np.array([[key not in rows for key in end] for end in ends])
  places = [[rows.get(key) for key in end] for end in ends]
  lost = np.array([[place is None for place in end] for end in places])
  outcome = np.where(
    missing.any(0),
    pair_protocols.MISSING,
    np.where(lost.any(0), pair_protocols.NO_FACE, pair_protocols.COMPARED),
  )
  seen = outcome == pair_protocols.COMPARED
  scores = np.zeros(len(key_pairs.same))
  if seen.any():
    a, b = (
      np.array([place for place, ok in zip(end, seen, strict=True) if ok], int)
      for end in places
    )
    scores[seen] = score.rows(embeddings[a], embeddings[b])
  who = [np.array([people[key] for key in end]) for end in ends if people]
  return pair_protocols.Compared(
    scores,
    np.array(key_pairs.same, bool),
    np.array(key_pairs.fold),
    outcome,
    *who,
  )


def pooled(
  listed: Mapping[str, Sequence[tuple[str, str]]],
  rows: Rows,
  embeddings: np.ndarray,
  *,
  unit: bool,
) -> tuple[dict[str, int | None], np.ndarray]:
  """Makes templates of several photos, of those that have an embedding.

  Args:
    listed: template -> (key of a photo, medium) of each.
    rows: as in `compare`.
    embeddings: float [N, D].
    unit: whether they are unit rows.

  Returns:
    (template -> row of its embedding; None where no photo shows a face; absent
    where all its photos are missing), and the templates' embeddings.
  """
  used = [
    (name, medium, row)
    for name, photos in listed.items()
    for key, medium in photos
    if (row := rows.get(key)) is not None
  ]
  there: dict[str, int | None] = {
    name: None
    for name, photos in listed.items()
    if any(key in rows for key, _ in photos)
  }
  if not used:
    return there, embeddings[:0]
  ids, media, places = (np.array(column) for column in zip(*used, strict=True))
  found, names = templates.pool(
    embeddings[places], ids, media_ids=media, unit=unit
  )
  return there | {str(name): n for n, name in enumerate(names)}, found


def measure_people(
  protocol: str,
  embeddings: np.ndarray,
  identity_ids: np.ndarray,
  score: Scorer,
  *,
  ways: int = 10,
  photos: int = 1,
  seed: int = 0,
) -> dict[str, Any]:
  """Runs a protocol of people.

  Args:
    protocol: of `PEOPLE_PROTOCOLS`.
    embeddings: float [N, D].
    identity_ids: person of each, int [N].
    score: from `scorer`.
    ways: people in a draw of one_shot.
    photos: that make an enrolled template of open_set.
    seed: of all draws.

  Returns:
    What the protocol's own function returns, a dict that JSON can hold. All
    pairs of many images: as `many_pairs.report`, with `binning`.

  Raises:
    ValueError: as that function; and where there are fewer than two people, or
      none with two images.
  """
  people, images = np.unique(identity_ids, return_counts=True)
  if people.size < 2 or images.max() < 2:
    raise ValueError(
      f"{people.size} people with at most {images.max(initial=0)} usable "
      "photos each allow no comparison; give two people or more, and two "
      "photos or more of each"
    )
  if protocol == "triplets":
    return triplet_protocol.triplet_report(
      distances(embeddings), identity_ids, seed=seed
    )
  if protocol == "open_set":
    sizes = people_protocols.open_set_by_size(
      embeddings,
      identity_ids,
      score.matrix,
      photos=photos,
      unit=score.unit,
      seed=seed,
    )
    counts = {"people": people.size, "images": len(embeddings)}
    return {"sizes": sizes, "counts": counts}
  if protocol == "all_pairs" and len(embeddings) > MOST_IN_A_MATRIX:
    return many_pairs.report(
      embeddings, identity_ids, score.matrix, score.threshold, seed=seed
    )
  similarity = score.matrix(embeddings, embeddings)
  if protocol == "all_pairs":
    return protocols.verification_report(
      similarity, identity_ids, score.threshold, seed=seed
    )
  enrolled = min(ways, people.size)
  return people_protocols.closed_set(
    similarity,
    identity_ids,
    ways=enrolled if protocol == "one_shot" else None,
    seed=seed,
  )


def collapsed(embeddings: np.ndarray) -> bool:
  """Returns whether all embeddings [N, D] are one: nobody is told apart.

  Differences of a millionth of the largest value are rounding.

  Example:
    >>> collapsed(np.ones((3, 2))), collapsed(np.eye(2))
    (True, False)
  """
  if len(embeddings) < 2:
    return False
  spread = np.ptp(embeddings, axis=0).max()
  return bool(spread <= 1e-6 * np.abs(embeddings).max())


def distances(embeddings: np.ndarray) -> np.ndarray:
  """Returns Euclidean distances of all rows, float64 [N, N], symmetric."""
  rows = np.asarray(embeddings, np.float64)
  squares = np.sum(rows**2, axis=1)
  found = np.empty((len(rows), len(rows)))
  for first in range(0, len(rows), _BLOCK):
    part = slice(first, first + _BLOCK)
    product = rows[part] @ rows.T
    found[part] = squares[part, None] + squares[None] - 2 * product
  return np.sqrt(np.maximum((found + found.T) / 2, 0.0))
