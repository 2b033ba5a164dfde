"""Losses against one learned point for each person: proxy-anchor, centre."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax import ops
from facesiam_jax.losses import _batch, _checks


def proxy_anchor(
  proxies: ArrayLike,
  proxy_ids: ArrayLike,
  columns: ArrayLike,
  column_ids: ArrayLike,
  *,
  num_proxies: int | None = None,
  scale: float = 32.0,
  margin: float = 0.1,
  proxy_weights: ArrayLike | None = None,
  column_weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the proxy-anchor loss of each proxy.

    C/|P+| log(1 + sum_{x of the person} exp(-a (s_x - m)))
    + log(1 + sum_{x of others} exp(a (s_x + m)))
  with cosines s between proxy and columns, C proxies in all and P+ those
  whose person is in the batch. The mean over all C proxies is the paper's
  loss: its first sum is divided by |P+|, the proxies *present*, its second by
  C.
  Batch meaning: compares a device's own proxies with the *global* batch.

  Args:
    proxies: one learned embedding a person, float [c, D], any length: all of
      them, or a device's own.
    proxy_ids: person of each proxy, int32 [c], 0 to C - 1, each once.
    columns: embeddings of the global batch, float [B, D].
    column_ids: identity of each column, int32 [B], 0 to C - 1.
    num_proxies: C, the proxies of all devices without padding; None means c.
    scale: a, alpha in the paper, > 0.
    margin: m, delta in the paper, a cosine, 0 to 1.
    proxy_weights: 0 = padding proxy, float [c]; None means all ones.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    (values, weights): losses, float32 [c], >= 0, and weights, float32 [c]: 1,
    or 0 for padding.

  Raises:
    ValueError: if shapes do not fit, embeddings are not floating point, ids
      are out of range or a setting is.

  Degenerate input: a proxy whose person is absent has the second term only,
  one without other people's columns the first only; with every column padding
  all values are 0.
  Example:
    >>> proxies = jnp.array([[1.0, 0], [0, 1], [-1, 0]])
    >>> values, _ = proxy_anchor(
    ...   proxies, jnp.arange(3), proxies[:1], jnp.array([0]), scale=2.0
    ... )
    >>> [round(float(v), 4) for v in values]
    [0.4589, 0.7981, 0.153]

  References: Kim et al. 2020, Proxy Anchor Loss for Deep Metric Learning,
    eq. 4 (the paper learns the proxies at 100 times the network's rate).
  """
  _checks.above("scale", scale, 0)
  _checks.within("margin", margin, 0.0, 1.0)
  rows, gathered = _batch.as_embeddings("proxies", proxies, "columns", columns)
  total = rows.shape[0] if num_proxies is None else num_proxies
  _checks.above("num_proxies", total, 0)
  own, row_ids = _labelled(
    "proxy", proxy_ids, proxy_weights, "proxies", rows, total
  )
  valid, ids = _labelled(
    "column", column_ids, column_weights, "columns", gathered, total
  )
  s = ops.pairwise_cosine_similarity(
    jnp.where(own[:, None], rows, 0.0), jnp.where(valid[:, None], gathered, 0.0)
  )
  compared = own[:, None] & valid[None, :]
  same = row_ids[:, None] == ids[None, :]
  pull = _batch.log1p_sum_exp(-scale * (s - margin), compared & same)
  push = _batch.log1p_sum_exp(scale * (s + margin), compared & ~same)
  share = total / jnp.maximum(_count_people(ids, valid, total), 1.0)
  return _batch.terms(share * pull + push, own)


def _labelled(
  prefix: str,
  ids: ArrayLike,
  weights: ArrayLike | None,
  other: str,
  rows: jax.Array,
  total: int,
) -> tuple[jax.Array, jax.Array]:
  """Returns which rows are no padding, bool, and labels in 0 to total - 1."""
  used = _checks.weights(f"{prefix}_weights", weights, other, rows)
  labels = _checks.labels(
    f"{prefix}_ids", ids, other, rows, low=0, high=total - 1, used=used
  )
  return used > 0, labels


def _count_people(ids: jax.Array, valid: jax.Array, total: int) -> jax.Array:
  """Returns how many of the people 0 to total - 1 are in the batch."""
  # The columns are global: counted there, every device has the same number
  # even if it holds a part of the proxies only.
  places = jnp.where(valid & (ids >= 0), ids, total)
  return jnp.sum(jnp.zeros(total).at[places].set(1.0, mode="drop"))


