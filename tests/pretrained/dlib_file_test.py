"""Tests of facesiam_jax.pretrained.dlib_file on files written here."""

import math
import struct

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.pretrained import dlib_file
from tests.pretrained import dlib_writer as writer

RNG = np.random.default_rng(0)


def _network():
  return writer.network(RNG, widths=(2, 3), depths=(1, 1), dim=4)


def _read(tmp_path, data):
  path = tmp_path / "network.dat"
  path.write_bytes(data)
  return dlib_file.read(path)


def test_reads_back_every_value(tmp_path):
  written = _network()
  layers = _read(tmp_path, written.data)
  kinds = [layer.kind for layer in layers]
  assert kinds == [kind for kind, _ in written.layers]
  for layer, (kind, fields) in zip(layers, written.layers, strict=True):
    place = written.data[layer.byte :]
    assert kind == "tag" or kind.encode() in place[: len(kind) + 2]
    assert list(layer.fields) == list(fields)
    for name, value in fields.items():
      np.testing.assert_array_equal(layer.fields[name], value)
      assert type(layer.fields[name]) is type(value), name
      if isinstance(value, np.ndarray):
        assert layer.fields[name].dtype == np.float32
        assert layer.fields[name].flags.writeable


@pytest.mark.parametrize(
  "value", [0, 1, -1, 255, 256, -256, 2**31, -(2**62), 2**63 - 1]
)
def test_integers(value):
  data = writer.integer(value)
  reader = dlib_file._Reader("file", data)
  assert reader.integer() == value
  assert reader.left == 0


@pytest.mark.parametrize(
  "value", [0.0, 1.0, -0.1, 122.782, 1e-300, -1e300, math.inf, -math.inf]
)
def test_reals(value):
  reader = dlib_file._Reader("file", writer.real(value))
  assert reader.real() == value
  assert reader.left == 0


def test_real_nan():
  assert math.isnan(dlib_file._Reader("file", writer.real(math.nan)).real())


def test_a_known_float_of_dlibs():
  # The threshold 0.6 as the published file has it: 0x99999a * 2^-24.
  data = bytes.fromhex("039a9999 8118")
  assert dlib_file._Reader("file", data).real() == np.float32(0.6)


def _ends(data, layers):
  """Byte counts at which to cut: around every layer and all of the head."""
  marks = {0, 1, len(data) - 1}
  for layer in layers:
    marks |= {layer.byte + offset for offset in range(-3, 40)}
  return sorted(mark for mark in marks if 0 <= mark < len(data))


def test_truncation_anywhere_is_one_sentence_with_the_byte(tmp_path):
  data = _network().data
  layers = dlib_file.parse(data, "whole")
  for end in _ends(data, layers):
    with pytest.raises(errors.UserError) as caught:
      dlib_file.parse(data[:end], "cut.dat")
    text = str(caught.value)
    assert text.startswith("cut.dat cannot be read as a dlib network: at byte ")
    byte = int(text.split("at byte ")[1].split()[0])
    assert 0 <= byte <= end, text
    assert "\n" not in text and text.endswith(".")


def test_a_longer_file_is_refused():
  data = _network().data
  with pytest.raises(
    errors.UserError, match=f"byte {len(data)} 1 bytes follow"
  ):
    dlib_file.parse(data + b"\1", "long.dat")


@pytest.mark.parametrize(
  "old, new, match",
  [
    (b"con_4", b"cxn_4", "a layer 'cxn_4' is none of add_prev_"),
    (b"affine_", b"affinf_", "a layer 'affinf_' is none of"),
    (b"loss_metric_2", b"loss_metric_3", "the loss 'loss_metric_3' is none"),
    (b"input_rgb", b"input_bgr", "the input 'input_bgr_image_sized' is none"),
    (b"fc_2", b"f\xff_2", r"a layer 'f\\\\xff_2' is none of"),
  ],
)
def test_a_flipped_type_name_is_named(old, new, match):
  data = _network().data
  byte = data.index(old) - 2
  with pytest.raises(errors.UserError, match=f"byte {byte} {match}"):
    dlib_file.parse(data.replace(old, new, 1), "file")


