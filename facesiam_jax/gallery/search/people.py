"""The k best people of each query, each scored by all of their templates.

The rows are taken person by person, and one running state a query (that of
the person at hand) goes along them, from block to block. A person's score is
complete at their last row and then competes like a template's. So nothing is
left out, however many templates somebody has, and memory does not grow with
the number of people. A sum is taken in the order of the template ids, one by
one: it has the same bits wherever the person's rows lie.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.gallery.search import rows as rows_lib
from facesiam_jax.gallery.search import scores as scores_lib
from facesiam_jax.gallery.search.rows import BLOCK, NO_MATCH
from facesiam_jax.gallery.search.scan import Fold, scan

RULES = ("max", "mean", "top2_mean", "weighted_mean")

# Rows in one turn of the loop over a block.
_UNROLL = 16


class RankedPeople(NamedTuple):
  """The best people of each query, best first.

  Attributes:
    scores: float32 [Q, k]; -inf where fewer than k people were found.
    people: person ids, int32 [Q, k]; NO_MATCH where the score is -inf.
  """

  scores: jax.Array
  people: jax.Array


class _State(NamedTuple):
  """What is known of one person, for each query, float32 [Q].

  `first` and `second` are the largest scores, `total` and `weight` sums.
  """

  first: jax.Array
  second: jax.Array
  total: jax.Array
  weight: jax.Array


class _Row(NamedTuple):
  """What the loop takes from one row: float32 [Q] and bool []."""

  score: jax.Array
  weighted: jax.Array
  weight: jax.Array
  begins: jax.Array


class _People(NamedTuple):
  """Of each row of the gallery, in the order of (person, template id), [G]."""

  weight: jax.Array
  begins: jax.Array
  ends: jax.Array


def _nobody(num_queries: int) -> _State:
  none = jnp.full(num_queries, -jnp.inf, jnp.float32)
  zero = jnp.zeros(num_queries, jnp.float32)
  return _State(none, none, zero, zero)


def _with_row(state: _State, row: _Row) -> _State:
  return _State(
    jnp.maximum(state.first, row.score),
    jnp.maximum(state.second, jnp.minimum(state.first, row.score)),
    state.total + row.weighted,
    state.weight + row.weight,
  )


def _score_of(state: _State, rule: str) -> jax.Array:
  if rule == "max":
    return state.first
  if rule == "top2_mean":
    both = 0.5 * state.first + 0.5 * state.second
    return jnp.where(state.second == -jnp.inf, state.first, both)
  known = state.weight > 0
  mean = state.total / jnp.where(known, state.weight, 1.0)
  return jnp.where(known, mean, -jnp.inf)


def _fold(people: _People, rule: str) -> Fold:
  """Returns what makes scores of people of a block's scores of templates."""

  def step(state: _State, row: _Row) -> tuple[_State, jax.Array]:
    anew = _nobody(row.score.shape[0])
    state = jax.tree.map(
      lambda new, old: jnp.where(row.begins, new, old), anew, state
    )
    state = _with_row(state, row)
    return state, _score_of(state, rule)

  def fold(
    state: _State, scores: jax.Array, usable: jax.Array, start: jax.Array
  ) -> tuple[_State, jax.Array]:
    size = scores.shape[0]
    own = jax.tree.map(
      lambda x: lax.dynamic_slice_in_dim(x, start, size), people
    )
    counts = usable[:, None] & jnp.isfinite(scores)
    weight = jnp.where(counts, own.weight[:, None], 0.0)
    weighted = jnp.where(counts, scores, 0.0) * weight
    # A sum fused with the product would round otherwise.
    weighted = lax.optimization_barrier(weighted)
    seen = jnp.where(counts, scores, -jnp.inf)
    row = _Row(seen, weighted, weight, own.begins)
    state, scores = lax.scan(step, state, row, unroll=min(_UNROLL, size))
    return state, jnp.where(own.ends[:, None], scores, -jnp.inf)

  return fold


