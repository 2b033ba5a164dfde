"""Readers of images, archives, lists and pickles on mutated files.

Whatever is in a file, a reader returns what it promises or raises the one
error it promises, in a bounded time; nothing it opens is left half-read.
300 examples each in `make test`, 10,000 under the profile "soak".
"""

import contextlib
import io
import pathlib
import pickle
import signal
import tarfile
import tempfile
import zipfile

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facesiam_jax import errors
from facesiam_jax.data import (
  catalogue,
  encoded,
  listing,
  lists,
  pairs,
  safe_pickle,
  trees,
)
from tests.data import fake_sets
from tests.properties import strategies

FAST = strategies.PROFILE == "fast"
many = settings(max_examples=300 if FAST else 10_000)
# A data set is written for each of these.
some = settings(max_examples=25 if FAST else 500)
_SECONDS = 60


@contextlib.contextmanager
def in_time():
  """Fails what takes too long of the processor, as a hang would.

  Not of the clock: a busy machine may hold a test up for minutes.
  """

  def late(number, frame):
    raise TimeoutError(f"took more than {_SECONDS} seconds")

  before = signal.signal(signal.SIGPROF, late)
  signal.setitimer(signal.ITIMER_PROF, _SECONDS)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def _images():
  picture = fake_sets.pixels(1, (40, 30))
  yield fake_sets.encode(picture, "JPEG")
  yield fake_sets.encode(picture, "JPEG", progressive=True)
  yield fake_sets.encode(picture.convert("CMYK"), "JPEG")
  yield fake_sets.encode(picture, "PNG")
  yield fake_sets.encode(picture.convert("RGBA"), "PNG")
  yield fake_sets.encode(picture.quantize(9), "GIF")
  yield fake_sets.encode(picture, "WEBP")
  yield fake_sets.encode(picture, "BMP")
  yield fake_sets.encode(picture, "TIFF")
  yield fake_sets.encode(picture, "TIFF", compression="tiff_lzw")
  yield fake_sets.encode(picture, "PPM")


IMAGES = list(_images())


@st.composite
def mutated(draw, seeds):
  """One of the seeds after a few edits: bytes, pieces, an end cut off."""
  data = bytearray(draw(st.sampled_from(seeds)))
  for _ in range(draw(st.integers(0, 6))):
    size = len(data)
    # Heads matter most.
    last = draw(st.sampled_from([min(size, 64), size]))
    at = draw(st.integers(0, last))
    kind = draw(st.sampled_from(["byte", "bit", "put", "drop", "copy", "cut"]))
    length = draw(st.integers(1, 40))
    if kind == "byte" and at < size:
      data[at] = draw(st.sampled_from([0, 1, 9, 10, 32, 45, 127, 128, 255]))
    elif kind == "bit" and at < size:
      data[at] ^= 1 << draw(st.integers(0, 7))
    elif kind == "put":
      data[at:at] = draw(st.binary(max_size=12))
    elif kind == "drop":
      del data[at : at + length]
    elif kind == "copy":
      data[at:at] = data[draw(st.integers(0, size)) :][:length]
    else:
      del data[size - draw(st.integers(0, size)) :]
  return bytes(data)


@many
@given(mutated(IMAGES), st.sampled_from([None, 16]))
def test_images(data, size):
  with in_time():
    try:
      kept = encoded.keep(data, size)
    except encoded.BadImage as error:
      assert error.kind.split()[0] in ("are", "have")
      return
    pixels = encoded.decode(kept.data)
  assert pixels.dtype == np.uint8 and pixels.ndim in (2, 3)
  assert min(pixels.shape[:2]) >= 8 and pixels.shape[2:] in ((), (3,))
  assert kept.changed or kept.data == data
  # Kept once, it is kept for good.
  assert encoded.keep(kept.data) == (kept.data, False)
  with PIL.Image.open(io.BytesIO(kept.data)) as image:
    assert image.format in ("JPEG", "PNG") and image.mode in ("L", "RGB")


def _archives():
  files = fake_sets.people(2, 2) | {"ü/a b.JPG": b"x", "__MACOSX/x": b""}
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "x"
    yield fake_sets.tar(path, files).read_bytes()
    yield fake_sets.zipped(path, files).read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
      for name, data in files.items():
        archive.writestr(name, data)
    yield path.read_bytes()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
      for number, name in enumerate(("a" * 120 + "/1.jpg", "../ü", "b/2")):
        member = tarfile.TarInfo(name)
        member.type = tarfile.SYMTYPE if number == 2 else tarfile.REGTYPE
        member.linkname = "/etc/passwd"
        archive.addfile(member)
    yield path.read_bytes()


ARCHIVES = list(_archives())


@many
@given(mutated(ARCHIVES))
def test_archives(data):
  with tempfile.TemporaryDirectory() as folder, in_time():
    path = pathlib.Path(folder) / "x"
    path.write_bytes(data)
    try:
      with trees.open_tree(path) as tree:
        for name in tree.files:
          assert ".." not in name.split("/") and not name.startswith("/")
          with contextlib.suppress(trees.Unreadable):
            assert isinstance(tree.read(name), bytes)
        assert not tree.files.keys() & {"/etc/passwd"}
    except errors.UserError as error:
      assert "\n" not in str(error) and str(path) in str(error)
    assert [p.name for p in pathlib.Path(folder).iterdir()] == ["x"]


