"""Exact search of a gallery kept in int8 or bfloat16.

A quarter (or half) of the memory is scanned, and an upper bound of each exact
score is what candidates are taken by: with g^ = s c the stored row and q^ the
query stored likewise,

  q.g = q^.g^ + q.(g - g^) + (q - q^).g^
     <= q^.g^ + |q| |g - g^| + |q - q^| |g^|.

The float32 rows of the candidates alone are then searched by `top_k`. If the
k-th score found exceeds the bound of everything that is no candidate, the
answer is that of the whole float32 gallery, to the bit: that is the
certificate. A query without it gets four times the candidates, and at last
the whole float32 gallery, which may stay on the host.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.gallery.search import rows as rows_lib
from facesiam_jax.gallery.search import scores as scores_lib
from facesiam_jax.gallery.search.ordering import Found, merge
from facesiam_jax.gallery.search.rows import BLOCK, LAST, NO_MATCH, TILE
from facesiam_jax.gallery.search.scan import nothing_yet, rough_scan
from facesiam_jax.gallery.search.templates import (
  Gallery,
  by_eights,
  rescore,
  top_k,
)

DTYPES = ("int8", "bfloat16")

_LARGEST = 127
# Above this many candidates the float32 gallery itself is no slower.
_MOST = 1024
# Queries whose candidates are read at once.
_TOGETHER = 64

_top_k = jax.jit(top_k, static_argnames=("k", "metric", "block"))


class Compact(NamedTuple):
  """A gallery in few bytes: row i is about scales[i] * codes[i].

  Attributes:
    codes: int8 or bfloat16 [G, D].
    scales: float32 [G]; NaN for a row that is not finite.
    residuals: what of each row's length is lost, |g - s c|, float32 [G].
    norm_sq: |g|^2 of the rows themselves, float32 [G].
  """

  codes: jax.Array
  scales: jax.Array
  residuals: jax.Array
  norm_sq: jax.Array


class Certified(NamedTuple):
  """The best templates of each query, best first, and what it took.

  Attributes:
    scores: float32 [Q, k]; -inf where fewer than k templates can match.
    ids: template ids, int32 [Q, k]; NO_MATCH where the score is -inf.
    looked: how many candidates were enough for the certificate, int [Q]; the
      size of the gallery where it was searched whole.
  """

  scores: np.ndarray
  ids: np.ndarray
  looked: np.ndarray


def compress(gallery: ArrayLike, *, dtype: str = "int8") -> Compact:
  """Rounds the rows of a gallery to few bytes.

  Batch meaning: rows are independent, so parts may be compressed one by one.

  Args:
    gallery: float [G, D], D <= 2^17.
    dtype: "int8", with one scale a row, or "bfloat16".

  Returns:
    The compact gallery.

  Raises:
    ValueError: for another dtype or shape.

  Degenerate input: a row of zeros stays zeros; one that is not finite gets
  the scale NaN and matches nothing.
  """
  rows = jnp.asarray(gallery).astype(jnp.float32)
  if dtype not in DTYPES:
    raise ValueError(f"dtype must be one of {DTYPES}, got {dtype!r}.")
  if rows.ndim != 2 or rows.shape[1] > 2**17:
    raise ValueError(f"gallery must be [G, D <= 2^17], got {rows.shape}.")
  norm_sq = jnp.sum(jnp.square(rows), axis=1)
  if dtype == "bfloat16":
    codes, scales = rows.astype(jnp.bfloat16), jnp.ones_like(norm_sq)
  else:
    largest = jnp.max(jnp.abs(rows), axis=1, initial=0.0)
    scales = jnp.where(largest > 0, largest / _LARGEST, 1.0)
    whole = jnp.round(rows / scales[:, None])
    codes = jnp.clip(whole, -_LARGEST, _LARGEST).astype(jnp.int8)
  lost = rows - scales[:, None] * codes.astype(jnp.float32)
  residuals = jnp.linalg.norm(lost, axis=1)
  scales = jnp.where(jnp.isfinite(norm_sq), scales, jnp.nan)
  return Compact(codes, scales, residuals, norm_sq)


def _bounds(metric: str, queries: Compact, rows: Compact) -> jax.Array:
  """Returns upper bounds of the exact scores, float32 [B, Q]."""
  # Products of int8 are exact.
  kind = jnp.int32 if rows.codes.dtype == jnp.int8 else jnp.float32
  products = lax.dot_general(
    rows.codes,
    queries.codes,
    (((1,), (1,)), ((), ())),
    preferred_element_type=kind,
  )
  own = Compact(rows.codes, *(x[:, None] for x in rows[1:]))
  asked = Compact(queries.codes, *(x[None, :] for x in queries[1:]))
  bound = (
    asked.scales * own.scales * products.astype(jnp.float32)
    + jnp.sqrt(asked.norm_sq) * own.residuals
    + asked.residuals * (jnp.sqrt(own.norm_sq) + own.residuals)
  )
  if metric == "euclidean":
    bound = 2.0 * bound - own.norm_sq - asked.norm_sq
  return bound


def candidates(
  gallery: Compact,
  valid: ArrayLike,
  queries: ArrayLike,
  *,
  k: int,
  metric: str,
  block: int = BLOCK,
) -> tuple[jax.Array, jax.Array]:
  """Finds the rows whose exact scores may be largest.

  Args:
    gallery: from `compress`.
    valid: bool or int [G].
    queries: float [Q, D].
    k: how many, >= 1.
    metric: one of METRICS.
    block: rows of a block.

  Returns:
    (places in the gallery int32 [Q, k], NO_MATCH where there is none; upper
    bounds of their exact scores, falling, float32 [Q, k], -inf where there is
    none): no other row's exact score exceeds its query's last bound by more
    than rounding, see `rounding`.
  """
  valid = jnp.asarray(valid).astype(bool)
  queries = jnp.asarray(queries).astype(jnp.float32)
  size = len(valid)
  if size == 0:
    return jnp.full((len(queries), k), NO_MATCH), nothing_yet(len(queries), k)[
      0
    ]
  dtype = "int8" if gallery.codes.dtype == jnp.int8 else "bfloat16"
  bounds, places = rough_scan(
    gallery,
    valid,
    compress(queries, dtype=dtype),
    functools.partial(_bounds, metric),
    k=min(k, size),
    block=block,
  )
  places = jnp.where(bounds == -jnp.inf, NO_MATCH, places)
  missing = ((0, 0), (0, k - places.shape[1]))
  return (
    jnp.pad(places, missing, constant_values=NO_MATCH),
    jnp.pad(bounds, missing, constant_values=-jnp.inf),
  )


def first_look(k: int) -> int:
  """Returns how many candidates are taken first where k are sought."""
  return 1 << (max(4 * k, 64) - 1).bit_length()


_candidates = jax.jit(candidates, static_argnames=("k", "metric", "block"))


def rounding(queries: np.ndarray, gallery: Compact) -> np.ndarray:
  """Returns how far rounding may move a score or a bound, float [Q]."""
  norm_sq = np.asarray(gallery.norm_sq, np.float64)
  reach = np.sqrt(np.max(norm_sq[np.isfinite(norm_sq)], initial=0.0))
  reach = np.linalg.norm(np.asarray(queries, np.float64), axis=1) + reach
  # D roundings of the exact score and of a bfloat16 product, and a few of
  # scales, residuals and lengths, each at most 2^-24 of |q| |g|.
  return (2 * queries.shape[1] + 64) * 2.0**-23 * np.square(reach)


def _chosen(
  find: Callable[..., Found], rows: np.ndarray, ids: np.ndarray
) -> Found:
  """Searches a few float32 rows, padded to blocks: few compilations."""
  missing = -len(rows) % BLOCK if len(rows) else BLOCK
  return jax.device_get(
    find(
      np.pad(rows, ((0, missing), (0, 0))),
      np.arange(len(rows) + missing) < len(rows),
      np.pad(ids, (0, missing), constant_values=LAST),
    )
  )


@functools.partial(jax.jit, static_argnames=("k", "metric"))
def _exact(
  rows: jax.Array,
  ids: jax.Array,
  queries: jax.Array,
  places: jax.Array,
  *,
  k: int,
  metric: str,
) -> Found:
  """Returns the k best of each query's candidates, at places in the rows."""
  whole = Gallery(rows, jnp.ones(len(rows), bool), ids)
  find = functools.partial(rescore, whole, k=k, metric=metric)
  return by_eights(find, queries, places)


