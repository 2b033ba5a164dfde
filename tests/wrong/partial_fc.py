"""Plausible mistakes in Partial FC, and how the tests map it over devices."""

import functools

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from jax import lax
from reference import margin_batch as batch
from reference import margin_softmax as reference
from variants import Variants

from facesiam_jax import losses, parallel
from facesiam_jax.losses import margins

AXIS = parallel.AXIS
KEY = jax.random.key(9)
# Two shards of 12 rows for 22 classes: two rows are padding. The classes of
# the batch lie in both.
NUM_CLASSES = 22
LABELS = np.where(batch.LABELS < 0, -1, 3 * batch.LABELS)
CENTERS = np.random.default_rng(2).normal(size=(24, 5)).astype(np.float32)
CENTERS[LABELS[batch.WEIGHTS > 0]] = batch.CENTERS[
  batch.LABELS[batch.WEIGHTS > 0]
]
FRACTION = 0.5


def arc(cosines, norms):
  return margins.arcface(cosines, margin=0.5)


def over_shards(loss, embeddings, centers, labels, weights, devices, **given):
  """Global loss and gradients of a loss over sharded centres.

  The gradients are taken from the devices as they are: nothing is summed.

  Args:
    loss: as losses.partial_fc.
    embeddings: [B, D], B divisible by the number of devices.
    centers: [C, D], C divisible by it.
    labels: [B].
    weights: [B].
    devices: list of jax.Device.
    **given: passed to the loss.

  Returns:
    (loss, (gradient by the embeddings, gradient by the centres)).
  """
  rows, whole = jax.sharding.PartitionSpec(AXIS), jax.sharding.PartitionSpec()

  def step(embeddings, centers, labels, weights):
    def total(embeddings, centers):
      values, used = loss(
        embeddings, centers, labels, weights, axis_name=AXIS, **given
      )
      weight = lax.psum(lax.stop_gradient(jnp.sum(used)), AXIS)
      return jnp.sum(values * used) / jnp.maximum(weight, 1.0)

    value, grads = jax.value_and_grad(total, (0, 1))(embeddings, centers)
    return lax.psum(value, AXIS), grads

  mapped = parallel.pmap(
    step,
    parallel.make_mesh(devices),
    in_specs=(rows, rows, rows, rows),
    out_specs=(whole, rows),
  )
  return mapped(embeddings, centers, labels, weights)


def priorities(key, num_classes):
  """The random number of each class, uint32 [C]."""
  fold = lambda number: jax.random.key_data(jax.random.fold_in(key, number))
  return np.asarray(jax.vmap(fold)(jnp.arange(num_classes)))[:, 0]


@functools.cache
def _answer():
  classes = reference.sample(
    priorities(KEY, NUM_CLASSES), LABELS, batch.WEIGHTS, 11
  )
  psi = lambda c, length, row: reference.arcface(c)

  def total(embeddings, centers):
    values = reference.losses(
      embeddings, centers, LABELS, batch.WEIGHTS, psi, batch.SCALE, classes
    )
    return reference.mean(values, batch.WEIGHTS)

  return (
    total(batch.EMBEDDINGS, CENTERS),
    numeric.gradient(lambda x: total(x, CENTERS), batch.EMBEDDINGS),
    numeric.gradient(lambda w: total(batch.EMBEDDINGS, w), CENTERS),
  )


def check_partial_fc(loss):
  """Loss and both gradients on two devices, with a sample and padding."""
  value, gradients = over_shards(
    loss,
    batch.dirty(),
    CENTERS,
    LABELS,
    batch.WEIGHTS,
    jax.devices("cpu")[:2],
    target=arc,
    num_classes=NUM_CLASSES,
    scale=batch.SCALE,
    sample_fraction=FRACTION,
    key=KEY,
  )
  expected, by_embeddings, by_centers = _answer()
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  numeric.assert_gradients_close(gradients[0], by_embeddings)
  numeric.assert_gradients_close(gradients[1], by_centers)


def _unit(x):
  return x / jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True) + 1e-12)


def sharded(flaw=None):
  """Partial FC over whole [B, C / n] shards, with one flaw or none."""

  def loss(
    x,
    w,
    labels,
    weights,
    *,
    target,
    num_classes,
    axis_name,
    scale,
    sample_fraction,
    key,
  ):
    gather = lambda own: lax.all_gather(own, axis_name, tiled=True)
    x = jnp.where(weights[:, None] > 0, x, 0.0)
    device, shard = lax.axis_index(axis_name), len(w)
    classes = jnp.arange(shard)
    if flaw != "every shard counts from 0":
      classes += device * shard
    ids = gather(jnp.where(weights > 0, labels, -1))
    own = ids[:, None] == classes[None, :]
    if flaw == "a key to each device":
      key = jax.random.fold_in(key, device)
    if flaw == "no fold by class":
      order = jax.random.uniform(key, (shard,))
    else:
      fold = lambda c: jax.random.key_data(jax.random.fold_in(key, c))[0]
      order = jax.vmap(fold)(classes).astype(jnp.float32)
    if flaw != "the batch's classes left to chance":
      order = jnp.where(jnp.any(own, axis=0), -1.0, order)
    if flaw != "padding among the classes":
      order = jnp.where(classes < num_classes, order, jnp.inf)
    wanted = round(sample_fraction * num_classes)
    if flaw == "a quota to each shard":
      last = jnp.sort(order)[wanted // 2 - 1]
    else:
      last = jnp.sort(gather(order))[wanted - 1]
    used = (order <= last)[None, :] | (flaw == "no sample")
    cosines = gather(_unit(x)) @ _unit(w).T
    sums = lambda terms: lax.psum(jnp.sum(terms, axis=1), axis_name)
    psi = target(sums(jnp.where(own, cosines, 0.0)), None)
    psi = cosines if flaw == "no margin" else psi[:, None]
    logits = scale * jnp.where(own, psi, cosines)
    totals = jnp.sum(jnp.where(used, jnp.exp(logits), 0.0), axis=1)
    if flaw != "softmax of each shard":
      totals = lax.psum(totals, axis_name)
    values = jnp.log(totals) - sums(jnp.where(own, logits, 0.0))
    values = jnp.where(gather(weights) > 0, values, 0.0)
    if flaw == "losses of the first rows":
      return values[: len(x)], weights
    first = device * len(x)
    return lax.dynamic_slice_in_dim(values, first, len(x)), weights

  return loss


VARIANTS = {
  "losses.partial_fc": Variants(
    losses.partial_fc,
    check_partial_fc,
    {
      flaw: sharded(flaw)
      for flaw in (
        "every shard counts from 0",
        "a key to each device",
        "no fold by class",
        "the batch's classes left to chance",
        "padding among the classes",
        "a quota to each shard",
        "no sample",
        "no margin",
        "softmax of each shard",
        "losses of the first rows",
      )
    },
  )
}
