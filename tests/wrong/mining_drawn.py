"""Mistakes of distance-weighted mining, and the test that notices them."""

import jax
import jax.numpy as jnp
import numpy as np
from mining_batches import COLUMN_IDS, ROWS, make_batch, sphere_distances
from mining_mistakes import all_weighted, labels, shared
from reference import mining as reference
from scipy import stats
from variants import Variants

from facesiam_jax import mining

_DRAWS = 1500
_DRAWN = {"dimension": 5, "cutoff": 0.6, "max_distance": 1.35}


def check_distance_weighted(function):
  batch = make_batch(3, values=sphere_distances)
  call = lambda key: function(
    batch.distances,
    batch.anchor_ids,
    batch.column_ids,
    **batch.labels(),
    **_DRAWN,
    key=key,
    max_positives=2,
  )
  mined = jax.jit(jax.vmap(call))(jax.random.split(jax.random.key(5), _DRAWS))
  weights, negatives = np.asarray(mined.weights), np.asarray(mined.negatives)
  for a in range(len(ROWS)):
    positives, others = reference.kinds(batch, a)
    for slot in range(2):
      exists = slot < len(positives) and bool(others)
      np.testing.assert_array_equal(weights[:, a, slot], float(exists))
      if not exists:
        continue
      np.testing.assert_array_equal(
        mined.positives[:, a, slot], positives[slot]
      )
      expected = reference.draw_probabilities(batch, a, **_DRAWN)
      counts = np.bincount(negatives[:, a, slot], minlength=len(expected))
      assert not counts[expected == 0].any(), "drew what must not be drawn"
      likely = expected > 0
      chance = stats.chisquare(counts[likely], _DRAWS * expected[likely]).pvalue
      assert chance > 1e-4, (a, slot, counts, _DRAWS * expected)
  _assert_independent(weights, negatives)


def _assert_independent(weights, negatives):
  """No two draws of one call always agree: each has its own random number."""
  flat = negatives.reshape(_DRAWS, -1)
  live = np.flatnonzero(weights[0].reshape(-1))
  for i in live:
    for j in live[live > i]:
      table = np.zeros((len(COLUMN_IDS),) * 2)
      np.add.at(table, (flat[:, i], flat[:, j]), 1)
      table = table[table.any(axis=1)][:, table.any(axis=0)]
      if min(table.shape) > 1:
        chance = stats.chi2_contingency(table).pvalue
        assert chance > 1e-5, f"draws {i} and {j} depend on each other"


def naive_draw(
  *, inverse=1.0, power=2.0, second=3.0, cut=True, limit=True, keys="each"
):
  """Distance-weighted mining by `jax.random.categorical`, with mistakes.

  Without an argument it is right, if wasteful: [b, M, B] numbers.
  """

  def function(
    x, anchor_ids, column_ids, *, key, max_positives, dimension, cutoff,
    max_distance, **labels,
  ):  # fmt: skip
    masks = mining.all_triplets(anchor_ids, column_ids, **labels)
    d = jnp.maximum(x, cutoff) if cut else jnp.asarray(x)
    near = masks.negatives & (x < (max_distance if limit else 1.9))
    d = jnp.where(near, d, 1.0)
    log_q = (dimension - power) * jnp.log(d)
    log_q += (dimension - second) / 2 * jnp.log(1 - d * d / 4)
    logits = jnp.where(near, -inverse * log_q, -jnp.inf)
    uniform = jnp.where(masks.negatives, 0.0, -jnp.inf)
    logits = jnp.where(near.any(1, keepdims=True), logits, uniform)
    shape = (len(anchor_ids), max_positives, len(column_ids))
    noise = jax.random.gumbel(key, (np.prod(shape),)).reshape(shape)
    if keys == "one an anchor":
      noise = jnp.broadcast_to(noise[:, :1], shape)
    if keys == "one a call":
      noise = jnp.broadcast_to(noise[:1], shape)
    negatives = jnp.argmax(logits[:, None, :] + noise, axis=-1)
    order = jnp.argsort(~masks.positives, axis=1)[:, :max_positives]
    exists = jnp.take_along_axis(masks.positives, order, axis=1)
    exists &= masks.negatives.any(1, keepdims=True)
    return mining.Triplets(order, negatives, exists.astype(jnp.float32))

  return function


def _no_fallback(x, *args, **options):
  """An anchor without a near negative is left out."""
  mined = mining.distance_weighted(x, *args, **options)
  masks = mining.all_triplets(*args, **labels(options))
  near = (masks.negatives & (x < options["max_distance"])).any(1)
  return mined._replace(weights=mined.weights * near[:, None])


_DRAW = mining.distance_weighted

VARIANTS = {
  "mining.distance_weighted": Variants(
    _DRAW,
    check_distance_weighted,
    {
      **shared(_DRAW),
      "in proportion to the density": naive_draw(inverse=-1.0),
      "even draw": naive_draw(inverse=0.0),
      "power n - 1": naive_draw(power=1.0),
      "second factor squared": naive_draw(second=1.0),
      "no cutoff": naive_draw(cut=False),
      "no largest distance": naive_draw(limit=False),
      "one number for all anchors": naive_draw(keys="one a call"),
      "one number for all positives": naive_draw(keys="one an anchor"),
      "squared distances": lambda x, *a, **k: _DRAW(x * x, *a, **k),
      "no fallback": _no_fallback,
      "weight without a triplet": all_weighted(_DRAW),
    },
  ),
}
