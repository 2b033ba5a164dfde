"""The framing against published pixel values of scikit-learn's faces."""

import cv2
import numpy as np
import pytest

from facesiam_jax.data import olivetti, olivetti_eyes
from facesiam_jax.faces import framing

# First and last three rows and columns of fetch_olivetti_faces().images[0], in
# 242nds, as print() shows them.
_CORNERS = np.array(
  [
    [75, 89, 101, 90, 80, 74],
    [83, 98, 106, 90, 82, 76],
    [83, 101, 109, 92, 82, 72],
    [52, 50, 54, 37, 40, 42],
    [49, 51, 51, 36, 39, 40],
    [49, 50, 49, 37, 39, 38],
  ]
)
_AT = np.ix_([0, 1, 2, 61, 62, 63], [0, 1, 2, 61, 62, 63])
# The eyes that the square of the module's docstring stands for.
_EYES = np.array([[26.25, 51.40], [62.83, 50.37]])


@pytest.fixture(scope="module")
def images():
  return olivetti.read_source()


def _misfit(image, eyes):
  framed = framing.align(image, eyes).astype(np.float64)
  return np.sqrt(np.mean((framed[_AT] - _CORNERS) ** 2))


def test_is_scikit_learns_framing(images):
  assert _misfit(images[0, 0], _EYES) < 0.5


@pytest.mark.parametrize(
  "change",
  [
    pytest.param([[0.5, 0], [0.5, 0]], id="half a pixel right"),
    pytest.param([[0, 0.5], [0, 0.5]], id="half a pixel down"),
    pytest.param([[-0.5, 0], [0.5, 0]], id="larger"),
    pytest.param([[0, -0.5], [0, 0.5]], id="turned"),
  ],
)
def test_other_framings_fit_worse(images, change):
  assert _misfit(images[0, 0], _EYES + change) > 0.9


def test_other_images_fit_worse(images):
  for number in range(1, 10):
    assert _misfit(images[0, number], olivetti_eyes.eyes()[0, number]) > 5


def test_known_transform():
  # A picture of its own coordinates tells where each pixel came from.
  x = np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200))
  eyes = [[60.0, 60.0], [60.0, 124.0]]  # Turned by a quarter, scale 2.
  got_x = framing.align(x, eyes).astype(int)
  got_y = framing.align(x.T.copy(), eyes).astype(int)
  # Frame pixel (row r, column c) has its centre 2 (r + 0.5 - 17) left of and
  # 2 (c + 0.5 - 16) below the first eye; pixel i is centred at i + 0.5.
  row, column = np.indices((64, 64))
  want_x = 60 - 2 * (row + 0.5 - 17) - 0.5
  want_y = 60 + 2 * (column + 0.5 - 16) - 0.5
  inside = (want_x > 4) & (want_x < 195) & (want_y > 4) & (want_y < 195)
  assert inside.mean() > 0.7
  np.testing.assert_allclose(got_x[inside], want_x[inside], atol=0.51)
  np.testing.assert_allclose(got_y[inside], want_y[inside], atol=0.51)


@pytest.mark.parametrize("size", [1, 32, 64, 100])
def test_size(images, size):
  framed = framing.align(images[0, 0], _EYES, size=size)
  assert framed.shape == (size, size)
  assert framed.dtype == np.uint8


def test_same_face_at_another_resolution(images):
  image = images[3, 3]
  eyes = olivetti_eyes.eyes()[3, 3]
  large = cv2.resize(image, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
  difference = framing.align(image, eyes).astype(int) - framing.align(
    large, 5 * eyes
  )
  assert np.abs(difference).mean() < 1.5


def test_does_not_alias():
  # One-pixel stripes, shrunk ten times, become an even grey.
  stripes = np.zeros((640, 640), np.uint8)
  stripes[:, ::2] = 200
  framed = framing.align(stripes, [[160, 170], [480, 170]])
  # The outermost pixels also see the repeated border.
  assert np.abs(framed[:, 1:-1].astype(int) - 100).max() <= 2


def test_beyond_the_border_repeats_it():
  image = np.full((40, 40), 50, np.uint8)
  image[:, -1] = 90
  framed = framing.align(image, [[30, 20], [50, 20]])
  assert (framed[:, -20:] == 90).all()
  outside = framing.align(image, [[1000, 1000], [1040, 1000]])
  assert (outside == 90).all()


def test_batches_are_independent(images):
  eyes = olivetti_eyes.eyes()[:2, :3]
  together = framing.crop_to_framing(images[:2, :3], eyes=eyes)
  assert together.shape == (2, 3, 64, 64)
  alone = framing.crop_to_framing(images[1, 2], eyes=eyes[1, 2])
  np.testing.assert_array_equal(together[1, 2], alone)
  assert framing.crop_to_framing(images[:0, 0]).shape == (0, 64, 64)


def test_without_eyes_every_image_has_the_mean_box(images):
  framed = framing.crop_to_framing(images[0, :2])
  want = framing.align(images[0, 1], framing.MEAN_EYES)
  np.testing.assert_array_equal(framed[1], want)


def test_mean_eyes():
  np.testing.assert_allclose(
    olivetti_eyes.eyes().mean((0, 1)), framing.MEAN_EYES, atol=0.06
  )


def test_pupils_of_the_mean_face_lie_on_the_framing(images):
  framed = framing.crop_to_framing(images, eyes=olivetti_eyes.eyes())
  mean = framed.reshape(-1, 64, 64).mean(0)
  for x, y in framing.EYES:
    left = int(64 * x) - 8
    window = mean[10:26, left : left + 16]
    row, column = np.unravel_index(window.argmin(), window.shape)
    assert abs(10 + row + 0.5 - 64 * y) <= 1
    assert abs(left + column + 0.5 - 64 * x) <= 1


@pytest.mark.parametrize(
  "image",
  [
    np.zeros((112, 92), np.float32),
    np.zeros((112, 92, 1), np.uint8),
    np.zeros((0, 92), np.uint8),
  ],
)
def test_refuses_other_images(image):
  with pytest.raises(ValueError, match="uint8"):
    framing.align(image, _EYES)
  with pytest.raises(ValueError, match="uint8"):
    framing.crop_to_framing(image)


@pytest.mark.parametrize(
  "eyes", [[[1, 1], [1, 1]], [[1, 1], [np.nan, 1]], [1, 2, 3, 4]]
)
def test_refuses_impossible_eyes(eyes):
  with pytest.raises(ValueError, match="eyes"):
    framing.align(np.zeros((9, 9), np.uint8), eyes)
