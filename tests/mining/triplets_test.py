"""Tests of batch-hard, semi-hard and batch-easy-positive mining.

Equality with the loops of reference/mining.py is in wrong/mining.py.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from mining_batches import make_batch, run

from facesiam_jax import losses, mining, ops

_KEY = jax.random.key(0)
MINERS = {
  "batch_hard": mining.batch_hard,
  "semi_hard": partial(mining.semi_hard, max_positives=3),
  "semi_hard_or_none": partial(
    mining.semi_hard, positive="hardest", fallback="none"
  ),
  "easy_positive": mining.batch_easy_positive,
  "easy_positive_hard": partial(mining.batch_easy_positive, negative="hard"),
  "distance_weighted": partial(
    mining.distance_weighted, key=_KEY, dimension=3, max_positives=3
  ),
}
_IDS = np.array([3, 1, 3, 1, 2, 3, 2, 2], np.int32)
_ROWS = np.arange(8, dtype=np.int32)


def _embeddings(seed=0, dtype=np.float32):
  return np.random.default_rng(seed).normal(size=(8, 3)).astype(dtype)


def _loss_terms(miner, own, rows, columns, ids, weights=None):
  """Triplet losses of an anchor's mined triplets, as a training step has it."""
  own, columns = ops.l2_normalize(own), ops.l2_normalize(columns)
  distances = ops.safe_sqrt(ops.pairwise_squared_distance(own, columns))
  mined = miner(
    distances, ids[rows], ids, anchor_rows=rows, column_weights=weights
  )
  own = jnp.repeat(own, mined.positives.size // len(rows), axis=0)
  chosen = lambda indices: columns[indices.reshape(-1)]
  return losses.triplet_margin(
    ops.euclidean_distance(own, chosen(mined.positives)),
    ops.euclidean_distance(own, chosen(mined.negatives)),
    mined.weights.reshape(-1),
    margin=0.5,
  )


@pytest.mark.parametrize(
  "name",
  ["batch_hard", "semi_hard", "easy_positive", "distance_weighted"],
)
def test_loss_and_gradient_do_not_depend_on_the_device_count(name, devices):
  loss = partial(_loss_terms, MINERS[name])
  results = [
    numeric.over_devices(
      loss, _embeddings(), jnp.asarray(_IDS), devices=devices[:count]
    )
    for count in (1, 2, 4, 8)
  ]
  assert float(results[0][0]) > 0.1
  for value, gradient in results[1:]:
    np.testing.assert_allclose(value, results[0][0], rtol=1e-6)
    numeric.assert_gradients_close(gradient, results[0][1], rtol=1e-5)


_DEGENERATE = {
  "one person": (np.zeros(8, np.int32), np.ones(8)),
  "no two of one person": (np.arange(8, dtype=np.int32), np.ones(8)),
  "all padding": (_IDS, np.zeros(8)),
  "one row counts": (_IDS, np.eye(8)[2]),
}


@pytest.mark.parametrize("case", sorted(_DEGENERATE))
@pytest.mark.parametrize("name", sorted(MINERS))
def test_without_a_triplet_nothing_counts(name, case):
  ids, weights = _DEGENERATE[case]
  x = _embeddings()
  x[weights == 0] = np.nan
  distances = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
  mined = run(MINERS[name], _Case(distances, ids, weights))
  np.testing.assert_array_equal(mined.weights, 0)
  for indices in mined[:2]:
    assert np.all((np.asarray(indices) >= 0) & (np.asarray(indices) < 8))
  np.testing.assert_array_equal(mined.negatives[weights == 0], 0)
  np.testing.assert_array_equal(mined.positives[weights == 0], 0)


class _Case:
  """A square batch, as `run` reads it."""

  def __init__(self, distances, ids, weights=None):
    self.distances = np.asarray(distances, np.float32)
    self.anchor_ids = self.column_ids = ids
    weights = np.ones(len(ids)) if weights is None else weights
    self._labels = {
      "anchor_rows": np.arange(len(ids), dtype=np.int32),
      "column_weights": np.asarray(weights, np.float32),
    }

  def labels(self):
    return self._labels


@pytest.mark.parametrize("name", sorted(MINERS))
def test_a_batch_of_one_row(name):
  options = {"max_positives": 1} if "max_positives" in _options(name) else {}
  miner = partial(MINERS[name], **options)
  mined = run(miner, _Case([[0.0]], np.array([5], np.int32)))
  np.testing.assert_array_equal(np.ravel(mined.weights), [0])
  np.testing.assert_array_equal(np.ravel(mined.negatives), [0])


def _options(name):
  return getattr(MINERS[name], "keywords", {})


@pytest.mark.parametrize("name", sorted(MINERS))
@pytest.mark.parametrize("batch", ["duplicates", "zeros", "normal"])
def test_gradient_is_finite_and_padding_has_none(name, batch):
  x = {"duplicates": np.ones((8, 3)), "zeros": np.zeros((8, 3))}.get(
    batch, _embeddings()
  )
  weights = np.array([1, 1, 1, 0, 1, 1, 1, 1], np.float32)
  kept = jnp.where(weights[:, None] > 0, jnp.asarray(x, jnp.float32), 0.0)
  mean = lambda x: numeric.mean(
    _loss_terms(MINERS[name], x, _ROWS, x, jnp.asarray(_IDS), weights)
  )
  value, gradient = jax.jit(jax.value_and_grad(mean))(kept)
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))
  np.testing.assert_array_equal(gradient[3], 0)
  if batch != "normal" and name not in ("semi_hard_or_none",):
    # All at one point: the loss is the margin, the collapse it is known for.
    np.testing.assert_allclose(value, 0.5, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(MINERS))
