"""Mistakes of miners that their tests must notice, and those tests."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from mining_batches import ROWS, assert_triplets, make_batch, run
from mining_mistakes import (
  all_weighted,
  labels,
  last_of_ties,
  negated,
  scaled,
  shared,
  swapped,
  with_option,
)
from reference import mining as reference
from variants import Variants

from facesiam_jax import mining

_MARGIN = 2.5


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
        [all(reference.kinds(batch, a)) for a in range(len(ROWS))]
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


def _one_of(end, part):
  """Batch-hard with the other end of one part."""

  def wrong(x, *args, **options):
    right = mining.batch_hard(x, *args, **options)
    other = mining.batch_hard(end * x, *args, **options)
    return right._replace(**{part: getattr(other, part)})

  return wrong


def _ties_are_farther(x, *args, **options):
  """D+ <= D- instead of D+ < D-."""
  masks = mining.all_triplets(*args, **labels(options))
  nudged = x + jnp.where(masks.negatives, 1e-3, 0.0)
  return mining.semi_hard(nudged, *args, **options)


def _extreme_negative(end):
  """The farthest (-1) or nearest (1) of all negatives."""

  def wrong(x, *args, **options):
    right = mining.semi_hard(x, *args, **options)
    masks = mining.all_triplets(*args, **labels(options))
    best = jnp.argmin(jnp.where(masks.negatives, end * x, jnp.inf), axis=1)
    if right.negatives.ndim == 2:
      best = jnp.broadcast_to(best[:, None], right.negatives.shape)
    return right._replace(negatives=best)

  return wrong


def _hardest_positive(*args, negative, **options):
  if negative == "hard":
    return mining.batch_hard(*args, **labels(options))
  return mining.semi_hard(*args, positive="hardest", **options)


def _other_negative(*args, negative, **options):
  other = "semi_hard" if negative == "hard" else "hard"
  return mining.batch_easy_positive(*args, negative=other, **options)


_HARD = mining.batch_hard
_SEMI = mining.semi_hard
_EASY = mining.batch_easy_positive
_SIMILAR = mining.multi_similarity

VARIANTS = {
  "mining.all_triplets": Variants(
    mining.all_triplets,
    check_all_triplets,
    {
      **shared(mining.all_triplets),
      "roles swapped": swapped(mining.all_triplets),
    },
  ),
  "mining.batch_hard": Variants(
    _HARD,
    check_batch_hard,
    {
      **shared(_HARD),
      "nearest positive": _one_of(-1, "positives"),
      "farthest negative": _one_of(-1, "negatives"),
      "similarities for distances": negated(_HARD),
      "roles swapped": swapped(_HARD),
      "ties to the highest index": last_of_ties(_HARD),
      "weight without a triplet": all_weighted(_HARD),
    },
  ),
  "mining.semi_hard": Variants(
    _SEMI,
    check_semi_hard,
    {
      **shared(_SEMI),
      "ties are farther": _ties_are_farther,
      "window below the positive": negated(_SEMI),
      "farthest negative": _extreme_negative(-1),
      "hardest negative": _extreme_negative(1),
      "no margin": scaled(_SEMI, "margin", lambda m: 1e6),
      "margin halved": scaled(_SEMI, "margin", lambda m: m / 2),
      "fallback always": with_option(_SEMI, fallback="farthest"),
      "fallback never": with_option(_SEMI, fallback="none"),
      "weight without a triplet": all_weighted(_SEMI),
    },
  ),
  "mining.batch_easy_positive": Variants(
    _EASY,
    check_batch_easy_positive,
    {
      **shared(_EASY),
      "hardest positive": _hardest_positive,
      "other kind of negative": _other_negative,
      "similarities for distances": negated(_EASY),
      "fallback always": with_option(_EASY, fallback="farthest"),
      "no margin": scaled(_EASY, "margin", lambda m: 1e6),
      "weight without a triplet": all_weighted(_EASY),
    },
  ),
  "mining.multi_similarity": Variants(
    _SIMILAR,
    check_multi_similarity,
    {
      **shared(_SIMILAR),
      "distances for similarities": negated(_SIMILAR),
      "roles swapped": swapped(_SIMILAR),
      "no epsilon": with_option(_SIMILAR, epsilon=0.0),
      "epsilon doubled": scaled(_SIMILAR, "epsilon", lambda e: 2 * e),
      "all pairs": lambda x, *a, epsilon, **k: mining.all_triplets(*a, **k),
    },
  ),
}
