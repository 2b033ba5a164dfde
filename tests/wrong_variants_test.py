"""The tests of the pure functions are able to fail: wrong variants do."""

import importlib
import pathlib

import pytest

from facesiam_jax import losses, mining

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


def _functions(module, prefix):
  """Public functions of a module, as its __all__ names them."""
  return {
    f"{prefix}.{name}"
    for name in module.__all__
    if name.islower() and callable(getattr(module, name))
  }


def test_every_loss_and_miner_has_wrong_variants():
  wanted = _functions(losses, "losses") | _functions(mining, "mining")
  assert wanted <= VARIANTS.keys(), wanted - VARIANTS.keys()


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
