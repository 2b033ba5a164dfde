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


@pytest.mark.parametrize(
  "name, defaults",
  [
    ("cmc", {"draws": 200}),
    ("cohort_statistics", {"sd_floor": 1e-3}),
    ("ece", {"bins": 15}),
    ("error_rate_intervals", {"level": 0.95, "min_people": 30}),
    ("fairness_discrepancy_rate", {"alpha": 0.5}),
    ("fnir_at_fpir", {"rank": 1}),
    ("garbe", {"alpha": 0.5}),
    ("is_collapsed", {"threshold": 0.05}),
    ("one_shot_accuracy", {"draws": 200}),
    ("open_set_curve", {"rank": 1}),
    ("open_set_rates_at", {"rank": 1}),
    (
      "person_bootstrap",
      {"resamples": 1000, "level": 0.95, "min_people": 30},
    ),
    ("platt_jackknife", {"level": 0.95, "min_people": 30}),
    ("rank_counts", {"draws": 200}),
    ("rule_of_three", {"level": 0.95}),
    ("s_norm", {"sd_floor": 1e-3}),
    ("t_norm", {"sd_floor": 1e-3}),
    ("z_norm", {"sd_floor": 1e-3}),
  ],
)
def test_defaults_are_those_that_figures_are_quoted_with(name, defaults):
  arguments = inspect.signature(getattr(metrics, name)).parameters
  found = {key: arguments[key].default for key in defaults}
  assert found == defaults
