"""Properties of the miners: what they pick is there, and is what they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from facesiam_jax import mining
from properties import strategies

_COLUMNS = 9
_MOST = _COLUMNS - 1
_MARGIN = 0.2
_OPTIONS = {
  "batch_hard": mining.batch_hard,
  "semi_hard every": functools.partial(
    mining.semi_hard, max_positives=_MOST, margin=_MARGIN
  ),
  "semi_hard window": functools.partial(
    mining.semi_hard, max_positives=_MOST, margin=_MARGIN, fallback="none"
  ),
  "semi_hard hardest": functools.partial(mining.semi_hard, positive="hardest"),
  "easy positive": mining.batch_easy_positive,
  "easy positive hard": functools.partial(
    mining.batch_easy_positive, negative="hard"
  ),
  "distance_weighted": functools.partial(
    mining.distance_weighted,
    key=jax.random.key(5),
    dimension=16,
    max_positives=_MOST,
  ),
}
_MASKS = {
  "all_triplets": lambda matrix, *ids, **rest: mining.all_triplets(
    *ids, **rest
  ),
  "multi_similarity": mining.multi_similarity,
}


@strategies.jit
def _mine(case):
  """What every miner picks, and the sums over all triplets of 1."""
  matrix, anchor_ids, column_ids, rows, mask = case
  arguments = (matrix, anchor_ids, column_ids)
  rest = {"anchor_rows": rows, "column_weights": mask}
  found = {
    name: mine(*arguments, **rest) for name, mine in (_OPTIONS | _MASKS).items()
  }
  found["sum_over_triplets"] = mining.sum_over_triplets(
    lambda p, n: jnp.ones_like(p * n),
    *arguments,
    max_positives=_MOST,
    **rest,
  )
  return found


# Few values, so that there are ties, or any from 0 over 1e-40 to 1e30.
_DISTANCES = st.one_of(
  st.sampled_from([0.0, 0.1, 0.5, 0.65, 1.0, 1.4, 2.0]),
  st.floats(0, 2.0, width=32),
  st.sampled_from([1e-40, 1e-30, 1e18, 1e30]),
)


@st.composite
def _cases(draw):
  """Distances of all columns, or of four of them, or of strangers."""
  kind = draw(st.sampled_from(["all", "some", "strangers"]))
  columns = draw(strategies.ids(_COLUMNS))
  mask = draw(strategies.masks(_COLUMNS))
  anchors = _COLUMNS if kind == "all" else 4
  rows = np.arange(_COLUMNS)
  if kind == "some":
    rows = draw(strategies.permutations(_COLUMNS))[:4]
  anchor_ids = columns[rows[:anchors]]
  if kind == "strangers":
    rows, anchor_ids = np.full(4, -1), draw(strategies.ids(4))
  pool = draw(st.lists(_DISTANCES, min_size=1, max_size=12))
  seed = draw(st.integers(0, 2**16))
  matrix = np.random.default_rng(seed).choice(pool, (anchors, _COLUMNS))
  return (
    matrix.astype(np.float32), anchor_ids, columns, rows.astype(np.int32), mask
  )  # fmt: skip


def _admissible(case):
  """Lists of positives and of negatives of each anchor, by a loop."""
  _, anchor_ids, columns, rows, mask = case
  for person, row in zip(anchor_ids, rows, strict=True):
    counts = row < 0 or mask[row] > 0
    others = [c for c in range(_COLUMNS) if counts and mask[c] > 0 and c != row]
    yield (
      [c for c in others if columns[c] == person],
      [c for c in others if columns[c] != person],
    )


def _triplets(mined):
  """(anchor, positive, negative, weight) of all that was mined."""
  arrays = [np.asarray(x) for x in mined]
  for place in np.ndindex(arrays[0].shape):
    yield place[0], *(x[place] for x in arrays)


@given(_cases())
def test_what_is_picked_is_admissible(case):
  """Somebody else's image of the same person, and one of another person."""
  admissible = list(_admissible(case))
  found = _mine(case)
  for name in _OPTIONS:
    for anchor, positive, negative, weight in _triplets(found[name]):
      positives, negatives = admissible[anchor]
      assert weight in (0, 1)
      if weight:
        assert positive in positives and negative in negatives, name
      assert 0 <= positive < _COLUMNS and 0 <= negative < _COLUMNS


@given(_cases())
def test_nobody_with_a_triplet_is_left_out(case):
  found = _mine(case)
  for anchor, (positives, negatives) in enumerate(_admissible(case)):
    exists = bool(positives and negatives)
    for name in ("batch_hard", "easy positive", "easy positive hard"):
      assert found[name].weights[anchor] == exists, name
    for name in ("semi_hard every", "distance_weighted"):
      chosen = np.asarray(found[name].weights[anchor]) > 0
      picked = np.asarray(found[name].positives[anchor])[chosen]
      assert sorted(picked) == (positives if exists else []), name


