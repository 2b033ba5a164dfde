"""Heads: their tests, and mistakes these must notice."""

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from reference import heads as reference
from reference import ops as reference_ops
from variants import Variants

from facesiam_jax import heads, ops
from wrong.ops import F, G, X, Y

_D = np.abs(X).ravel()
_W = np.float32([-1.5, 0.25, -0.5])


def _slopes(function, *arguments):
  """Gradients of the sum of the values, in the first two arguments."""
  total = lambda *a: jnp.sum(function(*a))
  return jax.jit(jax.grad(total, (0, 1)))(*arguments)


def _check_of_score(loop):
  def check(function):
    value = function(_D, -2.5, 0.75)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, loop(_D, -2.5, 0.75), rtol=1e-5)
    by_score, by_weight = _slopes(function, _D, np.float32(-2.5), 0.75)
    total = lambda d, w: float(np.sum(loop(d, w, 0.75)))
    numeric.assert_gradients_close(
      by_score, numeric.gradient(lambda d: total(d, -2.5), _D)
    )
    numeric.assert_gradients_close(
      by_weight, numeric.gradient(lambda w: total(_D, w), -2.5)
    )

  return check


def _check_of_entries(loop, x, y):
  def check(function):
    value = function(x, y, _W, 0.75)
    assert value.shape == (5,)
    np.testing.assert_allclose(value, loop(x, y, _W, 0.75), rtol=1e-5)
    np.testing.assert_array_equal(value, function(y, x, _W, 0.75))
    # One row with its copy and one where both are zero.
    near = np.concatenate([x[:1], 0 * y[1:2], y[2:]])
    far = np.concatenate([x[:1], 0 * x[1:2], x[2:]])
    by_x, by_y = _slopes(function, far, near, _W, 0.75)
    np.testing.assert_array_equal(by_x[:2], 0.0)
    np.testing.assert_array_equal(by_y[:2], 0.0)
    total = lambda x: float(np.sum(loop(x, y[2:], _W, 0.75)))
    numeric.assert_gradients_close(by_x[2:], numeric.gradient(total, x[2:]))

  return check


def _logits(module, x, y, variables=None):
  variables = variables or module.init(jax.random.key(0), x, y)
  return jax.jit(module.apply)(variables, x, y)