def _rescored(
  gallery: Any, ids: np.ndarray, places: np.ndarray, queries: np.ndarray,
  **options: Any,
) -> Found:  # fmt: skip
  """Returns the k best of the candidates by their float32 rows."""
  parts = []
  for start in range(0, len(queries), _TOGETHER):
    own = places[start : start + _TOGETHER]
    asked = queries[start : start + _TOGETHER]
    known = own != NO_MATCH
    taken = np.where(known, own, 0).reshape(-1)
    local = np.arange(own.size, dtype=np.int32).reshape(own.shape)
    found = _exact(
      np.asarray(gallery[taken], np.float32),
      ids[taken],
      asked,
      np.where(known, local, LAST),
      **options,
    )
    parts.append(jax.device_get(found))
  found = jax.tree.map(lambda *x: np.concatenate(x), *parts)
  none = found.scores == -np.inf
  return found._replace(ids=np.where(none, NO_MATCH, found.ids))


def _searched_whole(
  gallery: Any,
  valid: np.ndarray,
  ids: np.ndarray,
  queries: np.ndarray,
  *,
  k: int,
  metric: str,
) -> Found:
  """Returns `top_k` of the float32 gallery, read block by block."""
  find = functools.partial(_top_k, queries=queries, k=k, metric=metric)
  best: Found | None = None
  for start in range(0, len(valid), BLOCK):
    usable = start + np.flatnonzero(valid[start : start + BLOCK])
    rows = np.asarray(gallery[usable], np.float32)
    found = _chosen(find, rows, ids[usable])
    if best is not None:
      both = (np.concatenate(x, axis=1) for x in zip(best, found, strict=True))
      found = jax.device_get(merge(*both, k=k))
    best = found
  assert best is not None
  return best