NUMBERS = [
  b"000001.jpg 2880\n000002.jpg 2937\n000003.jpg 8692\n",
  b"\xef\xbb\xbf000001.jpg 0\r\n\r\n000002.jpg 1\r\n",
  "Zoë/1 2.jpg  7\nb 0001\n".encode(),
]


@many
@given(mutated(NUMBERS), st.booleans())
def test_number_lists(data, strict):
  with tempfile.TemporaryDirectory() as folder, in_time():
    path = pathlib.Path(folder) / "list.txt"
    path.write_bytes(data)
    problems = listing.Problems(strict=strict)
    try:
      found = lists.read_numbers(path, "a number", problems)
    except errors.UserError as error:
      assert "\n" not in str(error)
      assert "list.txt" in str(error) or "--strict" in str(error)
      return
  assert all(0 <= number < 2**31 and name for name, number in found.items())
  assert not (strict and problems.counts)
  count = len([line for line in data.split(b"\n") if line.strip(b"\r\n \t")])
  assert len(found) <= count


PROTOCOLS = [text.encode() for text in fake_sets.LFW_LISTS.values()]
PROTOCOLS += [
  b"1 ../Data/Images/001/frontal/01.jpg\n2 ../Data/Images/001/frontal/02.jpg\n",
  b"1,2\n2,1\n",
]


@many
@given(mutated(PROTOCOLS))
def test_protocols(data):
  text = data.decode("utf-8", "replace")
  parsers = (
    pairs.parse_lfw_pairs,
    pairs.parse_lfw_people,
    pairs.parse_cfp_list,
    pairs.parse_cfp_pairs,
    lambda text: pairs.cfp_protocol([(text, text)], text, text),
  )
  for parser in parsers:
    with in_time():
      try:
        found = parser(text)
      except pairs.BadProtocol:
        continue
    if isinstance(found, pairs.KeyPairs):
      assert len({len(column) for column in found}) == 1
      rows = {key: row for row, key in enumerate(sorted({*found.first}))}
      array, missing = pairs.to_rows(found, rows)
      assert len(array.first) <= len(found.first)
      assert not {*missing} & rows.keys()


_SAMPLE = ([b"\xff\xd8one", b"two", b"", b"\x89PNG"], [True, False])
PICKLES = [pickle.dumps(_SAMPLE, protocol) for protocol in range(6)]
PICKLES += [pickle.dumps((_SAMPLE[0], [np.bool_(1), np.bool_(0)]), 2)]
PICKLES += [b"cos\nsystem\n(S'false'\ntR.", b"cbuiltins\neval\n(V1\ntR."]


@many
@given(mutated(PICKLES))
def test_pickles(data):
  with in_time():
    try:
      found = safe_pickle.loads(data)
    except safe_pickle.Refused as error:
      assert str(error)
      return
  allowed = (list, tuple, bytes, str, bool, int, type(None))
  waiting = [found]
  for _ in range(1000):
    if not waiting:
      break
    value = waiting.pop()
    stand_in = value in safe_pickle._CALLS.values() if callable(value) else 0
    kind = isinstance(value, (*allowed, safe_pickle._BoolType))
    assert kind or stand_in
    waiting += value if isinstance(value, (list, tuple)) else []


def _tell(source, root, strict):
  """Prepares a folder; returns the data set, or None where it is refused."""
  options = catalogue.Options(source, num_validation=0, num_test=0)
  try:
    made, problems = catalogue.prepare(
      "folder", options, data_dir=str(root), strict=strict
    )
  except errors.UserError as error:
    assert "\n" not in str(error)
    return None, None
  return made, problems


@pytest.mark.slow
@some
@given(st.lists(mutated(IMAGES), min_size=1, max_size=4), st.booleans())
def test_a_data_set_is_whole_or_not_there(images, strict):
  with tempfile.TemporaryDirectory() as folder, in_time():
    place = pathlib.Path(folder)
    files = {f"a/{n}.jpg": data for n, data in enumerate(images)}
    source = fake_sets.tree(place / "x", files)
    made, problems = _tell(source, place / "data", strict)
    if made is None:
      assert not list((place / "data").glob("*/*/*.json"))
      return
    made.check()
    rows = list(made.rows())
    assert len(rows) + sum(problems.counts.values()) == len(images)
    assert not (strict and problems.counts)
    for row in rows:
      encoded.decode(row.image)


@pytest.mark.slow
@some
@given(mutated(ARCHIVES[:3]))
def test_an_archive_becomes_a_whole_data_set_or_none(data):
  with tempfile.TemporaryDirectory() as folder, in_time():
    place = pathlib.Path(folder)
    (place / "x").write_bytes(data)
    made, problems = _tell(place / "x", place / "data", strict=True)
    assert {p.name for p in place.iterdir()} <= {"x", "data"}
    if made is None:
      assert not list((place / "data").glob("*/*/*.json"))
      return
    made.check()
    assert len(list(made.rows())) == made.num_images("train")
    assert not problems.counts
