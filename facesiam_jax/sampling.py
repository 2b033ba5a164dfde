"""Which images form the next pairs or the next P x K batch, on the device.

Every draw is a pure function of a key, so the same key gives the same GLOBAL
batch on any number of devices: each device draws the indices of the whole
batch (a few thousand integers) and keeps its own rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

_INT32_MAX = 2**31 - 1


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
    genuine_ends: running sum over positions of their number of genuine
      partners, int32 [N].
    impostor_ends: the same of impostor partners, int32 [N].
    max_count: the largest count.
  """

  order: jax.Array
  starts: jax.Array
  counts: jax.Array
  groups: jax.Array
  paired: jax.Array
  genuine_ends: jax.Array
  impostor_ends: jax.Array
  max_count: int = struct.field(pytree_node=False)


class Pairs(NamedTuple):
  """Image rows of pairs and whether they show one person.

  Attributes:
    left: image rows, int32 [B].
    right: image rows, int32 [B].
    same: 1 = same person (even rows), 0 = two people (odd rows), int32 [B].
  """

  left: jax.Array
  right: jax.Array
  same: jax.Array


def index_identities(identity_ids: np.ndarray) -> IdentityIndex:
  """Groups images by identity; runs once, on the host.

  Args:
    identity_ids: identity of each image, integers [N], in any order.

  Returns:
    The index, on the default device.

  Raises:
    ValueError: if there is no image, the ids are not integers [N], or there
      are so many images (over about 46,000) that pairs cannot be counted in
      int32.
  """
  ids = np.asarray(identity_ids)
  if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
    raise ValueError(
      f"identity_ids must be integers [N], got {ids.dtype} {ids.shape}."
    )
  if not ids.size:
    raise ValueError("identity_ids is empty: there is no image to draw.")
  order = np.argsort(ids, kind="stable")
  _, starts, groups, counts = np.unique(
    ids[order], return_index=True, return_inverse=True, return_counts=True
  )
  partners = counts[groups] - 1
  strangers = ids.size - counts[groups]
  genuine_ends = np.cumsum(partners, dtype=np.int64)
  impostor_ends = np.cumsum(strangers, dtype=np.int64)
  if max(genuine_ends[-1], impostor_ends[-1]) > _INT32_MAX:
    raise ValueError(
      f"{ids.size} images make more pairs than int32 can count; draw P x K "
      "batches instead of pairs."
    )
  as_int32 = lambda x: jnp.asarray(x, jnp.int32)
  return IdentityIndex(
    order=as_int32(order),
    starts=as_int32(starts),
    counts=as_int32(counts),
    groups=as_int32(groups),
    paired=as_int32(np.flatnonzero(partners)),
    genuine_ends=as_int32(genuine_ends),
    impostor_ends=as_int32(impostor_ends),
    max_count=int(counts.max()),
  )


def check_pairs(index: IdentityIndex, num_pairs: int) -> None:
  """Raises ValueError if pairs cannot be drawn from the index."""
  if num_pairs < 2 or num_pairs % 2:
    raise ValueError(
      f"the number of pairs must be even and positive, got {num_pairs}."
    )
  if not index.paired.shape[0]:
    raise ValueError("no person has two images: there is no genuine pair.")
  if index.counts.shape[0] < 2:
    raise ValueError("there is one person only: there is no impostor pair.")


def _genuine_partner(
  index: IdentityIndex, key: jax.Array, positions: jax.Array
) -> jax.Array:
  """Draws another position of the same identity, each equally likely."""
  group = index.groups[positions]
  start, count = index.starts[group], index.counts[group]
  draw = jax.random.randint(key, positions.shape, 0, count - 1)
  # The draw runs over the identity's other images: skip the position itself.
  return start + draw + (start + draw >= positions)


def _impostor_partner(
  index: IdentityIndex, key: jax.Array, positions: jax.Array
) -> jax.Array:
  """Draws a position of another identity, each equally likely."""
  group = index.groups[positions]
  start, count = index.starts[group], index.counts[group]
  total = index.order.shape[0]
  draw = jax.random.randint(key, positions.shape, 0, total - count)
  return jnp.where(draw < start, draw, draw + count)


def _interleave(
  index: IdentityIndex,
  key: jax.Array,
  genuine: jax.Array,
  impostor: jax.Array,
) -> Pairs:
  """Completes anchors to pairs: genuine in even rows, impostor in odd."""
  genuine_key, impostor_key = jax.random.split(key)
  partners = (
    _genuine_partner(index, genuine_key, genuine),
    _impostor_partner(index, impostor_key, impostor),
  )
  left = jnp.stack([genuine, impostor], axis=1).reshape(-1)
  right = jnp.stack(partners, axis=1).reshape(-1)
  same = 1 - jnp.arange(left.shape[0], dtype=jnp.int32) % 2
  return Pairs(index.order[left], index.order[right], same)