def _check_rule(rule: str, quality: ArrayLike | None) -> None:
  if rule not in RULES:
    raise ValueError(f"rule must be one of {RULES}, got {rule!r}.")
  if (quality is not None) != (rule == "weighted_mean"):
    raise ValueError(
      "quality goes with the rule 'weighted_mean' and with no other, got "
      f"rule {rule!r} {'without' if quality is None else 'with'} quality."
    )
  if quality is None or isinstance(quality, jax.core.Tracer):
    return
  values = np.asarray(jax.device_get(quality))
  if not (np.isfinite(values) & (values >= 0)).all():
    raise ValueError("quality must be finite and >= 0 in every row.")


def top_k_people(
  gallery: ArrayLike,
  valid: ArrayLike,
  template_ids: ArrayLike,
  people: ArrayLike,
  queries: ArrayLike,
  *,
  k: int,
  metric: str | scores_lib.Head,
  rule: str = "max",
  quality: ArrayLike | None = None,
  block: int = BLOCK,
) -> RankedPeople:
  """Finds the k best people of each query, exactly and totally ordered.

  With s_t the scores of a person's valid templates (see `top_k`), theirs is

    max            max_t s_t
    mean           sum_t s_t / n
    top2_mean      the mean of the two largest s_t, or the only one
    weighted_mean  sum_t w_t s_t / sum_t w_t, w_t the templates' quality

  Order: score descending, then person id ascending.
  Batch meaning: rows of `queries` are independent, to the bit.

  Args:
    gallery: templates, float [G, D]; unit rows for "cosine".
    valid: 1 = a template, 0 = padding, bool or int [G].
    template_ids: distinct and >= 0 in valid rows, int32 [G].
    people: whose template it is, >= 0, int32 [G], in any order. Rows in the
      order of (person, template id) save a sort.
    queries: float [Q, D]; unit rows for "cosine".
    k: how many people, >= 1; may exceed their number.
    metric: as in `top_k`. All pairs are scored one by one, which costs more
      than a product.
    rule: one of RULES.
    quality: >= 0, float [G], for "weighted_mean" only.
    block: rows of a block.

  Returns:
    RankedPeople(scores float32 [Q, k], people int32 [Q, k]), padded with -inf
    and NO_MATCH.

  Raises:
    ValueError: as `top_k`; for an unknown rule, and if quality is given with
      another rule than "weighted_mean" or missing with it.

  Degenerate input: a person without a valid template of finite score, or with
  no weight, is not found.
  References: Grother, Ngan, Hanaoka 2019, NIST IR 8271 (several images of a
  person).
  """
  scores_lib.check_metric(metric)
  _check_rule(rule, quality)
  gallery, valid, template_ids, queries = rows_lib.checked(
    gallery, valid, template_ids, queries, k=k, block=block
  )
  people = jnp.asarray(people).astype(jnp.int32)
  weight = jnp.asarray(1.0 if quality is None else quality, jnp.float32)
  weight = jnp.broadcast_to(weight, valid.shape)
  chex.assert_shape(people, valid.shape)
  rows = rows_lib.ordered(gallery, valid, people, block, template_ids)
  changes = jnp.concatenate([jnp.ones(1, bool), rows.ids[1:] != rows.ids[:-1]])
  weight = rows_lib.pad(weight, rows.order.shape[0])[rows.order]
  of_rows = _People(weight, changes, jnp.roll(changes, -1))
  padded = rows_lib.in_eights(queries)
  scores, places = scan(
    rows,
    padded,
    scores_lib.exact_score(metric),
    k=k,
    block=block,
    fold=_fold(of_rows, rule),
    carried=_nobody(padded.shape[0]),
  )
  found = jnp.where(scores == -jnp.inf, NO_MATCH, rows.ids_at(places))
  return RankedPeople(scores[: len(queries)], found[: len(queries)])
