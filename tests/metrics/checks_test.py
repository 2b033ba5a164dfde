"""Tests of facesiam_jax.metrics.checks."""

import numpy as np
import pytest

from facesiam_jax.metrics import checks


@pytest.mark.parametrize(
  "ids",
  [
    np.array([9, 4, 9, -3]),
    np.array([-128, 127, 0] * 90, np.int8),
    np.array([0, 255, 254] * 90, np.uint8),
    np.array([2**63 + 5, 2**63 + 4, 2**63 + 5], np.uint64),
    np.array([-(2**63), 1 - 2**63, -(2**63)]),
    np.array([10**15, 3, 10**15]),
    # Far apart about 0, and the first number that int64 does not hold.
    np.array([-(10**15), 10**15]),
    np.array([2**63, 2**63 - 1], np.uint64),
    np.array(["bob", "ann", "bob"]),
    np.array([7]),
  ],
)
def test_numbering_equals_sorting(ids):
  known, index = checks.number(ids)
  expected, expected_index = np.unique(ids, return_inverse=True)
  np.testing.assert_array_equal(known, expected)
  np.testing.assert_array_equal(index, expected_index)
  assert known.dtype == ids.dtype
  np.testing.assert_array_equal(known[index], ids)


def test_numbers_keep_float32_and_become_float64_otherwise():
  for kind, expected in (
    (np.float32, np.float32),
    (np.float16, np.float64),
    (np.int32, np.float64),
    (np.bool_, np.float64),
  ):
    array = checks.check_floats("x", np.ones(3, kind), 1)
    assert array.dtype == expected
    assert checks.check_pairs(np.arange(2).astype(kind), [0, 1])[0].dtype == (
      expected
    )


@pytest.mark.parametrize(
  "values, message",
  [
    ([], "x must not be empty"),
    ([[1.0]], r"x must have rank 1, got shape \(1, 1\)"),
    ([np.nan], "x must be finite"),
    ([np.inf], "x must be finite"),
    ([1j], "x must be real numbers, got dtype complex128"),
    (["a"], "x must be real numbers"),
  ],
)
def test_bad_numbers_are_refused_by_name(values, message):
  with pytest.raises(ValueError, match=message):
    checks.check_floats("x", values, 1)


@pytest.mark.parametrize(
  "ids, message",
  [
    ([], r"x must be \[N\] with N > 0"),
    ([[1]], r"x must be \[N\] with N > 0, got \(1, 1\)"),
    ([1.0], "x must be integers or strings, got dtype float64"),
    ([True], "x must be integers or strings, got dtype bool"),
  ],
)
def test_bad_ids_are_refused_by_name(ids, message):
  with pytest.raises(ValueError, match=message):
    checks.check_ids("x", ids)


def test_ends_must_fit_the_scores():
  with pytest.raises(ValueError, match="groups_a and groups_b must have the"):
    checks.check_ends([1, 2], [1, 2, 3], (2,), "groups")
  with pytest.raises(ValueError, match=r"shape of scores \(3,\), got \(2,\)"):
    checks.check_ends([1, 2], [1, 2], (3,))


def test_labels_of_any_kind_that_means_0_and_1():
  for same in ([0, 1], [False, True], [0.0, 1.0], np.array([0, 1], np.uint8)):
    assert checks.check_pairs([0.1, 0.2], same)[1].tolist() == [False, True]
  for same in (["0", "1"], [0.0, np.nan], [0, 2], [-1, 1], [0.5, 1]):
    with pytest.raises(ValueError, match="same must hold only 0 and 1"):
      checks.check_pairs([0.1, 0.2], same)


def test_shares_may_be_0_and_1_probabilities_may_not():
  tiny = 1e-9
  for value in (0, tiny, 0.5, 1 - tiny, 1):
    checks.check_share("x", value)
  for value in (-tiny, 1 + tiny, -2, 3, np.nan, np.inf):
    with pytest.raises(ValueError, match=r"x must lie in 0\.\.1, got"):
      checks.check_share("x", value)
  for value in (tiny, 0.5, 1 - tiny):
    checks.check_inside("x", value)
  for value in (-tiny, 0, 1, 1 + tiny, -2, 3, np.nan):
    with pytest.raises(ValueError, match=r"x must lie inside 0\.\.1, got"):
      checks.check_inside("x", value)
