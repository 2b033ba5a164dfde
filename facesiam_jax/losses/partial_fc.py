"""Partial FC: a margin softmax whose class centres are spread over devices.

Each device holds its own shard of the centres and computes the logits of the
whole batch against those; maxima and sums of exponentials go over the mesh.
No device ever holds all centres or a [B, C] array. With a sample, each step
takes the classes of its batch and some of the others.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax import ops
from facesiam_jax.losses import _checks, softmax


class _Columns(NamedTuple):
  """The classes whose logits this device computes.

  Attributes:
    centers: float32 [N, D] or [N, K, D].
    classes: number of each class, int32 [N].
    used: False for a column that holds no class, bool [N].
    fits: whether every sampled class of all shards found a column, bool.
  """

  centers: jax.Array
  classes: jax.Array
  used: jax.Array
  fits: jax.Array


def sample_size(fraction: float, num_classes: int, batch: int) -> int:
  """Returns how many classes a step uses: never fewer than a batch may hold.

  Args:
    fraction: share of the classes, in (0, 1].
    num_classes: C.
    batch: B, rows of the global batch.

  Returns:
    max(round(fraction C), min(B, C)).

  Example:
    >>> sample_size(0.1, 1000, 32), sample_size(0.01, 1000, 32)
    (100, 32)
  """
  return max(round(fraction * num_classes), min(batch, num_classes))


def shard_columns(
  num_sampled: int, num_classes: int, shard: int, batch: int
) -> int:
  """Returns how many columns a shard keeps for its share of the sample.

  The share of one shard is random: about num_sampled shard / num_classes, plus
  the classes of the batch, which may all lie in one shard. The slack is taken
  from Bernstein's inequality such that a shard overflows with a probability
  below e^-40 = 4e-18 a step.

  Args:
    num_sampled: classes in the sample.
    num_classes: C.
    shard: centres that one device holds.
    batch: B, rows of the global batch.

  Returns:
    The number of columns, at most shard and num_sampled.

  Example:
    >>> shard_columns(200_000, 2_000_000, 250_000, 1024)
    27452
  """
  mean = num_sampled * shard / num_classes
  third = 40.0 / 3.0
  slack = third + math.sqrt(third**2 + 80.0 * mean)
  return min(shard, num_sampled, math.ceil(mean + slack) + batch)


def _threshold(
  priorities: jax.Array, candidates: jax.Array, rank: jax.Array, axis_name: str
) -> jax.Array:
  """The priority of that rank (from 1) among the candidates of all shards."""

  def try_bit(step: jax.Array, found: jax.Array) -> jax.Array:
    trial = found | (jnp.uint32(1) << (31 - step).astype(jnp.uint32))
    below = lax.psum(jnp.sum(candidates & (priorities < trial)), axis_name)
    return jnp.where(below < rank, trial, found)

  return lax.fori_loop(0, 32, try_bit, jnp.uint32(0))


def class_priorities(key: jax.Array, classes: jax.Array) -> jax.Array:
  """Returns a random number for each class, uint32, from (key, class) alone."""
  # The folded key's own bits: drawing with it would be a second hash.
  fold = lambda number: jax.random.key_data(jax.random.fold_in(key, number))
  return jax.vmap(fold)(classes)[..., 0]


def sample_classes(
  key: jax.Array,
  positives: jax.Array,
  classes: jax.Array,
  *,
  num_classes: int,
  num_sampled: int,
  axis_name: str,
) -> jax.Array:
  """Draws the classes of a step, each device those of its own shard.

  All positives, and of the others those with the smallest priorities, a
  random number from (key, class): num_sampled in all. So the sample does not
  depend on how many devices share the classes. Only counts go over the mesh.
  Batch meaning: inside a mapped function; the result is this shard's part.

  Args:
    key: the same on all devices, folded with the step.
    positives: which classes of this shard the global batch has, bool [N].
    classes: number of each class of this shard, int32 [N], ascending over the
      shards; those >= num_classes are no classes and never drawn.
    num_classes: C.
    num_sampled: at least the number of positives, at most C.
    axis_name: mesh axis over which the classes are split.

  Returns:
    Which classes of this shard are in the sample, bool [N].
  """
  priorities = class_priorities(key, classes)
  candidates = ~positives & (classes < num_classes)
  rank = num_sampled - lax.psum(jnp.sum(positives), axis_name)
  threshold = _threshold(priorities, candidates, rank, axis_name)
  below = candidates & (priorities < threshold)
  # Of equal priorities the lower class numbers are taken: those of the shards
  # before this one first.
  ties = candidates & (priorities == threshold)
  room = rank - lax.psum(jnp.sum(below), axis_name)
  counts = lax.all_gather(jnp.sum(ties), axis_name)
  before = jnp.arange(len(counts)) < lax.axis_index(axis_name)
  places = jnp.sum(jnp.where(before, counts, 0)) + jnp.cumsum(ties)
  return positives | below | (ties & (places <= room))


def _sampled_columns(
  columns: _Columns,
  labels: jax.Array,
  key: jax.Array,
  num_sampled: int,
  num_classes: int,
  axis_name: str,
) -> _Columns:
  """Keeps the columns of a sample; labels are the global batch's, -1 = none."""
  shard = len(columns.classes)
  local = labels - columns.classes[0]
  # An index of -1 would wrap around; one too large is dropped.
  local = jnp.where((local >= 0) & (local < shard), local, shard)
  positives = jnp.zeros(shard, bool).at[local].set(True, mode="drop")
  sampled = sample_classes(
    key,
    positives & columns.used,
    columns.classes,
    num_classes=num_classes,
    num_sampled=num_sampled,
    axis_name=axis_name,
  )
  width = shard_columns(num_sampled, num_classes, shard, len(labels))
  kept = jnp.nonzero(sampled, size=width, fill_value=shard)[0]
  used = kept < shard
  kept = jnp.minimum(kept, shard - 1)
  overflows = lax.psum(jnp.sum(sampled) > width, axis_name)
  return _Columns(
    columns.centers[kept], columns.classes[kept], used, overflows == 0
  )


