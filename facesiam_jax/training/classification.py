"""Objectives that have a class for each training person.

The classes are thrown away after training; what is measured and shipped are
the embeddings below them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from facesiam_jax import losses, ops, parallel, sampling
from facesiam_jax.losses import margins
from facesiam_jax.training import objectives

_MARGIN_LOSSES: dict[str, Callable[..., tuple[jax.Array, jax.Array]]] = {
  "arcface": losses.arcface,
  "cosface": losses.cosface,
}
_MARGINS: dict[str, Callable[..., jax.Array]] = {
  "arcface": margins.arcface,
  "cosface": margins.cosface,
}
# Rows of sharded centres are a multiple of this, so that a run goes on with
# the same arrays on any number of devices that divides it.
_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class Softmax:
  """Cross-entropy of a dense layer over the training people: the baseline.

  The layer is thrown away after training; what is measured and shipped are
  the embeddings below it. People that are not trained on have no class, so on
  them the supervised contrastive loss is reported instead.

  Attributes:
    num_images: images a step, over all devices.
  """

  num_images: int = 128

  sharded: ClassVar[tuple[str, ...]] = ()
  row_group = 1
  rows_per_person = 1
  trains_head = False

  @property
  def batch_rows(self) -> int:
    return self.num_images

  def init(self, key: jax.Array, num_people: int, dim: int) -> Any:
    draw = jax.random.normal(key, (num_people * dim,)).reshape(num_people, dim)
    return {
      "centers": draw * (1.0 / dim**0.5),
      "bias": jnp.zeros((num_people,), jnp.float32),
    }

  def draw(
    self, index: sampling.IdentityIndex, seed_key: jax.Array, step: jax.Array
  ) -> jax.Array:
    key = jax.random.fold_in(seed_key, step)
    return sampling.class_balanced(index, key, num_images=self.num_images)

  def draw_eval(
    self, index: sampling.IdentityIndex, seed_key: jax.Array
  ) -> jax.Array:
    del seed_key  # every image once
    return index.order

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head  # fitted after training, on people the network has not seen
    centers, bias = batch.params["centers"], batch.params["bias"]
    logits = ops.pairwise_dot(batch.own, centers) + bias[None, :]
    values, weights = losses.softmax_cross_entropy(logits, batch.own_ids)
    correct = jnp.argmax(logits, axis=1) == batch.own_ids
    return objectives.Terms(values, weights, correct.astype(jnp.float32))

  def eval_terms(
    self, head: Any, batch: objectives.Embedded
  ) -> objectives.Terms:
    return objectives.SupCon().terms(head, batch)


def _nearest_is_own(
  batch: objectives.Embedded, centers: jax.Array
) -> jax.Array:
  """Returns 1 where the own centre is the nearest, without any margin."""
  cosines = ops.pairwise_cosine_similarity(batch.own, centers)
  own = jnp.argmax(cosines, axis=1) == batch.own_ids
  return own.astype(jnp.float32)


class _Centers(Softmax):
  """What objectives share that compare directions only: there is no bias."""

  def init(self, key: jax.Array, num_people: int, dim: int) -> Any:
    return {"centers": super().init(key, num_people, dim)["centers"]}


@dataclasses.dataclass(frozen=True)
class MarginSoftmax(_Centers):
  """Softmax over cosines to class centres, with a margin at the own class.

  Attributes:
    num_images: images a step, over all devices.
    loss: "arcface" (margin in radians) or "cosface" (in units of cosine).
    scale: factor of the cosines, > 0; 16 to 32 for hundreds of people, 64 for
      many thousands.
    margin: of that loss.
  """

  loss: str = "arcface"
  scale: float = 32.0
  margin: float = 0.5

  def __post_init__(self) -> None:
    if self.loss not in _MARGIN_LOSSES:
      raise ValueError(
        f"loss must be one of {sorted(_MARGIN_LOSSES)}, got {self.loss!r}."
      )

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head  # fitted after training, on people the network has not seen
    centers = batch.params["centers"]
    values, weights = _MARGIN_LOSSES[self.loss](
      batch.own, centers, batch.own_ids, scale=self.scale, margin=self.margin
    )
    correct = _nearest_is_own(batch, centers)
    return objectives.Terms(values, weights, correct)


@dataclasses.dataclass(frozen=True)
class AdaFace(_Centers):
  """Softmax over cosines with a margin that follows the embedding's norm.

  The norms' mean and deviation are those of the step's global batch; the
  paper's running mean of them needs small batches.

  Attributes:
    num_images: images a step, over all devices; 2 or more.
    scale: factor of the cosines, > 0.
    margin: m, in [0, pi/2].
    concentration: h, >= 0.

  References: Kim et al. 2022, AdaFace.
  """

  scale: float = 32.0
  margin: float = 0.4
  concentration: float = 0.333

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head  # fitted after training, on people the network has not seen
    centers = batch.params["centers"]
    values, weights = losses.adaface(
      batch.own,
      centers,
      batch.own_ids,
      statistics=losses.update_norm_statistics(
        losses.NormStatistics(), batch.columns, rate=1.0
      ),
      scale=self.scale,
      margin=self.margin,
      concentration=self.concentration,
    )
    correct = _nearest_is_own(batch, centers)
    return objectives.Terms(values, weights, correct)


@dataclasses.dataclass(frozen=True)
class PartialFc(MarginSoftmax):
  """Margin softmax whose class centres are spread over the devices.

  No device holds more than its share of the centres, of their gradient and of
  what the optimizer keeps of them; see `losses.partial_fc`. The loss is that of
  `MarginSoftmax`. With a sample each step takes the classes of its batch and
  some of the others, the same ones on any number of devices; the centres left
  out have no gradient, though momentum and weight decay still move them.

  Attributes:
    sample_fraction: share of the classes in a step, in (0, 1].
    largest_negative: cosines of other people's centres above it are taken for
      wrong labels and left out; 1 = none.
  """

  sample_fraction: float = 1.0
  largest_negative: float = 1.0

  sharded: ClassVar[tuple[str, ...]] = ("centers",)

  def init(self, key: jax.Array, num_people: int, dim: int) -> Any:
    rows = -(-num_people // _ROWS) * _ROWS
    # Row by row, so that each device draws its own.
    draw = jax.vmap(
      lambda row: jax.random.normal(jax.random.fold_in(key, row), (dim,))
    )
    return {"centers": draw(jnp.arange(rows)) * (1.0 / dim**0.5)}

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head  # fitted after training, on people the network has not seen
    sampled = self.sample_fraction < 1
    values, weights = losses.partial_fc(
      batch.own,
      batch.params["centers"],
      batch.own_ids,
      target=lambda cosines, norms: _MARGINS[self.loss](
        cosines, margin=self.margin
      ),
      num_classes=batch.num_people,
      axis_name=parallel.AXIS,
      scale=self.scale,
      sample_fraction=self.sample_fraction,
      key=batch.key if sampled else None,
      largest_negative=(
        self.largest_negative if self.largest_negative < 1 else None
      ),
    )
    # The own class, margin included, has over half of the probability.
    correct = values < jnp.log(2.0)
    return objectives.Terms(values, weights, correct.astype(jnp.float32))
