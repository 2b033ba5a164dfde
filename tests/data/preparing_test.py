"""Preparing: all of it or none, gone on with after a kill, mended, checked."""

import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from facesiam_jax import errors
from facesiam_jax.data import catalogue, preparing, trees
from tests.data import fake_sets

_WORKER = pathlib.Path(__file__).with_name("full_disk_worker.py")
_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(preparing, "PART", 5)


@pytest.fixture
def source(tmp_path):
  return fake_sets.tree(tmp_path / "source", fake_sets.people(4, 4))


def _prepare(source, root, *, size=None, strict=False, **options):
  return catalogue.prepare(
    "folder",
    catalogue.Options(
      source, **{"num_validation": 1, "num_test": 1, **options}
    ),
    data_dir=str(root),
    size=size,
    strict=strict,
  )


def _files(root):
  return {
    str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in root.rglob("*")
    if path.is_file()
  }


def _count_reads(monkeypatch):
  """Returns a list that grows by each image that is checked."""
  seen = []
  keep = preparing.encoded.keep

  def counted(*given):
    seen.append(given[0])
    return keep(*given)

  monkeypatch.setattr(preparing.encoded, "keep", counted)
  return seen


def test_everything_comes_back(source, tmp_path):
  made, problems = _prepare(source, tmp_path / "data")
  assert not problems.counts
  rows = list(made.rows())
  assert {r.file: r.image for r in rows} == {
    str(p.relative_to(source)): p.read_bytes() for p in source.rglob("*.jpg")
  }
  for row in rows:
    assert row.file == f"{row.name}/{row.image_number}.jpg"
    assert row.name == f"person{row.identity}"
  counts = [made.num_people(s) for s in ("train", "validation", "test")]
  assert counts == [2, 1, 1]
  names = [{r.name for r in made.examples(s)} for s in ("train", "test")]
  assert not names[0] & names[1]
  made.check()
  assert not list((tmp_path / "data").glob("*.incomplete"))


def test_tfds_reads_it_by_itself(source, tmp_path):
  import tensorflow_datasets as tfds

  made, _ = _prepare(source, tmp_path / "data")
  builder = tfds.builder_from_directory(made.folder)
  assert builder.info.splits["train"].num_examples == 8
  # Eight images in parts of five: two files.
  assert len(builder.info.splits["train"].filenames) == 2
  row = builder.as_data_source(split="validation")[3]
  assert row["image"].shape == (20, 24, 3) and row["image_number"] == 3
  assert "tensorflow" not in sys.modules


def test_what_is_there_is_left_alone(source, tmp_path, monkeypatch):
  root = tmp_path / "data"
  made, _ = _prepare(source, root)
  times = {p: p.stat().st_mtime_ns for p in made.folder.iterdir()}
  seen = _count_reads(monkeypatch)
  _prepare(source, root)
  assert times == {p: p.stat().st_mtime_ns for p in made.folder.iterdir()}
  assert not seen


def test_a_changed_source_is_prepared_anew(source, tmp_path):
  root = tmp_path / "data"
  _prepare(source, root)
  (source / "person2" / "0.jpg").unlink()
  (source / "person1" / "0.jpg").write_bytes(fake_sets.jpeg(999))
  made, _ = _prepare(source, root)
  images = {row.file: row.image for row in made.rows()}
  assert len(images) == 15 and "person2/0.jpg" not in images
  assert images["person1/0.jpg"] == fake_sets.jpeg(999)


def test_other_settings_are_other_data_sets_or_replace(source, tmp_path):
  root = tmp_path / "data"
  _prepare(source, root)
  small, _ = _prepare(source, root, size=16)
  assert small.name == "folder/source_16"
  assert all(
    row.image.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10")
    for row in small.rows()
  )
  other, _ = _prepare(source, root, variant="mine", num_test=0)
  assert other.name == "folder/mine" and other.num_people("test") == 0
  assert len(_files(root / "folder" / "source")) > 3


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "manifest", "people"])
def test_damage_is_found_and_mended(source, tmp_path, monkeypatch, damage):
  root = tmp_path / "data"
  made, _ = _prepare(source, root)
  whole, files = list(made.rows()), sorted(_files(made.folder))
  name = {"manifest": "facesiam.json", "people": "people.txt"}.get(damage)
  path = made.folder / (name or "folder-train.array_record-00001-of-00002")
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  if damage == "gone":
    path.unlink()
  else:
    path.write_bytes(data[:-7] if damage == "cut" else data)
  if damage != "manifest":
    with pytest.raises(errors.UserError, match="prepare --dataset=folder"):
      made.check()
  seen = _count_reads(monkeypatch)
  again, _ = _prepare(source, root)
  again.check()
  assert list(again.rows()) == whole
  assert sorted(_files(made.folder)) == files
  # The second of two parts of training images; all where nothing is known.
  assert len(seen) == {"manifest": 16, "people": 0}.get(damage, 3)


