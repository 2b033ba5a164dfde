"""The one interface of all detectors."""

import importlib.util
import io
import sys
import tarfile

import cv2
import numpy as np
import PIL.Image
import pytest

from facesiam_jax import errors
from facesiam_jax.data import olivetti
from facesiam_jax.faces import detect, detectors, dlib_faces, yunet
from tests import shared_data
from tests.faces import yunet_writer


@pytest.fixture(scope="module")
def images():
  return olivetti.read_source().reshape(400, 112, 92)


def _dlib(name):
  """Makes one of dlib's detectors, or skips."""
  pytest.importorskip("dlib")
  if importlib.util.find_spec("face_recognition_models") is None:
    pytest.skip("face_recognition_models, with dlib's models, is not there")
  return detectors.create(name)


def test_haar_is_what_it_was(images):
  (face,) = detectors.find_faces(images[40])
  (before,) = detect.find_faces(images[40])
  assert face.box == (before.x, before.y, before.side, before.side)
  assert face.score == before.confidence
  np.testing.assert_array_equal(face.eyes, detect.find_eyes(images[40], before))
  assert face.landmarks is None and face.corners is None
  (colour,) = detectors.find_faces(images[40][..., None].repeat(3, axis=2))
  assert colour.box == face.box


def test_the_largest_comes_first(images):
  small = cv2.resize(images[0], (70, 85))
  picture = np.full((112, 200), 90, np.uint8)
  picture[:85, :70], picture[:, 100:192] = small, images[40]
  faces = detectors.find_faces(picture)
  assert len(faces) == 2 and faces[0].box[0] > 80
  assert faces[0].box[2] >= faces[1].box[2]


def _face(box, score):
  return detectors.Face(box, score, np.array([[0.0, 0.0], [1.0, 0.0]]))


def test_a_surer_face_keeps_its_place(monkeypatch):
  found = [
    _face((0, 0, 100, 100), 2.0),
    _face((60, 10, 90, 90), 0.1),  # Shares more than a quarter of itself.
    _face((90, 0, 80, 80), 0.5),
    _face((300, 0, 110, 110), 0.2),
  ]
  monkeypatch.setattr(detectors, "_make", lambda *_: lambda image: found)
  faces = detectors.find_faces(np.zeros((9, 9), np.uint8), "dlib")
  assert [face.box[0] for face in faces] == [300, 0, 90]


@pytest.mark.parametrize(
  "name, model, match",
  [
    ("mtcnn", None, "--detector=mtcnn is not known.*haar, dlib"),
    ("haar", "x.onnx", "--detector_model is for --detector=yunet"),
    ("yunet", None, "needs --detector_model=FILE"),
    ("yunet", "none.onnx", "none.onnx is no file"),
  ],
)
def test_refuses(name, model, match):
  with pytest.raises(errors.UserError, match=match):
    detectors.create(name, model=model)


@pytest.mark.parametrize(
  "image",
  [np.zeros((9, 9)), np.zeros((9, 9, 4), np.uint8), np.zeros(9, np.uint8)],
)
def test_refuses_what_is_no_photo(image):
  with pytest.raises(ValueError, match="uint8"):
    detectors.find_faces(image)


def test_dlib_without_its_extra(monkeypatch):
  dlib_faces._detector.cache_clear()
  monkeypatch.setitem(sys.modules, "dlib", None)
  with pytest.raises(errors.UserError, match=r"facesiam_jax\[dlib\]"):
    detectors.create("dlib")


