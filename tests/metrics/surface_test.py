"""Tests of what facesiam_jax.metrics shows: docstrings and their examples."""

import doctest
import importlib
import inspect
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
