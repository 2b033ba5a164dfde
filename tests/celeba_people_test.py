"""Nobody who is validated or tested on, and no distractor, is trained on."""

import collections
import tarfile
import zipfile

import numpy as np
import pytest

from benchmarks import celeba_people
from facesiam_jax import errors
from facesiam_jax.data import catalogue, exclusion, opening, sets
from facesiam_jax.training import config as config_lib
from tests import shared_data
from tests.data import fake_sets

_SETS = (celeba_people.CELEBA, celeba_people.WILD, celeba_people.PINS)
_NUM_VALIDATION = 3

# Person -> images. 7000 is in both files under one number, 7204 to 7208 too.
_CELEBA = {"18": 2, "19": 1, "20": 1, "21": 3, "411": 1, "7000": 1} | {
  str(n): 1 + n % 2 for n in range(7201, 7211)
}
WILD = {"07000": 4} | {f"{n:05}": 2 for n in range(7201, 7211)}
TEST = {"07209", "07210"}


def _prepare(folder, celeba, wild, pins, parts):
  """Prepares the three sets with small noise for pixels.

  Args:
    folder: where everything goes.
    celeba: rows (image, person, partition) of CelebA's files.
    wild: person -> images of celeba_wild112.
    pins: names of images.
    parts: person of celeba_wild112 -> partition.
  """
  data = str(folder / "data")
  face = fake_sets.jpeg(1, (178 // 8, 218 // 8))
  root = fake_sets.celeba(folder / "celeba", celeba, images=[])
  with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
    for name, *_ in celeba:
      archive.writestr(f"img_align_celeba/{name}", face)
  options = catalogue.Options(root, variant=celeba_people.CELEBA.split("/")[1])
  catalogue.prepare("celeba_identity", options, data_dir=data)
  lines = "".join(f"{name}\t{part}\n" for name, part in parts.items())
  partition = fake_sets.tree(folder, {"partition.txt": lines})
  files = {f"{w}/{i}.jpg": face for w, n in wild.items() for i in range(n)}
  options = catalogue.Options(
    fake_sets.tar(folder / "celeba_wild112.tar", files),
    partition=partition / "partition.txt",
    num_validation=_NUM_VALIDATION,
    alignment="arcface_112",
  )
  catalogue.prepare("folder", options, data_dir=data)
  options = catalogue.Options(
    fake_sets.tar(folder / "pins112.tar", dict.fromkeys(pins, face)),
    num_validation=0,
    num_test=0,
    alignment="arcface_112",
  )
  catalogue.prepare("folder", options, data_dir=data)
  return data


def _load(data_dir, *names, **fields):
  config = config_lib.default_config().dataset
  config.update(
    name=",".join(names or _SETS),
    data_dir=data_dir,
    num_validation=_NUM_VALIDATION,
    min_images=2,
    exclude=str(celeba_people.EXCLUDE),
  )
  config.update(fields)
  return sets.load(config, image_size=8, lazy=True)


def _counts(data):
  """Returns person's number or name -> images."""
  names = [data.faces.names[p] for p in data.faces.identity_ids]
  return collections.Counter(_number(name) for name in names)


def _number(name):
  return str(int(name)) if name.isdigit() else name


def _names(data, split):
  return {_number(data.faces.names[p]) for p in getattr(data, split)}


def prepare_small(folder, parts):
  """Prepares small sets; `parts` is as in `_prepare`. Returns their folder."""
  rows = [(who, i) for who, n in _CELEBA.items() for i in range(n)]
  celeba = [(f"{n:06}.jpg", who, 0) for n, (who, _) in enumerate(rows, 1)]
  pins = [f"{name}/{i}.jpg" for name in ("Ada", "Bo") for i in range(2)]
  return _prepare(folder, celeba, WILD, pins, parts)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  parts = {who: "test" if who in TEST else "train" for who in WILD}
  return prepare_small(tmp_path_factory.mktemp("small"), parts)


def test_who_is_held_out_in_one_set_is_not_trained_on_in_another(small):
  wild = _load(small, celeba_people.WILD, exclude="", min_images=1)
  held = _names(wild, "validation"), _names(wild, "test")
  assert len(held[0]) == 3 and held[1] == {"7209", "7210"}
  joined = _load(small)
  assert (_names(joined, "validation"), _names(joined, "test")) == held
  everybody = {*_CELEBA, *map(_number, WILD)} | {"Ada", "Bo"}
  alone = {"19", "20", "411"}
  assert _names(joined, "train") == everybody - held[0] - held[1] - alone
  # Their images in both files are there, as those of the training people are.
  counts = _counts(joined)
  assert counts["7000"] == 5 and counts["7209"] == 2 + 2


def test_people_of_few_images_are_told_from_all_sets(small):
  counts = _counts(_load(small))
  for least in (1, 2, 3, 4):
    joined = _load(small, min_images=least)
    trained = _names(joined, "train")
    assert all(counts[name] >= least for name in trained)
    # Who is held out has his few images all the same.
    assert len(joined.validation) == 3 and len(joined.test) == 2
    rest = set(counts) - trained - _names(joined, "test")
    rest -= _names(joined, "validation")
    assert all(counts[name] < least for name in rest)


def test_an_image_that_a_list_leaves_out_does_not_count(small, tmp_path):
  path = tmp_path / "exclude.txt"
  path.write_text("celeba_identity image 18/1\n")
  assert "18" in _names(_load(small), "train")
  joined = _load(small, exclude=str(path))
  assert "18" not in _names(joined, "train") and _counts(joined)["18"] == 1


def own(config, image_size):
  """A data set of the user's: three people of one, two and three images."""
  images = np.zeros((6, image_size, image_size, 1), np.uint8)
  ids = np.array([0, 1, 1, 2, 2, 2], np.int32)
  faces = opening.Faces(images, ids, ids, ("a", "b", "c"))
  return sets.DataSet(faces, (0, 1, 2), (), ())


def test_it_holds_for_every_kind_of_data_set():
  config = config_lib.default_config()
  config.dataset.name = "tests.celeba_people_test:own"
  for least, people in ((1, (0, 1, 2)), (2, (1, 2))):
    config.dataset.min_images = least
    assert sets.load(config.dataset, image_size=16).train == people
  config.dataset.min_images = 3
  with pytest.raises(errors.UserError, match="min_images=3 leaves 1 of 3"):
    sets.load(config.dataset, image_size=16)
  config.dataset.min_images = 0
  with pytest.raises(errors.UserError, match="dataset.min_images"):
    config_lib.validate(config)


def test_an_older_config_has_no_least(small):
  config = config_lib.default_config().dataset
  config.update(name=celeba_people.PINS, data_dir=small, num_validation=0)
  older = config.copy_and_resolve_references().unlock()
  del older.min_images
  assert sets.load(older, image_size=8, lazy=True).train == (0, 1)


def test_distractors_have_one_image_and_are_nowhere_else(small):
  found = celeba_people.distractors(_CELEBA, WILD)
  # 411 is listed as somebody else too; 7000 and others are in both files.
  assert sorted(found) == ["19", "20"]
  assert found == celeba_people.distractors(
    dict(reversed(_CELEBA.items())), WILD
  )
  assert not set(found) & _names(_load(small), "train")
  assert set(found) <= _names(_load(small, min_images=1), "train")


def _two_each(names, who):
  """Returns two images of each person at most: no test needs more."""
  seen = collections.Counter()
  for name in names:
    seen[who(name)] += 1
    if seen[who(name)] <= 2:
      yield name


def _real(folder):
  """Prepares the real sets' names and numbers, with noise for pixels."""
  data = shared_data.folder()
  person, part = (
    dict(line.split() for line in path.read_text().splitlines())
    for path in (
      data / "celeba_manual/identity_CelebA.txt",
      data / "celeba_manual/list_eval_partition.txt",
    )
  )
  with zipfile.ZipFile(data / "celeba_manual/img_align_celeba.zip") as file:
    names = [n.split("/")[-1] for n in file.namelist() if n.endswith(".jpg")]
  celeba = [(n, person[n], part[n]) for n in _two_each(names, person.get)]
  members = {}
  for name in ("celeba_wild112", "pins112"):
    with tarfile.open(data / f"{name}.tar") as tar:
      members[name] = [m.name for m in tar if m.isfile()]
  who = lambda name: name.split("/")[-2]
  wild = collections.Counter(
    map(who, _two_each(members["celeba_wild112"], who))
  )
  parts = {n.split("/")[-2]: part[n.split("/")[-1]]
           for n in members["celeba_wild112"]}  # fmt: skip
  pins = [n.split("/", 1)[1] for n in _two_each(members["pins112"], who)]
  return _prepare(folder, celeba, wild, pins, parts), celeba, wild, parts


@pytest.mark.slow
def test_with_the_real_names_and_numbers(tmp_path, monkeypatch):
  monkeypatch.setitem(globals(), "_NUM_VALIDATION", 40)
  data, rows, wild, parts = _real(tmp_path)
  celeba = collections.Counter(who for _, who, _ in rows)
  joined = _load(data)
  trained = _names(joined, "train")
  test = {_number(who) for who, part in parts.items() if part == "2"}
  assert _names(joined, "test") == test and len(test) == 58
  validation = _names(_load(data, celeba_people.WILD), "validation")
  assert len(validation) == 40 and not validation & test
  assert _names(joined, "validation") == validation
  # Neither in any file, nor under a number that the list says is theirs too.
  assert not trained & (test | validation)
  assert any(who in celeba for who in validation)
  listed = exclusion.read(celeba_people.EXCLUDE, list(_SETS))
  other = {str(n) for n in listed[celeba_people.CELEBA].people}
  assert len(other) > 20 and not trained & other
  rows_of = np.isin(joined.faces.identity_ids, joined.train)
  images = collections.Counter(
    _number(joined.faces.names[p]) for p in joined.faces.identity_ids[rows_of]
  )
  assert set(images) == trained and min(images.values()) >= 2
  found = celeba_people.distractors(celeba, wild)
  assert not set(found) & (trained | test | validation | other)
  assert len(found) >= 2000 - 58 and all(celeba[who] == 1 for who in found)
  # They would be trained on, if people of one image were.
  assert set(found) < _names(_load(data, min_images=1), "train")
