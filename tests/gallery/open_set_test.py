"""Tests of facesiam_jax.gallery.open_set."""

import types

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.gallery import open_set

_LOGITS = [0.0, 1.0, 2.0, 3.0]
_RATES = [0.1, 0.03, 0.01, 0.003]
_RECORD = {
  "logits": _LOGITS,
  "fmr": _RATES,
  "smallest_fmr": 0.003,
  "sizes": [1, 10],
  "fpir": [[0.1, 0.03, 0.01, 0.003], [0.5, 0.2, 0.08, 0.02]],
  "low": [[0.05, 0.01, 0.0, 0.0], [0.3, 0.1, 0.04, 0.01]],
  "high": [[0.2, 0.1, 0.05, 0.02], [0.7, 0.4, 0.2, 0.1]],
  "people": 40,
}


def _bundle(**changes):
  settings = {
    "calibrated": True,
    "threshold": 2.0,
    "thresholds": {"fmr_0.01": {"logit": 2.0, "fmr": 0.01}},
    "calibration": {"open_set": _RECORD},
  }
  return types.SimpleNamespace(**{**settings, **changes})


def test_measured_up_to_the_largest_tested_size():
  point = open_set.operating_point(_bundle(), 10)
  assert point[:4] == pytest.approx((2.0, 10, 0.01, 0.08))
  assert point[4:] == (0.04, 0.2, "measured", 10)
  # Of the tested sizes the next larger one.
  assert open_set.operating_point(_bundle(), 3)[3:] == point[3:]
  assert open_set.operating_point(_bundle(), 0).tested == 1
  assert "95 % interval 4.00% to 20.00%" in point.sentence()
  assert "measured in galleries of 10 photos" in point.sentence()


def test_extrapolated_beyond_it_without_an_interval():
  point = open_set.operating_point(_bundle(), 11)
  assert point.fpir == pytest.approx(1 - 0.99**11)
  assert point[4:] == (None, None, "extrapolated", None)
  assert "extrapolated to 11 enrolled photos" in point.sentence()
  assert "no interval" in point.sentence()
  beyond = open_set.operating_point(_bundle(threshold=4.0), 1)
  assert beyond.basis == "extrapolated"
  # On a straight line through the last two points.
  assert beyond.fmr == pytest.approx(0.003**2 / 0.01)


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_target_moves_the_threshold_with_the_size(size):
  target = 1 - (1 - 0.01) ** size
  point = open_set.operating_point(_bundle(), size, fpir=target)
  assert point.threshold == pytest.approx(2.0) and point.basis == "measured"
  # In between, in proportion to the logarithm of the rate.
  target = 1 - (1 - (0.03 * 0.01) ** 0.5) ** size
  point = open_set.operating_point(_bundle(), size, fpir=target)
  assert point.threshold == pytest.approx(1.5)


def test_what_the_people_cannot_carry_is_refused():
  with pytest.raises(errors.UserError, match=r"--fpir=0.01 among 10 .*0.003 at "
                     r"the least.*--fpir=0.0296.*--extrapolate"):  # fmt: skip
    open_set.operating_point(_bundle(), 10, fpir=0.01)
  open_set.operating_point(_bundle(), 10, fpir=0.0296)
  point = open_set.operating_point(_bundle(), 10, fpir=0.01, extrapolate=True)
  assert point.basis == "extrapolated" and point.threshold > 3.0
  assert point.fpir == pytest.approx(0.01)
  for size in (10**3, 10**9):
    point = open_set.operating_point(_bundle(), size, fpir=1e-3,
                                     extrapolate=True)  # fmt: skip
    assert point.fpir == pytest.approx(1e-3)


def test_an_older_bundle_goes_by_its_thresholds():
  rates = {"eer": {"logit": 1.0, "fmr": 0.05},
           "fmr_0.01": {"logit": 2.0, "fmr": 0.01}}  # fmt: skip
  bundle = _bundle(calibration={}, thresholds=rates)
  point = open_set.operating_point(bundle, 5)
  assert point.basis == "extrapolated"
  assert point.fpir == pytest.approx(1 - 0.99**5)
  with pytest.raises(errors.UserError, match="support none"):
    open_set.operating_point(bundle, 5, fpir=0.1)
  point = open_set.operating_point(bundle, 5, fpir=0.01, extrapolate=True)
  assert point.threshold > 2.0 and point.fpir == pytest.approx(0.01)
  one = _bundle(calibration={}, thresholds={"a": {"logit": 2.0, "fmr": 0.01}})
  with pytest.raises(errors.UserError, match="too few false match rates"):
    open_set.operating_point(one, 5, fpir=0.01, extrapolate=True)


def test_nothing_is_known_of_an_uncalibrated_bundle():
  published = {"published": {"logit": 0.0, "fmr": None, "distance": 0.6}}
  bundle = _bundle(calibrated=False, calibration={}, thresholds=published)
  point = open_set.operating_point(bundle, 7)
  assert point == (2.0, 7, None, None, None, None, "unknown", None)
  assert "not known" in point.sentence()
  with pytest.raises(errors.UserError, match="uncalibrated"):
    open_set.operating_point(bundle, 7, fpir=0.1)
  unknown = _bundle(calibration={}, thresholds={"chosen": {"logit": 0.0}})
  assert open_set.operating_point(unknown, 7).basis == "unknown"


@pytest.mark.parametrize("fpir", [0.0, 1.0, -1.0, np.nan])
def test_a_target_that_is_no_share_is_refused(fpir):
  with pytest.raises(errors.UserError, match="between 0 and 1"):
    open_set.operating_point(_bundle(), 7, fpir=fpir)
