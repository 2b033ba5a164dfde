"""Tests of facesiam_jax.evaluation.curves and .curve_figures."""

import numpy as np
import pytest
import scipy.stats
import sklearn.calibration
import sklearn.decomposition
import sklearn.metrics

from facesiam_jax.evaluation import curve_figures, curves, figures, protocols
from facesiam_jax.metrics import tally


def _case(num_people=32, images=3, seed=0):
  rng = np.random.default_rng(seed)
  ids = np.repeat(np.arange(num_people), images)
  points = rng.normal(size=(num_people, 6))[ids]
  points += 0.7 * rng.normal(size=points.shape)
  similarity = 3 - np.linalg.norm(points[:, None] - points[None], axis=-1)
  return similarity, ids, points


def _pairs(similarity, ids):
  pairs = protocols.all_pairs(ids)
  return similarity[pairs.i, pairs.j], ids[pairs.i], ids[pairs.j], pairs.same


def test_tars_are_those_of_scikit_learn():
  similarity, ids, _ = _case()
  scores, _, _, same = _pairs(similarity, ids)
  fmr, tar, _ = sklearn.metrics.roc_curve(same, scores, drop_intermediate=False)
  grid = np.array([0.0, 1e-4, 0.003, 0.05, 0.3, 1.0])
  wanted = [tar[fmr <= rate].max() for rate in grid]
  found = curves.tars_of(tally.tally(scores, same), grid)
  np.testing.assert_allclose(found, wanted)


def test_bands_are_those_of_people_written_out():
  similarity, ids, _ = _case(30, 2)
  scores, a, b, same = _pairs(similarity, ids)
  found = curves.bands(scores, a, b, resamples=8)
  rng = np.random.default_rng(0)
  rows = []
  for _ in range(8):
    drawn = rng.integers(30, size=30).tolist()
    times = [
      drawn.count(p) * (1 if p == q else drawn.count(q))
      for p, q in zip(a, b, strict=True)
    ]
    values, kinds = np.repeat(scores, times), np.repeat(same, times)
    impostor = np.sort(values[kinds == 0])[::-1]
    row = []
    for rate in found.fmr:
      allowed = int(np.floor(rate * impostor.size + 1e-9))
      above = values > impostor[allowed] if allowed < impostor.size else True
      row.append(np.mean((kinds == 1) & above) / np.mean(kinds == 1))
    rows.append(row)
  np.testing.assert_allclose(
    found.tar, np.quantile(rows, [0.025, 0.975], axis=0), atol=1e-9
  )
  # Pairs drawn one by one would make it too narrow.
  assert (np.diff(found.tar, axis=0) >= 0).all()
  assert np.diff(found.tar, axis=0).max() > 0.02
  few = a < 29
  assert curves.bands(scores[few & (b < 29)], *(
    ends[few & (b < 29)] for ends in (a, b)
  )) is None  # fmt: skip


def test_reliability_is_that_of_scikit_learn():
  similarity, ids, _ = _case()
  logits, _, _, same = _pairs(2 * similarity, ids)
  found = curves.reliability(logits, same)
  probability = 1 / (1 + np.exp(-logits))
  # Even odds, written out: copies of pairs, so that both kinds are as many.
  times = np.where(same == 1, (same == 0).sum(), (same == 1).sum())
  observed, predicted = sklearn.calibration.calibration_curve(
    np.repeat(same, times), np.repeat(probability, times), n_bins=10
  )
  seen = found.weight > 0
  np.testing.assert_allclose(found.observed[seen], observed)
  np.testing.assert_allclose(found.predicted[seen], predicted)
  assert found.weight.sum() == pytest.approx(1)
  gap = np.abs(observed - predicted) @ found.weight[seen]
  assert found.ece == pytest.approx(gap)


def test_calibrated_probabilities_lie_on_the_line():
  rng = np.random.default_rng(0)
  same = np.repeat([1, 0], 40_000)
  # Normal scores a unit apart have this log likelihood ratio.
  logits = rng.normal(size=same.size) + same - 0.5
  assert curves.reliability(logits, same).ece < 0.01
  assert curves.reliability(3 * logits, same).ece > 0.1
  assert curves.reliability(logits - 1, same).ece > 0.1


