"""Properties of the losses: any batch, any ids, any mask, any magnitude.

All losses of a family are one program a shape; a property that fails names the
loss.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from facesiam_jax import losses
from properties import strategies

_PEOPLE = 4
# The programs are the largest of all: a single row and a single column are
# compiled for themselves in the long run only.
_SHAPES = (
  strategies.SHAPES
  if strategies.PROFILE == "soak"
  else (strategies.SMALL, strategies.LARGE)
)
_KEY = jax.random.key(3)
_STATISTICS = losses.NormStatistics(np.float32(2.0), np.float32(0.5))


def _against_itself(loss, **options):
  """A batch-wise loss of one device: the columns are the anchors."""

  def function(batch):
    rows = jnp.arange(len(batch["ids"]))
    return loss(
      batch["x"],
      batch["ids"],
      batch["x"],
      batch["ids"],
      anchor_rows=rows,
      column_weights=batch["mask"],
      **options,
    )

  return function


def _of_classes(loss, **options):
  """A softmax loss; the centres are drawn too."""
  return lambda batch: loss(
    batch["x"], batch["centers"], batch["ids"], batch["mask"], **options
  )


def _sub_center(batch):
  both = jnp.stack([batch["centers"], -batch["centers"]], axis=1)
  return losses.sub_center(batch["x"], both, batch["ids"], batch["mask"])


def _elastic(batch, **options):
  return losses.elasticface(
    batch["x"],
    batch["centers"],
    batch["ids"],
    batch["mask"],
    key=_KEY,
    rows=batch["places"],
    **options,
  )


def _triplets(loss, **options):
  return lambda batch: loss(
    batch["x"], batch["y"], batch["z"], batch["mask"], **options
  )


def _pairs(loss, **options):
  return lambda batch: loss(
    batch["distances"], batch["ids"] % 2, batch["mask"], **options
  )


def _two_distances(loss, **options):
  return lambda batch: loss(
    batch["distances"], batch["others"], batch["mask"], **options
  )


# Losses of cosines or plain distances: right from 1e-30 to 1e30.
_WIDE = {
  "supcon": _against_itself(losses.supcon),
  "nt_xent drop": _against_itself(losses.nt_xent, other_positives="drop"),
  "multi_similarity": _against_itself(losses.multi_similarity),
  "circle": _against_itself(losses.circle),
  "proxy_anchor": lambda batch: losses.proxy_anchor(
    batch["centers"],
    jnp.arange(_PEOPLE),
    batch["x"],
    batch["ids"],
    column_weights=batch["mask"],
  ),
  "cosface": _of_classes(losses.cosface),
  "arcface": _of_classes(losses.arcface),
  "arcface straight": _of_classes(losses.arcface, gradient="straight_through"),
  "combined_margin": _of_classes(losses.combined_margin, m1=1.2),
  "sphereface": _of_classes(losses.sphereface, scale=64.0),
  "sub_center": _sub_center,
  "adaface": _of_classes(losses.adaface, statistics=_STATISTICS),
  "magface": _of_classes(
    losses.magface, norm_range=(1.0, 5.0), margin_range=(0.1, 0.8)
  ),
  "elasticface": lambda batch: _elastic(batch, kind="arc"),
  "elasticface plus": lambda batch: _elastic(batch, kind="cos", plus=True),
  "csc413_as_written": _triplets(losses.csc413_as_written),
  "csc413_as_run": _triplets(losses.csc413_as_run),
  "binary_cross_entropy": lambda batch: losses.binary_cross_entropy(
    batch["logits"], batch["ids"] % 2, batch["mask"]
  ),
  "softmax_cross_entropy": lambda batch: losses.softmax_cross_entropy(
    batch["logits"][:, None] * jnp.array([[1.0, -1.0, 0.5, 0.0]]),
    batch["ids"],
    batch["mask"],
  ),
  "margin_loss": _pairs(losses.margin_loss),
  "triplet_margin": _two_distances(losses.triplet_margin),
  "soft_margin_triplet": _two_distances(losses.soft_margin_triplet),
}
# Losses of squares and inner products.
_SQUARES = {
  "n_pair": _against_itself(losses.n_pair),
  "center": lambda batch: losses.center(
    batch["x"], batch["ids"], batch["centers"], batch["mask"]
  ),
  "contrastive": _pairs(losses.contrastive),
  # A product of two lengths: of the embedding and, in the gradient, of 1 over
  # the centre.
  "sphereface of its own length": _of_classes(losses.sphereface),
}
_ALL = _WIDE | _SQUARES
_MAY_BE_NEGATIVE = {"csc413_as_written"}
# One value a proxy, not one a row.
_OF_PROXIES = {"proxy_anchor"}
_FLOATS = ("x", "y", "z", "distances", "others", "logits")
_INTEGERS = ("ids", "places")


@strategies.jit
def _judge(batch):
  """Values, weights and the gradient of their sum, for every loss."""
  found = {}
  for name, loss in _ALL.items():

    def total(floats, loss=loss):
      values, weights = loss(batch | floats)
      return jnp.sum(values * weights), (values, weights)

    floats = {name: batch[name] for name in (*_FLOATS, "centers")}
    gradients, terms = jax.grad(total, has_aux=True)(floats)
    found[name] = *terms, gradients
  return found


@st.composite
def _batches(draw, low=-30, high=30, shape=None):
  rows, width = shape or draw(st.sampled_from(_SHAPES))
  both = draw(strategies.matrices((2 * rows, width), low, high))
  numbers = strategies.numbers(rows, low, high)
  return {
    "x": both[::2],
    "y": both[1::2],
    "z": np.roll(both[1::2], 1, axis=0),
    "centers": draw(strategies.matrices((_PEOPLE, width), low, high)),
    "distances": np.abs(draw(numbers)),
    "others": np.abs(draw(numbers)),
    "logits": draw(numbers),
    "ids": draw(strategies.ids(rows, _PEOPLE)),
    "places": np.arange(rows, dtype=np.int32),
    "mask": draw(strategies.masks(rows)),
  }


def _changed(batch, change):
  """The batch with something done to the rows of every array that has them."""
  names = (*_FLOATS, *_INTEGERS, "mask")
  return batch | {name: change(batch[name]) for name in names}


def _fill(x, rows, values):
  """Rows of padding: NaN, or an id that is nobody's."""
  filled = x.copy()
  filled[rows] = values[x.dtype == np.int32]
  return filled


