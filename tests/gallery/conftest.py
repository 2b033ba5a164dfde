"""The gallery's tests compare bits: they compile as users do."""

import os
from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True)
def _optimize() -> Iterator[None]:
  name = "jax_disable_most_optimizations"
  jax.config.update(name, False)
  yield
  jax.config.update(name, os.environ[name.upper()] == "1")
