"""The quality of cut-out faces, and what is said of poor ones."""

import numpy as np
import pytest

from facesiam_jax import alignment, quality
from facesiam_jax.faces import detectors, grading
from facesiam_jax.faces.photo import Cut

_FIVE = alignment.TEMPLATES["arcface_112"].places["five"] * 112
_CORNERS = alignment.TEMPLATES["arcface_112"].places["corners"] * 112


def _face(**given):
  box = (3.0, 4.0, 55.0, 60.0)
  return detectors.Face(box, 1.5, _FIVE[:2].copy(), **given)


def _pixels(seed=0, size=150):
  rng = np.random.default_rng(seed)
  return rng.integers(40, 200, (size, size, 3), dtype=np.uint8)


def _good(**changes):
  good = grading.Quality(90.0, 0.3, 0.5, 0.2, 0.9, 2.0, 0.05, 0.0, 1.0)
  return good._replace(**changes)


def test_measures_what_is_known():
  pixels = _pixels()
  bare, five, corners = (
    _face(),
    _face(landmarks=_FIVE),
    _face(corners=_CORNERS),
  )
  cuts = [Cut(pixels, face) for face in (None, bare, five, corners)]
  nothing, eyes, all_of_it, dlibs = grading.measure(cuts)
  light = float(quality.light(pixels[None])[0])
  for found in (nothing, eyes, all_of_it, dlibs):
    assert found.light == pytest.approx(light)
    assert found.contrast > 0.1 and 0.9 < found.evenness <= 1
  assert np.isnan([nothing.width, nothing.roll, nothing.yaw]).all()
  assert eyes.width == 55 and eyes.score == 1.5 and abs(eyes.roll) < 1
  assert np.isnan([eyes.yaw, eyes.pitch]).all()
  assert abs(all_of_it.yaw) < 0.1 and abs(all_of_it.pitch) < 0.1
  assert abs(dlibs.yaw) < 0.1 and np.isnan(dlibs.pitch)


def test_roll_is_in_degrees():
  turned = _face()._replace(eyes=np.array([[0.0, 0.0], [10.0, 10.0]]))
  (found,) = grading.measure([Cut(_pixels(), turned)])
  assert found.roll == pytest.approx(45)


def test_company_does_not_matter():
  cuts = [Cut(_pixels(seed), _face()) for seed in range(67)]
  together = grading.measure(cuts)
  assert len(together) == 67
  for n in (0, 63, 64, 66):
    (alone,) = grading.measure([cuts[n]])
    np.testing.assert_allclose(alone[1:5], together[n][1:5], rtol=1e-5)
  assert grading.measure([]) == []


def test_sharpness_means_the_same_at_any_size():
  small = _pixels(size=50)
  large = small.repeat(3, axis=0).repeat(3, axis=1)
  (a,) = grading.measure([Cut(small, None)])
  (b,) = grading.measure([Cut(large, None)])
  assert 0.4 < a.sharpness / b.sharpness < 1.2


def test_weight():
  usual = grading.Limits()
  assert grading.weight(_good()._replace(yaw=0.0)) == 1
  at_limits = {
    "width": usual.min_width,
    "sharpness": usual.min_sharpness,
    "contrast": usual.min_contrast,
  }
  front = _good(yaw=0.0)
  for name, value in at_limits.items():
    assert grading.weight(front._replace(**{name: value})) == 0.5
    assert grading.weight(front._replace(**{name: value / 2})) == 0.25
    assert grading.weight(front._replace(**{name: 0.0})) == 0.1
  for yaw in (usual.max_yaw, -usual.max_yaw):
    assert grading.weight(_good(yaw=yaw)) == 0.5
  assert grading.weight(front._replace(**at_limits)) == 0.125
  worst = dict(width=0.0, sharpness=0.0, contrast=0.0, yaw=np.inf)
  assert grading.weight(_good(**worst)) == pytest.approx(1e-4)
  unknown = grading.Quality(*[float("nan")] * 9)
  assert grading.weight(unknown) == 1
  assert grading.weight(unknown._replace(sharpness=0.075)) == 0.5


@pytest.mark.parametrize("name", ["width", "sharpness", "contrast", "yaw"])
def test_weight_falls_as_a_measure_gets_worse(name):
  top = {"width": 200, "sharpness": 0.5, "contrast": 0.4, "yaw": 2}[name]
  values = np.linspace(0, top, 300)
  for other in (_good(), _good(contrast=0.03, width=30.0, sharpness=0.05)):
    weights = [
      grading.weight(other._replace(**{name: float(value)})) for value in values
    ]
    rising = np.diff(weights) * (-1 if name == "yaw" else 1)
    assert (rising >= 0).all() and (rising > 0).sum() > 30
    assert 0 < min(weights) < max(weights) <= 1


def test_medians():
  cuts = [Cut(_pixels(seed), _face(corners=_CORNERS)) for seed in range(3)]
  left = _CORNERS.copy()
  left[4, 0] -= 20
  cuts[0] = cuts[0]._replace(face=_face(corners=left))
  cuts[1] = cuts[1]._replace(face=_face(corners=left))
  found = grading.medians(cuts)
  assert found["width"] == 55 and found["pitch"] is None
  assert found["yaw"] > 0.3


@pytest.mark.parametrize(
  "change, words",
  [
    ({}, None),
    ({"width": 39.0}, "39 pixels wide"),
    ({"sharpness": 0.05}, "not sharp"),
    ({"light": 0.05}, "too dark"),
    ({"light": 0.95}, "too bright"),
    ({"contrast": 0.02}, "without contrast"),
    ({"yaw": -0.5}, "turned to a side"),
    ({"roll": -60.0}, "tilted by 60 degrees"),
    ({"width": np.nan, "yaw": np.nan, "roll": np.nan, "pitch": np.nan}, None),
  ],
)
def test_shortcomings(change, words):
  found = grading.shortcomings(_good(**change))
  assert found == ([] if words is None else [words])
