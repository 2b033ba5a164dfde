"""The gallery's tests compare bits: they compile as users do."""

import os
from collections.abc import Iterator

import jax
import pytest

from facesiam_jax.gallery.store import Store
from tests.gallery import stores


@pytest.fixture(autouse=True)
def _optimize() -> Iterator[None]:
  name = "jax_disable_most_optimizations"
  jax.config.update(name, False)
  yield
  jax.config.update(name, os.environ[name.upper()] == "1")


@pytest.fixture(name="store")
def _store(tmp_path) -> Iterator[Store]:
  with stores.create(tmp_path / "g.db", timeout_s=0.1) as store:
    yield store
