"""Tests of facesiam_jax.evaluation.protocols."""

import doctest
import json
import math

import numpy as np
import pytest

from facesiam_jax.evaluation import baselines, protocols
from tests.reference import metrics as reference

METRICS = (
  "eer", "eer_raw", "auc", "threshold_logit", "accuracy", "balanced_accuracy",
  "fmr", "fnmr", "tar_at_far_0.01", "tar_at_far_0.1", "one_shot_accuracy",
  "triplet_accuracy",
  "num_people", "num_images", "num_genuine", "num_impostor",
)  # fmt: skip


def _case(num_people=7, images=4, seed=0, signal=1.5):
  rng = np.random.default_rng(seed)
  ids = np.repeat(np.arange(num_people) * 3 + 2, images).astype(np.int32)
  ids = ids[rng.permutation(ids.size)]
  similarity = rng.normal(size=(ids.size, ids.size))
  similarity = similarity + similarity.T
  return similarity + 2 * signal * (ids[:, None] == ids[None]), ids


def _loop_pairs(similarity, ids):
  scores, same = [], []
  for i in range(len(ids)):
    for j in range(i + 1, len(ids)):
      scores.append(float(similarity[i, j]))
      same.append(int(ids[i] == ids[j]))
  return scores, same


def test_docstring_examples():
  result = doctest.testmod(protocols)
  assert result.attempted and not result.failed


def test_all_pairs_are_each_pair_once():
  _, ids = _case()
  pairs = protocols.all_pairs(ids)
  expected = [(i, j) for i in range(28) for j in range(i + 1, 28)]
  assert list(zip(pairs.i, pairs.j, strict=True)) == expected
  np.testing.assert_array_equal(pairs.same, ids[pairs.i] == ids[pairs.j])
  assert pairs.same.sum() == 7 * 6
  assert {p.dtype for p in pairs} == {np.dtype(np.int32)}
  assert protocols.all_pairs([3]).i.size == 0
  with pytest.raises(ValueError, match="identity_ids must have rank 1"):
    protocols.all_pairs([[1, 2]])


def test_report_equals_loop_reference():
  similarity, ids = _case()
  report = protocols.verification_report(similarity, ids, 2.0)
  scores, same = _loop_pairs(similarity, ids)
  fmr, fnmr = reference.fmr_fnmr(scores, same, 2.0)
  right = np.mean((np.array(scores) >= 2.0) == np.array(same, bool))
  expected = {
    "eer": reference.eer_rocch(scores, same),
    "eer_raw": reference.eer_raw(scores, same),
    "auc": reference.auc(scores, same),
    "threshold_logit": 2.0,
    "fmr": fmr,
    "fnmr": fnmr,
    "accuracy": right,
    "balanced_accuracy": 1 - (fmr + fnmr) / 2,
    "tar_at_far_0.01": reference.tar_at_far(scores, same, 0.01)[0],
    "tar_at_far_0.1": reference.tar_at_far(scores, same, 0.1)[0],
    "num_people": 7,
    "num_images": 28,
    "num_genuine": 42,
    "num_impostor": 336,
  }
  for name, value in expected.items():
    assert math.isclose(report[name], value, abs_tol=1e-12), name
  exact = reference.expected_one_shot(similarity, ids)
  assert abs(report["one_shot_accuracy"] - exact) < 0.05


def test_report_is_plain_sorted_json_with_counts():
  similarity, ids = _case()
  report = protocols.verification_report(
    similarity.astype(np.float32), ids, np.float32(2)
  )
  text = json.dumps(report, allow_nan=False)
  assert json.loads(text) == report
  assert list(report) == sorted(report)
  assert set(METRICS) < set(report)
  counts = report["counts"]
  for name in METRICS:
    if not name.startswith(("num_", "threshold")):
      assert name in counts
    if "count" in counts.get(name, {}):
      entry = counts[name]
      assert math.isclose(entry["count"] / entry["of"], report[name])
  assert counts["one_shot_accuracy"]["of"] == 200 * 21
  assert counts["one_shot_accuracy"]["ways"] == 7
  assert counts["fmr"]["of"] == 336
  assert counts["fnmr"]["of"] == counts["tar_at_far_0.1"]["of"] == 42


