"""An objective with one bad batch, for tests of runs."""

import dataclasses

import jax.numpy as jnp

from facesiam_jax.training import objectives

BAD_STEP = 2


@dataclasses.dataclass(frozen=True)
class BadBatch(objectives.SupCon):
  """SupCon whose batch of step `BAD_STEP` is one image, and has no loss.

  Attributes:
    bad: what the loss is there.
    always: whether every batch is bad from there on.
  """

  bad: str = "nan"
  always: bool = False

  def draw(self, index, seed_key, step):
    rows = super().draw(index, seed_key, step)
    bad = step >= BAD_STEP if self.always else step == BAD_STEP
    return jnp.where(bad, index.order[0], rows)

  def draw_eval(self, index, seed_key):
    return index.order

  def terms(self, head, batch):
    terms = super().terms(head, batch)
    one = jnp.all(batch.column_ids == batch.column_ids[0])
    values = jnp.where(one, float(self.bad), terms.values)
    return terms._replace(values=values, weights=jnp.ones_like(values))