def _with(data, old, new):
  assert data.count(old) >= 1
  return data.replace(old, new, 1)


def test_a_tensor_larger_than_the_file_is_refused_without_memory():
  written = _network()
  count = written.layers[2][1]["params"].size
  head = writer.integer(2) + writer.integer(count)
  for sizes in ((2**62, 2**62, 1, 1), (count + 10**6, 1, 1, 1), (-1, -1, 1, 1)):
    new = b"".join(map(writer.integer, (2, *sizes)))
    old = head + 3 * writer.integer(1)
    with pytest.raises(errors.UserError, match="a tensor"):
      dlib_file.parse(_with(written.data, old, new), "file")


@pytest.mark.parametrize(
  "data, match",
  [
    (b"", "at byte 0 1 bytes are due and the file has 0 more"),
    (b"PK\3\4 a zip file", "byte 0 an integer cannot begin with 0x50"),
    (b"\1\2\1\1", "byte 0 there is no network with a loss of version 1"),
    (b"\1\1\1\x41", "byte 2 a type name would be 65 bytes long"),
    (b"\1\1\x08" + 8 * b"\xff", "byte 2 a type name would be"),
    (b"\1\1\x81\5", "byte 2 a type name would be -5 bytes long"),
    (b"\x89\x50\x4e\x47", "byte 0 an integer cannot begin with 0x89"),
    (b"\0", "byte 0 an integer cannot begin with 0x00"),
  ],
)
def test_foreign_files_are_refused(tmp_path, data, match):
  with pytest.raises(errors.UserError, match=match):
    _read(tmp_path, data)


@pytest.mark.parametrize(
  "versions, match",
  [
    ((2, 2), "a layer is of version 21"),
    ((2, 3, 2), "a layer is of version 2"),
    ((2, 0, 3), "a layer is of version 0"),
    ((2, -1, 3), "a layer is of version -1"),
    ((2,) * 5000, "more than 4096 layers are nested"),
  ],
)
def test_nests_that_make_no_sense_are_refused(versions, match):
  data = writer.head() + b"".join(map(writer.integer, versions))
  with pytest.raises(errors.UserError, match=match):
    dlib_file.parse(data + writer.text("input_rgb_image_sized"), "file")


def test_flags_versions_and_floats_out_of_range_are_refused():
  data = _network().data
  for old, new, match in (
    (b"relu_110", b"relu_1x0", "a flag is b'x'"),
    (b"con_4\1\2", b"con_4\1\1", "a tensor is of version 1, not 2"),
    (
      b"loss_metric_2" + writer.real(np.float32(0.04)),
      b"loss_metric_2" + writer.integer(1) + writer.integer(5000),
      r"1 \* 2\^5000 is no number",
    ),
  ):
    with pytest.raises(errors.UserError, match=match):
      dlib_file.parse(_with(data, old, new), "file")


def test_noise_never_gives_another_error():
  """Any single changed byte: read, or refused in one sentence."""
  data = bytearray(_network().data)
  rng = np.random.default_rng(1)
  for place in rng.integers(0, len(data), 400):
    old, data[place] = data[place], int(rng.integers(0, 256))
    try:
      dlib_file.parse(bytes(data), "file")
    except errors.UserError as error:
      assert "\n" not in str(error)
    data[place] = old


def test_files_that_cannot_be_opened(tmp_path, monkeypatch):
  for path in (tmp_path / "none.dat", tmp_path):
    with pytest.raises(errors.UserError, match="cannot be opened") as caught:
      dlib_file.read(path)
    assert str(path) in str(caught.value)
  monkeypatch.setattr(dlib_file, "_LARGEST_FILE", 9)
  with pytest.raises(errors.UserError, match="has 10 bytes, more than the 9"):
    _read(tmp_path, bytes(10))


def test_raw_floats_are_little_endian():
  tensor = writer.tensor(np.float32([1.5, -2.0]).reshape(2, 1, 1, 1))
  assert tensor.endswith(struct.pack("<2f", 1.5, -2.0))
  np.testing.assert_array_equal(
    dlib_file._Reader("file", tensor).tensor().ravel(), [1.5, -2.0]
  )
