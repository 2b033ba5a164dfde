"""Tests of the objectives over drawn pairs and triplets."""

import functools

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
import tiny

from facesiam_jax import sampling
from facesiam_jax.training import objectives, run

IDS = np.array([4, 4, 1, 1, 1, 7, 7, 9])
INDEX = sampling.index_identities(IDS)
KEY = jax.random.key(0)


def _batch(embeddings, ids):
  own, rows = jnp.asarray(embeddings, jnp.float32), jnp.arange(len(ids))
  ids = jnp.asarray(ids)
  return objectives.Embedded(own, ids, rows, own, ids, {})


def _contrastive_loop(embeddings, ids, margin):
  """(losses, judged right) of pairs of neighbouring rows, in float64."""
  values, right = [], []
  for i in range(0, len(ids), 2):
    apart = np.sqrt(np.sum((embeddings[i] - embeddings[i + 1]) ** 2))
    if ids[i] == ids[i + 1]:
      values.append(apart**2)
      right.append(apart < margin / 2)
    else:
      values.append(max(margin - apart, 0.0) ** 2)
      right.append(apart >= margin / 2)
  return np.array(values), np.array(right)


def _triplet_loop(embeddings, margin, normalize):
  """(losses, judged right) of triplets of neighbouring rows, in float64."""
  values, right = [], []
  for i in range(0, len(embeddings), 3):
    rows = [np.asarray(row, np.float64) for row in embeddings[i : i + 3]]
    if normalize:
      rows = [row / np.sqrt(np.sum(row**2)) for row in rows]
    near = np.sqrt(np.sum((rows[0] - rows[1]) ** 2))
    far = np.sqrt(np.sum((rows[0] - rows[2]) ** 2))
    values.append(max(near - far + margin, 0.0))
    right.append(near < far)
  return np.array(values), np.array(right)


PAIR_IDS = np.array([3, 3, 3, 5, 1, 1, 2, 6, 6, 6, 0, 4, 8, 8])
TRIPLET_IDS = np.array([3, 3, 5, 1, 1, 0, 2, 2, 6, 6, 6, 1, 0, 0, 9])


def _case(name, **args):
  """An objective, ids, embeddings, and the float64 loop over them."""
  rng = np.random.default_rng(0)
  objective = objectives.create(name, **args)
  if name == "contrastive":
    ids = PAIR_IDS
    embeddings = 0.5 * rng.normal(size=(len(ids), 3))
    loop = functools.partial(_contrastive_loop, ids=ids, margin=args["margin"])
  else:
    ids = TRIPLET_IDS
    embeddings = rng.normal(size=(len(ids), 3))
    loop = functools.partial(
      _triplet_loop, margin=args["margin"], normalize=args["normalize"]
    )
  return objective, ids, embeddings, loop


CASES = [
  ("contrastive", {"margin": 1.3}),
  ("triplet", {"margin": 0.7, "normalize": False}),
  ("triplet", {"margin": 0.4, "normalize": True}),
]