_KILLED = """
import sys, time, pathlib
from facesiam_jax.data import catalogue, preparing
preparing.PART = 5
keep, seen = preparing.encoded.keep, []
def slow(*given):
  seen.append(1)
  if len(seen) == int(sys.argv[3]):
    print("here", flush=True)
    time.sleep(100)
  return keep(*given)
preparing.encoded.keep = slow
options = catalogue.Options(
  pathlib.Path(sys.argv[1]), num_validation=1, num_test=1)
catalogue.prepare("folder", options, data_dir=sys.argv[2])
"""


@pytest.mark.parametrize(
  "at, kept",
  [
    (7, 5),
    *(pytest.param(n, None, marks=pytest.mark.soak) for n in range(1, 17)),
  ],
)
def test_a_killed_preparation_is_gone_on_with(
  source, tmp_path, monkeypatch, at, kept
):
  root = tmp_path / "data"
  process = subprocess.Popen(
    [sys.executable, "-c", _KILLED, str(source), str(root), str(at)],
    stdout=subprocess.PIPE,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
  )
  assert process.stdout.readline() == b"here\n"
  process.send_signal(signal.SIGKILL)
  process.communicate(timeout=20)
  assert not (root / "folder").exists()
  seen = _count_reads(monkeypatch)
  made, _ = _prepare(source, root)
  made.check()
  if kept is not None:
    assert len(seen) == 16 - kept
  whole, _ = _prepare(source, tmp_path / "other")
  assert list(made.rows()) == list(whole.rows())
  assert not list(root.glob("*.incomplete"))


def test_an_interrupted_preparation_of_another_source_is_not_mixed_in(
  source, tmp_path, monkeypatch
):
  root = tmp_path / "data"

  def stop(work, part, bar):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(preparing, "_finish", lambda *args: stop(*args, None))
    with pytest.raises(KeyboardInterrupt):
      _prepare(source, root)
  assert (root / "folder-source.incomplete").is_dir()
  (source / "person1" / "0.jpg").write_bytes(fake_sets.jpeg(999))
  made, _ = _prepare(source, root)
  images = {row.file: row.image for row in made.rows()}
  assert images["person1/0.jpg"] == fake_sets.jpeg(999)


