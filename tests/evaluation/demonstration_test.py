"""Tests of facesiam_jax.evaluation.demonstration and run_curves."""

import numpy as np
import pytest
import tiny

from facesiam_jax.evaluation import demonstration, run_curves


class PixelBundle:
  """Compares faces by their pixels, so that the answers are known."""

  def embed(self, images):
    return np.float64(images.reshape(len(images), -1)) / 255

  def logits_matrix(self, a, b):
    return -np.linalg.norm(a[:, None] - b[None, :], axis=-1)


def test_grid_shows_one_other_image_of_everybody():
  faces = tiny.Faces()
  for person in range(8):
    grid = demonstration.grid(PixelBundle(), faces, person)
    assert faces.identity_ids[grid.probe] == person == grid.person
    assert faces.identity_ids[grid.references].tolist() == list(range(8))
    assert grid.probe not in grid.references
    assert grid.logits.argmax() == person  # the tiny people are far apart
  again = demonstration.grid(PixelBundle(), faces, 7)
  np.testing.assert_array_equal(again.references, grid.references)
  other = demonstration.grid(PixelBundle(), faces, 7, seed=1)
  assert np.any(other.references != grid.references)


@pytest.mark.parametrize(
  "threshold, accepted, strangers", [(-1e9, 5, 7.0), (1e9, 0, 0.0)]
)
def test_enrol_one_counts_right_and_strange(threshold, accepted, strangers):
  faces = tiny.Faces()
  shown = demonstration.enrol_one(PixelBundle(), faces, 3, threshold=threshold)
  rows = [probe.row for probe in shown.probes]
  own = np.flatnonzero(faces.identity_ids == 3)
  assert sorted([*rows, shown.references[3]]) == own.tolist()
  totals = shown.totals()
  assert totals == {
    "probes": 5,
    "first": 5,
    "accepted": accepted,
    "strangers": strangers,
  }


def test_a_tie_with_a_stranger_is_not_first():
  faces = tiny.Faces()
  faces.images = np.zeros_like(faces.images)
  shown = demonstration.enrol_one(PixelBundle(), faces, 0, threshold=1.0)
  assert shown.totals()["first"] == 0


def test_lowest_of_a_noisy_curve():
  steps = list(range(0, 1000, 10))
  valley = [abs(step - 400) / 1000 for step in steps]
  valley[90] = -0.3  # one lucky point is not the lowest mean
  step, value = run_curves.lowest(steps, valley)
  assert abs(step - 400) <= 10 and 0 < value < 0.05
  assert run_curves.lowest([5], [2.0]) == (5.0, 2.0)
