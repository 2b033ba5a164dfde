"""Plausible mistakes in the softmax losses over a batch."""

import functools

import jax
import jax.numpy as jnp
from reference import batch_losses, loss_batches
from variants import Variants

from facesiam_jax import losses

_SETTINGS = {
  "supcon": {"temperature": 0.3},
  "nt_xent": {"temperature": 0.4, "other_positives": "drop"},
  "n_pair": {"norm_penalty": 0.05},
}


def check(name, loss):
  reference = getattr(batch_losses, name)
  loss_batches.check(loss, reference, **_SETTINGS[name])
  if name == "nt_xent":
    loss_batches.check(loss, reference, temperature=0.4, other_positives="keep")


def cosines(x, y):
  norms = [jnp.sqrt(jnp.sum(z**2, axis=1, keepdims=True)) for z in (x, y)]
  unit = [
    z / jnp.where(n > 0, n, 1.0) for z, n in zip((x, y), norms, strict=True)
  ]
  return unit[0] @ unit[1].T


def dots(x, y):
  return x @ y.T


def build(formula, scores=cosines, present="positives", late=False):
  """A loss from formula(scores, positives, negatives, ...) of each anchor.

  The masks are right, so that each mistake below is the only one; the test
  of the tests gives the right formulas to it. `late` takes padding out of the
  scores, not out of the embeddings: right values, NaN in the gradient.
  """

  def loss(
    anchors,
    anchor_ids,
    columns,
    column_ids,
    *,
    anchor_rows,
    column_weights=None,
    **settings,
  ):
    number = columns.shape[0]
    weights = jnp.ones(number) if column_weights is None else column_weights
    valid = jnp.asarray(weights) > 0
    rows = jnp.asarray(anchor_rows)
    own = jnp.where(rows < 0, True, valid[rows])
    # Ones, not zeros: the square root above has no gradient at 0.
    x = jnp.where(own[:, None], anchors, 1.0)
    y = jnp.where(valid[:, None], columns, 1.0)
    others = rows[:, None] != jnp.arange(number)[None, :]
    others = others & own[:, None] & valid[None, :]
    same = jnp.asarray(anchor_ids)[:, None] == jnp.asarray(column_ids)[None, :]
    p, n = others & same, others & ~same
    exists = {
      "positives": jnp.any(p, 1),
      "any": jnp.any(others, 1),
      "both": jnp.any(p, 1) & jnp.any(n, 1),
    }[present]
    s = scores(anchors, columns) if late else scores(x, y)
    s = jnp.where(p | n, s, 0.0)
    values = formula(s, p, n, x=x, y=y, **settings)
    return jnp.where(exists, values, 0.0), exists.astype(jnp.float32)

  return loss


def mean(x, where):
  count = jnp.maximum(jnp.sum(where, axis=1), 1)
  return jnp.sum(jnp.where(where, x, 0.0), axis=1) / count


def sums(x, where):
  return jnp.sum(jnp.where(where, x, 0.0), axis=1)


def _log(x):
  return jnp.log(jnp.where(x > 0, x, 1.0))


def _shares(s, among):
  """log softmax of each score among the marked ones."""
  return s - _log(sums(jnp.exp(s), among))[:, None]


def _one(s, p, n):
  """-log share of each positive among itself and the negatives."""
  return jnp.log(jnp.exp(s) + sums(jnp.exp(s), n)[:, None]) - s


def _supcon(s, p, n, *, temperature, **_):
  return -mean(_shares(s / temperature, p | n), p)


def _nt_xent(s, p, n, *, temperature, other_positives, **_):
  s = s / temperature
  keep = other_positives == "keep"
  return mean(-_shares(s, p | n) if keep else _one(s, p, n), p)


def _norms(p, x, y):
  squares = jnp.sum(x**2, 1)[:, None] + jnp.sum(y**2, 1)[None, :]
  return mean(squares, p)


def _n_pair(s, p, n, *, x, y, norm_penalty, **_):
  return mean(_one(s, p, n), p) + norm_penalty / 4 * _norms(p, x, y)


# Through the same `build`: were these refused too, the list below would
# prove nothing.
HONEST = {
  "supcon": build(_supcon),
  "nt_xent": build(_nt_xent),
  "n_pair": build(_n_pair, dots),
}


def changed(name, **changes):
  """The right loss with arguments replaced: functions of the old ones."""
  right = getattr(losses, name)

  def loss(*args, **kwargs):
    for key, change in changes.items():
      kwargs[key] = change(kwargs[key])
    return right(*args, **kwargs)

  return loss


def swapped_ids(name):
  """Positives are the other people."""
  right = getattr(losses, name)

  def loss(anchors, anchor_ids, columns, column_ids, **kwargs):
    return right(anchors, column_ids[:8], columns, column_ids, **kwargs)

  return loss


def weighted_by_one(name):
  """Anchors without a loss count in the mean."""
  right = getattr(losses, name)

  def loss(*args, **kwargs):
    values, weights = right(*args, **kwargs)
    return values, jnp.ones_like(weights)

  return loss