def _columns(
  centers: ArrayLike,
  labels: jax.Array,
  key: jax.Array | None,
  sample_fraction: float,
  num_classes: int,
  axis_name: str,
) -> _Columns:
  """The columns of this device; labels are the global batch's, -1 = none."""
  centers = jnp.asarray(centers)
  shard = centers.shape[0]
  classes = lax.axis_index(axis_name) * shard + jnp.arange(shard)
  columns = _Columns(centers, classes, classes < num_classes, jnp.bool_(True))
  num_sampled = sample_size(sample_fraction, num_classes, len(labels))
  if key is None or num_sampled == num_classes:
    return columns
  return _sampled_columns(
    columns, labels, key, num_sampled, num_classes, axis_name
  )


def _check(
  centers: ArrayLike,
  num_classes: int,
  sample_fraction: float,
  key: jax.Array | None,
  num_devices: int,
) -> None:
  shard = jnp.shape(centers)[0]
  if not 0 < num_classes <= shard * num_devices:
    raise ValueError(
      f"num_classes must be in [1, {shard * num_devices}], the centres of "
      f"{num_devices} shards of shape {jnp.shape(centers)}, got {num_classes}."
    )
  if not 0 < sample_fraction <= 1:
    raise ValueError(
      f"sample_fraction must be in (0, 1], got {sample_fraction}."
    )
  if sample_fraction < 1 and key is None:
    raise ValueError("a sample_fraction below 1 needs a key, got None.")


