"""Properties of the metrics: what depends on the order only, bounds, curves."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from facesiam_jax import metrics
from properties import strategies

_ANY = st.floats(allow_nan=False, allow_infinity=False)
_TIED = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.0 + 2.0**-52])
_SCORES = st.one_of(_TIED, _ANY)
_ORDINARY = st.floats(-1e30, 1e30)


@st.composite
def _scored(draw, values=_SCORES, most=24):
  """Scores with ties and extremes, and labels of both kinds."""
  size = draw(st.integers(2, most))
  scores = draw(st.lists(values, min_size=size, max_size=size))
  same = draw(st.lists(st.booleans(), min_size=size, max_size=size))
  same[:2] = draw(st.sampled_from([(True, False), (False, True)]))
  return np.array(scores), np.array(same, np.int32)


def _ranks(scores):
  """The order of the scores and nothing else, ties kept."""
  return np.unique(scores, return_inverse=True)[1].astype(float)


_SHARES = st.floats(0, 1)


@given(_scored(), _SHARES)
def test_verification_depends_on_the_order_only(pairs, target):
  scores, same = pairs
  for other in (_ranks(scores), np.exp(_ranks(scores)), _ranks(scores) ** 3):
    for one, two in zip(
      metrics.roc(scores, same)[1:], metrics.roc(other, same)[1:], strict=True
    ):
      np.testing.assert_array_equal(one, two)
    assert metrics.auc(scores, same) == metrics.auc(other, same)
    assert metrics.eer(scores, same)[:2] == metrics.eer(other, same)[:2]
    tar, _ = metrics.tar_at_far(scores, same, target)
    assert tar == metrics.tar_at_far(other, same, target).tar
    assert metrics.min_cllr(scores, same) == metrics.min_cllr(other, same)


@given(_scored())
def test_the_area_is_the_chance_of_the_right_order(pairs):
  scores, same = pairs
  genuine, impostor = scores[same == 1], scores[same == 0]
  wins = sum(g > i for g in genuine for i in impostor)
  ties = sum(g == i for g in genuine for i in impostor)
  expected = (wins + ties / 2) / (genuine.size * impostor.size)
  assert metrics.auc(scores, same) == pytest.approx(expected, abs=1e-12)
  opposite = metrics.auc(-scores, same)
  assert opposite == pytest.approx(1 - expected, abs=1e-12)


@given(_scored(), st.lists(_ANY, min_size=1, max_size=5))
def test_error_rates_are_monotone_in_the_threshold(pairs, thresholds):
  scores, same = pairs
  places = sorted([*thresholds, *scores, -np.inf, np.inf])
  rates = [metrics.error_rates_at(scores, same, t) for t in places]
  for low, high in itertools.pairwise(rates):
    assert low.fmr >= high.fmr and low.fnmr <= high.fnmr
  assert rates[0] == (1, 0) and rates[-1] == (0, 1)
  for threshold, fmr, fnmr in zip(
    *metrics.det_points(scores, same), strict=True
  ):
    assert metrics.error_rates_at(scores, same, threshold) == (fmr, fnmr)


@given(_scored(), _SHARES)
def test_tar_at_far_is_the_best_that_keeps_the_target(pairs, target):
  scores, same = pairs
  tar, threshold = metrics.tar_at_far(scores, same, target)
  reached = metrics.error_rates_at(scores, same, threshold)
  assert reached.fmr <= target and 1 - reached.fnmr == tar
  curve = metrics.roc(scores, same)
  assert tar == curve.tar[curve.fmr <= target].max()
  assert metrics.threshold_at_fmr(scores, same, target) == threshold


@given(_scored())
def test_the_equal_error_rate_lies_between_its_neighbours(pairs):
  scores, same = pairs
  rocch, raw, threshold = metrics.eer(scores, same)
  assert 0 <= rocch <= 0.5 and rocch <= raw + 1e-12 and raw <= 1
  at = metrics.error_rates_at(scores, same, threshold)
  gap = abs(at.fmr - at.fnmr)
  curve = metrics.det_points(scores, same)
  assert gap <= np.abs(curve.fmr - curve.fnmr).min() + 1e-12
  assert min(at) - 1e-12 <= raw <= max(at) + 1e-12
  accuracy = metrics.accuracy_at(scores, same, threshold)
  assert accuracy.balanced == pytest.approx(1 - (at.fmr + at.fnmr) / 2)


@given(_scored(st.one_of(_TIED, st.floats(-1e300, 1e300))))
def test_no_map_beats_the_best_monotone_one(pairs):
  scores, same = pairs
  best = metrics.min_cllr(scores, same)
  assert 0 <= best <= 1 + 1e-12
  for llrs in (scores, _ranks(scores) - _ranks(scores).mean(), 0 * scores):
    assert best <= metrics.cllr(llrs, same) * (1 + 1e-12) + 1e-12
  assert metrics.nll(scores, same) >= 0


@given(_scored(st.one_of(_TIED, _ORDINARY)))
def test_the_isotonic_map_never_falls(pairs):
  scores, same = pairs
  fit = metrics.fit_isotonic(scores, same)
  places = np.sort(np.concatenate([scores, [-1e300, 0.3, 1e300]]))
  llrs = fit.llr(places)
  assert np.isfinite(llrs).all() and (np.diff(llrs) >= -1e-12).all()
  assert metrics.cllr(fit.llr(scores), same) >= metrics.min_cllr(scores, same)


@given(_scored(st.one_of(_TIED, _ORDINARY, st.floats(-1e300, 1e300))))
def test_platt_is_finite_whatever_the_scores(pairs):
  scores, same = pairs
  # Beyond these w, or the scores less their mean, would have no digits.
  assume(np.ptp(scores) > max(1e-12 * np.abs(scores).max(), 1e-300))
  w, b = metrics.fit_platt(scores, same)
  assert np.isfinite([w, b]).all()
  # No worse than w = b = 0 by its own measure: Platt's targets, in bits.
  logits = w * scores + b
  cost = 0.0
  for kind in (0, 1):
    count = (same == kind).sum()
    target = (count + 1) / (count + 2) if kind else 1 / (count + 2)
    terms = np.logaddexp(0, logits) - target * logits
    cost += 0.5 * terms[same == kind].mean() / np.log(2)
  assert cost <= 1 + 1e-9


@given(_scored(st.floats(-500, 500)))
def test_a_temperature_is_positive_or_refused(pairs):
  logits, same = pairs
  try:
    temperature = metrics.fit_temperature(logits, same)
  except ValueError as error:
    assert "temperature would be" in str(error)
    return
  assert temperature > 0
  cost = metrics.cllr(logits / temperature, same)
  assert cost <= metrics.cllr(logits, same) * (1 + 1e-9) + 1e-12


@given(_scored(st.one_of(_SHARES, st.sampled_from([0.0, 0.2, 0.5, 1.0]))),
       st.integers(1, 20))  # fmt: skip
def test_calibration_errors_lie_between_zero_and_one(pairs, bins):
  probabilities, same = pairs
  ece = metrics.ece(probabilities, same, bins=bins)
  assert 0 <= ece <= 1 + 1e-12
  # A finer division shows more: each bin is split into three.
  assert ece <= metrics.ece(probabilities, same, bins=3 * bins) + 1e-12
  assert 0 <= metrics.brier(probabilities, same) <= 1


@given(st.lists(_ORDINARY, min_size=1), st.floats(1e-9, 1 - 1e-9))
def test_probabilities_are_some_and_keep_the_order(llrs, prior):
  found = metrics.probability(np.sort(llrs), prior=prior)
  assert ((found >= 0) & (found <= 1)).all() and (np.diff(found) >= 0).all()


@st.composite
def _people(draw, pairs=30):
  """Scores, a threshold among them, and people at both ends of each pair."""
  few = st.sampled_from([-1.0, 0.0, 0.5, 1.0])
  lists = lambda values: st.lists(values, min_size=pairs, max_size=pairs)
  scores = np.array(draw(lists(few)))
  ends = np.array([draw(lists(st.integers(0, 5))) for _ in range(2)])
  # At least one pair of each kind.
  ends[:, 0], ends[:, 1] = (0, 0), (0, 1)
  return scores, *ends, draw(st.sampled_from([-1.0, 0.25, 1.0, 2.0]))


@given(_people(), st.floats(0.5, 0.999))
def test_intervals_hold_the_rate_and_are_wider_when_surer(case, level):
  narrow = metrics.error_rate_intervals(*case, level=level, min_people=1)
  wide = metrics.error_rate_intervals(
    *case, level=(1 + level) / 2, min_people=1
  )
  for one, other in zip(narrow, wide, strict=True):
    assert 0 <= one.low <= one.rate <= one.high <= 1
    assert other.low <= one.low + 1e-9 and one.high <= other.high + 1e-9
    assert one.rate == one.errors / one.pairs
    assert one.effective_pairs is None or 0 < one.effective_pairs <= (
      one.pairs + 1e-9
    )


@given(st.integers(1, 10**9), st.floats(0.01, 0.999))
def test_the_rule_of_three_is_a_share_that_falls(units, level):
  bound = metrics.rule_of_three(units, level=level)
  assert 0 < bound <= 1
  assert metrics.rule_of_three(units + 1, level=level) <= bound


@given(_people(pairs=40))
def test_bootstrap_intervals_are_shares(case):
  scores, people_a, people_b, _ = case
  found = metrics.person_bootstrap(
    lambda counts: {"errors": float(counts.genuine[0] / counts.num_genuine)},
    scores,
    people_a,
    people_b,
    resamples=20,
    min_people=2,
  )
  if found.intervals is not None:
    low, high = found.intervals["errors"]
    assert 0 <= low <= high <= 1


@st.composite
def _search(draw, size=8):
  """A similarity with ties, and whose image each row is."""
  values = draw(
    st.lists(st.integers(-3, 3), min_size=size**2, max_size=size**2)
  )
  ids = draw(strategies.ids(size))
  # Somebody has two images, and there are two people.
  ids[:3] = 0, 0, 1
  return np.reshape(np.array(values, float), (size, size)), ids


@given(_search())
def test_identification_depends_on_the_order_only_and_is_monotone(case):
  similarity, ids = case
  curve = metrics.cmc(similarity, ids, draws=5)
  assert (np.diff(curve) >= 0).all() and curve[0] >= 0 and curve[-1] == 1
  assert curve[0] == metrics.one_shot_accuracy(similarity, ids, draws=5)
  other = similarity**3 + similarity
  np.testing.assert_array_equal(metrics.cmc(other, ids, draws=5), curve)
  average = metrics.map_at_r(similarity, ids)
  assert 0 <= average <= metrics.r_precision(similarity, ids) + 1e-12 <= 2
  for metric in (
    metrics.map_at_r, metrics.r_precision, metrics.precision_at_1
  ):  # fmt: skip
    assert 0 <= metric(similarity, ids) <= 1
    assert metric(other, ids) == metric(similarity, ids)


@given(_search(), _SHARES)
def test_open_set_rates_are_monotone(case, target):
  similarity, ids = case
  arguments = similarity[:, 2:], ids, np.maximum(ids[2:], 1)
  curve = metrics.open_set_curve(*arguments)
  assert (np.diff(curve.fpir) >= 0).all() and (np.diff(curve.fnir) <= 0).all()
  for threshold, fpir, fnir in zip(*curve, strict=True):
    assert metrics.open_set_rates_at(*arguments, threshold) == (fpir, fnir)
  fnir, threshold = metrics.fnir_at_fpir(*arguments, target)
  assert metrics.open_set_rates_at(*arguments, threshold).fpir <= target
  assert fnir == curve.fnir[curve.fpir <= target].min()
  mated = np.isin(ids, arguments[2])
  searched = similarity[mated][:, 2:], ids[mated], arguments[2]
  most = len(np.unique(arguments[2]))
  shares = [metrics.rank_k(*searched, k=k) for k in range(1, most + 1)]
  assert shares == sorted(shares) and shares[-1] == 1


@given(st.lists(_SHARES, min_size=2, max_size=6), _SHARES, st.floats(0.1, 1))
def test_unfairness_lies_between_zero_and_one(rates, alpha, factor):
  others = rates[::-1]
  assert 0 <= metrics.gini(rates) <= 1 + 1e-12
  assert 0 <= metrics.garbe(rates, others, alpha=alpha) <= 1 + 1e-12
  fair = metrics.fairness_discrepancy_rate(rates, others, alpha=alpha)
  assert -1e-12 <= fair <= 1
  assume(min(rates) > 1e-300)
  scaled = metrics.gini([factor * rate for rate in rates])
  assert scaled == pytest.approx(metrics.gini(rates), abs=1e-9)


@given(_search(), st.integers(1, 8))
def test_normalised_scores_do_not_know_an_image_s_own_level(case, top_k):
  similarity, ids = case
  del ids
  cohort = similarity[:, ::-1]
  norm = metrics.s_norm(similarity, cohort, similarity.T, top_k=top_k)
  other = metrics.s_norm(similarity.T, similarity.T, cohort, top_k=top_k)
  np.testing.assert_array_equal(norm, other.T)
  shifted = metrics.z_norm(similarity + 4.0, cohort + 4.0, top_k=top_k)
  plain = metrics.z_norm(similarity, cohort, top_k=top_k)
  np.testing.assert_allclose(shifted, plain, rtol=1e-9, atol=1e-9)


@given(_scored(), st.integers(2, 4))
def test_fold_accuracies_are_shares(pairs, folds):
  scores, same = pairs
  # Each fold's others hold both kinds: one pair of each in two folds.
  scores, same = np.tile(scores, folds), np.tile(same, folds)
  fold = np.repeat(np.arange(folds), len(pairs[0]))
  found = metrics.k_fold_accuracy(scores, same, fold)
  assert 0 <= found.mean <= 1 and found.standard_error >= 0
  # All folds are alike, and never worse than one answer for everybody.
  assert found.mean >= max(same.mean(), 1 - same.mean()) - 1e-12


_measure = strategies.jit(metrics.collapse_statistics)


@given(strategies.matrices((9, 17)), strategies.masks(9))
def test_collapse_is_measured_at_any_magnitude(x, mask):
  plain = _measure(x, mask)
  strategies.assert_finite(plain)
  assert 0 <= plain.spread <= 1 + 1e-5
  assert 0 <= plain.effective_rank <= min(8, 17) * (1 + 1e-5)
  assert plain.num_rows == mask.sum()
  spoilt = np.where(mask[:, None] > 0, x, np.nan).astype(np.float32)
  strategies.assert_same_bits(_measure(spoilt, mask), plain)
  alike = np.broadcast_to(x[:1], x.shape)
  same = jax.tree.map(float, _measure(np.array(alike), mask))
  assert same.spread <= 1e-5
