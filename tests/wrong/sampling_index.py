"""Mistakes in grouping images by identity, and the test that notices them."""

import jax.numpy as jnp
import numpy as np
from variants import Variants

from facesiam_jax import sampling

_TABLES = (
  [7, 3, 7, 3, 3],
  [5, 9, 2, 9, 5, 9, 1],
  [4, 4, 4],
  [3, 2, 1, 0],
  [-(2**40), 2**40, -(2**40)],
)


def check_index_identities(function):
  """Against a loop over the people in ascending order."""
  for ids in _TABLES:
    found = function(np.array(ids))
    order, starts, groups, paired = [], [], [], []
    for number, person in enumerate(sorted(set(ids))):
      rows = [row for row, other in enumerate(ids) if other == person]
      starts.append(len(order))
      if len(rows) > 1:
        paired += range(len(order), len(order) + len(rows))
      order += rows
      groups += [number] * len(rows)
    counts = [ids.count(person) for person in sorted(set(ids))]
    expected = {
      "order": order,
      "starts": starts,
      "counts": counts,
      "groups": groups,
      "paired": paired,
      "max_count": max(counts),
    }
    for name, values in expected.items():
      actual = np.asarray(getattr(found, name))
      np.testing.assert_array_equal(actual, values, err_msg=name)


def _changed(**parts):
  """The right index with some of it computed otherwise."""

  def function(ids):
    found = sampling.index_identities(ids)
    return found.replace(**{k: f(found, ids) for k, f in parts.items()})

  return function


VARIANTS = {
  "sampling.index_identities": Variants(
    sampling.index_identities,
    check_index_identities,
    {
      "places for order": _changed(order=lambda i, ids: jnp.argsort(i.order)),
      "rows as they come": _changed(order=lambda i, ids: jnp.arange(len(ids))),
      "images falling": lambda ids: sampling.index_identities(-ids),
      "starts are ends": _changed(starts=lambda i, ids: i.starts + i.counts),
      "single images paired": _changed(
        paired=lambda i, ids: jnp.arange(len(ids))
      ),
      "images for positions": _changed(
        paired=lambda i, ids: jnp.sort(i.order[i.paired])
      ),
      "ids for groups": _changed(
        groups=lambda i, ids: jnp.asarray(ids % 100, jnp.int32)
      ),
      "mean count": _changed(
        max_count=lambda i, ids: len(ids) // len(i.counts)
      ),
      "ids of 32 bits": lambda ids: sampling.index_identities(
        ids.astype(np.int32)
      ),
    },
  ),
}
