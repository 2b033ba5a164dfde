"""Eight CPU devices, strict ranks, and Olivetti faces for all tests."""

import os
import pathlib

# Before JAX starts: devices cannot be added later.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
# [B] against [B, 1] silently gives [B, B]: the classic bug of pair losses.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests compile the same tiny networks, in several processes: share them.
jax.config.update(
  "jax_compilation_cache_dir",
  str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def devices() -> list[jax.Device]:
  """The eight CPU devices."""
  found = jax.devices("cpu")
  assert len(found) == 8, "conftest must run before JAX starts"
  return found
