"""The examples in docstrings of the pure functions are run, and are there."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import facesiam_jax

ROOMS = ("ops", "heads", "losses", "mining", "sampling", "metrics")
# A registry and a check, whose use is their one line.
NO_EXAMPLE = {"heads.create", "sampling.check_pairs"}


def _modules():
  for room in ROOMS:
    module = importlib.import_module(f"facesiam_jax.{room}")
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
      yield importlib.import_module(f"facesiam_jax.{room}.{found.name}")


@pytest.mark.parametrize("module", list(_modules()), ids=lambda m: m.__name__)
def test_examples_print_what_they_say(module):
  results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
  assert results.failed == 0


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_function_has_an_example(room):
  module = importlib.import_module(f"{facesiam_jax.__name__}.{room}")
  for name in module.__all__:
    function = getattr(module, name)
    if inspect.isfunction(function) and f"{room}.{name}" not in NO_EXAMPLE:
      assert ">>>" in (function.__doc__ or ""), name