def pairs(index: IdentityIndex, key: jax.Array, *, num_pairs: int) -> Pairs:
  """Draws independent pairs, half genuine, each admissible pair alike likely.

  A person with n images contributes n (n - 1) / 2 genuine pairs, one with a
  single image none. A genuine partner is never the image itself.

  Args:
    index: from `index_identities`.
    key: a JAX random key.
    num_pairs: size of the global batch, even.

  Returns:
    Pairs of image rows, [num_pairs]; even rows genuine, odd rows impostor.

  Raises:
    ValueError: if `num_pairs` is odd, or no person has two images, or there
      is one person only.
  """
  check_pairs(index, num_pairs)
  genuine_key, impostor_key, partner_key = jax.random.split(key, 3)

  def anchors(key: jax.Array, ends: jax.Array) -> jax.Array:
    # An anchor is drawn in proportion to its number of partners; with a
    # uniform partner every ordered pair is then equally likely.
    draw = jax.random.randint(key, (num_pairs // 2,), 0, ends[-1])
    return jnp.searchsorted(ends, draw, side="right").astype(jnp.int32)

  return _interleave(
    index,
    partner_key,
    anchors(genuine_key, index.genuine_ends),
    anchors(impostor_key, index.impostor_ends),
  )


def _epoch_anchors(
  positions: jax.Array, key: jax.Array, first: jax.Array, num: int
) -> jax.Array:
  """Takes anchors first..first+num-1 of an endless row of shuffled epochs."""
  size = positions.shape[0]
  # A batch can touch this many epochs, however the boundaries fall.
  num_epochs = (num - 1) // size + 2
  first_epoch = first // size
  shuffled = jnp.concatenate(
    [
      jax.random.permutation(
        jax.random.fold_in(key, first_epoch + e), positions
      )
      for e in range(num_epochs)
    ]
  )
  return jax.lax.dynamic_slice(shuffled, (first % size,), (num,))


def epoch_pairs(
  index: IdentityIndex,
  seed_key: jax.Array,
  step: jax.Array,
  *,
  num_pairs: int,
) -> Pairs:
  """Draws one genuine and one impostor pair for each image and epoch.

  The images are gone through in a new order each epoch; a batch may hold the
  end of one epoch and the start of the next. Images without a genuine partner
  anchor impostor pairs only.

  Args:
    index: from `index_identities`.
    seed_key: a JAX random key, the same at every step.
    step: number of the batch, int32 scalar, >= 0; num_pairs / 2 times the
      last step must stay below 2**31.
    num_pairs: size of the global batch, even.

  Returns:
    Pairs of image rows, [num_pairs]; even rows genuine, odd rows impostor.

  Raises:
    ValueError: as `pairs`.
  """
  check_pairs(index, num_pairs)
  half = num_pairs // 2
  genuine_key, impostor_key, partner_key = jax.random.split(seed_key, 3)
  everyone = jnp.arange(index.order.shape[0], dtype=jnp.int32)
  first = jnp.asarray(step, jnp.int32) * half
  return _interleave(
    index,
    jax.random.fold_in(partner_key, step),
    _epoch_anchors(index.paired, genuine_key, first, half),
    _epoch_anchors(everyone, impostor_key, first, half),
  )


def people_times_images(
  index: IdentityIndex,
  key: jax.Array,
  *,
  num_people: int,
  images_per_person: int,
) -> jax.Array:
  """Draws P different people and K images of each (a "P x K" batch).

  The K images are different where the person has K; a person with fewer
  contributes all of them, repeated in turn.

  Args:
    index: from `index_identities`.
    key: a JAX random key.
    num_people: P, at most the number of identities.
    images_per_person: K, >= 1.

  Returns:
    Image rows, int32 [P * K], one person after another.

  Raises:
    ValueError: if P exceeds the number of identities or K < 1.
  """
  total = index.counts.shape[0]
  if not 1 <= num_people <= total:
    raise ValueError(
      f"num_people must be 1 to {total}, the number of people to train on; "
      f"got {num_people}."
    )
  if images_per_person < 1:
    raise ValueError(
      f"images_per_person must be at least 1, got {images_per_person}."
    )
  people_key, images_key = jax.random.split(key)
  people = jax.random.permutation(people_key, total)[:num_people]
  counts = index.counts[people][:, None]
  slots = jnp.arange(index.max_count)[None, :]
  # Drawn flat: a draw in two dimensions takes XLA seconds to compile.
  noise = jax.random.uniform(images_key, (num_people * index.max_count,))
  noise = noise.reshape(num_people, index.max_count)
  # Slots past a person's last image sort behind all others.
  shuffled = jnp.argsort(jnp.where(slots < counts, noise, 2.0), axis=1)
  turn = jnp.arange(images_per_person)[None, :] % counts
  chosen = jnp.take_along_axis(shuffled, turn, axis=1)
  positions = index.starts[people][:, None] + chosen
  return index.order[positions.reshape(-1)].astype(jnp.int32)