def test_rounding_may_differ_between_the_triangles():
  similarity, ids = _case()
  report = protocols.verification_report(similarity, ids, 2.0)
  rounded = similarity + 1e-7 * np.tril(np.ones_like(similarity))
  again = protocols.verification_report(rounded, ids, 2.0)
  assert again["eer"] == report["eer"]


def test_report_without_threshold_leaves_its_metrics_null():
  similarity, ids = _case()
  report = protocols.verification_report(similarity, ids, None)
  for name in ("threshold_logit", "accuracy", "fmr", "fnmr"):
    assert report[name] is None
  assert report["balanced_accuracy"] is None
  assert "fmr" not in report["counts"]
  with_threshold = protocols.verification_report(similarity, ids, 0.0)
  assert report["eer"] == with_threshold["eer"]


def test_few_people_get_no_interval():
  report = protocols.verification_report(*_case(), 2.0)
  assert report["interval"] is None
  assert report["interval_reason"] == (
    "an interval needs at least 30 people, these pairs have 7"
  )


def test_thirty_people_get_intervals():
  similarity, ids = _case(num_people=30, images=2)
  report = protocols.verification_report(similarity, ids, 2.0, resamples=60)
  assert report["interval_reason"] is None
  assert "too narrow with 30 people" in report["interval_caution"]
  interval = dict(report["interval"])
  assert interval.pop("level") == 0.95
  assert "one_shot_accuracy" not in interval
  assert len(interval) == 10
  for name, (low, high) in interval.items():
    assert 0 <= low <= report[name] <= high <= 1, name
  assert report["counts"]["one_shot_accuracy"]["ways"] == 10


def test_rule_of_three_where_no_error_was_seen():
  similarity, ids = _case(num_people=30, images=2, signal=20)
  report = protocols.verification_report(similarity, ids, 20.0, resamples=20)
  assert report["fmr"] == report["fnmr"] == 0
  bound = -math.log(0.05)
  for name, units in (("fmr", 435), ("fnmr", 30)):
    assert report["interval"][name] == pytest.approx([0.0, bound / units])


def test_report_is_invariant_to_the_order_of_the_images():
  similarity, ids = _case()
  order = np.random.default_rng(1).permutation(ids.size)
  base = protocols.verification_report(similarity, ids, 2.0)
  moved = protocols.verification_report(
    similarity[np.ix_(order, order)], ids[order], 2.0
  )
  for name in METRICS:
    if name != "one_shot_accuracy":
      assert math.isclose(base[name], moved[name], abs_tol=1e-12), name


def test_report_refuses_bad_input_by_name():
  similarity, ids = _case()
  check = protocols.verification_report
  with pytest.raises(ValueError, match=r"similarity must have shape \[28, 28"):
    check(similarity[:5], ids, 0.0)
  lopsided = similarity.copy()
  lopsided[0, 1] += 0.1
  with pytest.raises(ValueError, match="similarity must be symmetric"):
    check(lopsided, ids, 0.0)
  broken = similarity.copy()
  broken[0, 1] = broken[1, 0] = np.inf
  with pytest.raises(ValueError, match="scores must be finite"):
    check(broken, ids, 0.0)
  with pytest.raises(ValueError, match="threshold must be a number"):
    check(similarity, ids, math.nan)
  with pytest.raises(ValueError, match="same must hold at least one"):
    check(similarity, np.zeros(28, int), 0.0)


def test_summarise():
  reports = [{"eer": e, "fmr": None, "num_people": 10} for e in (0.1, 0.2, 0.6)]
  summary = protocols.summarise(reports)
  assert set(summary) == {"eer"}
  assert summary["eer"]["mean"] == pytest.approx(0.3)
  assert summary["eer"]["sd"] == pytest.approx(math.sqrt(0.07))
  assert (summary["eer"]["min"], summary["eer"]["max"]) == (0.1, 0.6)
  assert protocols.summarise(reports[:1])["eer"]["sd"] is None
  whole = protocols.summarise([protocols.verification_report(*_case(), 2.0)])
  assert set(whole) == {n for n in METRICS if not n.startswith("num_")}
  with pytest.raises(ValueError, match="reports must hold at least one"):
    protocols.summarise([])
  with pytest.raises(ValueError, match="fmr is null in some"):
    protocols.summarise([{"fmr": None}, {"fmr": 0.1}])


