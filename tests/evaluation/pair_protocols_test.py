"""Tests of protocols of listed pairs against slow references of their own."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from facesiam_jax.evaluation import pair_protocols
from facesiam_jax.evaluation.pair_protocols import Compared


def _pairs(seed=0, count=400, folds=10, people=40):
  """Pairs of people whose folds share nobody."""
  rng = np.random.default_rng(seed)
  fold = np.repeat(np.arange(folds), count // folds)
  same = np.tile([True, False], count // 2)
  each = people // folds
  first = rng.integers(each, size=count)
  second = np.where(same, first, (first + rng.integers(1, each, count)) % each)
  scores = rng.normal(size=count) + 1.5 * same
  return Compared(
    scores,
    same,
    fold,
    np.zeros(count, int),
    fold * each + first,
    fold * each + second,
  )


def _reference_folds(scores, same, fold):
  """Every cut between two scores of the other folds, tried one by one."""
  shares = []
  for one in sorted(set(fold.tolist())):
    others = [(s, y) for s, y, f in zip(scores, same, fold, strict=True)
              if f != one]  # fmt: skip
    values = sorted({s for s, _ in others})
    cuts = [(a + b) / 2 for a, b in zip(values, values[1:], strict=False)]
    cuts = [values[0] - 1, *cuts, values[-1] + 1]
    best = max(cuts, key=lambda c: (sum((s >= c) == y for s, y in others), c))
    mine = [(s >= best) == y for s, y, f in zip(scores, same, fold, strict=True)
            if f == one]  # fmt: skip
    shares.append(sum(mine) / len(mine))
  mean = sum(shares) / len(shares)
  variance = sum((x - mean) ** 2 for x in shares) / (len(shares) - 1)
  return mean, (variance / len(shares)) ** 0.5


def test_view_2_is_the_slow_reference():
  pairs = _pairs(count=200)
  found = pair_protocols.report(pairs, resamples=20)["folds"]
  mean, error = _reference_folds(*pairs[:3])
  assert found["accuracy"] == pytest.approx(mean, abs=1e-12)
  assert found["standard_error"] == pytest.approx(error, abs=1e-12)
  assert found["interval"][0] < mean < found["interval"][1]
  assert found["people_in_two_folds"] == 0


def test_a_threshold_of_the_tested_fold_would_flatter():
  # Scores of each fold are shifted: only a fold's own threshold tells them.
  fold = np.repeat([0, 1], 4)
  same = np.tile([True, False], 4)
  pairs = Compared(same + 2.0 * fold, same, fold, np.zeros(8, int))
  cheating = np.mean(
    [
      max(
        np.mean((pairs.scores[mine] >= cut) == same[mine])
        for cut in pairs.scores[mine]
      )
      for mine in (fold == 0, fold == 1)
    ]
  )
  found = pair_protocols.fold_accuracies(pairs)
  assert cheating == 1.0
  assert found.mean == 0.5


def test_curve_figures_agree_with_scikit_learn():
  pairs = _pairs(count=1000)
  found = pair_protocols.report(pairs, resamples=20)
  want = sklearn_metrics.roc_auc_score(pairs.same, pairs.scores)
  assert found["auc"] == pytest.approx(want, abs=1e-12)
  fpr, tpr, _ = sklearn_metrics.roc_curve(
    pairs.same, pairs.scores, drop_intermediate=False
  )
  for target in (0.01, 0.1):
    want = tpr[fpr <= target].max()
    assert found[f"tar_at_far_{target:g}"] == pytest.approx(want, abs=1e-12)
  low, high = found["interval"]["auc"]
  assert low < found["auc"] < high


def test_missing_photos_are_errors_and_lost_faces_are_refused():
  same = np.array([1, 1, 1, 0, 0, 0], bool)
  scores = np.array([3.0, 3.0, 0.0, 1.0, 0.0, 0.0])
  none, lost, missing = 0, 1, 2
  whole = Compared(scores, same, np.zeros(6, int), np.zeros(6, int))
  of = lambda *outcome: pair_protocols.report(
    whole._replace(outcome=np.array(outcome)), threshold=2.0
  )
  assert of(none, none, none, none, none, none)["accuracy"] == pytest.approx(
    5 / 6
  )
  found = of(none, none, missing, none, missing, none)
  assert found["accuracy"] == pytest.approx(4 / 6)
  assert [found["fmr"], found["fnmr"]] == pytest.approx([1 / 3, 1 / 3])
  assert found["counts"]["missing"] == 2
  # Dropping them would give 1.
  found = of(none, none, lost, none, lost, none)
  assert found["accuracy"] == pytest.approx(5 / 6)
  assert [found["fmr"], found["fnmr"]] == pytest.approx([0, 1 / 3])
  assert found["compared_only"]["fnmr"] == 0


def test_missing_pairs_stay_in_their_fold():
  pairs = _pairs(count=200)
  outcome = np.zeros(200, int)
  outcome[:10] = pair_protocols.MISSING
  found = pair_protocols.fold_accuracies(pairs._replace(outcome=outcome))
  # Half of the first fold's twenty pairs are errors.
  assert found.accuracies[0] <= 0.5
  kept = pair_protocols.fold_accuracies(Compared(*(x[10:] for x in pairs)))
  assert found.accuracies[0] == pytest.approx(kept.accuracies[0] / 2)
  assert np.array_equal(found.thresholds, kept.thresholds)


def test_view_1_takes_its_threshold_from_development_pairs():
  fold = np.zeros(4, int)
  same = np.array([1, 1, 0, 0], bool)
  train = Compared(np.array([5.0, 4.0, 1.0, 0.0]), same, fold, fold)
  test = train._replace(scores=np.array([2.0, 9.0, 1.0, 0.0]))
  found = pair_protocols.view_1(train, test)
  assert found["threshold"] == 2.5
  # A threshold of the test pairs themselves would give 1.
  assert found["accuracy"] == 0.75


@pytest.mark.parametrize(
  "change, words",
  [
    ({"scores": np.full(400, np.nan)}, "NaN"),
    ({"scores": np.ones(400)}, "all 400 are 1"),
    ({"same": np.ones(400, bool)}, "at least one genuine"),
    ({"outcome": np.full(400, 2)}, "none of the 400 pairs"),
  ],
)
def test_what_tells_nothing_is_refused(change, words):
  with pytest.raises(ValueError, match=words):
    pair_protocols.report(_pairs()._replace(**change))


def test_too_few_pairs_for_a_target_give_null_and_why():
  found = pair_protocols.report(_pairs(count=40), resamples=5)
  assert found["tar_at_far_0.01"] is None
  assert "less than one" in found["refused"]["tar_at_far_0.01"]
  assert found["tar_at_far_0.1"] is not None
