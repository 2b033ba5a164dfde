"""What a step draws and what it minimises: one small class an objective.

An objective names the image rows of the global batch and turns embeddings
into per-example losses. It holds no arrays and no random state; parameters of
its own, such as class centres, are part of the run's, under "objective".
"""

import dataclasses
import importlib
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from facesiam_jax import losses, mining, ops, sampling


class Terms(NamedTuple):
  """Per-example results; sums of them over devices give the batch's figures.

  Attributes:
    values: losses, float32 [n].
    weights: weight of each loss, float32 [n].
    correct: 1 where the example is judged right, float32 [n].
  """

  values: jax.Array
  weights: jax.Array
  correct: jax.Array


class Embedded(NamedTuple):
  """A device's own rows and, where the objective asks, all rows.

  Attributes:
    own: embeddings of this device's rows, float32 [b, D].
    own_ids: their identities, int32 [b].
    own_rows: their indices in the global batch, int32 [b].
    columns: embeddings of the global batch, float32 [B, D].
    column_ids: their identities, int32 [B].
    params: the objective's own parameters, {} where it has none; of what is
      sharded this device's part.
    key: random key of the step, the same on all devices; None where nothing
      is trained.
    num_people: people that are trained on; 0 where nothing is trained.
  """

  own: jax.Array
  own_ids: jax.Array
  own_rows: jax.Array
  columns: jax.Array
  column_ids: jax.Array
  params: Any
  key: jax.Array | None = None
  num_people: int = 0


class Objective(Protocol):
  """The interface of an objective."""

  @property
  def sharded(self) -> tuple[str, ...]:
    """Names of its own parameters that are split over the devices.

    Along their first axis; `init` returns them whole.
    """

  @property
  def batch_rows(self) -> int:
    """Number of images in the global batch."""

  @property
  def row_group(self) -> int:
    """Rows that stay on one device: 2 for pairs, 3 for triplets, else 1."""

  @property
  def rows_per_person(self) -> int:
    """Neighbouring rows that show one person: K of P x K, else 1."""

  @property
  def trains_head(self) -> bool:
    """Whether the head's parameters take part in the loss."""

  def init(self, key: jax.Array, num_people: int, dim: int) -> Any:
    """Returns its own trained parameters, a pytree; {} for none."""

  def draw(
    self, index: sampling.IdentityIndex, seed_key: jax.Array, step: jax.Array
  ) -> jax.Array:
    """Returns the image rows of the global batch, int32 [batch_rows]."""

  def draw_eval(
    self, index: sampling.IdentityIndex, seed_key: jax.Array
  ) -> jax.Array:
    """Returns the image rows the objective is measured on, int32 [n]."""

  def terms(self, head: Any, batch: Embedded) -> Terms:
    """Returns the per-example terms of the device's own rows.

    The ids of training people are 0..num_people - 1.
    """

  def eval_terms(self, head: Any, batch: Embedded) -> Terms:
    """Returns the same of people that are not trained on."""


class WithoutParameters:
  """What objectives share whose loss is the same for any people."""

  sharded: tuple[str, ...] = ()

  def init(self, key: jax.Array, num_people: int, dim: int) -> Any:
    del key, num_people, dim
    return {}

  def terms(self, head: Any, batch: Embedded) -> Terms:
    raise NotImplementedError

  def eval_terms(self, head: Any, batch: Embedded) -> Terms:
    return self.terms(head, batch)


@dataclasses.dataclass(frozen=True)
class _PeopleTimesImages(WithoutParameters):
  """Common to objectives over a P x K batch."""

  num_people: int = 16
  images_per_person: int = 8
  by_count: float = 0.0

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
      by_count=self.by_count,
    )

  def draw_eval(
    self, index: sampling.IdentityIndex, seed_key: jax.Array
  ) -> jax.Array:
    return index.order


def nearest_is_same(batch: Embedded) -> jax.Array:
  """Returns 1 where the most alike other column is of the same person."""
  similarity = ops.pairwise_cosine_similarity(batch.own, batch.columns)
  places = jnp.arange(batch.columns.shape[0])
  itself = batch.own_rows[:, None] == places[None, :]
  nearest = jnp.argmax(jnp.where(itself, -jnp.inf, similarity), axis=1)
  return (batch.column_ids[nearest] == batch.own_ids).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class SupCon(_PeopleTimesImages):
  """Supervised contrastive loss over a P x K batch.

  Attributes:
    num_people: P.
    images_per_person: K.
    by_count: exponent of a person's number of images in its chances, 0..1.
    temperature: of the softmax over cosines, > 0.
  """

  temperature: float = 0.1

  def terms(self, head: Any, batch: Embedded) -> Terms:
    del head  # fitted after training, on people the network has not seen
    values, weights = losses.supcon(
      batch.own,
      batch.own_ids,
      batch.columns,
      batch.column_ids,
      anchor_rows=batch.own_rows,
      temperature=self.temperature,
    )
    return Terms(values, weights, nearest_is_same(batch))