def top_k_compact(
  compact: Compact,
  gallery: Any,
  valid: ArrayLike,
  template_ids: ArrayLike,
  queries: ArrayLike,
  *,
  k: int,
  metric: str,
) -> Certified:
  """Finds what `top_k` finds in the float32 gallery, to the bit.

  Jits by itself; not for use inside jit.

  Args:
    compact: from `compress` of the gallery, on the device.
    gallery: float32 [G, D], anything that NumPy's way of taking rows works
      on: an array on the host, a memory map. Few of its rows are read.
    valid: bool or int [G].
    template_ids: distinct and >= 0 in valid rows, int32 [G].
    queries: float [Q, D], finite.
    k: how many templates, >= 1; may exceed G.
    metric: one of METRICS.

  Returns:
    Certified, NumPy arrays.

  Raises:
    ValueError: for a head or an unknown metric, k below 1, shapes that
      differ, or a query that is not finite.

  Degenerate input: as `top_k`. Among thousands of near-ties there is no
  certificate, and the float32 gallery is searched.
  """
  if metric not in scores_lib.METRICS:
    raise ValueError(
      f"metric must be one of {scores_lib.METRICS}, got {metric!r}."
    )
  rows_lib.check_queries(queries)
  queries = np.asarray(queries, np.float32)
  valid, ids = np.asarray(valid, bool), np.asarray(template_ids, np.int32)
  size, dim = compact.codes.shape
  if k < 1 or queries.ndim != 2 or queries.shape[1] != dim:
    raise ValueError(f"k must be >= 1 and queries [Q, {dim}], got {k} and "
                     f"{queries.shape}.")  # fmt: skip
  if not (
    tuple(gallery.shape) == (size, dim) and len(valid) == len(ids) == size
  ):
    raise ValueError("compact, gallery, valid and template_ids must have the "
                     f"same number of rows, {size}.")  # fmt: skip
  result = Certified(
    np.full((len(queries), k), -np.inf, np.float32),
    np.full((len(queries), k), NO_MATCH, np.int32),
    np.full(len(queries), size),
  )
  _fill(result, compact, gallery, valid, ids, queries, k=k, metric=metric)
  return result


def _fill(
  result: Certified,
  compact: Compact,
  gallery: Any,
  valid: np.ndarray,
  ids: np.ndarray,
  queries: np.ndarray,
  *,
  k: int,
  metric: str,
) -> None:
  """Writes the answers: those certified first, the others after them."""
  left = np.arange(len(queries) if len(valid) else 0)
  slack = rounding(queries, compact)
  look = first_look(k)
  while len(left) and look <= _MOST:
    # The last query again, so that few sizes are compiled.
    padding = (1 << (max(len(left), TILE) - 1).bit_length()) - len(left)
    batch = np.pad(queries[left], ((0, padding), (0, 0)), mode="edge")
    places, bounds = jax.device_get(
      _candidates(compact, valid, batch, k=look, metric=metric)
    )
    places, bounds = places[: len(left)], bounds[: len(left), -1]
    found = _rescored(gallery, ids, places, queries[left], k=k, metric=metric)
    certain = (bounds == -np.inf) | (found.scores[:, -1] > bounds + slack[left])
    done = left[certain]
    result.scores[done] = found.scores[certain]
    result.ids[done] = found.ids[certain]
    result.looked[done] = look
    left, look = left[~certain], 4 * look
  if len(left):
    found = _searched_whole(
      gallery, valid, ids, queries[left], k=k, metric=metric
    )
    result.scores[left], result.ids[left] = found