def test_infinite_distances_keep_to_the_right_person(name):
  distances = np.full((8, 8), np.inf)
  if name == "distance_weighted":
    distances[:] = 1.99
  mined = run(MINERS[name], _Case(distances, _IDS))
  live = np.asarray(mined.weights) > 0
  assert live.any() or name == "semi_hard_or_none"
  ids = np.broadcast_to(_IDS.reshape(-1, *(1,) * (live.ndim - 1)), live.shape)
  rows = np.broadcast_to(_ROWS.reshape(-1, *(1,) * (live.ndim - 1)), live.shape)
  positives, negatives = (np.asarray(x)[live] for x in mined[:2])
  np.testing.assert_array_equal(_IDS[positives], ids[live])
  assert np.all(_IDS[negatives] != ids[live])
  assert np.all(positives != rows[live])


@pytest.mark.parametrize("name", sorted(MINERS))
@pytest.mark.parametrize("column", [2, 6])
def test_nan_that_counts_is_mined(name, column):
  """Anchor 0 is person 3: column 2 is its positive, 6 its negative."""
  distances = np.random.default_rng(1).uniform(0.3, 1.3, (8, 8))
  distances[0, column] = np.nan
  mined = run(MINERS[name], _Case(distances, _IDS))
  kind = mined.positives if column == 2 else mined.negatives
  reached = (np.asarray(kind)[0] == column) & (np.asarray(mined.weights)[0] > 0)
  assert np.any(reached)


@pytest.mark.parametrize("name", sorted(MINERS))
def test_plain_jit_and_vmap_agree(name):
  batches = [make_batch(s, values=_spread) for s in range(3)]
  first = batches[0]
  labels = (first.anchor_ids, first.column_ids)
  call = lambda d: MINERS[name](d, *labels, **first.labels())
  together = jax.jit(jax.vmap(call))(np.stack([b.distances for b in batches]))
  jitted = jax.jit(call)
  for i, batch in enumerate(batches):
    for a, b in zip(jitted(batch.distances), together, strict=True):
      np.testing.assert_array_equal(a, b[i])
  for a, b in zip(call(first.distances), together, strict=True):
    np.testing.assert_array_equal(a, b[0])


def _spread(rng, shape):
  return rng.uniform(0.3, 1.6, shape)


@pytest.mark.parametrize("name", sorted(MINERS))
def test_bfloat16_is_cast_up_before_anything_is_compared(name):
  batch = make_batch(2, values=_spread)
  rounded = jnp.asarray(batch.distances).astype(jnp.bfloat16)
  low = run(MINERS[name], batch._replace(distances=rounded))
  full = run(
    MINERS[name], batch._replace(distances=np.asarray(rounded, np.float32))
  )
  for a, b in zip(low, full, strict=True):
    np.testing.assert_array_equal(a, b)
  assert low.weights.dtype == jnp.float32
  assert low.positives.dtype == low.negatives.dtype == jnp.int32