def _assert_values_close(actual, expected, name):
  """Up to the rounding of a cosine times a scale of 256."""
  np.testing.assert_allclose(actual, expected, 1e-4, 2e-4, err_msg=name)


@given(_batches())
def test_values_and_gradients_are_finite_at_any_magnitude(batch):
  found = _judge(batch)
  strategies.assert_finite({name: found[name] for name in _WIDE})


@given(_batches(-18, 17))
def test_those_of_squares_are_finite_as_far_as_squares_are(batch):
  found = _judge(batch)
  strategies.assert_finite({name: found[name] for name in _SQUARES})


@given(_batches(-18, 17))
def test_values_are_not_negative_and_padding_is_zero(batch):
  padding = batch["mask"] == 0
  for name, (values, weights, _) in _judge(batch).items():
    if name not in _MAY_BE_NEGATIVE:
      assert (np.asarray(values) >= 0).all(), name
    assert np.isin(weights, (0, 1)).all(), name
    if name not in _OF_PROXIES:
      assert (np.asarray(weights)[padding] == 0).all(), name
      assert (np.asarray(values)[padding] == 0).all(), name


@given(_batches(-18, 17))
def test_what_padding_holds_changes_nothing(batch):
  padding = batch["mask"] == 0
  spoilt = batch | {
    name: _fill(batch[name], padding, (np.nan, 2**31 - 1))
    for name in (*_FLOATS, "ids")
  }
  plain, found = _judge(batch), _judge(spoilt)
  for name in _ALL:
    strategies.assert_same_bits(found[name], plain[name], name)
    for rows in _FLOATS:
      gradient = np.asarray(found[name][2][rows])
      assert (gradient[padding] == 0).all(), (name, rows)


def _enlarged(batch):
  """Four rows of width two as nine of width seventeen.

  The other rows are padding, and the other columns zero.
  """
  (rows, width), (all_rows, all_columns) = strategies.SMALL, strategies.LARGE
  added = all_rows - rows

  def lengthen(x):
    more = np.resize(x, (added, *x.shape[1:]))
    return np.concatenate([x, _fill(more, slice(None), (np.nan, -1))])

  longer = _changed(batch, lengthen)
  for name in ("x", "y", "z", "centers"):
    longer[name] = np.pad(longer[name], ((0, 0), (0, all_columns - width)))
  longer["mask"] = np.concatenate([batch["mask"], np.zeros(added, np.float32)])
  return longer


@given(_batches(-30, 0, strategies.SMALL))
def test_a_larger_batch_of_padding_is_the_same(batch):
  small, large = _judge(batch), _judge(_enlarged(batch))
  for name in _ALL:
    rows = slice(None) if name in _OF_PROXIES else slice(len(batch["ids"]))
    values, weights, _ = large[name]
    strategies.assert_same_bits(weights[rows], small[name][1], name)
    _assert_values_close(values[rows], small[name][0], name)