def test_a_damaged_part_of_an_interrupted_preparation_is_written_anew(
  source, tmp_path, monkeypatch
):
  root = tmp_path / "data"
  with monkeypatch.context() as patch:
    patch.setattr(preparing, "_finish", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      _prepare(source, root)
  scratch = root / "folder-source.incomplete"
  (scratch / "train-00000").write_bytes(b"zeros")
  (scratch / "test-00000.json").write_text("{")
  (scratch / "train-00001.json").unlink()
  seen = _count_reads(monkeypatch)
  made, _ = _prepare(source, root)
  made.check()
  assert len(seen) == 5 + 4 + 3


def test_bad_images_are_left_out_and_counted(source, tmp_path):
  (source / "person0" / "0.jpg").write_bytes(b"")
  for number in range(4):
    (source / "person3" / f"{number}.jpg").write_bytes(b"no image at all")
  root = tmp_path / "data"
  for _ in range(2):  # The second time from what is written down.
    made, problems = _prepare(source, root)
    assert problems.counts == {
      "images that are empty (0 bytes)": 1,
      "images that are no images of a known format": 4,
    }
    assert len(list(made.rows())) == 11
    counts = json.loads((made.folder / "facesiam.json").read_text())["splits"]
    assert sum(count["people"] for count in counts.values()) == 3
  with pytest.raises(errors.UserError, match="--strict"):
    _prepare(source, root, strict=True)
  with pytest.raises(errors.UserError, match="--strict"):
    _prepare(source, tmp_path / "strict", strict=True)
  assert not (tmp_path / "strict" / "folder").exists()


def test_no_usable_image_is_refused(tmp_path):
  source = fake_sets.tree(tmp_path / "s", {"a/1.jpg": b"", "b/2.jpg": b"x"})
  with pytest.raises(errors.UserError, match="no image that can be used"):
    _prepare(source, tmp_path / "data", num_validation=0, num_test=0)
  assert not (tmp_path / "data" / "folder").exists()


def test_a_file_that_vanishes_is_counted(source, tmp_path, monkeypatch):
  opened = trees.open_tree

  def vanishing(path):
    context = opened(path)
    tree = context.__enter__()
    (source / "person1" / "2.jpg").unlink()
    context.__exit__(None, None, None)
    return opened_again(tree)

  class opened_again:
    def __init__(self, tree):
      self.tree = tree

    def __enter__(self):
      return self.tree

    def __exit__(self, *error):
      return None

  monkeypatch.setattr(trees, "open_tree", vanishing)
  _, problems = _prepare(source, tmp_path / "data")
  assert problems.counts == {"images that cannot be read": 1}


def test_names_with_odd_bytes_are_stored_escaped(source, tmp_path):
  odd = os.fsencode(str(source)) + b"/b\xff d\xc3\xa9"
  os.mkdir(odd)
  with open(odd + b"/1 \xfe.jpg", "wb") as file:
    file.write(fake_sets.jpeg(77))
  made, _ = _prepare(source, tmp_path / "data")
  (row,) = [row for row in made.rows() if row.image == fake_sets.jpeg(77)]
  assert row.name == r"b\udcff dé" and row.file.endswith(r"1 \udcfe.jpg")


def test_a_line_break_in_a_name_breaks_no_list(source, tmp_path):
  fake_sets.tree(source, {"An\nn\ttest/1\n2.jpg": fake_sets.jpeg(77)})
  made, _ = _prepare(source, tmp_path / "data")
  (row,) = [row for row in made.rows() if row.image == fake_sets.jpeg(77)]
  assert row.name == r"An\nn\ttest"
  lines = (made.folder / "people.txt").read_text().splitlines()
  assert len(lines) == 6 and all(line.count("\t") == 2 for line in lines[1:])
  # The list serves as a partition, and says the same.
  again, problems = _prepare(
    source,
    tmp_path / "data",
    variant="again",
    partition=made.folder / "people.txt",
    num_validation=0,
    num_test=0,
  )
  assert not problems.counts and list(again.rows()) == list(made.rows())


def test_two_at_once_make_one(source, tmp_path):
  code = _KILLED.replace("preparing.encoded.keep = slow\n", "")
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", code, str(source), str(tmp_path / "data"), "0"],
      env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    for _ in range(2)
  ]
  assert [process.wait(timeout=300) for process in processes] == [0, 0]
  made, _ = _prepare(source, tmp_path / "data")
  made.check()


def test_unwritable_place(source, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="--data_dir"):
    _prepare(source, tmp_path / "file" / "data")
  with pytest.raises(errors.UserError, match="local folder"):
    catalogue.prepare("folder", catalogue.Options(source), data_dir="gs://b")


def test_a_full_disk_is_told_and_the_next_one_finishes(tmp_path):
  mount = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
  if shutil.which("unshare") is None:
    pytest.skip("there is no `unshare` on this machine")
  tried = subprocess.run(mount, capture_output=True, text=True, check=False)
  if tried.returncode:
    pytest.skip(f"cannot mount a small disk: {tried.stderr.strip()}")
  done = subprocess.run(
    [*_UNSHARE, sys.executable, str(_WORKER), str(tmp_path)],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
  )
  assert done.returncode == 0, done.stdout + done.stderr[-3000:]
  assert done.stdout.count("full:") >= 3


def test_needs_no_tensorflow_and_loads_late():
  spec = importlib.util.find_spec("tensorflow_datasets")
  assert spec is not None
  code = (
    "import sys\n"
    "from facesiam_jax.data import catalogue, sets, listing, pairs, trees\n"
    "heavy = {'cv2', 'tensorflow_datasets', 'tensorflow'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
  )
  subprocess.run(
    [sys.executable, "-W", "ignore", "-c", code],
    check=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
  )
