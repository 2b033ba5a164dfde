"""Draws of pairs and of triplets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from facesiam_jax.sampling.identities import (
  IdentityIndex,
  People,
  draw_images,
)


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


class Triplets(NamedTuple):
  """Image rows of triplets.

  Attributes:
    anchors: image rows, int32 [B].
    positives: rows of other images of the anchor's person, int32 [B].
    negatives: rows of images of other people, int32 [B].
  """

  anchors: jax.Array
  positives: jax.Array
  negatives: jax.Array


def _check_partners(index: IdentityIndex) -> None:
  if not index.paired.shape[0]:
    raise ValueError("no person has two images: there is no genuine pair.")
  if index.counts.shape[0] < 2:
    raise ValueError("there is one person only: there is no impostor pair.")


def check_pairs(index: IdentityIndex, num_pairs: int) -> None:
  """Raises ValueError if pairs cannot be drawn from the index."""
  if num_pairs < 2 or num_pairs % 2:
    raise ValueError(
      f"the number of pairs must be even and positive, got {num_pairs}."
    )
  _check_partners(index)


def _anchors(
  index: IdentityIndex, people: People, key: jax.Array, num: int
) -> jax.Array:
  """Draws positions: people by their chances, then one of their images."""
  bin_key, choice_key, image_key = jax.random.split(key, 3)
  bins = jax.random.randint(bin_key, (num,), 0, index.counts.shape[0])
  choice = jax.random.bits(choice_key, (num,), jnp.uint32)
  keeps = choice < people.thresholds[bins]
  return draw_images(
    index, image_key, jnp.where(keeps, bins, people.aliases[bins])
  )


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

  Batch meaning: the draw is of the *global* batch.

  Args:
    index: from `index_identities`.
    key: a JAX random key.
    num_pairs: size of the global batch, even.

  Returns:
    Pairs of image rows, [num_pairs]; even rows genuine, odd rows impostor.

  Raises:
    ValueError: if `num_pairs` is odd, or no person has two images, or there
      is one person only.

  Example:
    >>> import numpy as np
    >>> from facesiam_jax.sampling import index_identities
    >>> index = index_identities(np.array([7, 3, 7]))
    >>> drawn = pairs(index, jax.random.key(0), num_pairs=2)
    >>> drawn.same.tolist(), sorted([int(drawn.left[0]), int(drawn.right[0])])
    ([1, 0], [0, 2])
  """
  check_pairs(index, num_pairs)
  genuine_key, impostor_key, partner_key = jax.random.split(key, 3)
  # An anchor is drawn in proportion to its number of partners; with a uniform
  # partner every ordered pair is then equally likely.
  return _interleave(
    index,
    partner_key,
    _anchors(index, index.by_genuine, genuine_key, num_pairs // 2),
    _anchors(index, index.by_impostor, impostor_key, num_pairs // 2),
  )


def triplets(
  index: IdentityIndex, key: jax.Array, *, num_triplets: int
) -> Triplets:
  """Draws independent triplets, each admissible triplet equally likely.

  A person with n of N images contributes n (n - 1) (N - n) triplets, one with
  a single image is a negative only. For people alike likely, whatever their
  number of images, draw P x K.
  Batch meaning: the draw is of the *global* batch.

  Args:
    index: from `index_identities`.
    key: a JAX random key.
    num_triplets: size of the global batch, >= 1.

  Returns:
    Image rows, [num_triplets] each.

  Raises:
    ValueError: if `num_triplets` < 1, or no person has two images, or there is
      one person only.

  Example:
    >>> import numpy as np
    >>> from facesiam_jax.sampling import index_identities
    >>> index = index_identities(np.array([7, 3, 7]))
    >>> drawn = triplets(index, jax.random.key(0), num_triplets=2)
    >>> drawn.negatives.tolist()
    [1, 1]
  """
  if num_triplets < 1:
    raise ValueError(
      f"the number of triplets must be at least 1, got {num_triplets}."
    )
  _check_partners(index)
  anchor_key, positive_key, negative_key = jax.random.split(key, 3)
  # In proportion to the number of triplets; with a uniform positive and a
  # uniform negative every triplet is then equally likely.
  anchors = _anchors(index, index.by_triplet, anchor_key, num_triplets)
  return Triplets(
    anchors=index.order[anchors],
    positives=index.order[_genuine_partner(index, positive_key, anchors)],
    negatives=index.order[_impostor_partner(index, negative_key, anchors)],
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
  step: jax.Array | int,
  *,
  num_pairs: int,
) -> Pairs:
  """Draws one genuine and one impostor pair for each image and epoch.

  Batch meaning: the draw is of the *global* batch.
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

  Example:
    >>> import numpy as np
    >>> from facesiam_jax.sampling import index_identities
    >>> index = index_identities(np.array([7, 3, 7, 3]))
    >>> drawn = epoch_pairs(index, jax.random.key(0), 0, num_pairs=8)
    >>> sorted(drawn.left[0::2].tolist())
    [0, 1, 2, 3]
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
