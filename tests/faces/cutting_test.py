"""Cutting found faces out of photos for each template."""

import importlib.util
import io
import tarfile

import jax
import numpy as np
import PIL.Image
import pytest

from facesiam_jax import alignment, errors
from facesiam_jax.faces import cutting, detectors, framing
from tests import shared_data

_warp = jax.jit(alignment.warp, static_argnames="size")


def _smooth(height, width, seed=0):
  """A smooth photo, uint8 [H, W, 3]."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  a, b = rng.uniform(0.01, 0.06, (2, 3)) * 300 / max(height, width)
  waves = np.sin(y[..., None] * a + x[..., None] * b)
  return (127 + 120 * waves).astype(np.uint8)


def _found(template, kind, scale, shift, angle=0.2):
  """A face whose landmarks lie on a template that was turned and moved."""
  entry = alignment.TEMPLATES[template]
  cos, sin = scale * np.cos(angle), scale * np.sin(angle)
  turn = np.array([[cos, sin], [-sin, cos]])
  place = {
    name: places * entry.size @ turn + shift
    for name, places in entry.places.items()
  }
  given = {"landmarks": "five", "corners": "corners"}
  return detectors.Face(
    (*shift, entry.size * scale, entry.size * scale),
    1.0,
    place["eyes"],
    **{k: place[v] for k, v in given.items() if v == kind},
  ), np.concatenate([turn.T, np.array(shift)[:, None]], axis=1)


@pytest.mark.parametrize("template", ["dlib_150", "arcface_112"])
@pytest.mark.parametrize("kind", ["five", "corners", "eyes"])
@pytest.mark.parametrize("scale", [0.4, 1.9, 3.5])
def test_is_the_warp_of_the_whole_photo(template, kind, scale):
  size = alignment.TEMPLATES[template].size
  photo = _smooth(700, 800)
  face, matrix = _found(template, kind, scale, (150.0, 40.0))
  got = cutting.cut(photo, face, alignment=template, size=size)
  want = _warp(photo[None], matrix[None], size=size)[0]
  assert got.dtype == np.uint8 and got.shape == (size, size, 3)
  # Halved from another corner, the samples of a reduced photo lie elsewhere.
  assert np.abs(got - np.asarray(want)).max() < (1.0 if scale < 2 else 2.5)


@pytest.mark.parametrize("scale", [4.5, 9.0, 20.0])
def test_large_faces_are_shrunk_first(scale):
  small = _smooth(230, 260)
  times = int(np.ceil(scale))
  photo = small.repeat(times, axis=0).repeat(times, axis=1)
  face, _ = _found("dlib_150", "corners", 1.1, (40.0, 20.0))
  large = face._replace(eyes=face.eyes * times, corners=face.corners * times)
  want = cutting.cut(small, face, alignment="dlib_150", size=150)
  got = cutting.cut(photo, large, alignment="dlib_150", size=150)
  assert np.abs(got.astype(int) - want).mean() < 1.5


def test_beyond_the_photo_is_black():
  photo = np.full((120, 100, 3), 200, np.uint8)
  face, matrix = _found("arcface_112", "five", 1.0, (60.0, 70.0), angle=0.0)
  got = cutting.cut(photo, face, alignment="arcface_112", size=112)
  assert (got[:48, :38] == 200).all() and (got[:, 43:] == 0).all()
  assert (got[53:] == 0).all()
  far = face._replace(eyes=face.eyes + 5000, landmarks=face.landmarks + 5000)
  assert not cutting.cut(photo, far, alignment="arcface_112", size=112).any()


def test_grey_and_other_sizes():
  photo = _smooth(300, 300)
  face, _ = _found("arcface_112", "five", 1.5, (60.0, 30.0))
  gray = cutting.cut(photo[..., :1], face, alignment="arcface_112", size=56)
  assert gray.shape == (56, 56, 1)
  colour = cutting.cut(photo, face, alignment="arcface_112", size=56)
  np.testing.assert_array_equal(gray[..., 0], colour[..., 0])


def test_olivetti_is_the_framing_by_the_eyes():
  photo = _smooth(300, 260)
  face, _ = _found("dlib_150", "eyes", 1.0, (60.0, 30.0))
  got = cutting.cut(photo, face, alignment="olivetti", size=64)
  for channel in range(3):
    want = framing.align(photo[..., channel], face.eyes)
    np.testing.assert_array_equal(got[..., channel], want)


def test_each_template_takes_its_own_landmarks_first():
  both, _ = _found("dlib_150", "corners", 1.0, (50.0, 50.0))
  other, _ = _found("dlib_150", "five", 1.0, (80.0, 20.0))
  both = both._replace(landmarks=other.landmarks)
  assert cutting._landmarks(both, "dlib_150")[1] == "corners"
  assert cutting._landmarks(both, "arcface_112")[1] == "five"
  assert cutting._landmarks(other, "dlib_150")[1] == "five"
  bare = both._replace(landmarks=None, corners=None)
  assert cutting._landmarks(bare, "dlib_150")[1] == "eyes"


def test_refuses():
  face, _ = _found("dlib_150", "eyes", 1.0, (0.0, 0.0))
  photo = np.zeros((9, 9, 3), np.uint8)
  with pytest.raises(errors.UserError, match="'mtcnn160'.*--cropped"):
    cutting.cut(photo, face, alignment="mtcnn160", size=160)
  one = face._replace(eyes=face.eyes[:1].repeat(2, axis=0))
  with pytest.raises(errors.UserError, match="coincide"):
    cutting.cut(photo, one, alignment="dlib_150", size=150)


@pytest.mark.slow
def test_dlibs_chips_on_real_photos():
  """At most two grey levels on average, over every sixth photo."""
  dlib = pytest.importorskip("dlib")
  if importlib.util.find_spec("face_recognition_models") is None:
    pytest.skip("face_recognition_models, with dlib's models, is not there")
  detector = detectors.create("dlib")
  apart, shifted = [], []
  with tarfile.open(shared_data.folder() / "photos.tar") as tar:
    members = sorted((m for m in tar if m.isfile()), key=lambda m: m.name)
    for member in members[::6]:
      file = tar.extractfile(member)
      photo = np.array(PIL.Image.open(io.BytesIO(file.read())).convert("RGB"))
      for face in detector(photo):
        parts = (face.corners - 0.5).round().astype(int)
        shape = dlib.full_object_detection(
          dlib.rectangle(0, 0, 9, 9), [dlib.point(*p) for p in parts.tolist()]
        )
        want = dlib.get_face_chip(photo, shape, 150, 0.25).astype(int)
        got = cutting.cut(photo, face, alignment="dlib_150", size=150)
        apart.append(np.abs(got - want).mean())
        moved = face._replace(corners=face.corners + 1)
        got = cutting.cut(photo, moved, alignment="dlib_150", size=150)
        shifted.append(np.abs(got - want).mean())
  assert len(apart) >= 16
  assert np.mean(apart) < 2 and max(apart) < 4
  # A pixel beside it would be seen.
  assert np.mean(shifted) > 2.5


def test_a_large_face_at_the_border_of_a_huge_photo():
  photo = np.full((2999, 2501, 3), 200, np.uint8)
  face, _ = _found("dlib_150", "corners", 9.0, (-500.0, 2000.0), angle=0.0)
  got = cutting.cut(photo, face, alignment="dlib_150", size=150)
  across, down = 500 / 9, 999 / 9
  assert (got[: int(down) - 2, int(across) + 3 :] == 200).all()
  assert not got[:, : int(across) - 2].any() and not got[int(down) + 3 :].any()
  # As a landmark gone astray leaves it: nothing is large, and nothing breaks.
  wild = face._replace(corners=face.corners * (1000, 0.001))
  got = cutting.cut(photo, wild, alignment="dlib_150", size=150)
  assert got.shape == (150, 150, 3)
