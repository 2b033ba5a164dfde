"""Eight CPU devices, strict ranks, and Olivetti faces for all tests."""

import os
import pathlib
from importlib import metadata

# Before JAX starts: devices cannot be added later.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of the time goes into compiling tiny programs that run once: they are
# shared between the processes, however small, and not polished. The soak runs
# the same tests as users compile, with JAX_DISABLE_MOST_OPTIMIZATIONS=0.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Later releases have no such flag, and XLA ends a process that names one.
if metadata.version("jax").startswith("0.10.") and (
  os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
):
  os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
# [B] against [B, 1] silently gives [B, B]: the classic bug of pair losses.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Each compiled program takes several pieces of memory, of which Linux gives a
# process 65,530: beyond, XLA ends it by a segmentation fault.
_MANY_PIECES = 25_000
_PIECES = pathlib.Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
  """Drops compiled programs before there are too many; they are on disk."""
  yield
  if _PIECES.exists() and _PIECES.read_bytes().count(b"\n") > _MANY_PIECES:
    jax.clear_caches()


@pytest.fixture(scope="session")
def devices() -> list[jax.Device]:
  """The eight CPU devices."""
  found = jax.devices("cpu")
  assert len(found) == 8, "conftest must run before JAX starts"
  return found