@given(_batches(-30, 0, strategies.LARGE), strategies.permutations(9))
def test_the_order_of_rows_does_not_matter(batch, order):
  plain, other = _judge(batch), _judge(_changed(batch, lambda x: x[order]))
  for name in _ALL:
    values, weights, _ = plain[name]
    if name not in _OF_PROXIES:
      values, weights = values[order], weights[order]
    strategies.assert_same_bits(other[name][1], weights, name)
    _assert_values_close(other[name][0], values, name)


@given(_batches(-30, 0, strategies.SMALL))
def test_copies_of_a_batch_cost_the_same(batch):
  """Four rows, the same four again, and one of padding."""
  half = len(batch["ids"])
  large = _enlarged(batch)
  for name in (*_FLOATS, *_INTEGERS, "mask"):
    large[name][half : 2 * half] = large[name][:half]
  once = _judge(batch)
  for name, (values, weights, _) in _judge(large).items():
    # Ranked together, two copies cannot both have the larger margin.
    if name in _OF_PROXIES or name == "elasticface plus":
      continue
    copies = slice(half, 2 * half)
    strategies.assert_same_bits(weights[:half], weights[copies], name)
    _assert_values_close(values[:half], values[copies], name)
    if name in _ROW_BY_ROW:
      _assert_values_close(values[:half], once[name][0], name)


_ROW_BY_ROW = set(_ALL) - {
  "supcon", "nt_xent drop", "multi_similarity", "circle",
  "n_pair",
}  # fmt: skip

_LADDER = (0.1, 0.25, 0.5)
_WITH_MARGIN = {
  "contrastive": lambda m: _pairs(losses.contrastive, margin=m),
  "margin_loss": lambda m: _pairs(losses.margin_loss, margin=m),
  "triplet_margin": lambda m: _two_distances(losses.triplet_margin, margin=m),
  "csc413_as_written": lambda m: _triplets(losses.csc413_as_written, margin=m),
  "csc413_as_run": lambda m: _triplets(losses.csc413_as_run, margin=m),
  "proxy_anchor": lambda m: (
    lambda batch: losses.proxy_anchor(
      batch["centers"],
      jnp.arange(_PEOPLE),
      batch["x"],
      batch["ids"],
      margin=m,
      column_weights=batch["mask"],
    )
  ),
  "cosface": lambda m: _of_classes(losses.cosface, margin=m),
  "arcface": lambda m: _of_classes(losses.arcface, margin=m),
  "combined m2": lambda m: _of_classes(losses.combined_margin, m1=1.2, m2=m),
  "combined m3": lambda m: _of_classes(losses.combined_margin, m3=m),
  "sphereface": lambda m: _of_classes(
    losses.sphereface, margin=1 + _LADDER.index(m), annealing=0.0
  ),
  "adaface": lambda m: _of_classes(
    losses.adaface, margin=m, statistics=_STATISTICS
  ),
  "magface": lambda m: _of_classes(
    losses.magface, norm_range=(1.0, 5.0), margin_range=(m, 1.0)
  ),
  "elasticface": lambda m: lambda batch: _elastic(batch, margin=m),
}


@strategies.jit
def _climb(batch):
  """Values of each loss at each margin of the ladder."""
  return {
    name: [make(margin)(batch)[0] for margin in _LADDER]
    for name, make in _WITH_MARGIN.items()
  }


@given(_batches(-18, 17, strategies.SMALL))
def test_a_larger_margin_never_lowers_the_loss(batch):
  for name, values in _climb(batch).items():
    for low, high in itertools.pairwise(map(np.asarray, values)):
      assert (low <= high + 1e-5 * np.abs(high) + 1e-4).all(), name


@strategies.jit
def _move(batch):
  arguments = batch["x"], batch["ids"], batch["mask"]
  return {
    "centers": losses.update_centers(batch["centers"], *arguments),
    "statistics": losses.update_norm_statistics(
      _STATISTICS, batch["x"], batch["mask"], rate=0.5
    ),
  }


@given(_batches(-18, 17))
def test_what_moves_with_a_batch_stays_finite_and_ignores_padding(batch):
  padding = batch["mask"] == 0
  spoilt = batch | {
    name: _fill(batch[name], padding, (np.nan, 2**31 - 1))
    for name in ("x", "ids")
  }
  moved = _move(batch)
  strategies.assert_finite(moved)
  strategies.assert_same_bits(_move(spoilt), moved)
  absent = ~np.isin(np.arange(_PEOPLE), batch["ids"][~padding])
  stayed = np.asarray(moved["centers"])[absent]
  np.testing.assert_allclose(stayed, batch["centers"][absent], atol=1e-37)
