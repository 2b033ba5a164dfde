"""Tests of the measures of a face's picture."""

import jax
import numpy as np
import pytest

from facesiam_jax import alignment, quality

_FIVE = alignment.TEMPLATES["arcface_112"].places["five"] * 112


def _texture(seed=0, size=60, count=3, channels=3):
  rng = np.random.default_rng(seed)
  noise = rng.uniform(0, 255, (count, size, size, channels))
  smooth = noise.copy()
  for axis in (1, 2):
    smooth = (smooth + np.roll(smooth, 1, axis) + np.roll(smooth, 2, axis)) / 3
  return np.clip(smooth, 0, 255).astype(np.uint8)


def _sharpness(image):
  """By loops in float64."""
  gray = image.astype(np.float64) @ [0.299, 0.587, 0.114] / 255
  height, width = gray.shape
  values = [
    gray[y - 1, x] + gray[y + 1, x] + gray[y, x - 1] + gray[y, x + 1]
    - 4 * gray[y, x]
    for y in range(1, height - 1)
    for x in range(1, width - 1)
  ]  # fmt: skip
  return np.std(values) / np.std(gray)


def test_sharpness_equals_loops():
  images = _texture()
  expected = [_sharpness(image) for image in images]
  np.testing.assert_allclose(quality.sharpness(images), expected, rtol=1e-4)
  wrong = [_sharpness(image[::2, ::2]) for image in images]
  assert np.abs(quality.sharpness(images) - np.array(wrong)).min() > 0.05


def test_sharpness_falls_when_a_face_is_enlarged():
  cv2 = pytest.importorskip("cv2")
  image = _texture(size=96, count=1)[0]
  last = float(quality.sharpness(image[None])[0])
  for small in (48, 24, 12):
    shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    back = cv2.resize(shrunk, (96, 96), interpolation=cv2.INTER_LINEAR)
    now = float(quality.sharpness(back[None])[0])
    assert now < 0.75 * last
    last = now


def test_light_and_contrast_change_no_sharpness():
  image = _texture(count=1)
  dim = (image // 2 + 40).astype(np.uint8)
  np.testing.assert_allclose(
    quality.sharpness(dim), quality.sharpness(image), rtol=0.03
  )
  assert quality.contrast(dim)[0] < 0.6 * quality.contrast(image)[0]
  assert quality.light(np.full((1, 5, 5, 1), 51, np.uint8))[0] == (
    pytest.approx(0.2)
  )
  pure = np.zeros((3, 4, 4, 3), np.uint8)
  pure[[0, 1, 2], ..., [0, 1, 2]] = 255
  np.testing.assert_allclose(
    quality.light(pure), [0.299, 0.587, 0.114], rtol=1e-5
  )
  checks = (np.indices((6, 6)).sum(0) % 2 * 255).astype(np.uint8)
  assert quality.contrast(checks[None, ..., None])[0] == pytest.approx(0.5)


def test_evenness():
  image = np.full((2, 6, 7, 1), 200, np.uint8)
  image[0, :, :3] = 50
  image[1, :, 4:] = 100
  np.testing.assert_allclose(quality.evenness(image), [0.25, 0.5], rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 9, 9, 1), (1, 2, 9, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("value", [0, 130, 255])
def test_one_grey_is_finite(shape, value):
  images = np.full(shape, value, np.uint8)
  assert (np.asarray(quality.sharpness(images)) == 0).all()
  for measure in (quality.light, quality.contrast, quality.evenness):
    assert np.isfinite(measure(images)).all()
  assert (np.asarray(quality.evenness(images)) == 1).all()


def _turned(angle, five=_FIVE, scale=1.0, shift=(0, 0)):
  cos, sin = scale * np.cos(angle), scale * np.sin(angle)
  return five @ np.array([[cos, sin], [-sin, cos]]) + shift


def test_pose_does_not_depend_on_place_size_or_turn():
  turned = np.stack(
    [_turned(a, scale=s, shift=(9, -4)) for a, s in ((0, 1), (0.7, 3), (-2, 9))]
  )
  upright = float(quality.roll(_FIVE[None, :2])[0])
  roll = np.asarray(quality.roll(turned[:, :2])) - upright
  np.testing.assert_allclose(roll, [0, 0.7, -2], atol=1e-4)
  yaw = quality.yaw(turned[:, :2], turned[:, 2])
  np.testing.assert_allclose(yaw, np.repeat(yaw[:1], 3), atol=1e-4)
  assert abs(yaw[0]) < 0.05
  pitch = quality.pitch(turned)
  np.testing.assert_allclose(pitch, np.repeat(pitch[:1], 3), atol=1e-4)


def test_signs_of_the_pose():
  right, low = _FIVE.copy(), _FIVE.copy()
  right[2, 0] += 15
  low[2, 1] += 10
  base = quality.yaw(_FIVE[None, :2], _FIVE[None, 2])[0]
  turned = quality.yaw(right[None, :2], right[None, 2])[0]
  apart = np.hypot(*(_FIVE[1] - _FIVE[0]))
  assert turned - base == pytest.approx(15 / apart, rel=1e-3)
  level, down = quality.pitch(np.stack([_FIVE, low]))
  assert down > level + 0.2
  # Clockwise as seen: the picture's right eye is the lower one.
  assert quality.roll(np.array([[[0.0, 0.0], [1.0, 0.5]]]))[0] > 0.4


def test_unknown_pose_is_nan_without_warnings():
  same = np.ones((1, 5, 2), np.float32)
  assert np.isnan(quality.roll(same[:, :2])[0])
  assert np.isnan(quality.yaw(same[:, :2], same[:, 2])[0])
  assert np.isnan(quality.pitch(same)[0])
  flat = _FIVE[None].copy()
  flat[0, 3:, 1] = flat[0, :2, 1].mean()
  assert np.isnan(quality.pitch(flat)[0])
  gradient = jax.grad(lambda e: quality.roll(e).sum())(same[:, :2])
  assert np.isfinite(gradient).all() or np.isnan(gradient).all()


@pytest.mark.parametrize(
  "call, match",
  [
    (lambda: quality.light(np.zeros((1, 4, 4, 3))), "uint8"),
    (lambda: quality.light(np.zeros((4, 4), np.uint8)), "uint8"),
    (lambda: quality.light(np.zeros((1, 4, 4, 2), np.uint8)), "channels"),
    (lambda: quality.sharpness(np.zeros((1, 0, 4, 1), np.uint8)), "pixels"),
    (lambda: quality.roll(np.zeros((2, 2))), r"\[B, 2, 2\]"),
    (lambda: quality.pitch(np.zeros((1, 2, 2))), r"\[B, 5, 2\]"),
  ],
)
def test_refuses(call, match):
  with pytest.raises(ValueError, match=match):
    call()
