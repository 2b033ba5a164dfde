"""Results of searches, and putting several together."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.gallery.search.rows import NO_MATCH


class Found(NamedTuple):
  """The best templates of each query, best first.

  Attributes:
    scores: float32 [Q, k]; -inf where fewer than k templates can match.
    ids: template ids, int32 [Q, k]; NO_MATCH where the score is -inf.
  """

  scores: jax.Array
  ids: jax.Array


class FoundPeople(NamedTuple):
  """The best template of each person, best person first.

  Attributes:
    scores: float32 [Q, k]; -inf where fewer than k people were found.
    ids: ids of the people's best templates, int32 [Q, k] or NO_MATCH.
    people: person ids, int32 [Q, k] or NO_MATCH.
  """

  scores: jax.Array
  ids: jax.Array
  people: jax.Array


def merge(scores: ArrayLike, ids: ArrayLike, *, k: int) -> Found:
  """Merges results of several searches, such as one a device, into one.

  Args:
    scores: float [Q, M], -inf where nothing was found.
    ids: template ids, int32 [Q, M], each at most once a row.
    k: how many to keep, 1 <= k <= M.

  Returns:
    Found(scores [Q, k], ids [Q, k]), score descending, then id ascending.

  Raises:
    ValueError: if the shapes differ or k is out of range.
  """
  scores = jnp.asarray(scores).astype(jnp.float32)
  ids = jnp.asarray(ids).astype(jnp.int32)
  if scores.shape != ids.shape or not 1 <= k <= scores.shape[1]:
    raise ValueError(
      f"scores {scores.shape} and ids {ids.shape} must have one shape [Q, M] "
      f"with 1 <= k <= M, got k = {k}."
    )
  negated, ids = lax.sort((-scores, ids), dimension=1, num_keys=2)
  return Found(-negated[:, :k], ids[:, :k])


def best_per_person(
  scores: ArrayLike, ids: ArrayLike, people: ArrayLike, *, k: int
) -> FoundPeople:
  """Keeps the best template of each person: a person's score is its maximum.

  The result holds the k best people for certain if the columns come from
  `top_k` and hold k different people or every template.

  Args:
    scores: of templates, best first, float [Q, M].
    ids: template ids, int32 [Q, M]; NO_MATCH where nothing was found.
    people: the templates' person ids, int32 [Q, M], >= 0.
    k: how many people, 1 <= k <= M.

  Returns:
    FoundPeople, float32 and int32 [Q, k], in the order of the columns.

  Raises:
    ValueError: if the shapes differ or k is out of range.
  """
  scores = jnp.asarray(scores).astype(jnp.float32)
  ids = jnp.asarray(ids).astype(jnp.int32)
  people = jnp.asarray(people).astype(jnp.int32)
  if not scores.shape == ids.shape == people.shape:
    raise ValueError(
      "scores, ids and people must have the same shape, got "
      f"{scores.shape}, {ids.shape} and {people.shape}."
    )
  columns = scores.shape[1]
  if not 1 <= k <= columns:
    raise ValueError(f"k must be in 1..{columns}, got {k}.")
  people = jnp.where(ids == NO_MATCH, NO_MATCH, people)
  place = lax.broadcasted_iota(jnp.int32, people.shape, 1)
  ordered, place = lax.sort((people, place), dimension=1, num_keys=2)
  before = jnp.pad(ordered, ((0, 0), (1, 0)), constant_values=NO_MATCH)
  first = ordered != before[:, :-1]
  place = lax.sort(jnp.where(first, place, columns), dimension=1)[:, :k]

  def take(values: jax.Array, missing: float) -> jax.Array:
    padded = jnp.pad(values, ((0, 0), (0, 1)), constant_values=missing)
    return jnp.take_along_axis(padded, place, axis=1)

  return FoundPeople(
    take(scores, -jnp.inf), take(ids, NO_MATCH), take(people, NO_MATCH)
  )
