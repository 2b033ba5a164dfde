"""The side-by-side benchmark: its splits, its losses, its intervals."""

import importlib
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax import losses, metrics
from facesiam_jax.data import olivetti
from facesiam_jax.metrics import tally as tally_lib
from facesiam_jax.training import objectives

_BENCHMARKS = str(pathlib.Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(name="of", scope="module")
def _of():
  """Returns a function that imports a module of the benchmarks' folder."""
  sys.path.insert(0, _BENCHMARKS)
  yield lambda name: importlib.import_module(f"compare_{name}")
  sys.path.remove(_BENCHMARKS)


def _photos(of, counts):
  ids = np.repeat(np.arange(len(counts)) * 10 + 3, counts)
  images = np.arange(len(ids), dtype=np.uint8).reshape(-1, 1, 1, 1)
  return of("data").Photos(images, ids)


def test_olivetti_folds_share_no_person(of, tmp_path, monkeypatch):
  faces = olivetti.FaceSet(
    np.zeros((400, 64, 64, 1), np.uint8),
    np.repeat(np.arange(40), 10).astype(np.int32),
    np.tile(np.arange(10), 40).astype(np.int32),
    tuple(map(str, range(40))),
  )
  monkeypatch.setattr(olivetti, "load", lambda *a, **k: faces)
  tested = []
  for task in of("data").load("olivetti", str(tmp_path), 4):
    people = [
      set(getattr(task, part).ids) for part in ("train", "validation", "test")
    ]
    assert len(set.union(*people)) == sum(map(len, people)) == 40
    assert set(task.seen.ids) == people[0]
    assert len(task.seen.ids) == 2 * len(people[0])
    tested += sorted(people[2])
  assert sorted(tested) == list(range(40))


def test_photos_taken_are_not_among_those_left(of):
  photos = _photos(of, [5, 3, 9])
  left, taken = of("data").split_photos(photos, 2)
  assert np.bincount(taken.ids)[[3, 13, 23]].tolist() == [2, 2, 2]
  both = np.concatenate([left.images, taken.images]).reshape(-1)
  np.testing.assert_array_equal(np.sort(both), np.arange(17))
  with pytest.raises(ValueError, match="person 13 has 3 photos"):
    of("data").split_photos(photos, 3)


def test_a_cell_of_the_curve_has_the_people_of_a_smaller_one(of):
  photos = _photos(of, [12, 10, 11, 4, 15])
  small, large = (of("curve").cut(photos, *cell) for cell in ((2, 5), (4, 10)))
  assert set(np.bincount(small.ids)) == {0, 5}
  assert set(small.ids) < set(large.ids) == {3, 13, 23, 43}


def _batch(ids, embeddings, params=None):
  return objectives.Embedded(
    own=embeddings,
    own_ids=ids,
    own_rows=jnp.arange(len(ids)),
    columns=embeddings,
    column_ids=ids,
    params=params or {},
  )


def _mean(terms):
  return float((terms.values * terms.weights).sum() / terms.weights.sum())


class TestLosses:
  ids = jnp.array([4, 4, 4, 7, 7, 7, 9, 9, 9])

  def _rows(self):
    return jax.random.normal(jax.random.key(3), (9, 5)) * 0.6

  def _tuples(self, kinds):
    """Rows of all ordered pairs of a kind, or of all triplets."""
    ids, n = np.asarray(self.ids), range(9)
    if kinds == "triplets":
      return np.array(
        [
          (a, p, q)
          for a in n for p in n for q in n
          if a != p and ids[a] == ids[p] and ids[a] != ids[q]
        ]
      ).T  # fmt: skip
    wanted = kinds == "genuine"
    return np.array(
      [(a, b) for a in n for b in n if a != b and (ids[a] == ids[b]) == wanted]
    ).T

  @pytest.mark.parametrize("as_written", [True, False])
  def test_all_triplets(self, of, as_written):
    rows = self._rows()
    objective = of("objectives").AllTriplets(3, 3, as_written=as_written)
    found = _mean(objective.terms(None, _batch(self.ids, rows)))
    loss = losses.csc413_as_written if as_written else losses.csc413_as_run
    a, p, n = (rows[index] for index in self._tuples("triplets"))
    values, _ = loss(a, p, n, margin=1.0)
    # Or the hinge would not be tested.
    assert as_written or ((values == 0).any() and (values > 0).any())
    assert found == pytest.approx(float(values.mean()), rel=1e-5)

  @pytest.mark.parametrize("name", ["AllPairsBce", "AllPairsContrastive"])
  def test_both_kinds_of_pair_weigh_one_half(self, of, name):
    rows = self._rows()
    head = lambda x, y: 1.0 - jnp.abs(x - y).sum(axis=1)
    objective = getattr(of("objectives"), name)(3, 3)
    found = _mean(objective.terms(head, _batch(self.ids, rows)))
    expected = 0.0
    for same, kind in enumerate(("impostor", "genuine")):
      x, y = (rows[index] for index in self._tuples(kind))
      labels = np.full(len(x), same)
      if name == "AllPairsBce":
        values, _ = losses.binary_cross_entropy(head(x, y), labels)
      else:
        distances = jnp.linalg.norm(x - y, axis=1)
        values, _ = losses.contrastive(distances, labels, margin=1.0)
      expected += float(values.mean()) / 2
    assert found == pytest.approx(expected, rel=1e-5)

  def test_all_draw_the_batches_of_supcon(self, of):
    from facesiam_jax import sampling

    index = sampling.index_identities(np.repeat(np.arange(6), 4))
    key, step = jax.random.key(1), jnp.int32(5)
    supcon = objectives.SupCon(3, 2).draw(index, key, step)
    for name in (
      "AllPairsBce",
      "AllPairsContrastive",
      "AllTriplets",
      "Classes",
    ):
      drawn = getattr(of("objectives"), name)(3, 2).draw(index, key, step)
      assert drawn.tolist() == supcon.tolist(), name


def _similarity(num_people=31, seed=0):
  rng = np.random.default_rng(seed)
  ids = np.repeat(np.arange(num_people), rng.integers(2, 5, num_people))
  rows = rng.normal(size=(num_people, 6))[ids] + rng.normal(size=(len(ids), 6))
  return rows @ rows.T, ids


def test_measures_are_those_of_the_library(of):
  similarity, ids = _similarity()
  found = of("measures").measure(
    similarity, ids, metrics.Platt(0.3, -1.0), resamples=3, seed=0,
    open_set=True,
  )  # fmt: skip
  i, j = np.triu_indices(len(ids), 1)
  scores, same = similarity[i, j], ids[i] == ids[j]
  assert found["eer"][0] == metrics.eer(scores, same).rocch
  assert found["auc"][0] == metrics.auc(scores, same)
  assert (
    found["tar_at_far_0.01"][0] == metrics.tar_at_far(scores, same, 0.01).tar
  )
  assert found["cllr"][0] == pytest.approx(
    metrics.cllr(0.3 * scores - 1.0, same)
  )
  for name, ways in (("one_shot", 10), ("rank_1", 31)):
    wanted = metrics.one_shot_accuracy(similarity, ids, draws=100, ways=ways)
    assert found[name][0] == pytest.approx(wanted), name
  assert 0 < found["fnir_at_fpir_0.1"][0] < 1


def test_open_set_rate_is_the_library_s(of):
  measures = of("measures")
  similarity, ids = _similarity()
  (drawn,) = measures._open_sets(similarity, ids, 1, 4)
  rng = np.random.default_rng(4)
  chosen = np.sort(rng.permutation(31)[:15])
  gallery = np.array([rng.choice(np.flatnonzero(ids == p)) for p in chosen])
  probes = np.setdiff1d(np.arange(len(ids)), gallery)
  wanted = metrics.fnir_at_fpir(
    similarity[np.ix_(probes, gallery)], ids[probes], ids[gallery], 0.1
  )
  (found,) = drawn.fnirs(np.ones((1, 31), np.int64))
  assert found == pytest.approx(wanted.fnir)


def test_intervals_over_people_are_those_of_paired_bootstrap(of):
  measures = of("measures")
  (first, ids), (second, _) = _similarity(seed=0), _similarity(seed=0)
  second = second + np.random.default_rng(5).normal(size=second.shape)
  second = (second + second.T) / 2
  i, j = np.triu_indices(len(ids), 1)
  statistics = lambda counts, copies: {
    "eer": tally_lib.eer_of(counts).rocch, "auc": tally_lib.auc_of(counts)
  }  # fmt: skip
  wanted = metrics.paired_bootstrap(
    [statistics] * 2, [first[i, j], second[i, j]], ids[i], ids[j],
    resamples=300, seed=7,
  )  # fmt: skip
  draws = [
    measures.measure(
      one, ids, metrics.Platt(1.0, 0.0), resamples=300, seed=7, open_set=False
    )
    for one in (first, second)
  ]
  for name in ("eer", "auc"):
    found = measures.difference(draws[0][name], draws[1][name])
    expected = wanted.differences[0, 1][name]
    assert found["value"] == pytest.approx(expected.value)
    ends = [found["low"], found["high"], found["p_value"]]
    # Bins move a rate by less than a tenth of a point.
    np.testing.assert_allclose(ends, expected[1:], atol=1e-3)


def test_seeds_that_differ_widen_the_interval(of):
  measures = of("measures")
  rng = np.random.default_rng(0)
  people = rng.normal(size=1001) * 0.01
  alike = [[{"eer": 0.2 + people}]] * 3
  apart = [[{"eer": shift + people}] for shift in (0.1, 0.2, 0.3)]
  narrow, wide = (
    measures.estimate(measures.over_seeds(parts, "eer"))
    for parts in (alike, apart)
  )
  assert narrow["value"] == pytest.approx(wide["value"]) == 0.2 + people[0]
  assert narrow["high"] - narrow["low"] == pytest.approx(0.04, rel=0.2)
  # Two of three seeds alike, and more, in 27 of 27: 0.1 and 0.3 are reached.
  assert wide["low"] < 0.13 and wide["high"] > 0.27


def test_folds_are_averaged_before_seeds_are_drawn(of):
  draws = lambda value: {"eer": np.full(4, value)}
  parts = [[draws(0.1), draws(0.3)], [draws(0.2), draws(0.6)]]
  found = of("measures").over_seeds(parts, "eer")
  assert found[0] == pytest.approx(0.3)
  assert set(np.round(found[1:], 6)) <= {0.2, 0.3, 0.4}


class TestAddPeople:
  def _layer(self):
    rng = np.random.default_rng(1)
    return {
      "centers": jnp.asarray(rng.normal(size=(4, 6)), jnp.float32),
      "bias": jnp.asarray(rng.normal(size=4), jnp.float32),
    }

  def test_a_new_output_leaves_the_others_logits(self, of):
    layer, row = self._layer(), np.arange(6, dtype=np.float32)
    wider = jax.device_get(of("add_people").with_output(layer, row))
    layer = jax.device_get(layer)
    x = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)
    logits = lambda one: x @ one["centers"].T + one["bias"]
    np.testing.assert_array_equal(logits(wider)[:, :4], logits(layer))
    np.testing.assert_allclose(logits(wider)[:, 4], x @ row, rtol=1e-5)

  def test_the_last_layer_learns_the_new_person(self, of):
    rng = np.random.default_rng(3)
    means = 3 * rng.normal(size=(5, 6))
    ids = np.append(np.repeat(np.arange(4), 20), 4)
    rows = (means[ids] + rng.normal(size=(81, 6))).astype(np.float32)
    module = of("add_people")
    layer = module.with_output(self._layer(), np.zeros(6, np.float32))
    layer = jax.device_get(module.fit_last_layer(layer, rows, ids))
    new = (means[[4] * 9] + rng.normal(size=(9, 6))).astype(np.float32)
    named = (new @ layer["centers"].T + layer["bias"]).argmax(axis=1)
    assert (named == 4).mean() > 0.7

  def test_newcomers_are_none_of_the_hundred(self, of, monkeypatch):
    module = of("add_people")
    monkeypatch.setattr(module, "OLD", 4)
    monkeypatch.setattr(module, "NEW", 2)
    photos = _photos(of, [10, 11, 12, 3, 13, 14, 15])
    people = module.choose_people(photos)
    used = [people.train.images, people.probes.images]
    used += people.enrol + people.new_probes
    used = np.concatenate([np.asarray(one).reshape(-1) for one in used])
    assert len(set(used.tolist())) == len(used)
    assert np.bincount(people.probes.ids).tolist() == [5] * 4
    assert [len(one) for one in people.enrol] == [5, 5]


