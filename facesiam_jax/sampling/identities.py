"""Images grouped by identity, and people with unequal chances."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

_INT32_MAX = 2**31 - 1


@struct.dataclass
class People:
  """People with unequal chances, drawn by Walker's alias method.

  A bin is drawn evenly; a second draw decides between the person of the bin
  and the bin's alias. So the chances are right to 2^-32 of 1 / M, however
  many pairs or triplets they stand for.

  Attributes:
    thresholds: below it the person of the bin is taken, uint32 [M].
    aliases: whom the bin gives otherwise, int32 [M].
  """

  thresholds: jax.Array
  aliases: jax.Array


@struct.dataclass
class IdentityIndex:
  """Images grouped by identity, so that a draw is arithmetic on positions.

  Attributes:
    order: image rows sorted by identity, int32 [N]; a position p below means
      image order[p].
    starts: first position of each identity's images, int32 [M].
    counts: number of images of each identity, >= 1, int32 [M].
    groups: identity number (0..M-1) of each position, int32 [N].
    paired: positions whose identity has two or more images, int32 [N'].
    by_genuine: people in proportion to their number of genuine pairs.
    by_impostor: the same of impostor pairs.
    by_triplet: the same of triplets.
    max_count: the largest count.
  """

  order: jax.Array
  starts: jax.Array
  counts: jax.Array
  groups: jax.Array
  paired: jax.Array
  by_genuine: People
  by_impostor: People
  by_triplet: People
  max_count: int = struct.field(pytree_node=False)


def _alias_table(weights: Sequence[int]) -> People:
  """Builds the table for chances in proportion to whole-number weights.

  In Python's exact integers: with rounding a person of weight 0 could keep a
  bin for itself.
  """
  size, total = len(weights), sum(weights)
  thresholds = np.zeros(size, np.uint32)
  aliases = np.arange(size, dtype=np.int32)
  # A bin holds `total`; all bins together hold each weight `size` times.
  rest = [size * weight for weight in weights]
  short = [i for i, weight in enumerate(rest) if weight < total]
  long = [i for i, weight in enumerate(rest) if weight > total]
  while short:
    bin_, giver = short.pop(), long[-1]
    thresholds[bin_] = (rest[bin_] << 32) // total
    aliases[bin_] = giver
    rest[giver] -= total - rest[bin_]
    if rest[giver] <= total:
      long.pop()
      if rest[giver] < total:
        short.append(giver)
  return People(jnp.asarray(thresholds), jnp.asarray(aliases))


def index_identities(identity_ids: np.ndarray) -> IdentityIndex:
  """Groups images by identity; runs once, on the host.

  Args:
    identity_ids: identity of each image, integers [N], in any order.

  Returns:
    The index, on the default device.

  Raises:
    ValueError: if there is no image, the ids are not integers [N], or there
      are more images than int32 can number.

  Example:
    >>> index = index_identities(np.array([7, 3, 7, 3, 3]))
    >>> index.order.tolist(), index.counts.tolist()
    ([1, 3, 4, 0, 2], [3, 2])
  """
  ids = np.asarray(identity_ids)
  if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
    raise ValueError(
      f"identity_ids must be integers [N], got {ids.dtype} {ids.shape}."
    )
  if not ids.size:
    raise ValueError("identity_ids is empty: there is no image to draw.")
  if ids.size > _INT32_MAX:
    raise ValueError(f"{ids.size} images are more than int32 can number.")
  order = np.argsort(ids, kind="stable")
  _, starts, groups, counts = np.unique(
    ids[order], return_index=True, return_inverse=True, return_counts=True
  )
  as_int32 = lambda x: jnp.asarray(x, jnp.int32)
  sizes, total = counts.tolist(), ids.size
  return IdentityIndex(
    order=as_int32(order),
    starts=as_int32(starts),
    counts=as_int32(counts),
    groups=as_int32(groups),
    paired=as_int32(np.flatnonzero(counts[groups] > 1)),
    by_genuine=_alias_table([n * (n - 1) for n in sizes]),
    by_impostor=_alias_table([n * (total - n) for n in sizes]),
    by_triplet=_alias_table([n * (n - 1) * (total - n) for n in sizes]),
    max_count=int(counts.max()),
  )


def draw_images(
  index: IdentityIndex, key: jax.Array, people: jax.Array
) -> jax.Array:
  """Draws a position of each given person, each equally likely.

  Args:
    index: from `index_identities`.
    key: a JAX random key.
    people: identity numbers, int32 [n].

  Returns:
    Positions, int32 [n]; position p means image index.order[p].
  """
  draw = jax.random.randint(key, people.shape, 0, index.counts[people])
  return index.starts[people] + draw