def _check_module(expected, **settings):
  """expected: (x, y) -> logits of the head as it starts."""

  def check(head):
    module = head(init_bias=0.75, **settings)
    logits = _logits(module, X, Y)
    np.testing.assert_allclose(logits, expected(X, Y), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(logits, _logits(module, Y, X))
    if module.metric == "head":
      return
    score = {
      "euclidean": ops.euclidean_distance,
      "l1": ops.l1_distance,
      "cosine": ops.cosine_similarity,
    }[module.metric]
    variables = module.init(jax.random.key(0), X, Y)
    of_scores = module.apply(variables, score(X, Y), method="from_scores")
    np.testing.assert_allclose(logits, of_scores, rtol=1e-5, atol=1e-6)

  return check


def _wrong_modules(head):
  """Mistakes any head could make, as classes."""

  class Asymmetric(head):
    def __call__(self, x, y):
      return super().__call__(x, 1.001 * y)

  class OneBatch(head):
    def __call__(self, x, y):
      logits = super().__call__(x, y)
      return jnp.full_like(logits, jnp.mean(logits))

  class Probability(head):
    def __call__(self, x, y):
      return jax.nn.sigmoid(super().__call__(x, y))

  class Flipped(head):
    def __call__(self, x, y):
      return 1.5 - super().__call__(x, y)

  class NoBias(head):
    def __call__(self, x, y):
      return super().__call__(x, y) - 0.75

  found = [Asymmetric, OneBatch, Probability, Flipped, NoBias]
  if head.metric != "head":

    class OtherScores(head):
      def from_scores(self, scores):
        return -super().from_scores(scores)

      def __call__(self, x, y):
        return -super().__call__(x, y)

    class Negated(head):
      def from_scores(self, scores):
        return super().from_scores(2.0 * scores)

    found += [OtherScores, Negated]
  return {wrong.__name__: wrong for wrong in found}


def _euclid(weight, squared=False):
  loop = reference.squared_affine if squared else reference.affine
  return lambda x, y: loop(
    reference_ops.by_rows(reference_ops.euclidean, x, y), weight, 0.75
  )


def _of_rows(loop, weight):
  return lambda x, y: reference.affine(
    reference_ops.by_rows(loop, x, y), weight, 0.75
  )


def _chi(features):
  return lambda x, y: reference.chi_square(
    reference.features(features, x),
    reference.features(features, y),
    [-1.5] * 3,
    0.75,
  )


_AFFINE = {
  "no bias": lambda d, w, b: w * d,
  "minus": lambda d, w, b: w * d - b,
  "flipped": lambda d, w, b: -(w * d) + b,
  "probability": lambda d, w, b: jax.nn.sigmoid(w * d + b),
  "threshold": lambda d, w, b: w * (d - b),
  "swapped": lambda d, w, b: b * d + w,
}

VARIANTS = {
  "heads.euclidean_logistic": Variants(
    heads.euclidean_logistic,
    _check_of_score(reference.affine),
    {
      **_AFFINE,
      "squared": lambda d, w, b: heads.euclidean_logistic(
        d, w, b, squared=True
      ),
    },
  ),
  "heads.l1_logistic": Variants(
    heads.l1_logistic,
    _check_of_score(reference.affine),
    {**_AFFINE, "root": lambda d, w, b: w * jnp.sqrt(d) + b},
  ),
  "heads.cosine_logistic": Variants(
    heads.cosine_logistic,
    _check_of_score(reference.affine),
    {**_AFFINE, "distance": lambda s, w, b: w * (1 - s) + b},
  ),
  "heads.abs_difference_logistic": Variants(
    heads.abs_difference_logistic,
    _check_of_entries(reference.abs_difference, X, Y),
    {
      "signed": lambda x, y, w, b: jnp.matmul(x - y, w) + b,
      "squared": lambda x, y, w, b: jnp.matmul((x - y) ** 2, w) + b,
      "one weight": lambda x, y, w, b: w[0] * ops.l1_distance(x, y) + b,
      "weight inside": lambda x, y, w, b: (
        jnp.sum(jnp.abs((x - y) * w[None]), -1) + b
      ),
      "mean": lambda x, y, w, b: jnp.mean(jnp.abs(x - y) * w[None], -1) + b,
      "bias a feature": lambda x, y, w, b: jnp.matmul(jnp.abs(x - y) + b, w),
      "no bias": lambda x, y, w, b: jnp.matmul(jnp.abs(x - y), w),
      "slope at 0": lambda x, y, w, b: (
        jnp.sum(jnp.abs(x - y) * w[None], -1) + b
      ),
    },
  ),
  "heads.chi_square_logistic": Variants(
    heads.chi_square_logistic,
    _check_of_entries(reference.chi_square, F, G),
    {
      "no mask": lambda x, y, w, b: jnp.matmul((x - y) ** 2 / (x + y), w) + b,
      "plain": lambda x, y, w, b: (
        jnp.matmul(jnp.abs(x - y) / (x + y + 1e-9), w) + b
      ),
      "absolute": heads.abs_difference_logistic,
      "one weight": lambda x, y, w, b: w[0] * ops.chi_square_distance(x, y) + b,
      "no bias": lambda x, y, w, b: jnp.matmul(ops.chi_square_terms(x, y), w),
      "one-sided": lambda x, y, w, b: (
        jnp.matmul((x - y) ** 2 / jnp.maximum(x, 1e-9), w) + b
      ),
    },
  ),
  "heads.EuclideanLogistic": Variants(
    heads.EuclideanLogistic,
    _check_module(_euclid(-1.5), init_weight=-1.5),
    _wrong_modules(heads.EuclideanLogistic),
  ),
  "heads.EuclideanLogistic squared": Variants(
    heads.EuclideanLogistic,
    _check_module(_euclid(-1.5, True), init_weight=-1.5, squared=True),
    _wrong_modules(heads.EuclideanLogistic),
  ),
  "heads.L1Logistic": Variants(
    heads.L1Logistic,
    _check_module(_of_rows(reference_ops.l1, -1.5), init_weight=-1.5),
    _wrong_modules(heads.L1Logistic),
  ),
  "heads.CosineLogistic": Variants(
    heads.CosineLogistic,
    _check_module(_of_rows(reference_ops.cosine, 4.0), init_scale=4.0),
    _wrong_modules(heads.CosineLogistic),
  ),
  "heads.AbsDifferenceLogistic": Variants(
    heads.AbsDifferenceLogistic,
    _check_module(_of_rows(reference_ops.l1, -1.5), init_weight=-1.5),
    _wrong_modules(heads.AbsDifferenceLogistic),
  ),
  "heads.ChiSquareLogistic": Variants(
    heads.ChiSquareLogistic,
    _check_module(_chi("relu"), init_weight=-1.5, features="relu"),
    _wrong_modules(heads.ChiSquareLogistic),
  ),
}