@pytest.mark.parametrize("name, args", CASES)
def test_losses_and_judgements_equal_loops(name, args):
  objective, ids, embeddings, loop = _case(name, **args)
  terms = objective.terms(None, _batch(embeddings, ids))
  values, right = loop(embeddings)
  np.testing.assert_allclose(terms.values, values, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(terms.correct, right)
  np.testing.assert_array_equal(terms.weights, np.ones(len(values)))
  # Some cost something and some do not, some are right and some are not.
  assert values.all() < values.any() and right.all() < right.any()
  of_others = objective.eval_terms(None, _batch(embeddings, ids))
  np.testing.assert_array_equal(of_others.values, terms.values)


@pytest.mark.parametrize("name, args", CASES)
def test_gradients_equal_those_of_the_loops(name, args):
  objective, ids, embeddings, loop = _case(name, **args)

  def total(own):
    return jnp.sum(objective.terms(None, _batch(own, ids)).values)

  actual = jax.grad(total)(jnp.asarray(embeddings, jnp.float32))
  expected = numeric.gradient(lambda x: loop(x)[0].sum(), embeddings)
  numeric.assert_gradients_close(actual, expected)


@pytest.mark.parametrize("name, args", CASES)
def test_embeddings_that_coincide_have_a_loss_and_no_gradient(name, args):
  objective, ids, embeddings, _ = _case(name, **args)
  same = np.ones_like(embeddings)
  value = lambda own: jnp.sum(objective.terms(None, _batch(own, ids)).values)
  loss, gradient = jax.value_and_grad(value)(jnp.asarray(same, jnp.float32))
  pairs = (PAIR_IDS[::2] != PAIR_IDS[1::2]).sum()
  margin = args["margin"]
  count = {"contrastive": pairs * margin, "triplet": len(ids) // 3}[name]
  assert float(loss) == pytest.approx(count * margin)
  np.testing.assert_array_equal(gradient, np.zeros_like(same))
  correct = objective.terms(None, _batch(same, ids)).correct
  if name == "triplet":
    assert not correct.any(), "a collapsed network ranks nothing right"


def test_pairs_are_neighbours_half_of_them_genuine():
  for per_image in (True, False):
    objective = objectives.create(
      "contrastive", num_pairs=40, per_image=per_image
    )
    assert objective.batch_rows == 80
    for step in (3,):
      drawn = IDS[objective.draw(INDEX, KEY, jnp.int32(step))].reshape(-1, 2)
      same = drawn[:, 0] == drawn[:, 1]
      np.testing.assert_array_equal(same, np.arange(40) % 2 == 0)
    eval_rows = objective.draw_eval(INDEX, KEY)
    assert eval_rows.shape == (2 * 2 * len(IDS),)
    np.testing.assert_array_equal(eval_rows, objective.draw_eval(INDEX, KEY))


def test_triplets_are_neighbours_and_no_image_is_its_own_positive():
  objective = objectives.create("triplet", num_triplets=50)
  assert (objective.batch_rows, objective.row_group) == (150, 3)
  rows = np.asarray(objective.draw(INDEX, KEY, jnp.int32(0))).reshape(-1, 3)
  people = IDS[rows]
  np.testing.assert_array_equal(people[:, 0], people[:, 1])
  assert (people[:, 0] != people[:, 2]).all()
  assert (rows[:, 0] != rows[:, 1]).all()
  assert 9 not in people[:, 0] and 9 in people[:, 2]
  other = np.asarray(objective.draw(INDEX, KEY, jnp.int32(1))).reshape(-1, 3)
  assert (other != rows).any()
  assert objective.draw_eval(INDEX, KEY).shape == (3 * len(IDS),)


@pytest.mark.parametrize("name", ["contrastive", "triplet"])
def test_a_margin_that_is_not_positive_is_refused(name):
  with pytest.raises(ValueError, match="margin must be more than 0, got -1"):
    objectives.create(name, margin=-1.0)


@pytest.mark.parametrize("name", ["contrastive", "triplet"])
def test_people_with_one_image_each_cannot_be_drawn(name):
  index = sampling.index_identities(np.arange(4))
  with pytest.raises(ValueError, match="no person has two images"):
    objectives.create(name).draw(index, KEY, jnp.int32(0))


@pytest.mark.slow
def test_a_run_ends_with_a_head_on_distances(tmp_path):
  """Its probability falls with the distance of embeddings as they are."""
  bundle = run.train(tiny.config("triplet", num_steps=4), tmp_path)
  faces = tiny.Faces()
  embeddings = bundle.embed(faces.images)
  assert np.ptp(np.linalg.norm(embeddings, axis=1)) > 1e-3
  logits = bundle.logits_matrix(embeddings, embeddings)
  i, j = np.triu_indices(len(embeddings), 1)
  apart = np.linalg.norm(embeddings[i] - embeddings[j], axis=1)
  order = np.argsort(apart)
  assert (np.diff(logits[i, j][order]) < 1e-3).all()
  assert logits[i, j][order[0]] > logits[i, j][order[-1]]
