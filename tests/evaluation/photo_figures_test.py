"""Tests of the picture of a photo with its faces."""

import io

import numpy as np
import PIL.Image
import pytest

from facesiam_jax.evaluation import figures, photo_figures


def _drawn(figure):
  png = figures.png_bytes(figure, all_colors=True)
  with PIL.Image.open(io.BytesIO(png)) as image:
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("shape", [(300, 500), (900, 200, 3), (20, 20, 1)])
def test_boxes_are_drawn_where_the_faces_are(shape):
  height, width = shape[:2]
  image = np.full(shape, 120, np.uint8)
  box = (0.25 * width, 0.5 * height, 0.25 * width, 0.25 * height)
  drawn = _drawn(photo_figures.photo_figure(image, [box], ["1 Ada"], [True]))
  rows, columns = np.nonzero(np.ptp(drawn, axis=2) > 60)
  gray = np.nonzero((drawn == 120).all(axis=2))
  top, left = gray[0].min(), gray[1].min()
  across = gray[1].max() + 1 - left
  scale = across / width
  assert abs((columns.min() - left) / scale - box[0]) < 0.03 * max(shape[:2])
  assert abs((rows.min() - top) / scale - box[1]) < 0.03 * max(shape[:2])
  assert abs(across / (gray[0].max() + 1 - top) - width / height) < 0.03


def test_odd_names_and_boxes_beyond_the_photo():
  image = np.zeros((100, 150, 3), np.uint8)
  boxes = [(-20, -20, 60, 60), (120, 60, 80, 80)]
  names = ["1 $x_{$ \n" + "long " * 30, "2 Zoë"]
  drawn = _drawn(photo_figures.photo_figure(image, boxes, names, [True, False]))
  assert np.ptp(drawn, axis=2).max() > 60


def test_no_face_and_wrong_counts():
  image = np.zeros((10, 10), np.uint8)
  assert photo_figures.photo_figure(image, [], [], []) is not None
  with pytest.raises(ValueError, match="1 boxes, 0 labels"):
    photo_figures.photo_figure(image, [(0, 0, 5, 5)], [], [True])
