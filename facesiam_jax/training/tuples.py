"""Objectives over drawn pairs and triplets.

The images of a pair or a triplet are neighbours in the batch and lie on one
device, so that no device needs another's embeddings.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from facesiam_jax import losses, ops, sampling
from facesiam_jax.training import objectives


@dataclasses.dataclass(frozen=True)
class _Pairs(objectives.WithoutParameters):
  """Common to objectives over pairs, of which every second is genuine."""

  num_pairs: int = 64
  per_image: bool = True

  row_group = 2
  rows_per_person = 1

  @property
  def batch_rows(self) -> int:
    return 2 * self.num_pairs

  def _draw(
    self,
    index: sampling.IdentityIndex,
    key: jax.Array,
    step: jax.Array | int,
    num_pairs: int,
  ) -> jax.Array:
    if self.per_image:
      drawn = sampling.epoch_pairs(
        index, key, jnp.asarray(step), num_pairs=num_pairs
      )
    else:
      key = jax.random.fold_in(key, step)
      drawn = sampling.pairs(index, key, num_pairs=num_pairs)
    return jnp.stack([drawn.left, drawn.right], axis=1).reshape(-1)

  def draw(
    self, index: sampling.IdentityIndex, seed_key: jax.Array, step: jax.Array
  ) -> jax.Array:
    return self._draw(index, seed_key, step, self.num_pairs)

  def draw_eval(
    self, index: sampling.IdentityIndex, seed_key: jax.Array
  ) -> jax.Array:
    # As many pairs of each kind as images, the same every time; of each image
    # one where `per_image`.
    return self._draw(index, seed_key, 0, 2 * index.order.shape[0])


def _sides(
  batch: objectives.Embedded,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns both embeddings of each pair, and 1 where it is genuine."""
  same = batch.own_ids[0::2] == batch.own_ids[1::2]
  return batch.own[0::2], batch.own[1::2], same.astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class PairBce(_Pairs):
  """Binary cross-entropy on the head's logits of drawn pairs.

  Attributes:
    num_pairs: pairs a step, over all devices.
    per_image: True draws one genuine and one impostor pair for each image and
      epoch; False draws every admissible pair alike likely.
  """

  trains_head = True

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    left, right, same = _sides(batch)
    logits = head(left, right)
    values, weights = losses.binary_cross_entropy(logits, same)
    correct = (logits >= 0) == (same == 1)
    return objectives.Terms(values, weights, correct.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class Contrastive(_Pairs):
  """Contrastive loss on the Euclidean distances of drawn pairs.

  The embeddings are taken as they are, so the head should compare them by
  their distance too: "euclidean_logistic".

  Attributes:
    num_pairs: pairs a step, over all devices.
    per_image: as `PairBce`.
    margin: distance from which two people cost nothing, > 0. A pair is judged
      by half of it, where either label costs the same.
  """

  margin: float = 1.0

  trains_head = False

  def __post_init__(self) -> None:
    _check_margin(self.margin)

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head  # fitted after training, on people the network has not seen
    left, right, same = _sides(batch)
    distances = ops.euclidean_distance(left, right)
    values, weights = losses.contrastive(distances, same, margin=self.margin)
    correct = (distances < self.margin / 2) == (same == 1)
    return objectives.Terms(values, weights, correct.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class Triplet(objectives.WithoutParameters):
  """Triplet margin loss on random triplets, by plain Euclidean distances.

  Every admissible triplet is alike likely; none is mined. A triplet is right
  where the positive is nearer than the negative.

  Attributes:
    num_triplets: triplets a step, over all devices.
    margin: in plain distances, > 0; below 2 where `normalize`.
    normalize: whether embeddings are scaled to length 1 first. The head should
      then be "cosine_logistic", and else "euclidean_logistic".
  """

  num_triplets: int = 48
  margin: float = 1.0
  normalize: bool = False

  row_group = 3
  rows_per_person = 1
  trains_head = False

  def __post_init__(self) -> None:
    _check_margin(self.margin)

  @property
  def batch_rows(self) -> int:
    return 3 * self.num_triplets

  def _draw(
    self, index: sampling.IdentityIndex, key: jax.Array, num_triplets: int
  ) -> jax.Array:
    drawn = sampling.triplets(index, key, num_triplets=num_triplets)
    return jnp.stack(drawn, axis=1).reshape(-1)

  def draw(
    self, index: sampling.IdentityIndex, seed_key: jax.Array, step: jax.Array
  ) -> jax.Array:
    key = jax.random.fold_in(seed_key, step)
    return self._draw(index, key, self.num_triplets)

  def draw_eval(
    self, index: sampling.IdentityIndex, seed_key: jax.Array
  ) -> jax.Array:
    # As many triplets as images, the same every time.
    return self._draw(index, seed_key, index.order.shape[0])

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head  # fitted after training, on people the network has not seen
    own = ops.l2_normalize(batch.own) if self.normalize else batch.own
    positive = ops.euclidean_distance(own[0::3], own[1::3])
    negative = ops.euclidean_distance(own[0::3], own[2::3])
    values, weights = losses.triplet_margin(
      positive, negative, margin=self.margin
    )
    correct = (positive < negative).astype(jnp.float32)
    return objectives.Terms(values, weights, correct)


def _check_margin(margin: float) -> None:
  if margin <= 0:
    raise ValueError(f"margin must be more than 0, got {margin}.")
