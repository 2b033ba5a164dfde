"""A small index to draw from, and tests of how often things are drawn."""

import functools

import jax
import numpy as np
from scipy import stats

from facesiam_jax import sampling

# Unequal people in mixed order; person 7 has one image.
IDS = np.array([3, 5, 3, 7, 5, 3, 9, 9, 9, 9, 3, 5], np.int32)
PEOPLE = np.unique(IDS)
NUM = len(IDS)


@functools.cache
def index():
  return sampling.index_identities(IDS)


def draw_many(function, num_draws, **options):
  """What a sampler draws with many keys, stacked, as NumPy arrays."""
  found, keys = index(), jax.random.split(jax.random.key(0), num_draws)
  # One after the other: mapped at once, XLA takes longer to compile it.
  draw = lambda key: function(found, key, **options)
  drawn = jax.jit(lambda keys: jax.lax.map(draw, keys))(keys)
  return jax.tree.map(np.asarray, drawn)


def assert_chances(counter, expected, what):
  """Counts agree with the expected ones, and nothing else was drawn."""
  strange = set(counter) - set(expected)
  assert not strange, f"{what}: drew {sorted(strange)[:3]}"
  observed = [counter[outcome] for outcome in expected]
  wanted = np.array(list(expected.values()), float)
  wanted *= sum(observed) / wanted.sum()
  assert min(wanted) > 5, "too few draws for the test"
  if len(expected) == 1:
    return
  chance = stats.chisquare(observed, wanted).pvalue
  assert chance > 1e-3, f"{what}: chance {chance}"


def assert_independent(first, second, what):
  """Two columns of draws do not depend on each other."""
  table = np.zeros((NUM, NUM))
  np.add.at(table, (first, second), 1)
  table = table[table.any(axis=1)][:, table.any(axis=0)]
  assert min(table.shape) > 1, f"{what}: always the same"
  chance = stats.chi2_contingency(table).pvalue
  assert chance > 1e-4, f"{what} depend on each other"
