"""Triplets drawn at random from a batch: what mining is set beside."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from facesiam_jax import losses, ops
from facesiam_jax.training import objectives


@dataclasses.dataclass(frozen=True)
class RandomTriplet(objectives.BatchHardTriplet):
  """As the objective it is made from, but for which triplet each anchor has.

  The batch, the unit embeddings, the loss and the accuracy are the same.
  """

  def terms(self, head: Any, batch: objectives.Embedded) -> objectives.Terms:
    del head
    own = ops.l2_normalize(batch.own)
    columns = ops.l2_normalize(batch.columns)
    places = jnp.arange(len(columns))
    same = batch.own_ids[:, None] == batch.column_ids[None, :]
    itself = batch.own_rows[:, None] == places[None, :]
    chance = jax.random.uniform(batch.key, same.shape)
    drawn = lambda allowed: jnp.argmax(jnp.where(allowed, chance, -1.0), axis=1)
    values, weights = losses.triplet_margin(
      ops.euclidean_distance(own, columns[drawn(same & ~itself)]),
      ops.euclidean_distance(own, columns[drawn(~same)]),
      margin=self.margin,
    )
    return objectives.Terms(values, weights, objectives.nearest_is_same(batch))
