"""The documents' losses over one and the same P x K batch.

The library's objectives draw pairs or triplets as the documents do. To compare
the losses alone, here each takes all pairs or all triplets of the batch that
SupCon gets. Genuine and impostor pairs weigh one half in total each, as they do
in batches of drawn pairs.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from facesiam_jax import losses, mining, ops, sampling
from facesiam_jax.training import classification, objectives


@dataclasses.dataclass(frozen=True)
class _Batch(objectives.WithoutParameters):
  """P people x K images, drawn as `objectives.SupCon` draws them.

  Attributes:
    num_people: P.
    images_per_person: K, at least 2.
  """

  num_people: int = 16
  images_per_person: int = 4

  row_group = 1
  trains_head = False

  @property
  def batch_rows(self) -> int:
    return self.num_people * self.images_per_person

  @property
  def rows_per_person(self) -> int:
    return self.images_per_person

  def draw(
    self, index: sampling.IdentityIndex, seed_key: jax.Array, step: jax.Array
  ) -> jax.Array:
    return sampling.people_times_images(
      index,
      jax.random.fold_in(seed_key, step),
      num_people=self.num_people,
      images_per_person=self.images_per_person,
    )

  def draw_eval(
    self, index: sampling.IdentityIndex, seed_key: jax.Array
  ) -> jax.Array:
    del seed_key  # every image once
    return index.order


class _Pairs(NamedTuple):
  """All pairs of own rows and columns, each flat [b * B].

  Attributes:
    same: 1 = same person.
    weights: of each pair; those of an anchor sum to 1.
  """

  same: jax.Array
  weights: jax.Array


def _pairs(batch: objectives.Embedded) -> _Pairs:
  masks = mining.all_triplets(
    batch.own_ids, batch.column_ids, anchor_rows=batch.own_rows
  )
  share = lambda mask: mask / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
  weights = 0.5 * share(masks.positives) + 0.5 * share(masks.negatives)
  return _Pairs(
    masks.positives.astype(jnp.int32).reshape(-1), weights.reshape(-1)
  )


@dataclasses.dataclass(frozen=True)
class AllPairsBce(_Batch):
  """Binary cross-entropy on the head's logits of all pairs of the batch."""

  trains_head = True

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    pairs = _pairs(batch)
    shape = (len(batch.own), *batch.columns.shape)
    flat = lambda rows: jnp.broadcast_to(rows, shape).reshape(-1, shape[2])
    logits = head(flat(batch.own[:, None]), flat(batch.columns[None]))
    values, weights = losses.binary_cross_entropy(
      logits, pairs.same, pairs.weights
    )
    correct = ((logits >= 0) == (pairs.same == 1)).astype(jnp.float32)
    return objectives.Terms(values, weights, correct)


@dataclasses.dataclass(frozen=True)
class AllPairsContrastive(_Batch):
  """Contrastive loss on the Euclidean distances of all pairs of the batch.

  Attributes:
    margin: distance from which two people cost nothing, > 0.
  """

  margin: float = 1.0

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head  # fitted after training
    pairs = _pairs(batch)
    distances = ops.pairwise_euclidean_distance(batch.own, batch.columns)
    distances = distances.reshape(-1)
    values, weights = losses.contrastive(
      distances, pairs.same, pairs.weights, margin=self.margin
    )
    correct = (distances < self.margin / 2) == (pairs.same == 1)
    return objectives.Terms(values, weights, correct.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class AllTriplets(_Batch):
  """The CSC413 report's loss on all triplets of the batch, mean by anchor.

  Attributes:
    margin: alpha, > 0.
    as_written: whether the distances are squared ones of unit vectors, without
      a hinge (`losses.csc413_as_written`); else they are plain ones of the
      embeddings as they are, with a hinge (`losses.csc413_as_run`).
  """

  margin: float = 1.0
  as_written: bool = False

  def _cost(self, positive: jax.Array, negative: jax.Array) -> jax.Array:
    if self.as_written:
      return positive - negative + self.margin
    values, _ = losses.triplet_margin(
      positive.reshape(-1), negative.reshape(-1), margin=self.margin
    )
    return values.reshape(positive.shape)

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head  # fitted after training
    if self.as_written:
      distances = ops.pairwise_squared_distance(
        ops.l2_normalize(batch.own), ops.l2_normalize(batch.columns)
      )
    else:
      distances = ops.pairwise_euclidean_distance(batch.own, batch.columns)
    sums, counts = mining.sum_over_triplets(
      self._cost,
      distances,
      batch.own_ids,
      batch.column_ids,
      anchor_rows=batch.own_rows,
      max_positives=self.images_per_person - 1,
    )
    return objectives.Terms(
      sums / jnp.maximum(counts, 1.0),
      (counts > 0).astype(jnp.float32),
      objectives.nearest_is_same(batch),
    )


@dataclasses.dataclass(frozen=True)
class Classes(_Batch):
  """The CNN baseline: `classification.Softmax` on the same batch."""

  def init(self, key: jax.Array, num_people: int, dim: int) -> Any:
    return classification.Softmax().init(key, num_people, dim)

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    return classification.Softmax().terms(head, batch)

  def eval_terms(
    self, head: Any, batch: objectives.Embedded
  ) -> objectives.Terms:
    return classification.Softmax().eval_terms(head, batch)
