"""Faces in ArrayRecord files: the right pixels, people and errors."""

import pathlib
import pickle

import numpy as np
import pytest
import record_set

from facesiam_jax import errors
from facesiam_jax.data import olivetti, records, resident


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  images, ids = record_set.faces()
  return record_set.write(tmp_path_factory.mktemp("set"), images, ids)


def test_images_and_people_are_those_written(written):
  images, ids = record_set.faces()
  faces = records.open_faces(written)
  assert faces.images.shape == images.shape and faces.images.ndim == 4
  assert faces.images.nbytes == images.nbytes
  np.testing.assert_array_equal(np.asarray(faces.images), images)
  assert [faces.names[i] for i in faces.identity_ids] == [str(i) for i in ids]
  assert faces.identity_ids.dtype == np.int32
  assert sorted(set(faces.identity_ids)) == list(range(6))


@pytest.mark.parametrize(
  "key",
  [slice(3, 20, 2), np.array([5, 0, 5]), np.arange(30) % 3 == 1, slice(0, 0)],
)
def test_views_are_those_of_an_array(written, key):
  images, _ = record_set.faces()
  view = records.open_faces(written).images[key]
  assert view.shape == images[key].shape and len(view) == len(images[key])
  np.testing.assert_array_equal(np.asarray(view), images[key])
  np.testing.assert_array_equal(np.asarray(view[::-1]), images[key][::-1])


def test_one_number_reads_one_image(written):
  images, _ = record_set.faces()
  np.testing.assert_array_equal(
    records.open_faces(written).images[-2], images[-2]
  )


def test_a_view_reads_nothing_until_it_is_asked(written, monkeypatch):
  faces = records.open_faces(written)
  monkeypatch.setattr(records._Reader, "records", None)
  view = faces.images[3:9]
  with pytest.raises(TypeError):
    np.asarray(view)


def test_a_view_can_be_sent_to_another_process(written):
  view = records.open_faces(written).images[4:7]
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(view)), view)


def test_resident_feed_takes_them_as_an_array(written):
  images, ids = record_set.faces()
  faces = records.open_faces(written)
  data = resident.make_resident(faces.images, faces.identity_ids)
  np.testing.assert_array_equal(data.images, images)
  with pytest.raises(ValueError, match="no array to share"):
    np.asarray(faces.images, copy=False)


def test_olivetti_as_prepared(tmp_path):
  olivetti.prepare(str(tmp_path))
  folder = tmp_path / "olivetti" / "1.0.0"
  faces = records.open_faces(folder)
  assert faces.images.shape == (400, 112, 92, 1)
  pixels = olivetti.read_source().reshape(400, 112, 92, 1)
  np.testing.assert_array_equal(np.asarray(faces.images), pixels)
  np.testing.assert_array_equal(faces.identity_ids, np.arange(400) // 10)
  small = records.open_faces(folder, size=46, channels=3).images
  assert small.shape == (400, 46, 46, 3)
  middle = pixels[0, 10:102].reshape(46, 2, 46, 2).mean(axis=(1, 3))
  difference = np.asarray(small[:1])[0] - middle[..., None]
  assert np.abs(difference).max() <= 1


def test_plain_arrays_and_texts(tmp_path):
  images, ids = record_set.faces(channels=1)
  names = [f"Person {i} é" for i in ids]
  folder = record_set.write(tmp_path, images, names, kind="array")
  faces = records.open_faces(folder)
  np.testing.assert_array_equal(np.asarray(faces.images), images)
  assert [faces.names[i] for i in faces.identity_ids] == names
  colour = records.open_faces(folder, channels=3).images
  np.testing.assert_array_equal(colour, images.repeat(3, axis=3))


def test_colour_arrays_become_grey_by_the_luma(tmp_path):
  images, ids = record_set.faces()
  folder = record_set.write(tmp_path, images, ids, kind="array")
  grey = np.asarray(records.open_faces(folder, channels=1).images)
  luma = images @ np.array([0.299, 0.587, 0.114])
  assert np.abs(grey[..., 0] - luma).max() <= 1


def test_images_of_many_shapes_need_a_size(tmp_path):
  images, ids = record_set.faces()
  images = [image[: 6 + number % 3] for number, image in enumerate(images)]
  folder = record_set.write(tmp_path, images, ids)
  with pytest.raises(errors.UserError, match="say which size"):
    records.open_faces(folder)
  assert np.asarray(records.open_faces(folder, size=8).images).shape[1:] == (
    8, 8, 3,
  )  # fmt: skip


def test_a_damaged_image_is_named(tmp_path):
  images, ids = record_set.faces()
  broken = [*images]
  broken[7] = b"no image at all"
  folder = record_set.write(tmp_path, broken, ids)
  faces = records.open_faces(folder, size=12)
  np.testing.assert_array_equal(np.asarray(faces.images[:7]), images[:7])
  with pytest.raises(errors.UserError, match="image 7 of .* is damaged"):
    np.asarray(faces.images[5:9])


@pytest.mark.parametrize("left_out", ["image", "identity"])
def test_a_missing_feature_is_named(tmp_path, left_out):
  images, ids = record_set.faces()
  folder = record_set.write(tmp_path, images, ids, extra=(left_out,))
  with pytest.raises(errors.UserError, match=f"no feature '{left_out}'"):
    records.open_faces(folder)


def test_no_data_set_and_no_such_split(tmp_path, written):
  with pytest.raises(errors.UserError, match="holds no tfds data set"):
    records.open_faces(tmp_path / "nothing")
  with pytest.raises(errors.UserError, match="split 'test'"):
    records.open_faces(written, split="test")


def test_part_of_a_split(written):
  images, _ = record_set.faces()
  part = records.open_faces(written, split="train[10:20]")
  np.testing.assert_array_equal(np.asarray(part.images), images[10:20])
  assert len(records.open_faces(written).images) == len(images)


def test_identities_are_kept_and_follow_the_files(tmp_path, monkeypatch):
  images, ids = record_set.faces()
  folder = record_set.write(tmp_path / "a", images, ids)
  first = records.open_faces(folder)
  with monkeypatch.context() as patch:
    patch.setattr(records, "_label", None)
    again = records.open_faces(folder)
  np.testing.assert_array_equal(again.identity_ids, first.identity_ids)
  (kept,) = pathlib.Path(folder).glob(".identities-*")
  kept.write_bytes(b"cut off")
  np.testing.assert_array_equal(
    records.open_faces(folder).identity_ids, first.identity_ids
  )
  other = record_set.write(tmp_path / "b", images, ids[::-1])
  for path in pathlib.Path(other).glob("*.array_record*"):
    (pathlib.Path(folder) / path.name).write_bytes(path.read_bytes())
  np.testing.assert_array_equal(
    records.open_faces(folder).identity_ids, first.identity_ids[::-1]
  )
