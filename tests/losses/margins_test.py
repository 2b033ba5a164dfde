"""The margins as curves: value, slope, and that they never reward an angle."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import margin_softmax as reference

from facesiam_jax.losses import margins

KEY = jax.random.key(1)
# float32 cosines of 1,001 angles from 0 to pi, and their float64 values.
COSINES = np.cos(np.linspace(0.0, math.pi, 1001)).astype(np.float32)


def _ada(norm):
  statistics = margins.NormStatistics(20.0, 15.0)
  return (
    lambda c: margins.adaface(c, jnp.full_like(c, norm), statistics),
    lambda c: reference.adaface(c, norm, 20.0, 15.0),
  )


CURVES = {
  "cosface": (margins.cosface, reference.cosface),
  "arcface": (margins.arcface, reference.arcface),
  "arcface 0": (
    functools.partial(margins.arcface, margin=0.0),
    functools.partial(reference.arcface, margin=0.0),
  ),
  "arcface 1.5": (
    functools.partial(margins.arcface, margin=1.5),
    functools.partial(reference.arcface, margin=1.5),
  ),
  "combined": (margins.combined, reference.combined),
  "combined 1.35": (
    functools.partial(margins.combined, m1=1.35, m2=0.2, m3=0.1),
    functools.partial(reference.combined, m1=1.35, m2=0.2, m3=0.1),
  ),
  "combined 2": (
    functools.partial(margins.combined, m1=2.0, m2=0.0, m3=0.0),
    functools.partial(reference.combined, m1=2.0, m2=0.0, m3=0.0),
  ),
  "combined 0.9": (
    functools.partial(margins.combined, m1=0.9, m2=0.4, m3=0.15),
    functools.partial(reference.combined, m1=0.9, m2=0.4, m3=0.15),
  ),
  **{
    f"sphereface {m}": (
      functools.partial(margins.sphereface, margin=m, annealing=0.0),
      functools.partial(reference.sphereface, margin=m, annealing=0.0),
    )
    for m in (1, 2, 3, 4)
  },
  "adaface short": _ada(0.5),
  "adaface mean": _ada(20.0),
  "adaface long": _ada(90.0),
}


# Away from the bends and the ends, where a difference says nothing.
INSIDE = np.linspace(-0.97, 0.97, 41).astype(np.float32) + 0.0013
# Rounding takes the cosine of a vector with itself past 1.
ENDS = np.array([1.0000004, 1.0, 1 - 6e-8, 1 - 1e-6, 1 - 1e-3], np.float32)
ENDS = np.concatenate([ENDS, -ENDS])


def slopes(margin, cosines):
  """d psi / d cos of a margin that works element by element."""
  cosines = jnp.asarray(cosines, jnp.float32)
  return jax.jit(jax.grad(lambda c: jnp.sum(margin(c))))(cosines)


@functools.cache
def curve(name):
  """Values and slopes at COSINES, INSIDE and ENDS, compiled once."""
  margin, _ = CURVES[name]
  cosines = jnp.concatenate([COSINES, INSIDE, ENDS])
  both = jax.jit(lambda c: (margin(c), jax.grad(lambda d: margin(d).sum())(c)))
  lengths = np.cumsum([len(COSINES), len(INSIDE)])
  return [np.split(np.asarray(part), lengths) for part in both(cosines)]


@pytest.mark.parametrize("name", CURVES)
def test_curve_is_the_formula_and_falls_with_the_angle(name):
  found, expected = curve(name)[0][0], CURVES[name][1]
  wanted = np.array([expected(float(c)) for c in COSINES])
  np.testing.assert_allclose(found, wanted, atol=3e-6)
  assert np.all(np.diff(found) <= 2e-6), "rewards a larger angle"


@pytest.mark.parametrize("name", CURVES)
def test_slope_is_the_derivative_and_never_negative(name):
  found, expected = curve(name)[1][1], CURVES[name][1]
  step = 1e-7
  wanted = [
    (expected(float(c) + step) - expected(float(c) - step)) / (2 * step)
    for c in INSIDE
  ]
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  assert np.all(found >= 0)


@pytest.mark.parametrize("name", CURVES)
def test_value_and_slope_are_finite_at_both_ends(name):
  values, found = (part[2] for part in curve(name))
  wanted = [CURVES[name][1](float(np.clip(c, -1, 1))) for c in ENDS]
  np.testing.assert_allclose(values, wanted, atol=1e-5)
  assert np.all(np.isfinite(found)) and np.all(found >= 0)
  assert np.max(found) < 1005


# FORMULAS, "The ArcFace gradient nobody documents".
TABLE = {0.9: 1.868, 0.5: 1.154, 0.0: 0.878, -0.5: 0.601}


def test_arcface_slope_table():
  exact = slopes(margins.arcface, list(TABLE))
  np.testing.assert_allclose(exact, list(TABLE.values()), atol=6e-4)
  # At -0.95 the bare formula pushes the wrong way; past the bend it is 1.
  bare = lambda c: math.cos(math.acos(c) + 0.5)
  wrong = (bare(-0.95 + 1e-6) - bare(-0.95 - 1e-6)) / 2e-6
  assert round(wrong, 3) == -0.581
  assert float(slopes(margins.arcface, [-0.95])[0]) == 1.0
  straight = functools.partial(margins.arcface, gradient="straight_through")
  cosines = [*TABLE, -0.95, 1.0, -1.0]
  np.testing.assert_array_equal(slopes(straight, cosines), np.ones(7))


def test_slope_at_the_end_is_that_of_a_milliradian():
  """cos m + sin m / 0.001, where the bare formula has infinity."""
  found = slopes(margins.arcface, [1.0])
  expected = math.cos(0.5) + math.sin(0.5) / 1e-3
  np.testing.assert_allclose(found, [expected], rtol=1e-6)
  found = slopes(lambda c: margins.combined(c, m1=2.0), [1.0])
  np.testing.assert_allclose(found, [2 * math.sin(0.3) / 1e-3], rtol=1e-6)


def test_straight_through_keeps_the_value():
  cosines = jnp.asarray(COSINES)
  np.testing.assert_allclose(
    margins.arcface(cosines, gradient="straight_through"),
    margins.arcface(cosines),
    atol=2e-7,
  )


def test_arcface_bends_where_the_sum_passes_pi():
  """cos(t + m) on the near side, cos t - m sin m on the far side."""
  near, far = math.pi - 0.5 - 1e-3, math.pi - 0.5 + 1e-3
  found = margins.arcface(jnp.cos(jnp.array([near, far])))
  np.testing.assert_allclose(
    found,
    [math.cos(near + 0.5), math.cos(far) - 0.5 * math.sin(0.5)],
    atol=1e-6,
  )


def test_arcface_still_adds_the_angle_at_the_bend_itself():
  found = margins.arcface(-jnp.cos(0.5)[None])
  np.testing.assert_allclose(found, [-1.0], atol=1e-6)


def test_adaface_counts_a_norm_of_zero_as_a_thousandth_and_a_long_as_100():
  """z = h (0.001 - 0) / (0 + 0.001) = h, and h (100 - 95) / 10."""
  for norms, statistics, quality in (
    ([0.0, 0.0005], margins.NormStatistics(0.0, 0.0), 0.5),
    ([100.0, 1e6], margins.NormStatistics(95.0, 9.999), 0.25),
  ):
    found = margins.adaface(
      jnp.full(2, 0.5), jnp.array(norms), statistics, concentration=0.5
    )
    turn = 0.4 * quality
    expected = math.cos(math.pi / 3 - turn) - 0.4 - turn
    np.testing.assert_allclose(found, [expected] * 2, atol=1e-6)


def test_adaface_has_no_slope_where_its_angle_is_clipped():
  """An easy good image and a hard bad one: 0, never below."""
  statistics = margins.NormStatistics(20.0, 15.0)
  norms = jnp.array([90.0, 90.0, 0.01, 0.01])
  found = slopes(
    lambda c: margins.adaface(c, norms, statistics, concentration=1.0),
    np.cos([0.2, 0.6, 3.0, 2.5]),
  )
  np.testing.assert_array_equal(np.sign(found), [0.0, 1.0, 0.0, 1.0])


def test_adaface_passes_no_gradient_to_norm_and_statistics():
  def psi(norm, mean):
    statistics = margins.NormStatistics(mean, 15.0)
    return margins.adaface(jnp.array([0.3]), norm[None], statistics)[0]

  found = jax.grad(psi, argnums=(0, 1))(jnp.float32(25.0), jnp.float32(20.0))
  assert found == (0.0, 0.0)


def elastic(rows, **settings):
  rows = jnp.asarray(rows)
  return margins.elasticface(
    jnp.zeros(len(rows)), rows, key=KEY, kind="cos", **settings
  )


def test_elastic_margins_are_normal_and_belong_to_the_row():
  rows = np.arange(4000)
  drawn = -np.asarray(elastic(rows, margin=0.35, std=0.05))
  assert abs(drawn.mean() - 0.35) < 4 * 0.05 / math.sqrt(4000)
  assert abs(drawn.std() - 0.05) < 4 * 0.05 / math.sqrt(8000)
  shuffled = np.random.default_rng(0).permutation(rows)
  again = -np.asarray(elastic(shuffled, margin=0.35, std=0.05))
  np.testing.assert_array_equal(again, drawn[shuffled])


def test_elastic_margins_are_cut_to_what_the_kind_allows():
  rows = jnp.arange(400)
  cosines = jnp.full(400, 0.5)
  psi = margins.elasticface(cosines, rows, key=KEY, margin=0.5, std=50.0)
  low, high = margins.arcface(cosines[:1], margin=math.pi / 2), 0.5
  np.testing.assert_allclose([psi.min(), psi.max()], [low[0], high], atol=1e-6)
  psi = margins.elasticface(cosines, rows, key=KEY, kind="cos", std=50.0)
  np.testing.assert_allclose([psi.min(), psi.max()], [-1.5, 0.5], atol=1e-6)


def test_elastic_plus_deals_the_drawn_margins_by_difficulty():
  rows = jnp.arange(64)
  cosines = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, 64))
  cosines = cosines.at[7].set(cosines[40]).astype(jnp.float32)
  weights = np.ones(64, np.float32)
  weights[[3, 50]] = 0.0
  settings = {"key": KEY, "kind": "cos", "margin": 0.35, "std": 0.05}
  drawn = cosines - margins.elasticface(cosines, rows, **settings)
  dealt = cosines - margins.elasticface(
    cosines, rows, weights, plus=True, **settings
  )
  wanted = reference.deal_by_difficulty(
    np.asarray(drawn), np.asarray(cosines), weights
  )
  np.testing.assert_allclose(dealt, wanted, atol=2e-7)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda c: margins.cosface(c, margin=-0.1), "margin .*-0.1"),
    (lambda c: margins.cosface(c, margin=2.1), "margin .*2.1"),
    (lambda c: margins.arcface(c, margin=28.6), "margin .*28.6"),
    (lambda c: margins.arcface(c, margin=math.nan), "margin .*nan"),
    (lambda c: margins.arcface(c, gradient="none"), "gradient .*'none'"),
    (lambda c: margins.combined(c, m1=0.0), "m1 .*0.0"),
    (lambda c: margins.combined(c, m2=1.6), "m2 .*1.6"),
    (lambda c: margins.combined(c, m3=-1.0), "m3 .*-1.0"),
    (lambda c: margins.sphereface(c, margin=0), "margin .*0"),
    (lambda c: margins.sphereface(c, margin=1.5), "margin .*1.5"),
    (lambda c: margins.sphereface(c, annealing=-1.0), "annealing .*-1.0"),
    (lambda c: _bad_ada(c, margin=2.0), "margin .*2.0"),
    (lambda c: _bad_ada(c, concentration=-0.1), "concentration .*-0.1"),
    (lambda c: _bad_elastic(c, kind="sin"), "kind .*'sin'"),
    (lambda c: _bad_elastic(c, margin=1.6), "margin .*1.6"),
    (lambda c: _bad_elastic(c, std=-0.1), "std .*-0.1"),
    (
      lambda c: margins.elasticface(c, jnp.arange(2), key=KEY),
      r"rows .*\(2,\).*\(1,\)",
    ),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.array([0.5]))


def _bad_ada(cosines, **settings):
  return margins.adaface(cosines, cosines, margins.NormStatistics(), **settings)


def _bad_elastic(cosines, **settings):
  return margins.elasticface(cosines, jnp.arange(1), key=KEY, **settings)
