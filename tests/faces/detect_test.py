"""Finding faces and eyes in AT&T images, whose eyes are known."""

import cv2
import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.data import olivetti, olivetti_eyes
from facesiam_jax.faces import detect


@pytest.fixture(scope="module")
def images():
  return olivetti.read_source().reshape(400, 112, 92)


@pytest.fixture(scope="module")
def eyes():
  return olivetti_eyes.eyes().reshape(400, 2, 2)


def _eye_error(found, true):
  """Largest distance of a pupil, in parts of the distance of the eyes."""
  apart = np.hypot(*(true[1] - true[0]))
  return np.hypot(*(found - true).T).max() / apart


def test_finds_the_face_and_eyes_of_tight_images(images, eyes):
  wrong = []
  for i in range(0, 400, 40):
    faces = detect.find_faces(images[i])
    if len(faces) != 1:
      wrong.append(i)
    elif _eye_error(detect.find_eyes(images[i], faces[0]), eyes[i]) > 0.1:
      wrong.append(i)
  assert len(wrong) <= 1, wrong


def test_same_bits_for_any_number_of_threads(images):
  image = images[40]
  threads = cv2.getNumThreads()
  answers = set()
  try:
    for count in (1, 2, 4, 4):
      cv2.setNumThreads(count)
      (face,) = detect.find_faces(image)
      answers.add((face, detect.find_eyes(image, face).tobytes()))
  finally:
    cv2.setNumThreads(threads)
  assert len(answers) == 1


@pytest.mark.parametrize("scale", [0.7, 3, 12])
def test_any_resolution(images, eyes, scale):
  large = cv2.resize(images[40], None, fx=scale, fy=scale)
  (face,) = detect.find_faces(large)
  assert _eye_error(detect.find_eyes(large, face), eyes[40] * scale) < 0.12


def test_face_anywhere_in_the_picture(images, eyes):
  picture = np.full((400, 500), 90, np.uint8)
  picture[200:312, 300:392] = images[40]
  (face,) = detect.find_faces(picture)
  moved = eyes[40] + (300, 200)
  assert _eye_error(detect.find_eyes(picture, face), moved) < 0.12


def test_two_faces(images):
  faces = detect.find_faces(np.hstack([images[0], images[40]]))
  assert len(faces) == 2
  assert faces[0].side >= faces[1].side


def test_bystander_is_left_out(images, eyes):
  picture = np.full((336, 400), 90, np.uint8)
  picture[:, :276] = cv2.resize(images[40], (276, 336))
  picture[200:312, 300:392] = images[0]  # A third as large.
  (face,) = detect.find_faces(picture)
  assert _eye_error(detect.find_eyes(picture, face), eyes[40] * 3) < 0.12


@pytest.mark.parametrize(
  "picture",
  [
    np.zeros((200, 150), np.uint8),
    np.full((64, 64), 255, np.uint8),
    np.random.default_rng(0).integers(0, 256, (120, 90), dtype=np.uint8),
    np.zeros((1, 1), np.uint8),
    np.zeros((1, 3000), np.uint8),
    np.zeros((3000, 2), np.uint8),
  ],
  ids=lambda p: str(p.shape),
)
def test_no_face(picture):
  assert detect.find_faces(picture) == []


def test_a_face_on_its_head_is_not_found(images):
  assert detect.find_faces(images[0, ::-1].copy()) == []


def test_eyes_without_any_hit_are_the_usual_ones():
  face = detect.Face(10.0, 20.0, 100.0, 57.0)
  found = detect.find_eyes(np.zeros((200, 200), np.uint8), face)
  want = np.array((10.0, 20.0)) + 100 * np.array(detect.BOX_EYES)
  np.testing.assert_allclose(found, want)


def test_one_hidden_eye_follows_the_other(images, eyes):
  image = images[40].copy()
  (face,) = detect.find_faces(image)
  x, y = eyes[40, 1].astype(int)
  image[y - 9 : y + 10, x - 11 : x + 12] = image[y + 12, x]
  found = detect.find_eyes(image, face)
  assert np.hypot(*(found[0] - eyes[40, 0])) < 2
  np.testing.assert_allclose(
    found[1] - found[0],
    face.side * (np.array(detect.BOX_EYES[1]) - detect.BOX_EYES[0]),
    atol=0.12 * face.side,
  )


@pytest.mark.parametrize("lack", ["class", "files"])
def test_opencv_without_cascades(images, monkeypatch, tmp_path, lack):
  detect._cascade.cache_clear()
  if lack == "class":
    monkeypatch.delattr(cv2, "CascadeClassifier")
  else:
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
  with pytest.raises(errors.UserError, match="opencv-python-headless<5"):
    detect.find_faces(images[0])
  detect._cascade.cache_clear()
