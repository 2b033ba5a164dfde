"""Drawn people: the same everywhere, faces and not noise, told apart."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from facesiam_jax import errors, parallel
from facesiam_jax.data import portrait, sets, synthetic

# Compiled: drawing number by number takes longer than all of the rest.
_person, _shot = jax.jit(synthetic.person), jax.jit(synthetic.shot)
_draw = jax.jit(portrait.draw, static_argnames="size")
_PEOPLE, _IMAGES, _SIZE = 24, 6, 32


@pytest.fixture(scope="module")
def faces():
  return synthetic.make_faces(_PEOPLE, _IMAGES, size=_SIZE, channels=3)


def test_shapes_and_names(faces):
  assert faces.images.shape == (_PEOPLE * _IMAGES, _SIZE, _SIZE, 3)
  assert faces.images.dtype == np.uint8
  np.testing.assert_array_equal(
    faces.identity_ids, np.repeat(np.arange(_PEOPLE), _IMAGES)
  )
  assert faces.names[3] == "person3" and len(faces.names) == _PEOPLE


def test_an_image_depends_on_its_own_numbers_only(faces):
  """Whatever else is drawn beside it, in any order."""
  rows = np.random.default_rng(0).integers(0, len(faces.images), 64)
  draw = synthetic._drawer(_SIZE, 3)
  drawn = draw(0, *(np.int32(x) for x in (rows // _IMAGES, rows % _IMAGES)))
  np.testing.assert_array_equal(drawn, faces.images[rows])
  fewer = synthetic.make_faces(3, 2, size=_SIZE, channels=3).images
  shape = (_PEOPLE, _IMAGES, *faces.images.shape[1:])
  expected = faces.images.reshape(shape)[:3, :2].reshape(fewer.shape)
  np.testing.assert_array_equal(fewer, expected)


@pytest.mark.parametrize("count", [8, pytest.param(2, marks=pytest.mark.soak)])
def test_the_device_count_does_not_matter(faces, devices, count):
  people, numbers = np.arange(16) % _PEOPLE, np.arange(16) % _IMAGES
  draw = parallel.pmap(
    lambda p, n: synthetic.pictures(0, p, n, size=_SIZE, channels=3),
    parallel.make_mesh(devices[:count]),
  )
  drawn = np.asarray(draw(people, numbers)).astype(int)
  expected = faces.images[people * _IMAGES + numbers]
  assert np.abs(drawn - expected).max() <= 1


def test_seeds_people_and_pictures_differ(faces):
  other = synthetic.make_faces(2, 2, size=_SIZE, channels=3, seed=1).images
  images = [*other, *faces.images[: 2 * _IMAGES]]
  for i, image in enumerate(images):
    for another in images[i + 1 :]:
      assert np.abs(image.astype(int) - another).mean() > 2


def test_a_persons_numbers_do_not_change_between_pictures():
  first = _person(0, 5)
  again = _person(0, jnp.int32(5))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert float(first.width) != float(_person(0, 6).width)
  assert float(first.width) != float(_person(1, 5).width)
  assert float(_shot(0, 5, 0).yaw) != float(_shot(0, 5, 1).yaw)


def test_grey_is_the_luma_of_the_colours():
  colour = synthetic.make_faces(2, 3, size=_SIZE, channels=3).images
  grey = synthetic.make_faces(2, 3, size=_SIZE, channels=1).images
  luma = colour @ np.array([0.299, 0.587, 0.114])
  # The grain is drawn for each number of channels apart.
  assert np.abs(grey[..., 0] - luma).mean() < 5


def _separable(blocks):
  """Share of pairs of neighbours that are nearly equal."""
  across = np.abs(np.diff(blocks.astype(float), axis=2))
  return np.mean(across < 12)


def test_pictures_are_smooth_and_not_noise(faces):
  noise = np.random.default_rng(0).integers(0, 256, faces.images.shape)
  assert _separable(faces.images) > 0.4 > 3 * _separable(noise)
  assert faces.images.reshape(len(faces.images), -1).std(axis=1).min() > 10


def _frontal(**changes):
  """A person as they are, seen from the front in even light, in colour."""
  at_rest = _shot(0, 3, 0)._asdict()
  at_rest.update(
    dict.fromkeys(
      ("yaw", "pitch", "roll", "shift_x", "shift_y", "light_x", "smile",
       "open_mouth", "gaze", "brow_lift", "warmth", "noise"), jnp.float32(0),
    ),
    zoom=jnp.float32(1), exposure=jnp.float32(1), light_y=jnp.float32(-0.2),
    open_eyes=jnp.float32(1), background=jnp.full(3, 0.5),
  )  # fmt: skip
  at_rest.update(changes)
  who = _person(0, 3)._replace(parting=jnp.float32(0), glasses=jnp.float32(0))
  shot = type(_shot(0, 3, 0))(**at_rest)
  return who, np.asarray(_draw(who, shot, size=96))


def test_a_frontal_face_is_symmetric_and_a_turned_one_is_not():
  lopsided = lambda face: np.abs(face - face[:, ::-1]).mean()
  even = lopsided(_frontal()[1])
  assert even < 0.005
  assert lopsided(_frontal(yaw=jnp.float32(0.4))[1]) > 4 * even
  assert lopsided(_frontal(light_x=jnp.float32(0.8))[1]) > 0.05


def test_eyes_and_mouth_are_where_the_numbers_say():
  who, face = _frontal()
  to_pixel = lambda place: round((float(place) + 1) * 48)
  row, column = to_pixel(who.eye_row), to_pixel(who.eye_gap)
  pupil = face[row - 2 : row + 2, column - 2 : column + 2].min()
  cheek = face[row + 10 : row + 14, column - 2 : column + 2].mean()
  assert pupil < 0.12 < 0.5 * cheek
  mouth = to_pixel(who.eye_row + who.nose_length + who.mouth_row)
  _, laughing = _frontal(open_mouth=jnp.float32(1), smile=jnp.float32(1))
  changed = np.abs(laughing - face).mean(axis=2)
  assert changed[mouth - 8 : mouth + 8, 32:64].mean() > 0.02
  assert changed[:20].max() < 0.01


def test_light_and_expression_move_pixels_as_they_should():
  _, left = _frontal(light_x=jnp.float32(-0.9))
  assert left[40:70, 25:45].mean() > left[40:70, 51:71].mean() + 0.05
  _, shut = _frontal(open_eyes=jnp.float32(0.05))
  who, wide = _frontal()
  row, column = (round((float(x) + 1) * 48) for x in (who.eye_row, who.eye_gap))
  eye = np.s_[row - 3 : row + 3, column - 8 : column + 8]
  assert np.abs(shut[eye] - wide[eye]).mean() > 0.05


def test_groups_differ_in_skin_and_come_in_turn():
  people = jnp.arange(64)
  groups = np.asarray(synthetic.group(people))
  skins = np.asarray(jax.jit(jax.vmap(lambda p: _person(0, p).skin))(people))
  assert sorted(set(groups)) == [0, 1, 2, 3]
  tones = [skins[groups == g].mean() for g in range(4)]
  assert tones == sorted(tones, reverse=True) and tones[0] > 2 * tones[3]


def _eer(scores, same):
  thresholds = np.quantile(scores, np.linspace(0, 1, 501))
  fmr = np.array([(scores[~same] >= t).mean() for t in thresholds])
  fnmr = np.array([(scores[same] < t).mean() for t in thresholds])
  nearest = np.argmin(np.abs(fmr - fnmr))
  return (fmr[nearest] + fnmr[nearest]) / 2


def test_people_can_be_told_apart_but_not_by_raw_pixels(faces):
  pixels = faces.images.reshape(len(faces.images), -1).astype(float)
  pixels -= pixels.mean(axis=1, keepdims=True)
  pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
  upper = np.triu_indices(len(pixels), 1)
  same = (faces.identity_ids[:, None] == faces.identity_ids)[upper]
  assert 0.2 < _eer((pixels @ pixels.T)[upper], same) < 0.4


def test_a_million_people_need_no_memory():
  people = np.full(64, 10**6, np.int32)
  people[1] = 2**31 - 1
  drawn = np.asarray(synthetic._drawer(_SIZE, 3)(0, people, 0 * people))
  assert np.abs(drawn[0].astype(int) - drawn[1]).mean() > 2
  np.testing.assert_array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("size, channels", [(4, 1), (32, 2)])
def test_bad_shapes_are_refused(size, channels):
  with pytest.raises(ValueError, match="channels must be 1 or 3"):
    synthetic.picture(0, 0, 0, size=size, channels=channels)


def _config(**changes):
  fields = {"name": "synthetic", "num_people": 32, "images_per_person": 2}
  fields |= {"channels": 3, "fold": 1, "num_validation": 5}
  return ml_collections.ConfigDict(fields | changes)


def test_by_name_split_by_people():
  data = sets.load(_config(), image_size=_SIZE)
  assert data.faces.images.shape == (64, _SIZE, _SIZE, 3)
  assert data.test == (4, 5, 6, 7, 20, 21, 22, 23)
  assert len(data.validation) == 5 and len(data.train) == 19
  assert sorted(data.train + data.validation + data.test) == list(range(32))


@pytest.mark.parametrize(
  "field, value",
  [
    ("num_people", 4), ("images_per_person", 1), ("channels", 2), ("fold", 4),
    ("num_validation", 23),
  ],
)  # fmt: skip
def test_fields_out_of_range_are_named(field, value):
  with pytest.raises(errors.UserError, match=f"config.dataset.{field} must be"):
    sets.load(_config(**{field: value}), image_size=16)
