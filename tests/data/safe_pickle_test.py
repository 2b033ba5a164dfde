"""Pickles of the .bin sets are read, and nothing in them is ever run."""

import os
import pickle
import pickletools
import struct

import numpy as np
import pytest

from facesiam_jax.data import safe_pickle

CONTENT = ([b"one", b"\xff\x00two", b""], [True, False])


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(protocol):
  assert safe_pickle.loads(pickle.dumps(CONTENT, protocol)) == CONTENT


def test_python_2():
  """As cPickle wrote them at its highest protocol."""
  two = b"\x80\x02]q\x01(U\x03oneq\x02U\x05\xff\x00twoq\x03U\x00q\x04e"
  two += b"]q\x05(\x88\x89e\x86q\x06."
  assert safe_pickle.loads(two) == CONTENT


@pytest.mark.parametrize("protocol", range(6))
def test_booleans_of_numpy(protocol):
  content = (CONTENT[0], [np.bool_(True), np.bool_(False)])
  got = safe_pickle.loads(pickle.dumps(content, protocol))
  assert got == CONTENT and [type(v) for v in got[1]] == [bool, bool]


class Evil:
  def __init__(self, function, *args):
    self.call = function, args

  def __reduce__(self):
    return self.call


def _forbidden(tmp_path):
  target = str(tmp_path / "written")
  yield Evil(os.system, f"touch {target}")
  yield Evil(eval, f"open({target!r}, 'w')")
  yield Evil(open, target, "w")
  yield Evil(getattr, b"", "decode")
  yield np.arange(3)
  yield np.float64(3)
  yield {"a": 1}
  yield {1, 2}
  yield 1.5
  yield 2**70
  yield bytearray(b"x")
  yield safe_pickle.Refused
  yield object()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_anything_else_is_refused_and_not_run(tmp_path, protocol):
  for value in _forbidden(tmp_path):
    data = pickle.dumps(([b"x", value], [True]), protocol)
    with pytest.raises(safe_pickle.Refused):
      safe_pickle.loads(data)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["os", "builtins", "numpy", "_codecs"])
@pytest.mark.parametrize("name", ["system", "eval", "load", "lookup"])
def test_names_are_refused_one_by_one(module, name):
  for data in (
    f"c{module}\n{name}\n(tR.".encode(),
    pickle.PROTO + b"\x04" + pickle.SHORT_BINUNICODE + bytes([len(module)])
    + module.encode() + pickle.SHORT_BINUNICODE + bytes([len(name)])
    + name.encode() + b"\x93.",
  ):  # fmt: skip
    with pytest.raises(safe_pickle.Refused):
      safe_pickle.loads(data)


def test_other_codecs_are_refused():
  for codec in (b"zlib", b"rot13", b"utf-8"):
    data = b"c_codecs\nencode\n(Vabc\nV" + codec + b"\ntR."
    with pytest.raises(safe_pickle.Refused, match="codec"):
      safe_pickle.loads(data)


@pytest.mark.parametrize(
  "put",
  [
    pickle.LONG_BINPUT + struct.pack("<I", 0xFFFFFFFF),
    pickle.BINPUT + b"\xff",
    pickle.PUT + b"99999999999\n",
    pickle.PUT + b"-1\n",
  ],
)
def test_a_memo_that_asks_for_memory_is_refused(put):
  with pytest.raises(safe_pickle.Refused, match="memo|damaged"):
    safe_pickle.loads(b"]" + put + b".")


@pytest.mark.parametrize(
  "head", [b"B", b"T", b"\x8e", b"X", b"\x95", b"\x8d", b"\x96"]
)
def test_a_length_beyond_the_file_is_refused(head):
  for size in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\xff\xff\xff\x7f"):
    with pytest.raises(safe_pickle.Refused):
      safe_pickle.loads(head + size + b"abc.")


def test_cut_or_empty_is_refused():
  data = pickle.dumps(CONTENT)
  for length in range(len(data)):
    with pytest.raises(safe_pickle.Refused):
      safe_pickle.loads(data[:length])


def test_all_that_is_allowed_exists():
  known = {opcode.name for opcode in pickletools.opcodes}
  assert safe_pickle._ALLOWED <= known
  calls = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
  assert not safe_pickle._ALLOWED & (calls | {"PERSID", "BINPERSID"})
