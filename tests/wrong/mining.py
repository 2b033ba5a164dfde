"""Mistakes of miners that their tests must notice, and those tests."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from reference import mining as reference
from scipy import stats
from variants import Variants

from facesiam_jax import mining, ops

# Person 4 has one image; rows are in no order; the last anchor is no column.
_COLUMN_IDS = np.array([2, 1, 2, 3, 1, 2, 4, 3, 3, 2, 1, 3, 2], np.int32)
_ROWS = np.array([5, 0, 10, 6, 3, 12, 8, -1], np.int32)
_PADDING = (4, 8, 9)
_MARGIN = 2.5


class Batch(NamedTuple):
  """What a miner is called with, as the reference loops read it."""

  distances: np.ndarray
  anchor_ids: np.ndarray
  column_ids: np.ndarray
  anchor_rows: np.ndarray
  column_weights: np.ndarray

  def labels(self):
    return {
      "anchor_rows": self.anchor_rows,
      "column_weights": self.column_weights,
    }


def make_batch(seed, *, values=None):
  """A batch with padding of NaN; `values` draws distances [b, B]."""
  rng = np.random.default_rng(seed)
  shape = (len(_ROWS), len(_COLUMN_IDS))
  # Few distinct values, so that ties occur and windows are empty and full.
  if values is None:
    distances = rng.integers(0, 12, shape).astype(np.float32)
  else:
    distances = values(rng, shape).astype(np.float32)
  ids = np.where(_ROWS >= 0, _COLUMN_IDS[_ROWS], 3).astype(np.int32)
  weights = np.ones(shape[1], np.float32)
  weights[list(_PADDING)] = 0
  distances[:, list(_PADDING)] = np.nan
  return Batch(distances, ids, _COLUMN_IDS, _ROWS, weights)


def run(function, batch, **options):
  """Calls a miner as a user does, under jit."""
  call = jax.jit(partial(function, **options))
  return call(
    batch.distances, batch.anchor_ids, batch.column_ids, **batch.labels()
  )


def assert_triplets(mined, expected):
  """Weights everywhere; indices where there is such a triplet at all.

  An index of a triplet of weight 0 is compared too, except where the
  reference says -1: an anchor may have a positive and no negative.
  """
  stated = expected[..., 0] >= 0
  np.testing.assert_array_equal(mined.weights, expected[..., 2])
  for name, column in (("positives", 0), ("negatives", 1)):
    found = np.where(stated, np.asarray(getattr(mined, name)), -1)
    np.testing.assert_array_equal(found, expected[..., column], err_msg=name)


def check_batch_hard(function):
  for seed in range(8):
    batch = make_batch(seed)
    assert_triplets(run(function, batch), reference.batch_hard(batch))


def check_semi_hard(function):
  calls = {}
  for positive, most in (
    ("every", 3),
    ("every", 2),
    ("hardest", None),
    ("easiest", None),
  ):
    for fallback in ("farthest", "none"):
      options = {"positive": positive, "max_positives": most}
      options |= {"fallback": fallback, "margin": _MARGIN}
      call = jax.jit(partial(function, **options))
      calls[positive, most, fallback] = call
  for seed in range(8):
    batch = make_batch(seed)
    args = (batch.distances, batch.anchor_ids, batch.column_ids)
    for (positive, most, fallback), call in calls.items():
      mined = call(*args, **batch.labels())
      expected = reference.semi_hard(
        batch, _MARGIN, positive, most or 1, fallback
      )
      if most is None:
        expected = expected[:, 0]
      assert_triplets(mined, expected)


def check_batch_easy_positive(function):
  for negative, fallback in (
    ("hard", "farthest"),
    ("semi_hard", "farthest"),
    ("semi_hard", "none"),
  ):
    options = {"negative": negative, "fallback": fallback, "margin": _MARGIN}
    call = jax.jit(partial(function, **options))
    for seed in range(8):
      batch = make_batch(seed)
      mined = call(
        batch.distances, batch.anchor_ids, batch.column_ids, **batch.labels()
      )
      expected = reference.batch_easy_positive(
        batch, negative, _MARGIN, fallback
      )
      paired = np.array(
        [all(reference.kinds(batch, a)) for a in range(len(_ROWS))]
      )
      expected[~paired, :2] = -1
      assert_triplets(mined, expected)


def check_all_triplets(function):
  batch = make_batch(0)
  marked = jax.jit(function)(
    batch.anchor_ids, batch.column_ids, **batch.labels()
  )
  positives, negatives = reference.all_triplets(batch)
  np.testing.assert_array_equal(marked.positives, positives)
  np.testing.assert_array_equal(marked.negatives, negatives)


def check_multi_similarity(function):
  for seed in range(8):
    batch = make_batch(seed, values=lambda rng, s: rng.uniform(-1, 1, s))
    kept = run(function, batch, epsilon=0.3)
    positives, negatives = reference.multi_similarity(batch, 0.3)
    np.testing.assert_array_equal(kept.positives, positives)
    np.testing.assert_array_equal(kept.negatives, negatives)


def sphere_distances(rng, shape):
  """Distances of unit vectors, some below the cutoff, some beyond it all."""
  distances = rng.uniform(0.2, 1.7, shape)
  distances[0] = np.maximum(distances[0], 1.5)  # none near enough
  return distances


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
  for a in range(len(_ROWS)):
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
      table = np.zeros((len(_COLUMN_IDS),) * 2)
      np.add.at(table, (flat[:, i], flat[:, j]), 1)
      table = table[table.any(axis=1)][:, table.any(axis=0)]
      if min(table.shape) > 1:
        chance = stats.chi2_contingency(table).pvalue
        assert chance > 1e-5, f"draws {i} and {j} depend on each other"


def _soft(p, n):
  """Neither symmetric nor linear, and different at (1, 1) from 0."""
  return jnp.log1p(jnp.exp(0.5 * (p - 0.7 * n)))


def _soft_reference(p, n):
  return np.log(1.0 + np.exp(0.5 * (p - 0.7 * n)))


def check_sum_over_triplets(function):
  for most in (3, 2):
    call = jax.jit(partial(function, _soft, max_positives=most))
    for seed in range(3):
      batch = make_batch(seed)
      sums, counts = call(
        batch.distances, batch.anchor_ids, batch.column_ids, **batch.labels()
      )
      expected = reference.sum_over_triplets(_soft_reference, batch, most)
      np.testing.assert_allclose(sums, expected[0], rtol=1e-5)
      np.testing.assert_array_equal(counts, expected[1])


def make_embeddings(seed, batch):
  """(anchors [b, 3], columns [B, 3]) of small integers; padding is NaN."""
  rng = np.random.default_rng(seed)
  columns = rng.integers(-4, 5, (len(batch.column_ids), 3)).astype(np.float32)
  columns[batch.column_weights == 0] = np.nan
  anchors = columns[batch.anchor_rows]
  anchors[batch.anchor_rows < 0] = rng.integers(-4, 5, 3)
  return anchors, columns


def _mine_and_sum(matrix, anchor_ids, column_ids, **labels):
  """Indices and a loss at once, and what they were found among."""
  mined = mining.batch_hard(matrix, anchor_ids, column_ids, **labels)
  sums, counts = mining.sum_over_triplets(
    _soft, matrix, anchor_ids, column_ids, max_positives=3, **labels
  )
  return mined, sums, counts


def check_by_blocks(function):
  batch = make_batch(0)
  for seed, block_rows in ((0, 3), (1, 1), (2, 8), (3, 100)):
    anchors, columns = make_embeddings(seed, batch)
    distances = np.array(
      [[reference.distance(x, y) ** 2 for y in columns] for x in anchors]
    )
    call = partial(
      function, _mine_and_sum, **batch.labels(), block_rows=block_rows
    )
    mined, sums, counts = jax.jit(call)(
      anchors, batch.anchor_ids, columns, batch.column_ids
    )
    seen = batch._replace(distances=distances)
    assert_triplets(mined, reference.batch_hard(seen))
    expected = reference.sum_over_triplets(_soft_reference, seen, 3)
    np.testing.assert_allclose(sums, expected[0], rtol=1e-5)
    np.testing.assert_array_equal(counts, expected[1])


# How to get a wrong implementation from a right one.


def _negated(function):
  return lambda x, *args, **options: function(-x, *args, **options)


def _without_padding(function):
  def wrong(*args, column_weights=None, **options):
    return function(*args, **options)

  return wrong


def _self_kept(function):
  """The anchor is among its own positives."""

  def wrong(*args, anchor_rows, **options):
    nobody = jnp.full(np.shape(anchor_rows), -1)
    return function(*args, anchor_rows=nobody, **options)

  return wrong


def _own_padding_kept(function):
  """An anchor counts even where its own column is padding."""

  def wrong(*args, anchor_rows, column_weights, **options):
    rows = jnp.asarray(anchor_rows)
    padded = jnp.asarray(column_weights)[jnp.maximum(rows, 0)] == 0
    return function(
      *args,
      anchor_rows=jnp.where(padded, -1, rows),
      column_weights=column_weights,
      **options,
    )

  return wrong


def _local_rows(function):
  """Anchors numbered on their device instead of in the global batch."""

  def wrong(*args, anchor_rows, **options):
    rows = jnp.arange(len(anchor_rows))
    return function(*args, anchor_rows=rows, **options)

  return wrong


def _swapped(function):
  """Positives and negatives exchanged."""

  def wrong(*args, **options):
    result = function(*args, **options)
    return result._replace(
      positives=result.negatives, negatives=result.positives
    )

  return wrong


def _last_of_ties(function):
  """The columns from the far end: ties go to the highest index."""

  def wrong(x, anchor_ids, column_ids, *, anchor_rows, **options):
    last = len(column_ids) - 1
    rows = jnp.where(anchor_rows < 0, -1, last - jnp.asarray(anchor_rows))
    if "column_weights" in options:
      options["column_weights"] = options["column_weights"][::-1]
    result = function(
      x[:, ::-1], anchor_ids, column_ids[::-1], anchor_rows=rows, **options
    )
    return result._replace(
      positives=jnp.where(result.weights > 0, last - result.positives, 0),
      negatives=jnp.where(result.weights > 0, last - result.negatives, 0),
    )

  return wrong


def _with(function, **forced):
  """An option is not listened to."""
  return lambda *args, **options: function(*args, **(options | forced))


def _scaled(function, name, change):
  """An option is put through `change` first."""

  def wrong(*args, **options):
    options[name] = change(options[name])
    return function(*args, **options)

  return wrong


def _all_weighted(function):
  """Weight 1 where there is no triplet."""

  def wrong(*args, **options):
    result = function(*args, **options)
    return result._replace(weights=jnp.ones_like(result.weights))

  return wrong


def _labels(options):
  return {name: options[name] for name in ("anchor_rows", "column_weights")}


_SHARED = {
  "padding is mined": _without_padding,
  "anchor of padding counts": _own_padding_kept,
  "self not excluded": _self_kept,
  "local rows for global ones": _local_rows,
}


def _shared(function):
  return {name: wrong(function) for name, wrong in _SHARED.items()}


def _one_of(end, part):
  """Batch-hard with the other end of one part."""

  def wrong(x, *args, **options):
    right = mining.batch_hard(x, *args, **options)
    other = mining.batch_hard(end * x, *args, **options)
    return right._replace(**{part: getattr(other, part)})

  return wrong


def _ties_are_farther(x, *args, **options):
  """D+ <= D- instead of D+ < D-."""
  masks = mining.all_triplets(*args, **_labels(options))
  nudged = x + jnp.where(masks.negatives, 1e-3, 0.0)
  return mining.semi_hard(nudged, *args, **options)


def _extreme_negative(end):
  """The farthest (-1) or nearest (1) of all negatives."""

  def wrong(x, *args, **options):
    right = mining.semi_hard(x, *args, **options)
    masks = mining.all_triplets(*args, **_labels(options))
    best = jnp.argmin(jnp.where(masks.negatives, end * x, jnp.inf), axis=1)
    if right.negatives.ndim == 2:
      best = jnp.broadcast_to(best[:, None], right.negatives.shape)
    return right._replace(negatives=best)

  return wrong


def _hardest_positive(*args, negative, **options):
  if negative == "hard":
    return mining.batch_hard(*args, **_labels(options))
  return mining.semi_hard(*args, positive="hardest", **options)


def _other_negative(*args, negative, **options):
  other = "semi_hard" if negative == "hard" else "hard"
  return mining.batch_easy_positive(*args, negative=other, **options)


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
  masks = mining.all_triplets(*args, **_labels(options))
  near = (masks.negatives & (x < options["max_distance"])).any(1)
  return mined._replace(weights=mined.weights * near[:, None])


def _over_triplets(*, mean=False, unmasked=False, active=False):
  """The sum over triplets by a [b, B, B] array, with mistakes."""

  def function(f, x, anchor_ids, column_ids, *, max_positives, **labels):
    masks = mining.all_triplets(anchor_ids, column_ids, **labels)
    first = jnp.cumsum(masks.positives, axis=1) <= max_positives
    p = (masks.positives & first)[:, :, None]
    triplet = p & masks.negatives[:, None, :]
    shape = triplet.shape
    both = [
      jnp.where(triplet, jnp.broadcast_to(y, shape), 1.0)
      for y in (x[:, :, None], x[:, None, :])
    ]
    values = f(*both)
    counts = triplet.sum((1, 2)).astype(jnp.float32)
    if active:
      counts = (triplet & (both[0] > both[1])).sum((1, 2)).astype(jnp.float32)
    sums = jnp.where(triplet | unmasked, values, 0.0).sum((1, 2))
    return sums / jnp.maximum(counts, 1) if mean else sums, counts

  return function


def _roles_swapped(f, *args, **options):
  return mining.sum_over_triplets(lambda p, n: f(n, p), *args, **options)


def _in_blocks_of_columns(function, x, ids, columns, column_ids, **options):
  """Each block of anchors sees only as many columns as it has rows."""
  size = options["block_rows"]

  def cut(matrix, *args, column_weights, **labels):
    seen = jnp.where(jnp.arange(matrix.shape[1]) < size, column_weights, 0.0)
    return function(matrix, *args, column_weights=seen, **labels)

  return mining.by_blocks(cut, x, ids, columns, column_ids, **options)


def _plain_distance(x, y):
  return ops.safe_sqrt(ops.pairwise_squared_distance(x, y))


def _blocks_backwards(*args, **options):
  return jax.tree.map(lambda x: x[::-1], mining.by_blocks(*args, **options))


def _rows_of_the_block(function, *args, **options):
  """The function is told each anchor's place in its block."""
  wrong = _local_rows(function)
  return mining.by_blocks(wrong, *args, **options)


