"""Reads pickles of lists, tuples, bytes and booleans, and nothing else.

A pickle is a program: what it may do is told by its opcodes. They are looked
through first, and one that could call anything, or ask for memory that the file
does not fill, is refused before any of them runs. Booleans of NumPy and the
bytes of Python 2 and of old protocols need a call; the four functions that
they name are replaced by ones of this module.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

# Constants and containers, the memo, and the call of what `_CALLS` has.
_ALLOWED = frozenset(
  """
  PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE
  EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
  INT BININT BININT1 BININT2 BINBYTES SHORT_BINBYTES BINBYTES8
  BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE
  PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
  GLOBAL STACK_GLOBAL REDUCE BUILD
  """.split()
)
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


class Refused(ValueError):
  """A pickle that is damaged or holds what is not allowed."""


class _BoolType:
  """Stands for NumPy's dtype of booleans."""

  def __setstate__(self, state: object) -> None:
    """Byte order and the like say nothing about one byte."""


def _bool_type(name: object, *rest: object) -> _BoolType:
  del rest
  if name not in ("b1", b"b1", "?", b"?", "bool"):
    raise Refused("it holds NumPy values that are no booleans")
  return _BoolType()


def _bool_value(kind: object, data: object) -> bool:
  if not isinstance(kind, _BoolType) or data not in (b"\0", b"\1"):
    raise Refused("it holds NumPy values that are no booleans")
  return data == b"\1"


def _latin1(text: object, *rest: object) -> bytes:
  # Protocol 2 writes bytes as a text and this call.
  if not isinstance(text, str) or rest not in (("latin1",), (b"latin1",)):
    raise Refused("it calls a codec")
  return text.encode("latin1")


def _no_bytes(*nothing: object) -> bytes:
  # Up to protocol 2, empty bytes are a call without arguments.
  if nothing:
    raise Refused("it calls for bytes of some length")
  return b""


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
  ("numpy", "dtype"): _bool_type,
  ("numpy.core.multiarray", "scalar"): _bool_value,
  ("numpy._core.multiarray", "scalar"): _bool_value,
  ("_codecs", "encode"): _latin1,
  ("__builtin__", "bytes"): _no_bytes,
  ("builtins", "bytes"): _no_bytes,
}


class _Unpickler(pickle.Unpickler):
  """Knows the functions of `_CALLS` only."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _CALLS:
      raise Refused(f"it asks for {module}.{name}, which could do anything")
    return _CALLS[module, name]


def loads(data: bytes) -> Any:
  """Returns what a pickle holds.

  Args:
    data: the pickle, of any protocol of Python 3, or protocols 1 and 2 of
      Python 2.

  Returns:
    Lists, tuples, bytes, text, booleans, small integers and None, nested as
    they were; text of Python 2 is bytes.

  Raises:
    Refused: if it is cut short, no pickle, or holds anything else.
  """
  try:
    _look_through(data)
    return _Unpickler(io.BytesIO(data), encoding="bytes").load()
  except Refused:
    raise
  # Damage shows in many ways: EOFError, UnpicklingError, ValueError, KeyError.
  except Exception as error:
    problem = " ".join(str(error).split()) or type(error).__name__
    raise Refused(f"it is damaged or cut short ({problem})") from error


def _look_through(data: bytes) -> None:
  number = 0
  for opcode, argument, _ in pickletools.genops(data):
    if opcode.name not in _ALLOWED:
      raise Refused(f"it holds more than lists and bytes ({opcode.name})")
    # Pickle makes room up to the number of a memo entry at once.
    if opcode.name in _PUTS and not 0 <= int(argument or 0) <= number:
      raise Refused("its memo has numbers beyond its length")
    number += 1