def _center_rows(
  embeddings: ArrayLike,
  ids: ArrayLike,
  centers: ArrayLike,
  weights: ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns embeddings - own centre, labels, centres, weights, checked."""
  rows, points = _batch.as_embeddings(
    "embeddings", embeddings, "centers", centers
  )
  row_weights = _checks.weights("weights", weights, "embeddings", rows)
  last = points.shape[0] - 1
  labels = _checks.labels(
    "ids", ids, "embeddings", rows, low=0, high=last, used=row_weights
  )
  valid = row_weights > 0
  # Inside jit a label out of range cannot be refused: NaN says it loudly,
  # where the usual indexing would take the nearest centre in silence.
  known = (labels >= 0) & (labels <= last)
  own = jnp.where(known[:, None], points[jnp.clip(labels, 0, last)], jnp.nan)
  difference = jnp.where(valid[:, None], rows - own, 0.0)
  return difference, jnp.where(valid, labels, 0), points, row_weights


def center(
  embeddings: ArrayLike,
  ids: ArrayLike,
  centers: ArrayLike,
  weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the centre loss of each embedding.

    1/2 |x - c_id|^2
  It pulls each person's images together; something else, such as a softmax
  over the people, must keep people apart. The paper adds 0.003 of it.
  Batch meaning: rows are independent.

  Args:
    embeddings: x, float [B, D], not normalised in the paper.
    ids: identity of each row, int32 [B], 0 to C - 1.
    centers: c, one a person, float [C, D]; moved by `update_centers`. No
      gradient reaches them.
    weights: weight of each row, 0 = padding, float [B]; None means all ones.

  Returns:
    (values, weights): losses, float32 [B], >= 0, and weights, float32 [B].

  Raises:
    ValueError: if shapes do not fit, an array is not floating point or an id
      is out of range. Inside jit such an id gives NaN.

  Degenerate input: a row of weight 0 has value 0 and no gradient, whatever it
  holds.
  Example:
    >>> centers = jnp.array([[0.0, 0.0], [1.0, 1.0]])
    >>> values, _ = center(jnp.array([[3.0, 4.0]]), jnp.array([0]), centers)
    >>> round(float(values[0]), 4)
    12.5

  References: Wen et al. 2016, A Discriminative Feature Learning Approach for
    Deep Face Recognition, eq. 2.
  """
  points = jax.lax.stop_gradient(jnp.asarray(centers))
  difference, _, _, weights = _center_rows(embeddings, ids, points, weights)
  return 0.5 * jnp.sum(jnp.square(difference), axis=1), weights


def update_centers(
  centers: ArrayLike,
  embeddings: ArrayLike,
  ids: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  rate: float = 0.5,
) -> jax.Array:
  """Moves each person's centre towards the person's rows of the batch.

    c_j <- c_j - rate sum_{i of j} (c_j - x_i) / (1 + n_j)
  with n_j rows of person j in the batch. The 1 keeps a centre with a single
  row from jumping and one without any from dividing by zero.
  Batch meaning: give the *global* batch, so that all devices move alike. A
  person's rows are added in no fixed order on a GPU; where the copies must be
  equal to the bit, set XLA's deterministic-ops flag.

  Args:
    centers: c, float [C, D].
    embeddings: x, float [B, D].
    ids: identity of each row, int32 [B], 0 to C - 1.
    weights: 0 = padding row, float [B]; None means all ones.
    rate: alpha in the paper, 0 to 1.

  Returns:
    The new centres, float32 [C, D], without gradient.

  Raises:
    ValueError: if shapes do not fit, an array is not floating point, an id is
      out of range or the rate is. Inside jit such an id moves nothing.

  Degenerate input: with every row padding the centres stay.
  Example:
    >>> x, ids = jnp.array([[4.0], [8.0]]), jnp.array([1, 1])
    >>> update_centers(jnp.zeros((2, 1)), x, ids, rate=0.5).tolist()
    [[0.0], [2.0]]

  References: Wen et al. 2016, A Discriminative Feature Learning Approach for
    Deep Face Recognition, eq. 4.
  """
  _checks.within("rate", rate, 0.0, 1.0)
  difference, labels, points, weights = _center_rows(
    embeddings, ids, centers, weights
  )
  # Padding and unknown people go to a place past the end, which is dropped.
  last = points.shape[0] - 1
  kept = (weights > 0) & (labels >= 0) & (labels <= last)
  places = jnp.where(kept, labels, last + 1)
  sums = jnp.zeros_like(points).at[places].add(difference, mode="drop")
  counts = jnp.zeros(last + 1).at[places].add(1.0, mode="drop")
  moved = points + rate * sums / (1.0 + counts)[:, None]
  return jax.lax.stop_gradient(moved)
