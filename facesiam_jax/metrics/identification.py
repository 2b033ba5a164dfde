"""Closed-set identification with one reference image a person.

Each draw picks one random reference image for every person taking part; their
other images are probes, and a probe's rank is the place of its own person's
reference among all references. Ties count against the system: a reference of
another person that scores exactly as high is placed before the right one, so a
constant score earns nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class RankCounts(NamedTuple):
  """Probes by rank, summed over draws.

  Attributes:
    counts: number of probes whose own person came at rank 1, 2, ..., ways,
      int64 [ways].
    draws: number of random draws of references.
    ways: number of people in each draw.
  """

  counts: np.ndarray
  draws: int
  ways: int

  @property
  def num_probes(self) -> int:
    return int(self.counts.sum())


def rank_counts(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  *,
  seed: int = 0,
  draws: int = 200,
  ways: int | None = None,
) -> RankCounts:
  """Counts at which rank a probe's own person comes, over random references.

  Batch meaning: all images together make one table.

  Args:
    similarity: probe (row) against reference (column), float [N, N]; bigger is
      closer. The diagonal is never read. It need not be symmetric.
    identity_ids: person of each image, int [N].
    seed: of the draws; the same seed gives the same counts.
    draws: number of draws of references, >= 1.
    ways: people in each draw, 2..number of people; None takes everybody.

  Returns:
    The RankCounts. A person with a single image is a reference in each draw
    that includes them, and never a probe.

  Raises:
    ValueError: naming the argument, for a wrong shape, NaN or infinity off the
      diagonal, `draws` or `ways` out of range, or if no draw had a probe.

  Degenerate input: a tie with another person's reference ranks behind it.
  Example:
    >>> similarity = np.array([[0, 9, 1, 2], [9, 0, 3, 1], [1, 3, 0, 8],
    ...                        [2, 1, 8, 0]])
    >>> rank_counts(similarity, [5, 5, 7, 7], draws=3).counts.tolist()
    [6, 0]
  """
  matrix, people, index = _check(similarity, identity_ids)
  return rank_counts_of(
    lambda probes, references: matrix[np.ix_(probes, references)],
    people,
    index,
    seed=seed,
    draws=draws,
    ways=ways,
  )


def rank_counts_of(
  score: Callable[[np.ndarray, np.ndarray], np.ndarray],
  people: np.ndarray,
  index: np.ndarray,
  *,
  seed: int,
  draws: int,
  ways: int | None,
) -> RankCounts:
  """Counts ranks of scores that are no matrix; see `rank_counts`.

  Args:
    score: (probes [A], references [B]) -> similarity [A, B].
    people: their distinct ids, ascending [P].
    index: place of each image's person among them, [N].
    seed: of the draws.
    draws: number of draws of references, >= 1.
    ways: people in each draw; None takes everybody.

  Raises:
    ValueError: as `rank_counts`.

  Example:
    >>> rank_counts_of(lambda a, b: -abs(a[:, None] - b), np.arange(2),
    ...                np.array([0, 0, 1, 1]), seed=0, draws=3, ways=None).ways
    2
  """
  ways = people.size if ways is None else ways
  if not 2 <= ways <= people.size:
    raise ValueError(f"ways must lie in 2..{people.size} people, got {ways}")
  if draws < 1:
    raise ValueError(f"draws must be at least 1, got {draws}")
  rng = np.random.default_rng(seed)
  members = [np.flatnonzero(index == person) for person in range(people.size)]
  counts = np.zeros(ways, np.int64)
  for _ in range(draws):
    chosen = np.sort(rng.permutation(people.size)[:ways])
    references = np.array([rng.choice(members[person]) for person in chosen])
    ranks = _ranks(score, index, chosen, references)
    counts += np.bincount(ranks - 1, minlength=ways)
  if not counts.any():
    raise ValueError("identity_ids: no draw had a person with two images")
  return RankCounts(counts, draws, ways)


def cmc(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  *,
  seed: int = 0,
  draws: int = 200,
  ways: int | None = None,
) -> np.ndarray:
  """Computes the cumulative match characteristic over random references.

    CMC(k) = share of probes whose own person is among the k best
  Batch meaning: all images together make one curve.

  Args:
    similarity: probe (row) against reference (column), float [N, N].
    identity_ids: person of each image, int [N].
    seed: of the draws.
    draws: number of draws of references, >= 1.
    ways: people in each draw, 2..number of people; None takes everybody.

  Returns:
    CMC(1), ..., CMC(ways), float64 [ways], non-decreasing and ending at 1;
    CMC(1) is `one_shot_accuracy`.

  Raises:
    ValueError: as `rank_counts`.

  Degenerate input: as `rank_counts`.
  Example:
    >>> similarity = np.array([[0, 2, 1], [2, 0, 3], [1, 3, 0]])
    >>> cmc(similarity, [5, 5, 7], draws=50)[-1].item()
    1.0

  References: ISO/IEC 19795-1; Phillips et al. 2011, Evaluation methods in face
  recognition.
  """
  ranks = rank_counts(
    similarity, identity_ids, seed=seed, draws=draws, ways=ways
  )
  return np.cumsum(ranks.counts) / ranks.num_probes


def one_shot_accuracy(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  *,
  seed: int = 0,
  draws: int = 200,
  ways: int | None = None,
) -> float:
  """Computes the share of probes whose own person's reference scores highest.

  Batch meaning: all images together make one number.

  Args:
    similarity: probe (row) against reference (column), float [N, N].
    identity_ids: person of each image, int [N].
    seed: of the draws.
    draws: number of draws of one reference image a person, >= 1.
    ways: people in each draw, 2..number of people; None takes everybody.

  Returns:
    The share in 0..1, over the probes of all draws; chance is 1 / ways.

  Raises:
    ValueError: as `rank_counts`.

  Degenerate input: a tie for the highest score is an error, so a constant
  similarity gives 0.
  Example:
    >>> one_shot_accuracy(np.ones((4, 4)), [5, 5, 7, 7])
    0.0

  References: Lake et al. 2011; Koch et al. 2015, Siamese neural networks for
  one-shot image recognition.
  """
  return float(
    cmc(similarity, identity_ids, seed=seed, draws=draws, ways=ways)[0]
  )


def _check(
  similarity: ArrayLike, identity_ids: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns similarity, the distinct people, each image's place among them."""
  similarity = np.asarray(similarity)
  identity_ids = np.asarray(identity_ids)
  if identity_ids.ndim != 1 or identity_ids.size == 0:
    raise ValueError(
      f"identity_ids must be [N] with N > 0, got {identity_ids.shape}"
    )
  if similarity.shape != (identity_ids.size, identity_ids.size):
    raise ValueError(
      f"similarity must have shape [{identity_ids.size}, {identity_ids.size}], "
      f"got {similarity.shape}"
    )
  off_diagonal = ~np.eye(identity_ids.size, dtype=bool)
  if not np.isfinite(similarity[off_diagonal]).all():
    raise ValueError("similarity must be finite off the diagonal")
  people, index = np.unique(identity_ids, return_inverse=True)
  if people.size < 2:
    raise ValueError("identity_ids must name at least 2 people, got 1")
  return similarity, people, index


def _ranks(
  score: Callable[[np.ndarray, np.ndarray], np.ndarray],
  index: np.ndarray,
  chosen: np.ndarray,
  references: np.ndarray,
) -> np.ndarray:
  """Rank of the own person of each probe of one draw, int [probes], from 1."""
  is_probe = np.isin(index, chosen)
  is_probe[references] = False
  probes = np.flatnonzero(is_probe)
  scores = score(probes, references)
  own = np.searchsorted(chosen, index[probes])
  own_score = np.take_along_axis(scores, own[:, None], axis=1)
  # The own reference counts itself here, which makes the best rank 1.
  return (scores >= own_score).sum(axis=1)