@dataclasses.dataclass(frozen=True)
class BatchHardTriplet(_PeopleTimesImages):
  """Triplet margin loss on each anchor's hardest pair, unit embeddings.

  Attributes:
    num_people: P.
    images_per_person: K.
    by_count: exponent of a person's number of images in its chances, 0..1.
    margin: in plain Euclidean distance of unit vectors, 0..2.
  """

  margin: float = 0.3

  def terms(self, head: Any, batch: Embedded) -> Terms:
    del head  # fitted after training, on people the network has not seen
    own = ops.l2_normalize(batch.own)
    columns = ops.l2_normalize(batch.columns)
    chosen = mining.batch_hard(
      ops.pairwise_squared_distance(own, columns),
      batch.own_ids,
      batch.column_ids,
      anchor_rows=batch.own_rows,
    )
    values, weights = losses.triplet_margin(
      ops.euclidean_distance(own, columns[chosen.positives]),
      ops.euclidean_distance(own, columns[chosen.negatives]),
      chosen.weights,
      margin=self.margin,
    )
    return Terms(values, weights, nearest_is_same(batch))


@dataclasses.dataclass(frozen=True)
class SemiHardTriplet(_PeopleTimesImages):
  """Triplet margin loss on semi-hard negatives, unit embeddings.

  Every pair of an anchor and a positive meets the nearest negative that is
  farther than the positive. From random weights this learns where the hardest
  negatives pull all embeddings together.

  Attributes:
    num_people: P.
    images_per_person: K, at least 2.
    by_count: exponent of a person's number of images in its chances, 0..1.
    margin: in squared Euclidean distance of unit vectors, 0..4.

  References: Schroff et al. 2015, FaceNet, section 3.2.
  """

  margin: float = 0.2

  def terms(self, head: Any, batch: Embedded) -> Terms:
    del head  # fitted after training, on people the network has not seen
    distances = ops.pairwise_squared_distance(
      ops.l2_normalize(batch.own), ops.l2_normalize(batch.columns)
    )
    chosen = mining.semi_hard(
      distances,
      batch.own_ids,
      batch.column_ids,
      anchor_rows=batch.own_rows,
      max_positives=self.images_per_person - 1,
    )
    of = lambda columns: jnp.take_along_axis(distances, columns, axis=1)
    values, weights = losses.triplet_margin(
      of(chosen.positives).reshape(-1),
      of(chosen.negatives).reshape(-1),
      chosen.weights.reshape(-1),
      margin=self.margin,
    )
    correct = jnp.repeat(nearest_is_same(batch), chosen.positives.shape[1])
    return Terms(values, weights, correct)


_HERE = "facesiam_jax.training.objectives:"
_CLASSES = "facesiam_jax.training.classification:"
_TUPLES = "facesiam_jax.training.tuples:"
_OBJECTIVES = {
  "adaface": _CLASSES + "AdaFace",
  "batch_hard_triplet": _HERE + "BatchHardTriplet",
  "contrastive": _TUPLES + "Contrastive",
  "margin_softmax": _CLASSES + "MarginSoftmax",
  "pair_bce": _TUPLES + "PairBce",
  "partial_fc": _CLASSES + "PartialFc",
  "semi_hard_triplet": _HERE + "SemiHardTriplet",
  "softmax": _CLASSES + "Softmax",
  "supcon": _HERE + "SupCon",
  "triplet": _TUPLES + "Triplet",
}


def create(name: str, **args: Any) -> Objective:
  """Returns the objective called `name`.

  Args:
    name: a name of this module's table, or "package.module:Class" for one of
      your own with the interface `Objective`.
    **args: its attributes.

  Returns:
    The objective.

  Raises:
    ValueError: for an unknown name or attribute.
  """
  path = name if ":" in name else _OBJECTIVES.get(name)
  if path is None:
    raise ValueError(
      f"unknown objective {name!r}; choose from {sorted(_OBJECTIVES)} or give "
      "package.module:Class."
    )
  module, _, attribute = path.partition(":")
  cls = getattr(importlib.import_module(module), attribute)
  try:
    return cls(**args)
  except TypeError as error:
    raise ValueError(f"objective {name!r}: {error}.") from error