def masked_late(name):
  """Padding goes into the arithmetic and is taken out of the result."""
  right = getattr(losses, name)

  def loss(anchors, ids, columns, column_ids, *, column_weights, **kwargs):
    values, weights = right(anchors, ids, columns, column_ids, **kwargs)
    return jnp.nan_to_num(values), jnp.where(jnp.isnan(values), 0.0, weights)

  return loss


def common(name, late):
  """Mistakes that any loss over a batch may make."""
  return {
    "padding masked in the scores": late,
    "self not excluded": changed(name, anchor_rows=lambda x: jnp.full(8, -1)),
    "ids of the wrong rows": swapped_ids(name),
    "every anchor weighs one": weighted_by_one(name),
    "padding masked in the result": masked_late(name),
    "gradient stopped": lambda x, i, y, j, **kwargs: getattr(losses, name)(
      jax.lax.stop_gradient(x), i, y, j, **kwargs
    ),
  }


def _sum_for_mean(s, p, n, **settings):
  return _supcon(s, p, n, **settings) * jnp.sum(p, axis=1)


def _log_outside(s, p, n, *, temperature, **_):
  shares = jnp.exp(_shares(s / temperature, p | n))
  return -_log(mean(shares, p))


def _negatives_only(s, p, n, *, temperature, **_):
  return -mean(_shares(s / temperature, n), p)


def _cosine_distance(s, p, n, **settings):
  return _supcon(1.0 - s, p, n, **settings)


def _regardless(s, p, n, *, other_positives, **settings):
  return _nt_xent(s, p, n, other_positives="keep", **settings)


def _against_all_positives(s, p, n, *, temperature, **_):
  s = s / temperature
  return jnp.log(sums(jnp.exp(s), p | n)) - jnp.log(sums(jnp.exp(s), p))


def _first_positive(s, p, n, **settings):
  first = p & (jnp.cumsum(p, axis=1) == 1)
  return _nt_xent(s, first, n | (p & ~first), **settings)


def _one_positive_only(s, p, n, *, x, y, **settings):
  first = p & (jnp.cumsum(p, axis=1) == 1)
  return _n_pair(s, first, n, x=x, y=y, **settings)


def _no_one(s, p, n, *, x, y, norm_penalty, **_):
  worst = _log(sums(jnp.exp(s), n))[:, None] - s
  return mean(worst, p) + norm_penalty / 4 * _norms(p, x, y)


def _signs(s, p, n, **settings):
  return _n_pair(-s, p, n, **settings)


def _norms_of_anchors(s, p, n, *, x, y, norm_penalty, **_):
  return mean(_one(s, p, n), p) + norm_penalty / 2 * jnp.sum(x**2, axis=1)


def _no_penalty(s, p, n, *, norm_penalty, **_):
  return mean(_one(s, p, n), p)


def _not_squared(s, p, n, *, x, y, norm_penalty, **_):
  x, y = (jnp.sum(z**2, axis=1, keepdims=True) ** 0.25 for z in (x, y))
  return mean(_one(s, p, n), p) + norm_penalty / 4 * _norms(p, x, y)


_LATE = {
  "supcon": build(_supcon, late=True),
  "nt_xent": build(_nt_xent, late=True),
  "n_pair": build(_n_pair, dots, late=True),
}
_WRONG = {
  "supcon": {
    "sum over positives for mean": build(_sum_for_mean),
    "log outside of the mean": build(_log_outside),
    "negatives only in the denominator": build(_negatives_only),
    "not normalised": build(_supcon, dots),
    "distance for similarity": build(_cosine_distance),
    "temperature multiplies": changed("supcon", temperature=lambda t: 1 / t),
  },
  "nt_xent": {
    "other_positives ignored": build(_regardless),
    "all positives together": build(_against_all_positives),
    "the first positive only": build(_first_positive),
    "not normalised": build(_nt_xent, dots),
    "keep and drop swapped": changed(
      "nt_xent",
      other_positives=lambda word: {"keep": "drop", "drop": "keep"}[word],
    ),
    "temperature multiplies": changed("nt_xent", temperature=lambda t: 1 / t),
  },
  "n_pair": {
    "normalised": build(_n_pair),
    "the first positive only": build(_one_positive_only, dots),
    "1 missing in the logarithm": build(_no_one, dots),
    "sign of the products": build(_signs, dots),
    "quarter missing": changed("n_pair", norm_penalty=lambda c: 4 * c),
    "norms of the anchors only": build(_norms_of_anchors, dots),
    "no penalty": build(_no_penalty, dots),
    "penalty not squared": build(_not_squared, dots),
  },
}

VARIANTS = {
  f"losses.{name}": Variants(
    right=getattr(losses, name),
    check=functools.partial(check, name),
    wrong={**common(name, _LATE[name]), **wrong},
  )
  for name, wrong in _WRONG.items()
}