@given(_cases())
def test_masks_mark_every_admissible_pair(case):
  found = _mine(case)
  sums, counts = map(np.asarray, found["sum_over_triplets"])
  for anchor, (positives, negatives) in enumerate(_admissible(case)):
    marked = [np.flatnonzero(mask[anchor]) for mask in found["all_triplets"]]
    assert list(marked[0]) == positives and list(marked[1]) == negatives
    number = len(positives) * len(negatives)
    assert sums[anchor] == counts[anchor] == number
    kept = [np.flatnonzero(mask[anchor]) for mask in found["multi_similarity"]]
    row = case[0][anchor]
    hard = [
      [p for p in positives if any(row[p] < row[n] + 0.1 for n in negatives)],
      [n for n in negatives if any(row[n] > row[p] - 0.1 for p in positives)],
    ]
    # Beside the limit, float32 and float64 may round to different sides.
    easy = [
      [p for p in positives if all(row[p] > row[n] + 0.11 for n in negatives)],
      [n for n in negatives if all(row[n] < row[p] - 0.11 for p in positives)],
    ]
    for k in (0, 1):
      assert set(kept[k]) <= {*positives, *negatives}
      assert not set(kept[k]) & set(easy[k]) or not (positives and negatives)
      near = set(hard[k]) - set(kept[k])
      assert all(_beside(row, j, case, k, anchor) for j in near)


def _beside(row, j, case, kind, anchor):
  """Whether a pair lies within rounding of the limit of multi-similarity."""
  other = list(_admissible(case))[anchor][1 - kind]
  limits = [row[o] + (0.1, -0.1)[kind] for o in other]
  return min(abs(row[j] - x) for x in limits) <= 1e-5 * max(1, abs(row[j]))


@given(_cases())
def test_batch_hard_is_the_brute_force(case):
  found = [np.asarray(x) for x in _mine(case)["batch_hard"]]
  for anchor, (positives, negatives) in enumerate(_admissible(case)):
    row = _flushed(case[0][anchor])
    farthest = max(positives, key=lambda c: (row[c], -c), default=0)
    nearest = min(negatives, key=lambda c: (row[c], c), default=0)
    assert found[0][anchor] == farthest and found[1][anchor] == nearest


def _flushed(row):
  """Subnormal numbers are 0, and so ties, to the hardware."""
  return np.where(row < np.finfo(np.float32).tiny, 0, row)


@given(_cases())
def test_semi_hard_negatives_are_farther_and_near(case):
  found = _mine(case)
  admissible = list(_admissible(case))
  for anchor, positive, negative, weight in _triplets(
    found["semi_hard window"]
  ):
    row = _flushed(case[0][anchor])
    if weight:
      assert row[positive] < row[negative]
      assert row[negative] < np.float32(row[positive] + np.float32(_MARGIN))
  for anchor, positive, negative, weight in _triplets(found["semi_hard every"]):
    row = _flushed(case[0][anchor])
    negatives = admissible[anchor][1]
    farther = [n for n in negatives if row[n] > row[positive]]
    if weight:
      nearest = min(farther, key=lambda c: (row[c], c), default=None)
      farthest = max(negatives, key=lambda c: (row[c], -c))
      assert negative == (farthest if nearest is None else nearest)


@given(_cases())
def test_distance_weighted_draws_nothing_from_beyond(case):
  """Unless all negatives of an anchor are."""
  drawn = _mine(case)["distance_weighted"]
  admissible = list(_admissible(case))
  for anchor, _, negative, weight in _triplets(drawn):
    row = case[0][anchor]
    if weight and any(row[n] < 1.39 for n in admissible[anchor][1]):
      assert row[negative] <= 1.4


# Whole numbers, so that distances are exact and every tie is one.
_WHOLE = st.lists(
  st.integers(-3, 3), min_size=3 * _COLUMNS, max_size=3 * _COLUMNS
)


@strategies.jit
def _by_blocks(x, ids, rows, mask):
  """Each miner on the whole matrix, and on blocks of four and of nine rows."""
  shared = {"anchor_rows": rows, "column_weights": mask}
  miners = {k: _OPTIONS[k] for k in ("batch_hard", "semi_hard every")}
  return {
    name: [
      mining.by_blocks(miner, x, ids, x, ids, block_rows=size, **shared)
      for size in (1, 4, _COLUMNS)
    ]
    for name, miner in miners.items()
  }


@given(_WHOLE, strategies.ids(_COLUMNS), strategies.masks(_COLUMNS))
def test_blocks_pick_what_the_whole_matrix_picks(entries, ids, mask):
  x = np.array(entries, np.float32).reshape(_COLUMNS, 3)
  rows = np.arange(_COLUMNS, dtype=np.int32)
  spoilt = np.where(mask[:, None] > 0, x, np.nan).astype(np.float32)
  matrix = np.square(x[:, None] - x).sum(axis=-1)
  whole = _mine((matrix, ids, ids, rows, mask))
  for name, results in _by_blocks(spoilt, ids, rows, mask).items():
    for mined in results:
      counted = np.asarray(whole[name].weights) > 0
      strategies.assert_same_bits(mined.weights, whole[name].weights, name)
      for part, expected in zip(mined, whole[name], strict=True):
        strategies.assert_same_bits(
          np.asarray(part)[counted], np.asarray(expected)[counted], name
        )
