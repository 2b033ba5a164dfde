"""Search of a gallery whose rows are spread over a mesh of devices.

Each device finds the k best of its own rows, all of them exchange k
candidates a query, and each merges the same lists: what travels is
devices x Q x k scores and ids, however large the gallery is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from facesiam_jax import parallel
from facesiam_jax.gallery.search.compact import Compact, candidates
from facesiam_jax.gallery.search.ordering import Found, merge
from facesiam_jax.gallery.search.people import RankedPeople, top_k_people
from facesiam_jax.gallery.search.rows import BLOCK, LAST, NO_MATCH
from facesiam_jax.gallery.search.scores import Head
from facesiam_jax.gallery.search.templates import top_k


class Shards(NamedTuple):
  """A gallery split by rows over the devices of a mesh.

  Attributes:
    embeddings: float32 [devices R, D].
    valid: bool [devices R].
    template_ids: int32 [devices R].
  """

  embeddings: jax.Array
  valid: jax.Array
  template_ids: jax.Array


class CompactShards(NamedTuple):
  """A gallery in few bytes, split by rows over the devices of a mesh.

  Attributes:
    compact: from `compress`, of [devices R] rows.
    valid: bool [devices R].
    template_ids: int32 [devices R].
  """

  compact: Compact
  valid: jax.Array
  template_ids: jax.Array


def place(
  gallery: ArrayLike,
  valid: ArrayLike,
  template_ids: ArrayLike,
  mesh: Mesh,
  *,
  rows_per_device: int | None = None,
) -> Shards:
  """Spreads the rows that this process holds over its devices.

  Args:
    gallery: this process's templates, float [G, D]; those of all processes
      make up the gallery, in any order.
    valid: bool or int [G].
    template_ids: distinct in the whole gallery, int32 [G].
    mesh: from `parallel.make_mesh`; may span processes.
    rows_per_device: R, a multiple of BLOCK, the same in every process; None
      means the least that fits, with one process only.

  Returns:
    The shards, padded with rows that are not valid.

  Raises:
    ValueError: if the rows do not fit, R is no multiple of BLOCK, or it is not
      given though the mesh spans processes.
  """
  gallery = np.asarray(gallery, np.float32)
  here = sum(d.process_index == jax.process_index() for d in mesh.devices.flat)
  if rows_per_device is None:
    if here != mesh.size:
      raise ValueError(
        "rows_per_device must be given where a mesh spans processes, the same "
        "in each."
      )
    rows_per_device = max(1, -(-len(gallery) // (here * BLOCK))) * BLOCK
  missing = here * rows_per_device - len(gallery)
  if rows_per_device % BLOCK or missing < 0:
    raise ValueError(
      f"rows_per_device must be a multiple of {BLOCK} and hold this process's "
      f"{len(gallery)} rows on {here} devices, got {rows_per_device}."
    )
  # In the order of the ids, a device's rows need no sorting in each search.
  template_ids = np.asarray(template_ids, np.int32)
  order = np.argsort(template_ids, kind="stable")
  own = (
    np.pad(gallery[order], ((0, missing), (0, 0))),
    np.pad(np.asarray(valid, bool)[order], (0, missing)),
    np.pad(template_ids[order], (0, missing), constant_values=LAST),
  )
  return Shards(*parallel.split(own, mesh.size * rows_per_device, mesh))


def searcher(
  mesh: Mesh, *, k: int, metric: str | Head
) -> Callable[[Shards, ArrayLike], Found]:
  """Returns `top_k` of a gallery that is spread over a mesh, jitted.

  The bits are those of `top_k` of the whole gallery on one device.

  Args:
    mesh: from `parallel.make_mesh`; may span processes.
    k: how many templates, >= 1; may exceed the rows of a device.
    metric: see `top_k`.

  Returns:
    A function of Shards and queries float [Q, D], the same in every process,
    that returns Found with the answer on every device.
  """

  def search(shards: Shards, queries: jax.Array) -> Found:
    own = top_k(*shards, queries, k=k, metric=metric)
    scores, ids = lax.all_gather(own, parallel.AXIS, axis=1, tiled=True)
    return merge(scores, ids, k=k)

  return parallel.pmap(
    search, mesh, in_specs=(P(parallel.AXIS), P()), out_specs=P()
  )


def people_searcher(
  mesh: Mesh, *, k: int, metric: str | Head, rule: str
) -> Callable[[Shards, ArrayLike, ArrayLike, ArrayLike], RankedPeople]:
  """Returns `top_k_people` of a gallery spread over a mesh, jitted.

  The bits are those of `top_k_people` of the whole gallery on one device, as
  long as all templates of a person lie on one device.

  Args:
    mesh: from `parallel.make_mesh`; may span processes.
    k: how many people, >= 1.
    metric: see `top_k`.
    rule: see `top_k_people`.

  Returns:
    A function of Shards, people int32 [devices R], quality float32 [devices R]
    (used by "weighted_mean" alone) and queries float [Q, D], that returns
    RankedPeople with the answer on every device.
  """

  def search(
    shards: Shards, people: jax.Array, quality: jax.Array, queries: jax.Array
  ) -> RankedPeople:
    weights = quality if rule == "weighted_mean" else None
    own = top_k_people(
      *shards, people, queries, k=k, metric=metric, rule=rule, quality=weights
    )
    scores, ids = lax.all_gather(own, parallel.AXIS, axis=1, tiled=True)
    return RankedPeople(*merge(scores, ids, k=k))

  return parallel.pmap(
    search,
    mesh,
    in_specs=(P(parallel.AXIS), P(parallel.AXIS), P(parallel.AXIS), P()),
    out_specs=P(),
  )


def candidate_searcher(
  mesh: Mesh, *, k: int, metric: str
) -> Callable[[CompactShards, ArrayLike], Found]:
  """Returns the first look of `top_k_compact` over a mesh, jitted.

  Args:
    mesh: from `parallel.make_mesh`; may span processes.
    k: how many candidates, >= 1, such as `first_look(k sought)`.
    metric: one of METRICS.

  Returns:
    A function of CompactShards and queries float [Q, D], the same in every
    process, that returns Found on every device: upper bounds of the exact
    scores and ids of candidates. No other template's exact score exceeds the
    last bound by more than rounding (`compact.rounding`), so the float32 rows
    of the candidates alone decide wherever the k-th best of them does.
  """

  def search(shards: CompactShards, queries: jax.Array) -> Found:
    places, bounds = candidates(
      shards.compact, shards.valid, queries, k=k, metric=metric
    )
    ids = jnp.where(places == NO_MATCH, NO_MATCH, shards.template_ids[places])
    own = Found(bounds, ids)
    bounds, ids = lax.all_gather(own, parallel.AXIS, axis=1, tiled=True)
    return merge(bounds, ids, k=k)

  return parallel.pmap(
    search, mesh, in_specs=(P(parallel.AXIS), P()), out_specs=P()
  )
