"""Prepared data sets as faces in memory, and a run on one."""

import io

import numpy as np
import PIL.Image
import pytest

import facesiam_jax
from facesiam_jax import errors
from facesiam_jax.data import (
  catalogue,
  encoded,
  listing,
  opening,
  records,
  sets,
)
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import run
from tests.data import fake_sets


def _people_alike():
  """Nine people whose four images differ by a little noise."""
  files = {}
  for person in range(9):
    face = np.asarray(fake_sets.pixels(person)).astype(int)
    for number in range(4):
      noise = np.asarray(fake_sets.pixels(100 + 4 * person + number)) // 4
      image = PIL.Image.fromarray((face // 2 + noise).astype(np.uint8))
      files[f"person{person}/{number}.jpg"] = fake_sets.encode(image, "JPEG")
  return files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  place = tmp_path_factory.mktemp("sets")
  source = fake_sets.tree(place / "people", _people_alike())
  catalogue.prepare(
    "folder",
    catalogue.Options(source, num_validation=3, num_test=2, alignment="mine"),
    data_dir=str(place / "data"),
  )
  celeba = fake_sets.celeba(
    place / "celeba",
    [row for row in fake_sets.celeba_rows(9, 2) if row[2] == 0],
  )
  catalogue.prepare(
    "celeba_identity", catalogue.Options(celeba), data_dir=str(place / "data")
  )
  path = fake_sets.insightface_bin(place / "lfw.bin")
  catalogue.prepare(
    "insightface_bin", catalogue.Options(path), data_dir=str(place / "data")
  )
  return place


def _config(root, **fields):
  config = config_lib.default_config().dataset
  config.data_dir = str(root / "data")
  config.name, config.num_validation = "folder/people", 2
  config.update(fields)
  return config


def test_what_a_list_excludes_is_left_out(root, tmp_path, capsys):
  whole = sets.load(_config(root), image_size=16).faces
  names = [whole.names[p] for p in whole.identity_ids]
  keys = list(zip(names, whole.image_numbers.tolist(), strict=True))
  path = tmp_path / "exclude.txt"
  path.write_text("folder/people\tperson\t4\nfolder/people image 6/2 why\n")
  config = _config(root, exclude=str(path))
  capsys.readouterr()
  rest = sets.load(config, image_size=16).faces
  assert "5 images left out" in capsys.readouterr().err
  kept = [k for k in keys if k[0] != "person4" and k != ("person6", 2)]
  names = [rest.names[p] for p in rest.identity_ids]
  assert kept == list(zip(names, rest.image_numbers.tolist(), strict=True))
  assert len(rest.images) == 31 and "person4" not in rest.names
  path.write_text("folder/other person 4\n")
  with pytest.raises(errors.UserError, match="folder/other"):
    sets.load(config, image_size=16)


def test_faces_people_and_names(root, capsys):
  data = sets.load(_config(root), image_size=16)
  assert data.faces.images.shape == (36, 16, 16, 1)
  assert data.faces.images.dtype == np.uint8 and data.alignment == "mine"
  assert "folder/people: 36 images at 16x16x1 take" in capsys.readouterr().err
  # Three are the set's own validation people; one of them is in no split.
  assert [len(p) for p in (data.train, data.validation, data.test)] == [4, 2, 2]
  everybody = data.train + data.validation + data.test
  assert len(set(everybody)) == 8
  for person in everybody:
    images, ids = data.of((person,))
    assert images.shape[0] == 4 and set(ids) == {person}
    name = data.faces.names[person]
    for number, image in enumerate(images):
      with PIL.Image.open(root / "people" / name / f"{number}.jpg") as file:
        square = np.asarray(file.convert("L"))[:, 2:22]
      # 20 pixels to 16: means of 5 quarters of a pixel.
      quarters = square.repeat(4, 0).repeat(4, 1).astype(float)
      want = quarters.reshape(16, 5, 16, 5).mean((1, 3))
      assert np.abs(want - image[..., 0]).max() <= 1


def test_colour_size_and_crop(root):
  gray = sets.load(_config(root), image_size=10).faces.images
  colour = sets.load(_config(root, channels=3), image_size=10).faces.images
  assert colour.shape == (36, 10, 10, 3)
  luma = colour @ np.array([0.299, 0.587, 0.114])
  assert np.abs(luma - gray[..., 0]).max() <= 1.6
  # Half of a 20-pixel side is 10 pixels: no scaling.
  middle = sets.load(_config(root, crop=0.5), image_size=10).faces.images
  full = sets.load(_config(root), image_size=20).faces.images
  np.testing.assert_array_equal(middle, full[:, 5:15, 5:15])


def test_neighbours_are_not_copied(root):
  data = sets.load(_config(root, num_validation=3), image_size=16)
  for people in (data.train, data.validation, data.test):
    images, ids = data.of(people)
    assert np.shares_memory(images, data.faces.images)
    assert set(ids) == set(people)
  images, ids = data.of((data.train[0], data.test[0]))
  assert set(ids) == {data.train[0], data.test[0]} and len(images) == 8


def test_validation_people_are_of_a_stable_hash(root):
  two = sets.load(_config(root), image_size=16)
  three = sets.load(_config(root, num_validation=3), image_size=16)
  assert set(two.validation) < set(three.validation)
  assert two.train == three.train and two.test == three.test
  # CelebA's files here have no validation images: training people it is.
  found = sets.load(_config(root, name="celeba_identity"), image_size=16)
  names = found.faces.names
  assert len(found.train) == 1 and len(found.validation) == 2
  chosen = {names[person] for person in found.validation}
  assert chosen == listing.lowest(names, 2) and not found.test


def test_several_sets_are_one_and_the_held_out_stay_so(root, tmp_path):
  """A person who is tested in one set is not trained on in the other."""
  alone = sets.load(_config(root, num_validation=3), image_size=16)
  names = alone.faces.names
  files = {f"{name}/9.jpg": fake_sets.jpeg(n) for n, name in enumerate(names)}
  source = fake_sets.tree(
    tmp_path / "more",
    files | {"new/1.jpg": b""} | {"other/1.jpg": fake_sets.jpeg(77)},
  )
  catalogue.prepare(
    "folder",
    catalogue.Options(source, num_validation=0, num_test=0),
    data_dir=str(root / "data"),
  )
  for name in ("folder/people,folder/more", "folder/more,folder/people"):
    both = sets.load(_config(root, name=name, num_validation=3), image_size=16)
    assert both.faces.images.shape[0] == 36 + 9 + 1
    assert both.alignment == "mixed"
    for split in ("train", "validation", "test"):
      got = {both.faces.names[p] for p in getattr(both, split)}
      want = {names[p] for p in getattr(alone, split)}
      assert got == want | ({"other"} if split == "train" else set())
    images, ids = both.of(both.train)
    assert len(images) == 4 * 4 + 4 + 1 and set(ids) == set(both.train)


@pytest.mark.parametrize(
  "fields, match",
  [
    ({"name": "folder/people,folder/other"}, "folder/other is not prepared"),
    ({"name": "folder/people,olivetti"}, "olivetti is not prepared"),
    ({"name": "folder/other"}, "folder/other is not prepared.*folder/people"),
    ({"name": "folder"}, "facesiam prepare --dataset=folder"),
    ({"name": "lfw"}, "facesiam prepare --dataset=lfw"),
    ({"name": "nothing"}, "choose from"),
    ({"name": "folder/../../x"}, "not prepared"),
    ({"num_validation": 4}, "must be 0 to 3"),
    ({"num_validation": -1}, "must be 0 to 3"),
    ({"name": "insightface_bin/lfw"}, "evaluated on, not trained"),
    ({"name": "olivetti", "channels": 3}, "no colours"),
    ({"name": "olivetti/x"}, "no variants"),
  ],
)
def test_what_cannot_be_loaded(root, fields, match):
  with pytest.raises(errors.UserError, match=match):
    sets.load(_config(root, **fields), image_size=16)


def test_more_than_memory_allows_stays_on_the_disk(root, monkeypatch):
  takes = 36 * 16 * 16 / 1e9
  whole = sets.load(_config(root, memory_gb=takes * 1.01), image_size=16)
  assert isinstance(whole.faces.images, np.ndarray)
  monkeypatch.setattr(records._Reader, "read", lambda *args: 1 / 0)
  lazy = sets.load(_config(root, memory_gb=takes * 0.99), image_size=16)
  images, _ = lazy.of(lazy.train)
  assert images.shape == whole.of(whole.train)[0].shape
  with pytest.raises(ZeroDivisionError):
    np.asarray(images)


@pytest.mark.parametrize("name", ["folder/people", "folder/people,folder/x"])
@pytest.mark.parametrize("channels, crop", [(1, 1.0), (1, 0.8), (3, 0.8)])
def test_on_the_disk_and_in_memory_alike(root, tmp_path, name, channels, crop):
  source = fake_sets.tree(tmp_path / "x", fake_sets.people(3, 2))
  catalogue.prepare(
    "folder", catalogue.Options(source), data_dir=str(root / "data")
  )
  config = _config(root, name=name, channels=channels, crop=crop)
  whole = sets.load(config, image_size=12)
  lazy = sets.load(config, image_size=12, lazy=True)
  assert isinstance(lazy.faces.images, records.RecordImages)
  assert lazy.train == whole.train and lazy.test == whole.test
  rows = np.random.default_rng(0).permutation(len(whole.faces.images))
  np.testing.assert_array_equal(
    lazy.faces.images[rows], whole.faces.images[rows]
  )
  # Pillow decodes them; no code is shared.
  found = opening.prepared.open_prepared("folder/people", root / "data")
  for row, example in enumerate(found.rows()):
    with PIL.Image.open(io.BytesIO(example.image)) as file:
      pixels = np.asarray(file.convert("L" if channels == 1 else "RGB"))
    want = encoded.square(pixels, 12, crop=crop).reshape(12, 12, channels)
    np.testing.assert_array_equal(lazy.faces.images[row], want)


def test_damage_is_told(root, tmp_path):
  source = fake_sets.tree(tmp_path / "people", fake_sets.people(5, 2))
  made, _ = catalogue.prepare(
    "folder", catalogue.Options(source), data_dir=str(tmp_path / "data")
  )
  path = next(made.folder.glob("*train*array_record*"))
  data = bytearray(path.read_bytes())
  data[-99] ^= 4
  path.write_bytes(data)
  with pytest.raises(errors.UserError, match="damaged: run facesiam prepare"):
    sets.load(_config(tmp_path, num_validation=0), image_size=16)


def test_an_old_config_loads(root):
  config = _config(root).unlock()
  for name in ("channels", "crop", "memory_gb"):
    del config[name]
  assert sets.load(config, image_size=16).faces.images.shape[-1] == 1


@pytest.mark.parametrize(
  "field, value", [("channels", 2), ("crop", 0.0), ("memory_gb", -1.0)]
)
def test_fields_out_of_range(field, value):
  config = config_lib.default_config()
  config.dataset[field] = value
  with pytest.raises(errors.UserError, match=f"dataset.{field}"):
    config_lib.validate(config)


@pytest.mark.slow
def test_a_run_on_a_folder(root, tmp_path):
  config = config_lib.default_config()
  with config.unlocked():
    config.dataset.update(_config(root, channels=3).to_dict())
    config.image_size = 16
    config.num_steps = 0
    config.encoder.name = "gabor"
    config.encoder.args = {"dim": 8}
    config.start.kind = "whitening"
    config.start.num_copies = 0
    config.standardize.kind = "per_image"
    config.calibration.target_fmr = 0.0
    config.dataset.channels = 1
  bundle = run.train(config, tmp_path / "run")
  assert bundle.alignment == "mine" and bundle.channels == 1
  loaded = facesiam_jax.load(tmp_path / "run" / "bundle")
  assert loaded.spec["config"]["dataset"]["name"] == "folder/people"
