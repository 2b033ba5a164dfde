"""The tests of the pure functions are able to fail: wrong variants do."""

import importlib
import inspect
import pathlib

import pytest
from flax import linen as nn

_MODULES = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parent / "wrong").glob("*.py")
  if path.stem != "__init__"
)
VARIANTS = {
  name: variants
  for module in _MODULES
  for name, variants in importlib.import_module(
    f"wrong.{module}"
  ).VARIANTS.items()
}
_FEWEST = 4


_ROOMS = ("ops", "heads", "losses", "mining", "sampling", "metrics")
# A registry, which computes nothing.
_NOT_JUDGED = {"heads.create"}


def _computes(value):
  """Whether something public computes anything.

  Plain classes and constants do not, but Flax modules do; a function that
  returns None only refuses arguments, and the tests of its messages are
  elsewhere.
  """
  if inspect.isclass(value):
    return issubclass(value, nn.Module)
  return inspect.isfunction(value) and inspect.signature(
    value
  ).return_annotation not in (None, "None")


def _judged(room):
  """Names of what must have wrong variants, as the room's __all__ has them."""
  module = importlib.import_module(f"facesiam_jax.{room}")
  public = {f"{room}.{name}": getattr(module, name) for name in module.__all__}
  judged = {name for name, value in public.items() if _computes(value)}
  return judged - _NOT_JUDGED


@pytest.mark.parametrize("room", _ROOMS)
def test_every_public_function_has_wrong_variants(room):
  wanted = _judged(room)
  assert wanted and wanted <= VARIANTS.keys(), wanted - VARIANTS.keys()


def test_every_entry_is_of_something_public():
  """A table may name a mode after the name: "heads.X squared"."""
  known = set().union(*map(_judged, _ROOMS))
  named = {name.split()[0] for name in VARIANTS}
  assert named <= known, named - known


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_right_implementation_passes(name):
  VARIANTS[name].check(VARIANTS[name].right)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_wrong_implementations_are_rejected(name):
  variants = VARIANTS[name]
  assert len(variants.wrong) >= _FEWEST, "name more plausible mistakes"
  passed = []
  for mistake, wrong in variants.wrong.items():
    try:
      variants.check(wrong)
    except AssertionError:
      continue
    passed.append(mistake)
  assert not passed, f"the test of {name} does not notice: {passed}"