@pytest.mark.parametrize("name", sorted(set(MINERS) - {"distance_weighted"}))
def test_order_of_columns_changes_the_numbering_only(name):
  """Draws depend on the order; the others name the same images."""
  batch = make_batch(4, values=_spread)
  order = np.random.default_rng(0).permutation(len(batch.column_ids))
  place = np.argsort(order)
  rows = np.where(batch.anchor_rows < 0, -1, place[batch.anchor_rows])
  moved = batch._replace(
    distances=batch.distances[:, order],
    column_ids=batch.column_ids[order],
    anchor_rows=rows,
    column_weights=batch.column_weights[order],
  )
  before, after = run(MINERS[name], batch), run(MINERS[name], moved)
  pairs = zip(*(np.asarray(x).ravel() for x in before), strict=True)
  others = zip(*(np.asarray(x).ravel() for x in after), strict=True)
  width = before.weights.size // len(rows)
  before = [(i // width, *t) for i, t in enumerate(pairs) if t[2]]
  after = [
    (i // width, order[p], order[n], w)
    for i, (p, n, w) in enumerate(others)
    if w
  ]
  assert sorted(before) == sorted(after)
  assert before


@pytest.mark.parametrize("name", sorted(MINERS))
def test_padding_changes_nothing(name):
  """Columns of NaN at the end, with ids that exist, leave every bit."""
  batch = make_batch(6, values=_spread)
  longer = batch._replace(
    distances=np.pad(batch.distances, ((0, 0), (0, 5)), constant_values=np.nan),
    column_ids=np.pad(batch.column_ids, (0, 5), constant_values=2),
    column_weights=np.pad(batch.column_weights, (0, 5)),
  )
  before, after = run(MINERS[name], batch), run(MINERS[name], longer)
  for a, b in zip(before, after, strict=True):
    np.testing.assert_array_equal(a, b)


def test_semi_hard_lies_in_the_window_and_is_the_nearest_there():
  batch = make_batch(0, values=lambda rng, s: rng.uniform(0, 2, s))
  options = {"max_positives": 3, "fallback": "none", "margin": 0.3}
  mined = run(mining.semi_hard, batch, **options)
  anchors = np.arange(len(batch.anchor_ids))[:, None]
  near = batch.distances[anchors, np.asarray(mined.positives)]
  far = batch.distances[anchors, np.asarray(mined.negatives)]
  live = np.asarray(mined.weights) > 0
  assert 3 < live.sum() < live.size
  assert np.all(near[live] < far[live])
  assert np.all(far[live] < near[live] + 0.3)


def test_an_identity_of_the_largest_integer_is_no_padding():
  top = np.iinfo(np.int32).max
  ids = np.array([top, 0, top, top], np.int32)
  weights = np.array([1, 1, 1, 0], np.float32)
  case = _Case(np.arange(16.0).reshape(4, 4), ids, weights)
  mined = run(partial(mining.semi_hard, max_positives=2), case)
  np.testing.assert_array_equal(mined.weights, [[1, 0], [0, 0], [1, 0], [0, 0]])
  np.testing.assert_array_equal(np.asarray(mined.positives)[:, 0], [2, 0, 0, 0])


def test_more_padding_than_rows():
  """Ids of padding lie below those that count: the search must not see them."""
  ids = np.array([0, 0, 5, 0, 0, 5, 6, 0, 0, 0], np.int32)
  weights = (ids > 0).astype(np.float32)
  case = _Case(np.arange(100.0).reshape(10, 10), ids, weights)
  mined = run(partial(mining.semi_hard, max_positives=2), case)
  np.testing.assert_array_equal(np.asarray(mined.positives)[[2, 5], 0], [5, 2])
  np.testing.assert_array_equal(np.asarray(mined.weights)[[2, 5]], [[1, 0]] * 2)
  assert np.asarray(mined.weights).sum() == 2


_SQUARE = np.ones((3, 3), np.float32)
_THREE = np.array([0, 0, 1], np.int32)
_OK = {"anchor_rows": np.arange(3)}
_BAD = {
  "rank": ((np.ones(3, np.float32), _THREE, _THREE), {}, "distances must be"),
  "columns": (
    (np.ones((3, 4), np.float32), _THREE, _THREE),
    {},
    r"\[anchors, columns\], got \(3, 4\) for \(3,\) anchors",
  ),
  "integer distances": (
    (_SQUARE.astype(np.int32), _THREE, _THREE),
    {},
    "distances must be floating point, got dtype int32",
  ),
  "float ids": (
    (_SQUARE, _THREE.astype(np.float32), _THREE),
    {},
    "anchor_ids must be integers",
  ),
  "wide ids": (
    (_SQUARE, _THREE, np.array([0, 0, 2**40])),
    {},
    "column_ids must be from -2147483648 to 2147483647",
  ),
  "rows beyond": (
    (_SQUARE, _THREE, _THREE),
    {"anchor_rows": np.array([0, 1, 3])},
    "anchor_rows must be from -1 to 2, got 0 to 3",
  ),
  "rows missing": (
    (_SQUARE, _THREE, _THREE),
    {"anchor_rows": np.array([0, 1])},
    r"same shape, got \(2,\) and \(3,\)",
  ),
  "weights": (
    (_SQUARE, _THREE, _THREE),
    {"column_weights": np.ones(4)},
    r"column_weights and column_ids .* \(4,\) and \(3,\)",
  ),
  "no columns": (
    (np.ones((3, 0), np.float32), _THREE, _THREE[:0]),
    {},
    "column_ids is empty",
  ),
}


@pytest.mark.parametrize("case", sorted(_BAD))
@pytest.mark.parametrize("name", sorted(MINERS))
def test_bad_arrays_are_refused(name, case):
  args, changed, match = _BAD[case]
  with pytest.raises(ValueError, match=match):
    MINERS[name](*args, **{**_OK, **changed})


@pytest.mark.parametrize(
  "miner, options, match",
  [
    ("semi_hard", {"max_positives": 0}, "max_positives must be from 1 to 3"),
    ("semi_hard", {"max_positives": 4}, "max_positives must be from 1 to 3"),
    ("semi_hard", {}, "needs max_positives"),
    (
      "semi_hard",
      {"positive": "hardest", "max_positives": 1},
      "belongs to positive='every'",
    ),
    ("semi_hard", {"positive": "hard"}, "positive must be one of .* 'hard'"),
    (
      "semi_hard",
      {"max_positives": 1, "fallback": "any"},
      "fallback must be one of",
    ),
    ("semi_hard", {"max_positives": 1, "margin": 0.0}, "margin .* 0.0"),
    ("semi_hard", {"max_positives": 1, "margin": np.nan}, "margin"),
    ("batch_easy_positive", {"margin": -1.0}, "margin .* above 0, got -1.0"),
    ("batch_easy_positive", {"negative": "easy"}, "negative must be one of"),
    (
      "batch_easy_positive",
      {"negative": "hard", "fallback": "any"},
      "fallback must be one of",
    ),
  ],
)
def test_bad_options_are_refused(miner, options, match):
  with pytest.raises(ValueError, match=match):
    getattr(mining, miner)(_SQUARE, _THREE, _THREE, **_OK, **options)


@pytest.mark.parametrize(
  "miner, defaults",
  [
    ("semi_hard", {"margin": 0.2, "positive": "every", "fallback": "farthest"}),
    (
      "batch_easy_positive",
      {"margin": 0.2, "negative": "semi_hard", "fallback": "farthest"},
    ),
    ("multi_similarity", {"epsilon": 0.1}),
    (
      "distance_weighted",
      {"cutoff": 0.5, "max_distance": 1.4, "positive": "every"},
    ),
  ],
)
def test_defaults_are_the_papers(miner, defaults):
  parameters = inspect.signature(getattr(mining, miner)).parameters
  assert {name: parameters[name].default for name in defaults} == defaults


def test_a_traced_row_is_not_looked_at():
  """Inside jit the values are unknown: shapes are checked all the same."""
  call = lambda rows: mining.batch_hard(
    _SQUARE, _THREE, _THREE, anchor_rows=rows
  )
  np.testing.assert_array_equal(jax.jit(call)(np.arange(3)).weights, [1, 1, 0])
  with pytest.raises(ValueError, match="same shape"):
    jax.jit(call)(np.arange(2))