def test_dlib_from_the_cache(monkeypatch, tmp_path, images):
  _dlib("dlib")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  photo = cv2.resize(images[0], None, fx=4, fy=4)
  make = dlib_faces._detector.__wrapped__
  want = [str(part) for part in make().run(photo, 1, 0.0)]
  (kept,) = (tmp_path / "facesiam_jax").iterdir()
  sound = kept.read_bytes()
  with monkeypatch.context() as patched:
    # The copy is what is read, not dlib's own again.
    patched.setattr("dlib.get_frontal_face_detector", None)
    assert [str(part) for part in make().run(photo, 1, 0.0)] == want
  for damaged in (b"", sound[: len(sound) // 2], b"x" * 99):
    kept.write_bytes(damaged)
    assert [str(part) for part in make().run(photo, 1, 0.0)] == want
    assert kept.read_bytes() == sound


def test_dlib_without_a_place_for_the_cache(monkeypatch, tmp_path, images):
  _dlib("dlib")
  blocked = tmp_path / "file"
  blocked.write_text("no folder")
  monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
  photo = cv2.resize(images[0], None, fx=4, fy=4)
  assert len(dlib_faces._detector.__wrapped__().run(photo, 1, 0.0)[0]) == 1
  assert blocked.read_text() == "no folder"


def test_dlib_without_its_models(monkeypatch):
  monkeypatch.setattr(dlib_faces, "_PACKAGE", "no_such_package")
  with pytest.raises(errors.UserError, match=r"5_face.*facesiam_jax\[dlib\]"):
    dlib_faces._model(5)


@pytest.mark.parametrize("name", ["dlib", "dlib68"])
def test_dlib_finds_eyes_where_they_are(name, images):
  from facesiam_jax.data import olivetti_eyes

  detector, found = _dlib(name), 0
  for i in range(0, 400, 25):
    picture = cv2.copyMakeBorder(
      images[i], 40, 40, 40, 40, cv2.BORDER_REPLICATE
    )
    faces = detector(picture)
    if len(faces) != 1:
      continue
    found += 1
    true = olivetti_eyes.eyes().reshape(400, 2, 2)[i] + 40
    apart = np.hypot(*(true[1] - true[0]))
    assert np.hypot(*(faces[0].eyes - true).T).max() < 0.2 * apart
    assert faces[0].corners.shape == (5, 2) and faces[0].score > 0
    # The base of the nose lies below the eyes, its corners around them.
    assert faces[0].corners[4, 1] > faces[0].eyes[:, 1].max()
    assert faces[0].corners[0, 0] > faces[0].corners[1, 0]
    if name == "dlib":
      assert faces[0].landmarks is None
      continue
    eyes, nose, mouth = np.split(faces[0].landmarks, [2, 3])
    np.testing.assert_array_equal(eyes, faces[0].eyes)
    assert eyes[0, 0] < nose[0, 0] < eyes[1, 0]
    assert eyes[:, 1].max() < nose[0, 1] < mouth[:, 1].min()
    assert nose[0, 1] < faces[0].corners[4, 1] and mouth[0, 0] < mouth[1, 0]
  assert found >= 12


def test_dlib_finds_the_same_face_in_a_huge_photo(monkeypatch):
  detector = _dlib("dlib")
  data = shared_data.folder()
  with tarfile.open(data / "photos.tar") as tar:
    file = tar.extractfile("photos/07201/146926.jpg")
    image = np.array(PIL.Image.open(io.BytesIO(file.read())).convert("RGB"))
  (face,) = detector(image)
  monkeypatch.setattr(dlib_faces, "_LARGEST_SIDE", max(image.shape))
  (large,) = detector(image.repeat(2, axis=0).repeat(2, axis=1))
  # Searched at another size, but marked in the whole photo.
  box, width = np.array(face.box), face.box[2]
  np.testing.assert_allclose(np.array(large.box) / 2, box, atol=0.2 * width)
  np.testing.assert_allclose(large.eyes / 2, face.eyes, atol=0.1 * width)


@pytest.mark.parametrize("name", ["haar", "dlib"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2, 3), (40, 30, 3)])
def test_no_face(name, shape):
  detector = _dlib(name) if name == "dlib" else detectors.create(name)
  assert detector(np.zeros(shape, np.uint8)) == []


@pytest.fixture(scope="module", name="squares")
def _squares(tmp_path_factory):
  path = tmp_path_factory.mktemp("yunet") / "squares.onnx"
  path.write_bytes(yunet_writer.network())
  return str(path)


@pytest.mark.parametrize("height, width", [(640, 480), (1280, 900), (96, 320)])
def test_yunets_rows_become_places_in_the_photo(height, width, squares):
  # OpenCV's own code runs the network and decodes what it says.
  image = np.zeros((height, width, 3), np.uint8)
  side = 32 * max(height, width) // 640
  top, left = 2 * side, 5 * side
  image[top : top + side, left : left + side] = 255
  (face,) = detectors.find_faces(image, "yunet", model=squares)
  # Whole numbers are pixel centres of the picture that is searched.
  half = 0.5 * side / 32
  points = np.reshape(yunet_writer.POINTS, (5, 2)) * side + (left, top) + half
  np.testing.assert_allclose(face.landmarks, points, atol=0.02 * side)
  np.testing.assert_array_equal(face.eyes, face.landmarks[:2])
  tall = side * np.exp(0.5)
  box = (left, top + side / 2 - tall / 2, side, tall)
  np.testing.assert_allclose(face.box, box, atol=0.02 * side)
  assert face.score > 0.9 and face.corners is None


def test_yunet_sees_nothing(squares):
  detector = detectors.create("yunet", model=squares)
  for shape in ((1, 1), (1, 300), (480, 640, 3)):
    assert detector(np.zeros(shape, np.uint8)) == []


def test_yunet_gets_the_colours_in_opencvs_order(squares, monkeypatch):
  real = cv2.FaceDetectorYN.create(squares, "", (64, 64))
  brightest = []

  class Recorder:
    setInputSize = real.setInputSize

    def detect(self, image):
      brightest.append(image.max(axis=(0, 1)).tolist())
      return real.detect(image)

  monkeypatch.setattr(yunet, "_network", lambda model: Recorder())
  red = np.zeros((64, 64, 3), np.uint8)
  red[..., 0] = 200
  detectors.find_faces(red, "yunet", model=squares)
  assert brightest[-1] == [0, 0, 200]


def test_a_file_that_is_no_yunet(tmp_path):
  model = tmp_path / "notes.onnx"
  model.write_text("not a network")
  with pytest.raises(errors.UserError, match="notes.onnx is not a model of Yu"):
    detectors.create("yunet", model=str(model))
