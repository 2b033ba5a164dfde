"""Tests of facesiam_jax.evaluation.acquisition."""

import itertools

import numpy as np
import pytest

from facesiam_jax.evaluation import acquisition, protocols

IDS = np.array([4, 4, 4, 7, 7, 9, 9])


def _similarity(seed=0):
  rng = np.random.default_rng(seed)
  noise = rng.normal(size=(IDS.size,) * 2)
  return noise + noise.T + 2.0 * (IDS[:, None] == IDS)


def _rates(similarity, failed, threshold):
  """Loops over all pairs of photos; a failed one accepts nothing."""
  ids = [*IDS, *failed]
  wrong, pairs = {0: 0, 1: 0}, {0: 0, 1: 0}
  for i, j in itertools.combinations(range(len(ids)), 2):
    found = i < len(IDS) and j < len(IDS)
    accepted = found and similarity[i, j] >= threshold
    same = int(ids[i] == ids[j])
    pairs[same] += 1
    wrong[same] += accepted != bool(same)
  return wrong[0] / pairs[0], wrong[1] / pairs[1]


@pytest.mark.parametrize("threshold", [-40.0, -0.5, 1.0, 40.0])
def test_a_failed_photo_is_refused_in_every_pair(threshold):
  similarity, failed = _similarity(), [7, 7, 12]
  found = acquisition.acquisition_report(
    similarity, IDS, failed, ["a", "b", "a"], threshold
  )
  every = found["with_failures"]
  fmr, fnmr = _rates(similarity, failed, threshold)
  assert every["fmr"] == pytest.approx(fmr, abs=1e-12)
  assert every["fnmr"] == pytest.approx(fnmr, abs=1e-12)
  assert found["failures_to_acquire"] == {"count": 3, "of": 10}
  # Person 12 has no other photo, person 7 has.
  assert found["failures_to_enrol"] == {"count": 1, "of": 4}
  assert found["reasons"] == {"a": 2, "b": 1}
  alone = protocols.verification_report(similarity, IDS, threshold)
  assert every["one_shot_accuracy"] < alone["one_shot_accuracy"]
  assert every["num_images"] == 10 and alone["num_images"] == 7


def test_failed_photos_do_not_tie_with_the_worst_pair():
  similarity = np.where(np.equal.outer(IDS, IDS), 0.0, 0.0)
  found = acquisition.acquisition_report(similarity, IDS, [4], ["a"], 0.0)
  every = found["with_failures"]
  assert every["fnmr"] == 3 / 8 and every["fmr"] == 16 / 20


def test_nothing_failed():
  found = acquisition.acquisition_report(_similarity(), IDS, [], [], None)
  assert found["with_failures"] is None and found["num_photos"] == 7
  assert found["failures_to_acquire"] == {"count": 0, "of": 7}
  assert found["failures_to_enrol"] == {"count": 0, "of": 3}


def test_without_a_threshold_rates_stay_unknown():
  found = acquisition.acquisition_report(_similarity(), IDS, [4], ["a"], None)
  assert found["with_failures"]["fnmr"] is None
  assert 0 < found["with_failures"]["tar_at_far_0.1"] < 1


def test_as_many_reasons_as_failures():
  with pytest.raises(ValueError, match="reasons must be as many"):
    acquisition.acquisition_report(_similarity(), IDS, [4, 7], ["a"], None)
