"""What the property tests draw, and how many examples they run.

XLA compiles once a shape, so shapes come from a short list and everything
else is values: magnitudes from 0 over subnormal numbers to 1e30, rows that are
zero, copies or opposites of another, ids with any repeats, any mask. A smaller
batch than the list has is one with padding.

The profile "fast" runs the same few examples each time, "soak" 300 new ones;
FACESIAM_HYPOTHESIS names it.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# Compiling takes longer than any deadline; the health checks measure time too.
_COMMON = {
  "deadline": None,
  "database": None,
  "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("fast", derandomize=True, max_examples=25, **_COMMON)
# Said outright: where the variable CI is set, hypothesis derandomizes.
settings.register_profile(
  "soak", derandomize=False, max_examples=300, **_COMMON
)
PROFILE = os.environ.get("FACESIAM_HYPOTHESIS", "fast")
settings.load_profile(PROFILE)

# The programs are large and run for milliseconds: where few examples are run,
# the compiler need not polish them. XLA's own rewriting stays as it is.
jit = functools.partial(
  jax.jit,
  compiler_options=(
    {"xla_backend_optimization_level": 0} if PROFILE == "fast" else None
  ),
)

# Rows and width. Of the width a draw may leave all but one or two columns zero,
# and of the rows all but one may be padding.
SHAPES = ((1, 1), (4, 2), (9, 17))
SMALL, LARGE = SHAPES[1:]

KINDS = ("normal", "zero", "copy", "opposite", "multiple", "mixed", "subnormal")


@st.composite
def _row(draw, earlier, width, low, high, kinds):
  kind = draw(st.sampled_from(kinds))
  seed = draw(st.integers(0, 2**16))
  exponent = draw(st.integers(low, high))
  values = np.random.default_rng(seed).normal(size=width)
  if kind == "zero":
    return np.zeros(width)
  if kind == "subnormal":
    return values * 1e-40
  if kind == "mixed":
    # Entries whose magnitudes have nothing to do with each other.
    powers = np.random.default_rng(seed).integers(low, high + 1, width)
    return np.sign(values) * 10.0**powers
  if kind != "normal" and earlier:
    other = earlier[draw(st.integers(0, len(earlier) - 1))]
    factor = {"copy": 1.0, "opposite": -1.0, "multiple": 3.0}[kind]
    return other * factor if np.abs(other).max() < 10.0**high else other
  return np.clip(values, -9, 9) / 9 * 10.0**exponent


@st.composite
def matrices(draw, shape, low=-30, high=30, kinds=KINDS):
  """Float32 rows of any magnitude from 10^low to 10^high, 0 and subnormal.

  Args:
    shape: (rows, width).
    low: decimal exponent of the smallest magnitudes.
    high: of the largest; entries stay below 10^high, multiples below three
      times that.
    kinds: of rows to draw from.
  """
  rows, width = shape
  used = draw(st.sampled_from(sorted({1, 2, width})))
  found = []
  for _ in range(rows):
    row = draw(_row(found, width, low, high, kinds))
    found.append(np.where(np.arange(width) < used, row, 0.0))
  return np.stack(found).astype(np.float32)


@st.composite
def ids(draw, rows, people=4):
  """Identities, int32 [rows], from all alike to mostly different."""
  return np.array(
    draw(st.lists(st.integers(0, people - 1), min_size=rows, max_size=rows)),
    np.int32,
  )


@st.composite
def masks(draw, rows):
  """Weights 0 or 1, float32 [rows], any of them."""
  bits = draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
  return np.array(bits, np.float32)


@st.composite
def numbers(draw, size, low=-30, high=30, *, signed=True):
  """Float32 [size] of any magnitude, some of them equal or 0."""
  values = draw(matrices((1, size), low, high))[0]
  return values if signed else np.abs(values)


def permutations(size):
  """Orders of so many rows, int64 [size]."""
  return st.permutations(range(size)).map(lambda order: np.array(order))


def assert_finite(tree, what=""):
  """Every array of the tree holds numbers."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    name = what + jax.tree_util.keystr(path)
    assert np.isfinite(np.asarray(leaf)).all(), f"{name}: {np.asarray(leaf)}"


def assert_same_bits(actual, expected, what=""):
  """Two trees of arrays are equal to the bit; 0 and -0 count as equal."""
  paths = jax.tree_util.tree_leaves_with_path(actual)
  leaves = jax.tree.leaves(expected)
  for (path, leaf), other in zip(paths, leaves, strict=True):
    name = what + jax.tree_util.keystr(path)
    np.testing.assert_array_equal(leaf, other, err_msg=name)


def weighted_total(values, weights):
  """What a caller differentiates: the sum of the values that count."""
  return jnp.sum(values * weights)
