"""Tests of the approximate search and of what measures it."""

import functools

import jax
import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.gallery import search, tuning
from facesiam_jax.gallery.search import inverted as inverted_lib
from tests.gallery import stores

METRICS = pytest.mark.parametrize("metric", search.METRICS)
_top_k = jax.jit(search.top_k, static_argnames=("k", "metric"))
_inverted = jax.jit(
  search.top_k_inverted, static_argnames=("k", "num_probes", "metric")
)


@functools.cache
def _case():
  """Rows in 40 heaps of very different sizes, a tenth not valid."""
  rng = np.random.default_rng(0)
  heaps = rng.normal(size=(40, 8))
  of = np.minimum(rng.geometric(0.1, 900) - 1, 39)
  rows = heaps[of] + 0.2 * rng.normal(size=(900, 8))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  queries = rows[:50] + 0.02 * rng.normal(size=(50, 8))
  queries /= np.linalg.norm(queries, axis=1, keepdims=True)
  ids = rng.permutation(2000)[:900].astype(np.int32)
  rows, queries = rows.astype(np.float32), queries.astype(np.float32)
  return rows, rng.random(900) < 0.9, ids, queries


def _recall(found, want):
  return np.mean(
    [
      len(set(f) & set(w)) / len(w)
      for f, w in zip(
        np.asarray(found.ids).tolist(),
        np.asarray(want.ids).tolist(),
        strict=True,
      )  # fmt: skip
    ]
  )


@METRICS
def test_all_lists_find_what_the_exact_search_finds(metric):
  case = _case()
  lists = search.build_inverted(*case[:2], metric=metric)
  found = _inverted(lists, *case, k=7, num_probes=999, metric=metric)
  want = _top_k(*case, k=7, metric=metric)
  np.testing.assert_array_equal(found.ids, want.ids)
  np.testing.assert_allclose(found.scores, want.scores, rtol=1e-5, atol=1e-6)
  few = _inverted(lists, *case, k=7, num_probes=6, metric=metric)
  assert 0.5 < _recall(few, want)
  one = _inverted(lists, *case, k=7, num_probes=1, metric=metric)
  assert _recall(one, want) < 1


def test_near_lists_hold_more_than_any_lists():
  case = _case()
  lists = search.build_inverted(*case[:2], metric="cosine")
  want = _top_k(*case, k=7, metric="cosine")
  shuffled = np.random.default_rng(0).permutation(len(lists.centres))
  wrong = lists._replace(centres=lists.centres[shuffled])
  recall = [
    _recall(_inverted(of, *case, k=7, num_probes=6, metric="cosine"), want)
    for of in (lists, wrong)
  ]
  assert recall[0] > 0.8 > 0.4 > recall[1]


def test_every_row_is_in_the_list_of_its_nearest_centre():
  rows, valid, _, _ = _case()
  lists = search.build_inverted(rows, valid, metric="euclidean", num_lists=20)
  members = np.asarray(lists.members)
  held = members[members != search.NO_MATCH]
  np.testing.assert_array_equal(np.sort(held), np.flatnonzero(valid))
  centres = np.asarray(lists.centres, np.float64)
  nearest = np.square(rows[:, None] - centres[None]).sum(2).argmin(1)
  for piece, number in zip(members, np.asarray(lists.of_list), strict=True):
    own = piece[piece != search.NO_MATCH]
    assert len(own) and (nearest[own] == number).all()
  # Only the last piece of a list is not full.
  full = (members != search.NO_MATCH).all(axis=1)
  assert (~full).sum() <= 20 < len(members)


def test_a_query_looks_through_its_own_lists_only():
  """In one batch with others it finds what it finds alone."""
  case = _case()
  lists = search.build_inverted(*case[:2], metric="cosine")
  look = functools.partial(_inverted, k=7, num_probes=2, metric="cosine")
  together = np.asarray(look(lists, *case).ids)
  alone = [look(lists, *case[:3], query[None]).ids[0] for query in case[3]]
  np.testing.assert_array_equal(together, alone)
  assert _recall(look(lists, *case), _top_k(*case, k=7, metric="cosine")) < 1


def test_k_means_lowers_the_distances():
  rows, _, _, _ = _case()
  start = rows[:20]
  centres = np.asarray(
    inverted_lib.k_means(rows, start, metric="euclidean"), np.float64
  )
  spread = lambda centres: np.square(
    rows[:, None] - centres[None]
  ).sum(2).min(1).mean()  # fmt: skip
  assert spread(centres) < 0.8 * spread(start)
  # A round more moves hardly anything: each is the mean of its own.
  nearest = np.square(rows[:, None] - centres[None]).sum(2).argmin(1)
  means = np.stack([rows[nearest == i].mean(0) for i in range(20)])
  assert spread(means) > 0.98 * spread(centres)


def test_degenerate_galleries():
  rows, valid, ids, queries = _case()
  for usable in (np.zeros(900, bool), np.arange(900) == 5):
    lists = search.build_inverted(rows, usable, metric="dot")
    found = _inverted(lists, rows, usable, ids, queries[:0], k=3,
                      num_probes=2, metric="dot")  # fmt: skip
    assert found.ids.shape == (0, 3)
    found = _inverted(lists, rows, usable, ids, queries, k=30, num_probes=2,
                      metric="dot")  # fmt: skip
    want = _top_k(rows, usable, ids, queries, k=30, metric="dot")
    np.testing.assert_array_equal(found.ids, want.ids)
  # Removed since the lists were made.
  lists = search.build_inverted(rows, valid, metric="dot")
  found = _inverted(lists, rows, valid & False, ids, queries, k=3,
                    num_probes=9, metric="dot")  # fmt: skip
  assert (np.asarray(found.ids) == search.NO_MATCH).all()


def test_refuses():
  rows, valid, ids, queries = _case()
  with pytest.raises(ValueError, match="metric"):
    search.build_inverted(rows, valid, metric="l1")
  with pytest.raises(ValueError, match="num_lists"):
    search.build_inverted(rows, valid, metric="dot", num_lists=0)
  lists = search.build_inverted(rows, valid, metric="dot")
  with pytest.raises(ValueError, match="num_probes"):
    search.top_k_inverted(lists, rows, valid, ids, queries, k=1, num_probes=0,
                          metric="dot")  # fmt: skip


def test_tuning_measures_recall_on_the_gallery(tmp_path):
  with stores.create(tmp_path / "g.db") as store:
    with pytest.raises(errors.UserError, match="0 photos"):
      list(tuning.measure(store))
    store.add({"Ada": stores.templates(300, 1), "Bob": stores.templates(40, 2)})
    exact, *trials = tuning.measure(store)
  assert exact[:3] == (0, 1.0, 1.0)
  assert [trial.lists for trial in trials] == [
    1 << n for n in range(len(trials))
  ]
  recall = [trial.recall for trial in trials]
  assert recall == sorted(recall) and 0 < recall[0] < 1
  assert trials[-1].recall == 1 or trials[-1].share > 0.25
  assert all(trial.seconds > 0 for trial in (exact, *trials))


def test_tuning_refuses_a_head(tmp_path):
  path = tmp_path / "g.db"
  with stores.Store.create(path, fingerprint="f", dim=3, metric="l1") as store:
    with pytest.raises(errors.UserError, match="no approximate search"):
      list(tuning.measure(store))
