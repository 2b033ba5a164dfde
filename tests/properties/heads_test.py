"""Properties of the heads: symmetric, probabilities, monotone in the score."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from facesiam_jax import heads, ops
from properties import strategies

_HEADS = {
  "euclidean": heads.create("euclidean_logistic"),
  "l1": heads.create("l1_logistic"),
  "cosine": heads.create("cosine_logistic"),
  "abs_difference": heads.create("abs_difference_logistic", monotone=True),
  "free abs_difference": heads.create("abs_difference_logistic"),
  "chi_square": heads.create(
    "chi_square_logistic", monotone=True, features="abs"
  ),
  "free chi_square": heads.create("chi_square_logistic"),
}
_SQUARED = heads.create("euclidean_logistic", squared=True)
_OF_SCORES = {name: _HEADS[name] for name in ("euclidean", "l1", "cosine")}
_SCORES = {
  "euclidean": ops.euclidean_distance,
  "l1": ops.l1_distance,
  "cosine": ops.cosine_similarity,
}
_scores = strategies.jit(lambda x, y: {n: s(x, y) for n, s in _SCORES.items()})


def _parameters(head, weight, bias, width):
  """A head's variables, all weights the same drawn number."""
  shape = (1, width)
  made = jax.eval_shape(head.init, jax.random.key(0), *[jnp.zeros(shape)] * 2)
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.full(
      leaf.shape, bias if path[-1].key == "bias" else weight, leaf.dtype
    ),
    made,
  )


@strategies.jit
def _judge(x, y, weight, bias):
  """Logits of every head, and their gradients by rows and parameters."""
  found = {}
  for name, head in (_HEADS | {"squared": _SQUARED}).items():
    variables = _parameters(head, weight, bias, x.shape[1])
    logits, pull = jax.vjp(head.apply, variables, x, y)
    found[name] = logits, pull(jnp.ones_like(logits))
  return found


@strategies.jit
def _from_scores(scores, weight, bias):
  """Logits of scores, for the heads that have one score."""
  heads_of_scores = _OF_SCORES | {"squared": _SQUARED}
  return {
    name: head.apply(
      _parameters(head, weight, bias, 1), scores, method="from_scores"
    )
    for name, head in heads_of_scores.items()
  }


@st.composite
def _cases(draw, low=-30, high=30):
  rows, width = draw(st.sampled_from(strategies.SHAPES))
  both = draw(strategies.matrices((2 * rows, width), low, high))
  return both[::2], both[1::2], draw(_WEIGHTS), draw(_WEIGHTS)


# Of either sign, so that a monotone head is asked to keep its own.
_WEIGHTS = st.floats(-1000, 1000, width=32)


@given(_cases())
def test_logits_and_gradients_are_finite_and_give_probabilities(case):
  found = _judge(*case)
  del found["squared"]
  strategies.assert_finite(found)
  for logits, _ in found.values():
    probabilities = np.asarray(jax.nn.sigmoid(logits))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


@given(_cases(-30, 15))
def test_of_squared_distances_they_are_as_far_as_squares_are(case):
  strategies.assert_finite(_judge(*case)["squared"])


@given(_cases())
def test_a_head_does_not_know_left_from_right(case):
  x, y, weight, bias = case
  forwards, backwards = _judge(x, y, weight, bias), _judge(y, x, weight, bias)
  for name in _HEADS:
    logits, (parameters, by_x, by_y) = forwards[name]
    other, (other_parameters, by_first, by_second) = backwards[name]
    strategies.assert_same_bits(
      (logits, parameters, by_x, by_y),
      (other, other_parameters, by_second, by_first),
      name,
    )


@given(_cases())
def test_the_logit_is_that_of_the_score(case):
  x, y, weight, bias = case
  found = _judge(*case)
  for name, scores in _scores(x, y).items():
    logits = _from_scores(scores, weight, bias)[name]
    # Two programs may round w d + b differently.
    size = np.abs(bias) + np.abs(np.asarray(logits) - np.float64(bias))
    gap = np.abs(np.asarray(found[name][0], np.float64) - logits)
    assert (gap <= 1e-5 * size + 1e-30).all(), name


@given(strategies.numbers(9, -30, 18, signed=False), _WEIGHTS, _WEIGHTS)
def test_the_less_alike_never_get_the_higher_logit(scores, weight, bias):
  logits = _from_scores(np.sort(scores), weight, bias)
  for name in ("euclidean", "l1", "squared"):
    assert (np.diff(logits[name]) <= 0).all(), name
  assert (np.diff(logits["cosine"]) >= 0).all()


@given(_cases(-29, 29))
def test_growing_differences_lower_the_logit(case):
  x, _, weight, bias = case
  near = _judge(x, 0 * x, weight, bias)
  far = _judge(2 * x, 0 * x, weight, bias)
  for name in ("euclidean", "l1", "abs_difference", "chi_square"):
    assert (np.asarray(far[name][0]) <= near[name][0]).all(), name