def test_sample_pairs():
  similarity, ids = _case(num_people=8, images=5)
  samples = protocols.sample_pairs(similarity, ids, 2.0, per_kind=4)
  assert [s.kind for s in samples] == (
    ["true accept"] * 4 + ["false accept"] * 4 + ["false reject"] * 4
  )
  for sample in samples:
    same = ids[sample.i] == ids[sample.j]
    assert sample.score == similarity[sample.i, sample.j]
    assert same == (sample.kind != "false accept")
    assert (sample.score >= 2.0) == (sample.kind != "false reject")
  scores, same = map(np.array, _loop_pairs(similarity, ids))
  assert samples[4].score == scores[same == 0].max()
  assert samples[8].score == scores[same == 1].min()
  for kind in ("true accept", "false accept", "false reject"):
    people = [{ids[s.i], ids[s.j]} for s in samples if s.kind == kind]
    assert all(a != b for n, a in enumerate(people) for b in people[:n])
  again = protocols.sample_pairs(similarity, ids, 2.0, per_kind=4)
  assert samples == again
  assert protocols.sample_pairs(similarity, ids, 2.0, seed=1) != samples
  assert protocols.sample_pairs(np.zeros((1, 1)), [4], 0.0) == []
  with pytest.raises(ValueError, match="similarity must have shape"):
    protocols.sample_pairs(similarity, ids[:-1], 2.0)


def _images(num, seed=0, shape=(9, 7, 1)):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, size=(num, *shape)).astype(np.uint8)


def test_raw_pixels_equal_loop_reference():
  images = _images(5)
  similarity = baselines.raw_pixel_similarity(images)
  for a in range(5):
    for b in range(5):
      total = 0.0
      for p, q in zip(images[a].ravel(), images[b].ravel(), strict=True):
        total += ((int(p) - int(q)) / 255) ** 2
      assert math.isclose(similarity[a, b], -math.sqrt(total), abs_tol=1e-12)
  np.testing.assert_array_equal(similarity, similarity.T)
  np.testing.assert_array_equal(
    baselines.raw_pixel_similarity(images[..., 0]), similarity
  )


def test_eigenfaces_equal_scikit_learn():
  from sklearn.decomposition import PCA

  train, test = _images(30, 1), _images(6, 2)
  similarity = baselines.pca_similarity(train, test, components=11)
  model = PCA(11, svd_solver="full").fit(train.reshape(30, -1) / 255)
  rows = model.transform(test.reshape(6, -1) / 255)
  expected = -np.linalg.norm(rows[:, None] - rows[None], axis=-1)
  np.testing.assert_allclose(similarity, expected, atol=1e-9)
  np.testing.assert_array_equal(similarity, similarity.T)
  fewer = baselines.pca_similarity(train, test, components=10)
  assert np.abs(fewer - expected).max() > 1e-3


def test_eigenfaces_do_not_look_at_the_test_images():
  train, test = _images(30, 1), _images(6, 2)
  both = baselines.pca_similarity(train, test, components=5)
  part = baselines.pca_similarity(train, test[:3], components=5)
  # The size of a matrix product may change its last bits.
  np.testing.assert_allclose(both[:3, :3], part, rtol=1e-9, atol=1e-9)


def test_baselines_refuse_bad_input_by_name():
  images = _images(5)
  with pytest.raises(ValueError, match="images must be uint8"):
    baselines.raw_pixel_similarity(images / 255)
  with pytest.raises(ValueError, match="images must be uint8"):
    baselines.raw_pixel_similarity(images[0, ..., 0])
  with pytest.raises(ValueError, match="images must be uint8"):
    baselines.raw_pixel_similarity(images[:0])
  with pytest.raises(ValueError, match="test_images must have as many pixels"):
    baselines.pca_similarity(images, images[:, :5], components=2)
  for components in (0, 5):
    with pytest.raises(ValueError, match=r"components must lie in 1\.\.4"):
      baselines.pca_similarity(images, images, components=components)
