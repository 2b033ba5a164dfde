"""Draws of people first: P x K batches and class-balanced ones."""

import jax
import jax.numpy as jnp

from facesiam_jax.sampling.identities import IdentityIndex, draw_images


def class_balanced(
  index: IdentityIndex, key: jax.Array, *, num_images: int
) -> jax.Array:
  """Draws independent images: a person evenly, then one of its images.

  Each person is alike likely, however many images there are of it. What a
  softmax over people wants of a split in which some have hundreds.
  Batch meaning: the draw is of the *global* batch.

  Args:
    index: from `index_identities`.
    key: a JAX random key.
    num_images: size of the global batch, >= 1.

  Returns:
    Image rows, int32 [num_images]; a row may come more than once.

  Raises:
    ValueError: if `num_images` < 1.

  Example:
    >>> import numpy as np
    >>> from facesiam_jax.sampling import index_identities
    >>> index = index_identities(np.array([7, 7, 7]))
    >>> rows = class_balanced(index, jax.random.key(0), num_images=4)
    >>> rows.shape, bool((rows < 3).all())
    ((4,), True)
  """
  if num_images < 1:
    raise ValueError(
      f"the number of images must be at least 1, got {num_images}."
    )
  people_key, image_key = jax.random.split(key)
  people = jax.random.randint(
    people_key, (num_images,), 0, index.counts.shape[0]
  )
  return index.order[draw_images(index, image_key, people)]


def people_times_images(
  index: IdentityIndex,
  key: jax.Array,
  *,
  num_people: int,
  images_per_person: int,
  by_count: float = 0.0,
) -> jax.Array:
  """Draws P different people and K images of each (a "P x K" batch).

  The K images are different where the person has K; a person with fewer
  contributes all of them, repeated in turn. People are drawn one after another,
  each time with chances in proportion to (number of images) ** by_count.
  Batch meaning: the draw is of the *global* batch.

  Args:
    index: from `index_identities`.
    key: a JAX random key.
    num_people: P, at most the number of identities.
    images_per_person: K, >= 1.
    by_count: 0 makes people alike likely, 1 about their images; in between,
      such as 0.5, where most people have a few images and some have many.

  Returns:
    Image rows, int32 [P * K], one person after another.

  Raises:
    ValueError: if P exceeds the number of identities, K < 1 or `by_count` is
      outside [0, 1].

  Example:
    >>> import numpy as np
    >>> from facesiam_jax.sampling import index_identities
    >>> index = index_identities(np.array([7, 3, 7, 3, 5]))
    >>> rows = people_times_images(
    ...   index, jax.random.key(0), num_people=3, images_per_person=2
    ... )
    >>> sorted(set(rows.tolist()))
    [0, 1, 2, 3, 4]

  References: Efraimidis and Spirakis 2006, Weighted random sampling with a
    reservoir (draws in proportion, without replacement).
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
  if not 0 <= by_count <= 1:
    raise ValueError(f"by_count must be in [0, 1], got {by_count}.")
  people_key, images_key = jax.random.split(key)
  if by_count:
    # The largest of Gumbel noise plus log weights: draws without replacement.
    noise = jax.random.gumbel(people_key, (total,))
    chances = noise + by_count * jnp.log(index.counts.astype(jnp.float32))
    people = jax.lax.top_k(chances, num_people)[1]
  else:
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
