"""Retrieval: how well a query's own person comes first among references.

R is the number of references of the query's person. The definitions are those
of Musgrave, Belongie and Lim; queries without a reference of their person
(singletons) are left out. Ties count against the system: a reference of another
person with the same score is placed first, so no order is made up and a
collapsed embedding earns nothing.

References: Musgrave, Belongie and Lim 2020, A metric learning reality check
(appendix on accuracy metrics).
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks


def map_at_r(
  similarity: ArrayLike,
  query_ids: ArrayLike,
  reference_ids: ArrayLike | None = None,
) -> float:
  """Computes the mean average precision at R.

    MAP@R = mean over queries of (1/R) sum_{i=1..R} P(i) rel(i)
  with P(i) the precision among the i best references and rel(i) = 1 if the i-th
  is of the query's person. It rewards the order, which R-precision does not.
  Batch meaning: all queries together make one number.

  Args:
    similarity: query (row) against reference (column), float [Q, G], finite;
      bigger is closer.
    query_ids: person of each query, integer or string [Q].
    reference_ids: person of each reference, integer or string [G]; None means
      that rows and columns are the same images: then no image is its own
      reference, and the diagonal is never read.

  Returns:
    The mean in 0..1.

  Raises:
    ValueError: naming the argument, for a wrong shape or type, NaN, infinity,
      or if no query has a reference of its person.

  Degenerate input: a constant similarity gives 0, or more where a query has
  more references of its person than of others.
  Example:
    >>> similarity = [[0, 9, 5, 1], [9, 0, 2, 3], [5, 2, 0, 4], [1, 3, 4, 0]]
    >>> map_at_r(similarity, [5, 5, 7, 7])
    0.75

  References: Musgrave, Belongie and Lim 2020.
  """
  values = []
  for ranks in _own_ranks(similarity, query_ids, reference_ids):
    found = np.arange(1, ranks.size + 1)
    values.append(np.sum((found / ranks)[ranks <= ranks.size]) / ranks.size)
  return float(np.mean(values))


def r_precision(
  similarity: ArrayLike,
  query_ids: ArrayLike,
  reference_ids: ArrayLike | None = None,
) -> float:
  """Computes the share of the query's person among its R best references.

  Batch meaning: all queries together make one number.

  Args:
    similarity: query (row) against reference (column), float [Q, G], finite.
    query_ids: person of each query, integer or string [Q].
    reference_ids: person of each reference, integer or string [G]; None means
      that rows and columns are the same images, see `map_at_r`.

  Returns:
    The mean over queries, in 0..1; never below `map_at_r`.

  Raises:
    ValueError: as `map_at_r`.

  Degenerate input: as `map_at_r`.
  Example:
    >>> similarity = [[0, 9, 5, 1], [9, 0, 2, 3], [5, 2, 0, 4], [1, 3, 4, 0]]
    >>> r_precision(similarity, [5, 5, 7, 7])
    0.75

  References: Musgrave, Belongie and Lim 2020.
  """
  shares = [
    float(np.mean(ranks <= ranks.size))
    for ranks in _own_ranks(similarity, query_ids, reference_ids)
  ]
  return float(np.mean(shares))


def precision_at_1(
  similarity: ArrayLike,
  query_ids: ArrayLike,
  reference_ids: ArrayLike | None = None,
) -> float:
  """Computes the share of queries whose best reference is of their person.

  Batch meaning: all queries together make one number.

  Args:
    similarity: query (row) against reference (column), float [Q, G], finite.
    query_ids: person of each query, integer or string [Q].
    reference_ids: person of each reference, integer or string [G]; None means
      that rows and columns are the same images, see `map_at_r`.

  Returns:
    The share in 0..1.

  Raises:
    ValueError: as `map_at_r`.

  Degenerate input: a tie for the best place is an error.
  Example:
    >>> similarity = [[0, 9, 5, 1], [9, 0, 2, 3], [5, 2, 0, 4], [1, 3, 4, 0]]
    >>> precision_at_1(similarity, [5, 5, 7, 7])
    0.75

  References: Musgrave, Belongie and Lim 2020.
  """
  first = [
    bool(ranks[0] == 1)
    for ranks in _own_ranks(similarity, query_ids, reference_ids)
  ]
  return float(np.mean(first))


def _own_ranks(
  similarity: ArrayLike,
  query_ids: ArrayLike,
  reference_ids: ArrayLike | None,
) -> Iterator[np.ndarray]:
  """Yields the places of the references of each query's person, ascending."""
  matrix, queries, references = _check(similarity, query_ids, reference_ids)
  is_lone = True
  for row, person in enumerate(queries):
    own = references == person
    other = ~own
    if reference_ids is None:
      own[row] = False
    if not own.any():
      continue
    is_lone = False
    scores = np.sort(matrix[row, own])[::-1]
    others = np.sort(matrix[row, other])
    ahead = others.size - np.searchsorted(others, scores)
    yield np.arange(1, scores.size + 1) + ahead
  if is_lone:
    raise ValueError("query_ids: no query has a reference of its person")


def _check(
  similarity: ArrayLike,
  query_ids: ArrayLike,
  reference_ids: ArrayLike | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  queries = checks.check_ids("query_ids", query_ids)
  if reference_ids is None:
    references = queries
  else:
    references = checks.check_ids("reference_ids", reference_ids)
  matrix = np.array(similarity)
  if matrix.shape != (queries.size, references.size):
    raise ValueError(
      f"similarity must have shape [{queries.size}, {references.size}] "
      f"(queries by references), got {matrix.shape}"
    )
  if reference_ids is None and matrix.dtype.kind in "fiu":
    np.fill_diagonal(matrix, 0)
  return checks.check_floats("similarity", matrix, 2), queries, references