def partial_fc(
  embeddings: ArrayLike,
  centers: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  target: softmax.Target,
  num_classes: int,
  axis_name: str,
  scale: float | None = 64.0,
  sample_fraction: float = 1.0,
  key: jax.Array | None = None,
  largest_negative: float | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes a margin softmax over class centres sharded across devices.

  The loss of `softmax.margin_cross_entropy`, for ONE device inside a function
  mapped by `parallel.pmap`. Class c lives in row c % N of shard c // N.

  Gradients (check_vma=False): each device returns the losses of its own rows
  only, so with total = sum(v w) / max(psum(stop_gradient(sum(w))), 1),
    jax.grad(total) by the own embeddings is complete, pass it on as it is;
    jax.grad(total) by the own shard of centres is complete: no psum, no
    pmean, each device updates its own shard with it;
    jax.grad(total) by replicated parameters (an encoder's) is the part of the
    own rows: psum it (not pmean), as for any other loss;
    total itself is this device's part: psum it.
  Batch meaning: the rows of the *global* batch against all classes, or with a
  sample against those of the batch and others drawn at random.

  Args:
    embeddings: this device's rows, float [b, D], any length.
    centers: this device's shard of the centres, float [N, D], any length, or
      [N, K, D] with K centres to a class, of which the nearest counts.
    labels: class of each own row, integers [b] in [0, num_classes).
    weights: weight of each own row, 0 = padding, float [b]; None means ones.
    target: (cosines to the own class [b], norms of the own embeddings [b]) ->
      psi [b], such as lambda c, n: margins.arcface(c, margin=0.5).
    num_classes: C; rows of the last shards beyond it are padding.
    axis_name: mesh axis over which rows and centres are split.
    scale: s, > 0; None takes each embedding's own norm.
    sample_fraction: share of the classes in a step, in (0, 1]; never fewer
      than min(global batch, C) classes. The others get a gradient of 0.
    key: of this step and purpose, the same on all devices.
    largest_negative: cosines of other classes above it are taken for label
      noise and count as 0, without gradient; None keeps all.

  Returns:
    (values, weights): losses in nats of the own rows, float32 [b], >= 0, and
    the weights, float32 [b].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, the shards
      do not hold num_classes, a sample has no key, or scale or
      sample_fraction is out of range.

  Degenerate input: a row of weight 0 has value 0 and no gradient, and its
  label is not in the sample. A label that is no class gives NaN, and so does
  a shard whose share of the sample overflows (see `shard_columns`).
  Example:
    >>> halves = jnp.eye(4).reshape(2, 2, 4)
    >>> loss = lambda x, w, y: partial_fc(
    ...   x, w, y, target=lambda c, n: c, num_classes=4, axis_name="data",
    ...   scale=1.0
    ... )
    >>> labels = jnp.arange(4).reshape(2, 2)
    >>> values, _ = jax.vmap(loss, axis_name="data")(halves, halves, labels)
    >>> round(float(values[0, 0]), 4)
    0.7437

  References: An et al. 2022, Killing Two Birds with One Stone (Partial FC).
  """
  if scale is not None:
    _checks.above("scale", scale, 0)
  softmax.check_centers("centers", centers, embeddings)
  num_devices = lax.axis_size(axis_name)
  _check(centers, num_classes, sample_fraction, key, num_devices)
  embeddings, labels, weights = softmax.prepare(
    "embeddings", embeddings, labels, weights, num_classes
  )
  gather = lambda own_rows: lax.all_gather(own_rows, axis_name, tiled=True)
  scatter = lambda terms: lax.psum_scatter(terms, axis_name, tiled=True)
  all_labels = gather(jnp.where(weights > 0, labels, -1))
  columns = _columns(
    centers, all_labels, key, sample_fraction, num_classes, axis_name
  )
  units, norms = ops.l2_normalize(embeddings), softmax.row_norms(embeddings)
  cosines = softmax.class_cosines(gather(units), columns.centers)
  used = columns.used[None, :]
  own = (all_labels[:, None] == columns.classes[None, :]) & used
  psi = target(scatter(jnp.sum(jnp.where(own, cosines, 0.0), axis=-1)), norms)
  if largest_negative is not None:
    cosines = jnp.where(cosines > largest_negative, 0.0, cosines)
  factors = norms if scale is None else jnp.full_like(norms, scale)
  peaks, totals = softmax.peak_and_total(
    gather(factors)[:, None] * cosines, used & ~own, axis_name
  )
  first = lax.axis_index(axis_name) * len(labels)
  peaks = lax.dynamic_slice_in_dim(peaks, first, len(labels))
  values = softmax.cross_entropy(factors * psi, peaks, scatter(totals))
  values = values * jnp.where(columns.fits, 1.0, jnp.nan)
  return softmax.finish(values, labels, weights, num_classes), weights
