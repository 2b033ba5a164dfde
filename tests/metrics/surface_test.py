"""Tests of what facesiam_jax.metrics shows: docstrings, tests that can fail."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil

import pytest

from facesiam_jax import metrics

_MODULES = sorted(m.name for m in pkgutil.iter_modules(metrics.__path__))
_FUNCTIONS = sorted(
  name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))
)


@pytest.mark.parametrize("name", _MODULES)
def test_examples_print_what_they_say(name):
  module = importlib.import_module(f"facesiam_jax.metrics.{name}")
  result = doctest.testmod(module)
  assert result.attempted and not result.failed


@pytest.mark.parametrize("name", _FUNCTIONS)
def test_every_function_says_what_a_caller_must_know(name):
  text = inspect.getdoc(getattr(metrics, name))
  for section in ("Args:", "Returns:", "Raises:", "Degenerate input:", ">>> "):
    assert section in text, f"{name} lacks {section}"


def test_every_function_has_wrong_variants():
  folder = pathlib.Path(__file__).parents[1] / "wrong"
  named = set()
  for path in folder.glob("metrics_*.py"):
    module = importlib.import_module(f"wrong.{path.stem}")
    named |= set(module.VARIANTS)
  # `is_collapsed` is a comparison; wrong/collapse.py tests what it compares.
  wanted = {f"metrics.{name}" for name in _FUNCTIONS}
  assert wanted - named == {
    "metrics.collapse_statistics",
    "metrics.is_collapsed",
  }