def test_strangers_are_counted_gallery_by_gallery():
  similarity, ids, _ = _case(8, 3)
  found = curves.open_set_band(similarity, ids, draws=1, seed=4)
  rng = np.random.default_rng(4)
  chosen = rng.permutation(np.arange(8))[:4]
  gallery = [int(rng.choice(np.flatnonzero(ids == p))) for p in chosen]
  mated, strangers = [], []
  for probe in set(range(ids.size)) - set(gallery):
    scores = {ids[g]: similarity[probe, g] for g in gallery}
    best = max(scores, key=scores.get)
    if ids[probe] not in scores:
      strangers.append(scores[best])
    else:
      mated.append(scores[best] if best == ids[probe] else -np.inf)
  for rate, fnir in zip(found.fpir, found.mean, strict=True):
    cut = [
      t
      for t in sorted({*strangers, *mated, np.inf} - {-np.inf})
      if np.mean(np.array(strangers) >= t) <= rate
    ][0]
    assert fnir == pytest.approx(np.mean(np.array(mated) < cut))
  np.testing.assert_array_equal(found.low, found.high)


def test_too_few_people_for_strangers():
  similarity, ids, _ = _case(3, 3)
  assert curves.open_set_band(similarity, ids) is None
  singles = np.arange(ids.size)
  assert curves.open_set_band(similarity, singles) is None


def test_distances_and_their_density():
  _, _, points = _case(30, 4)
  found = curves.distances(points)
  i, j = np.triu_indices(len(points), 1)
  wanted = np.linalg.norm(points[i] - points[j], axis=1)
  np.testing.assert_allclose(found, wanted, atol=1e-7)
  places, height = curves.density(found)
  spread = min(
    found.std(), np.subtract(*np.quantile(found, [0.75, 0.25])) / 1.349
  )
  kernel = scipy.stats.gaussian_kde(
    found, 0.9 * spread * found.size**-0.2 / found.std(ddof=1)
  )
  np.testing.assert_allclose(height, kernel(places), atol=0.01 * height.max())
  assert curves.density(np.ones(5)) is None


def test_plane_is_that_of_scikit_learn():
  _, _, points = _case()
  plane, share = curves.principal_plane(points)
  pca = sklearn.decomposition.PCA(2).fit(points)
  wanted = pca.transform(points)
  np.testing.assert_allclose(np.abs(plane), np.abs(wanted), atol=1e-9)
  assert share == pytest.approx(pca.explained_variance_ratio_.sum())
  assert curves.principal_plane(np.ones((4, 3)))[1] == 1.0


def test_figures_are_drawn_and_say_their_numbers():
  similarity, ids, points = _case(30, 3)
  _, _, _, same = _pairs(similarity, ids)
  drawn = [
    curve_figures.cmc_figure({"A": [0.5, 0.75, 1.0], "B": [0.25, 0.5, 1.0]}),
    curve_figures.open_set_figure(
      {"A": curves.open_set_band(similarity, ids, draws=3)}
    ),
    curve_figures.reliability_figure(
      curves.reliability(_pairs(similarity, ids)[0], same), None
    ),
    curve_figures.distances_figure(curves.distances(points), same),
    curve_figures.map_figure(points, ids),
  ]
  for figure in drawn:
    assert figures.png_bytes(figure).startswith(b"\x89PNG")
  labels = [text.get_text() for text in drawn[0].axes[0].get_legend().texts]
  assert labels == ["A (rank 1: 50.0%)", "B (rank 1: 25.0%)"]
  assert "of the variance" in drawn[4].axes[0].get_title(loc="left")


def test_distances_without_a_crossing_have_none():
  same = np.repeat([1, 0], 50)
  values = np.random.default_rng(0).normal(size=100)
  wider = curve_figures.distances_figure(9 + values * (3 - 2 * same), same)
  crossing = curve_figures.distances_figure(9 + values - 2 * same, same)
  count = lambda figure: len(figure.axes[0].get_legend().texts)
  assert (count(wider), count(crossing)) == (2, 3)
  assert curve_figures.distances_figure(1.0 * same, same) is None