def test_a_template_is_the_mean_of_unit_rows(of):
  enrolled = np.array([[9.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
  # The long row does not outweigh the other: the template points to (1, 1).
  found = of("losses").template_rank_one(
    np.array([[1.0, 1.0], [1.0, 0.2]], np.float32), np.array([6, 8]),
    enrolled, np.array([6, 6, 8]),
  )  # fmt: skip
  assert found == 1.0


@pytest.mark.parametrize("name", ["|difference|", "chi-square"])
def test_a_head_fitted_alone_scores_as_it_was_fitted(of, name):
  frozen = of("frozen")
  feature = frozen.FEATURES[name]
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(12), 4)
  means = rng.normal(size=(12, 6)) * [3, 1, 1, 1, 1, 0]
  rows = (means[ids] + rng.normal(size=(48, 6))).astype(np.float32)
  head = frozen.fit(feature, rows, ids, 0, 1.0)
  found = frozen.scores(head, feature, rows)
  i, j, same = frozen.drawn_pairs(ids, 1000, 0)
  assert same.sum() == 72 == len(same) / 2
  assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == 144
  expected = feature.of(rows[i], rows[j]) @ head.weights + head.bias
  np.testing.assert_allclose(found[i, j], expected, rtol=1e-3, atol=1e-3)
  assert metrics.auc(found[i, j], same) > 0.75


def test_the_page_is_of_this_result(of):
  root = pathlib.Path(__file__).parents[1]
  result = json.loads(
    (root / "benchmarks" / "results" / "compare.json").read_text("utf-8")
  )
  page = (root / "docs" / "side_by_side.md").read_text("utf-8")
  assert page == of("page").page(result)
  readme = (root / "README.md").read_text("utf-8")
  celeba = result["celeba"]
  table = of("table").losses(celeba["losses"], celeba["speed"])
  assert table in readme
