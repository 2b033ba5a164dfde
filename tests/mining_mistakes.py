"""How to get a wrong miner from a right one."""

import jax.numpy as jnp
import numpy as np


def negated(function):
  return lambda x, *args, **options: function(-x, *args, **options)


def without_padding(function):
  def wrong(*args, column_weights=None, **options):
    return function(*args, **options)

  return wrong


def self_kept(function):
  """The anchor is among its own positives."""

  def wrong(*args, anchor_rows, **options):
    nobody = jnp.full(np.shape(anchor_rows), -1)
    return function(*args, anchor_rows=nobody, **options)

  return wrong


def own_padding_kept(function):
  """An anchor counts even where its own column is padding."""

  def wrong(*args, anchor_rows, column_weights, **options):
    rows = jnp.asarray(anchor_rows)
    padded = jnp.asarray(column_weights)[jnp.maximum(rows, 0)] == 0
    return function(
      *args,
      anchor_rows=jnp.where(padded, -1, rows),
      column_weights=column_weights,
      **options,
    )

  return wrong


def local_rows(function):
  """Anchors numbered on their device instead of in the global batch."""

  def wrong(*args, anchor_rows, **options):
    rows = jnp.arange(len(anchor_rows))
    return function(*args, anchor_rows=rows, **options)

  return wrong


def swapped(function):
  """Positives and negatives exchanged."""

  def wrong(*args, **options):
    result = function(*args, **options)
    return result._replace(
      positives=result.negatives, negatives=result.positives
    )

  return wrong


def last_of_ties(function):
  """The columns from the far end: ties go to the highest index."""

  def wrong(x, anchor_ids, column_ids, *, anchor_rows, **options):
    last = len(column_ids) - 1
    rows = jnp.where(anchor_rows < 0, -1, last - jnp.asarray(anchor_rows))
    if "column_weights" in options:
      options["column_weights"] = options["column_weights"][::-1]
    result = function(
      x[:, ::-1], anchor_ids, column_ids[::-1], anchor_rows=rows, **options
    )
    return result._replace(
      positives=jnp.where(result.weights > 0, last - result.positives, 0),
      negatives=jnp.where(result.weights > 0, last - result.negatives, 0),
    )

  return wrong


def with_option(function, **forced):
  """An option is not listened to."""
  return lambda *args, **options: function(*args, **(options | forced))


def scaled(function, name, change):
  """An option is put through `change` first."""

  def wrong(*args, **options):
    options[name] = change(options[name])
    return function(*args, **options)

  return wrong


def all_weighted(function):
  """Weight 1 where there is no triplet."""

  def wrong(*args, **options):
    result = function(*args, **options)
    return result._replace(weights=jnp.ones_like(result.weights))

  return wrong


def labels(options):
  return {name: options[name] for name in ("anchor_rows", "column_weights")}


_SHARED = {
  "padding is mined": without_padding,
  "anchor of padding counts": own_padding_kept,
  "self not excluded": self_kept,
  "local rows for global ones": local_rows,
}


def shared(function):
  return {name: wrong(function) for name, wrong in _SHARED.items()}