_HARD = mining.batch_hard
_SEMI = mining.semi_hard
_EASY = mining.batch_easy_positive
_DRAW = mining.distance_weighted
_SIMILAR = mining.multi_similarity
_BLOCKS = mining.by_blocks
_SUM = mining.sum_over_triplets

VARIANTS = {
  "mining.all_triplets": Variants(
    mining.all_triplets,
    check_all_triplets,
    {
      **_shared(mining.all_triplets),
      "roles swapped": _swapped(mining.all_triplets),
    },
  ),
  "mining.batch_hard": Variants(
    _HARD,
    check_batch_hard,
    {
      **_shared(_HARD),
      "nearest positive": _one_of(-1, "positives"),
      "farthest negative": _one_of(-1, "negatives"),
      "similarities for distances": _negated(_HARD),
      "roles swapped": _swapped(_HARD),
      "ties to the highest index": _last_of_ties(_HARD),
      "weight without a triplet": _all_weighted(_HARD),
    },
  ),
  "mining.semi_hard": Variants(
    _SEMI,
    check_semi_hard,
    {
      **_shared(_SEMI),
      "ties are farther": _ties_are_farther,
      "window below the positive": _negated(_SEMI),
      "farthest negative": _extreme_negative(-1),
      "hardest negative": _extreme_negative(1),
      "no margin": _scaled(_SEMI, "margin", lambda m: 1e6),
      "margin halved": _scaled(_SEMI, "margin", lambda m: m / 2),
      "fallback always": _with(_SEMI, fallback="farthest"),
      "fallback never": _with(_SEMI, fallback="none"),
      "weight without a triplet": _all_weighted(_SEMI),
    },
  ),
  "mining.batch_easy_positive": Variants(
    _EASY,
    check_batch_easy_positive,
    {
      **_shared(_EASY),
      "hardest positive": _hardest_positive,
      "other kind of negative": _other_negative,
      "similarities for distances": _negated(_EASY),
      "fallback always": _with(_EASY, fallback="farthest"),
      "no margin": _scaled(_EASY, "margin", lambda m: 1e6),
      "weight without a triplet": _all_weighted(_EASY),
    },
  ),
  "mining.distance_weighted": Variants(
    _DRAW,
    check_distance_weighted,
    {
      **_shared(_DRAW),
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
      "weight without a triplet": _all_weighted(_DRAW),
    },
  ),
  "mining.multi_similarity": Variants(
    _SIMILAR,
    check_multi_similarity,
    {
      **_shared(_SIMILAR),
      "distances for similarities": _negated(_SIMILAR),
      "roles swapped": _swapped(_SIMILAR),
      "no epsilon": _with(_SIMILAR, epsilon=0.0),
      "epsilon doubled": _scaled(_SIMILAR, "epsilon", lambda e: 2 * e),
      "all pairs": lambda x, *a, epsilon, **k: mining.all_triplets(*a, **k),
    },
  ),
  "mining.sum_over_triplets": Variants(
    _SUM,
    check_sum_over_triplets,
    {
      **_shared(_SUM),
      "positive and negative swapped": _roles_swapped,
      "mean for sum": _over_triplets(mean=True),
      "stand-ins are added": _over_triplets(unmasked=True),
      "active ones counted": _over_triplets(active=True),
      "one positive too many": _scaled(_SUM, "max_positives", lambda m: m + 1),
    },
  ),
  "mining.by_blocks": Variants(
    _BLOCKS,
    check_by_blocks,
    {
      **_shared(_BLOCKS),
      "blocks of columns": _in_blocks_of_columns,
      "plain for squared": _with(_BLOCKS, compare=_plain_distance),
      "products for distances": _with(_BLOCKS, compare=ops.pairwise_dot),
      "blocks backwards": _blocks_backwards,
      "rows of the block": _rows_of_the_block,
    },
  ),
}
