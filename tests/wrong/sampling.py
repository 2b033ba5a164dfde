"""Mistakes of samplers that their tests must notice, and those tests.

Each test counts what is drawn from a small index with fixed keys and compares
the counts with the stated chances by a chi-square test.
"""

import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from sampling_chances import (
  IDS,
  NUM,
  PEOPLE,
  assert_chances,
  assert_independent,
  draw_many,
  index,
)
from variants import Variants

from facesiam_jax import sampling


def admissible_pairs():
  """All ordered pairs of image rows, by kind."""
  both = {0: {}, 1: {}}
  for i, j in itertools.permutations(range(NUM), 2):
    both[int(IDS[i] == IDS[j])][i, j] = 1.0
  return both


def check_pairs(function):
  drawn = draw_many(function, 600, num_pairs=64)
  kinds = np.tile([1, 0], 32)
  np.testing.assert_array_equal(drawn.same, np.tile(kinds, (600, 1)))
  for kind, pairs in admissible_pairs().items():
    rows = drawn.same.ravel() == kind
    counter = Counter(
      zip(
        drawn.left.ravel()[rows].tolist(),
        drawn.right.ravel()[rows].tolist(),
        strict=True,
      )
    )
    assert_chances(counter, pairs, f"pairs with same = {kind}")
  for a, b in ((0, 2), (1, 3), (0, 1)):
    assert_independent(drawn.left[:, a], drawn.left[:, b], "pairs of a batch")


def check_triplets(function):
  drawn = draw_many(function, 500, num_triplets=128)
  expected = {}
  for a, p, n in itertools.permutations(range(NUM), 3):
    if IDS[a] == IDS[p] and IDS[a] != IDS[n]:
      expected[a, p, n] = 1.0
  counter = Counter(zip(*(x.ravel().tolist() for x in drawn), strict=True))
  assert_chances(counter, expected, "triplets")
  first, second = drawn.anchors[:, 0], drawn.anchors[:, 1]
  assert_independent(first, second, "anchors of a batch")


def check_class_balanced(function):
  drawn = draw_many(function, 500, num_images=32)
  assert drawn.shape == (500, 32)
  expected = {i: 1 / np.sum(IDS == IDS[i]) for i in range(NUM)}
  assert_chances(Counter(drawn.ravel().tolist()), expected, "images")
  assert_independent(drawn[:, 0], drawn[:, 1], "images of a batch")


def check_people_times_images(function):
  drawn = draw_many(function, 1500, num_people=3, images_per_person=4)
  assert drawn.shape == (1500, 12)
  rows = drawn.reshape(1500, 3, 4)
  people = IDS[rows]
  np.testing.assert_array_equal(people, people[:, :, :1].repeat(4, axis=2))
  orders = Counter(map(tuple, people[:, :, 0].tolist()))
  chances = dict.fromkeys(itertools.permutations(PEOPLE.tolist(), 3), 1.0)
  assert_chances(orders, chances, "people")
  for person in PEOPLE:
    images = np.flatnonzero(person == IDS)
    chosen = rows[people[:, :, 0] == person]
    for group in chosen:
      _, times = np.unique(group, return_counts=True)
      assert len(times) == min(4, len(images)), "images repeat too early"
      assert times.max() == -(-4 // len(images)), "images repeat unevenly"
    for slot in range(4):
      even = dict.fromkeys(images.tolist(), 1.0)
      counter = Counter(chosen[:, slot].tolist())
      assert_chances(counter, even, f"images of {person} in slot {slot}")


def check_people_by_count(function):
  """Two people by the square roots of their numbers of images."""
  drawn = draw_many(
    function, 2000, num_people=2, images_per_person=2, by_count=0.5
  )
  people = IDS[drawn.reshape(2000, 2, 2)]
  np.testing.assert_array_equal(people[..., 0], people[..., 1])
  weights = {p: np.sum(p == IDS) ** 0.5 for p in PEOPLE.tolist()}
  total = sum(weights.values())
  chances = {
    (a, b): weights[a] / total * weights[b] / (total - weights[a])
    for a, b in itertools.permutations(weights, 2)
  }
  orders = Counter(map(tuple, people[..., 0].tolist()))
  assert_chances(orders, chances, "people by their images")


def _epochs(rows, length):
  whole = len(rows) // length * length
  return np.asarray(rows[:whole]).reshape(-1, length)


def check_epoch_pairs(function):
  """Anchors go through the images by epochs; partners are drawn evenly."""
  found, key = index(), jax.random.key(3)
  draw = lambda step: function(found, key, step, num_pairs=10)
  drawn = jax.jit(lambda steps: jax.lax.map(draw, steps))(jnp.arange(1500))
  left, right, same = (np.asarray(x).reshape(-1) for x in drawn)
  np.testing.assert_array_equal(same, np.tile([1, 0], len(same) // 2))
  everyone = np.arange(NUM)
  for kind, images in ((1, everyone[IDS != 7]), (0, everyone)):
    epochs = _epochs(left[same == kind], len(images))
    np.testing.assert_array_equal(
      np.sort(epochs, axis=1), np.tile(images, (len(epochs), 1))
    )
    assert len(set(map(tuple, epochs[:50].tolist()))) == 50, "orders repeat"
    counter = Counter(zip(left[same == kind], right[same == kind], strict=True))
    expected = {}
    for a in images:
      others = (IDS == IDS[a]) == bool(kind)
      others[a] = False
      for b in everyone[others]:
        expected[a, b] = 1 / others.sum()
    assert_chances(counter, expected, f"partners with same = {kind}")


# Wrong implementations, written with jax.random.choice where that is shorter.

_ROWS = np.arange(NUM, dtype=np.int32)
_SAME = IDS[:, None] == IDS[None, :]


def _partners(key, anchors, allowed):
  """Draws for each anchor one of the rows that `allowed` [N, N] marks."""
  logits = jnp.where(jnp.asarray(allowed)[anchors], 0.0, -jnp.inf)
  return jax.random.categorical(key, logits, axis=1).astype(jnp.int32)


def _pairs(
  *,
  genuine_from=None,
  impostor_from=None,
  itself=False,
  block=False,
  flip=False,
):
  """Pairs from evenly drawn anchors of the given rows, with mistakes."""

  def function(_, key, *, num_pairs):
    keys = jax.random.split(key, 4)
    half = num_pairs // 2
    pick = lambda key, rows: jax.random.choice(key, jnp.asarray(rows), (half,))
    chances = _SAME.sum(1) - 1
    likely = np.repeat(_ROWS, chances)
    genuine = pick(keys[0], likely if genuine_from is None else genuine_from)
    chances = np.repeat(_ROWS, NUM - _SAME.sum(1))
    impostor = pick(
      keys[1], chances if impostor_from is None else impostor_from
    )
    others = _SAME if itself else _SAME & ~np.eye(NUM, dtype=bool)
    right = (
      _partners(keys[2], genuine, others),
      _partners(keys[3], impostor, ~_SAME),
    )
    join = lambda parts: (
      jnp.concatenate(parts) if block else jnp.stack(parts, 1).reshape(-1)
    )
    left, right = join((genuine, impostor)), join(right)
    same = (jnp.asarray(IDS)[left] == jnp.asarray(IDS)[right]).astype(jnp.int32)
    return sampling.Pairs(left, right, 1 - same if flip else same)

  return function


def _positions_for_rows(function):
  """Positions in the sorted order given out as image rows."""

  def wrong(found, *args, **options):
    return function(found.replace(order=jnp.arange(NUM)), *args, **options)

  return wrong


def _one_key(function):
  """The same draw whatever the key."""
  return lambda found, key, **options: function(
    found, jax.random.key(1), **options
  )


def _triplets(*, anchors=None, positives="other", negatives="other"):
  """Triplets from evenly drawn anchors of the given rows, with mistakes."""

  def function(_, key, *, num_triplets):
    keys = jax.random.split(key, 3)
    size = _SAME.sum(1)
    rows = np.repeat(_ROWS, (size - 1) * (NUM - size))
    rows = rows if anchors is None else anchors
    first = jax.random.choice(keys[0], jnp.asarray(rows), (num_triplets,))
    other = _SAME & ~np.eye(NUM, dtype=bool)
    positive = _partners(
      keys[1], first, _SAME if positives == "itself too" else other
    )
    allowed = np.ones_like(_SAME) if negatives == "anyone" else ~_SAME
    if negatives == "a person first":
      logits = np.where(_SAME, -np.inf, -np.log(size)[None, :])
      negative = jax.random.categorical(keys[2], jnp.asarray(logits)[first])
    else:
      negative = _partners(keys[2], first, allowed)
    return sampling.Triplets(first, positive, negative)

  return function


def _swapped_triplets(found, key, *, num_triplets):
  drawn = sampling.triplets(found, key, num_triplets=num_triplets)
  return sampling.Triplets(drawn.anchors, drawn.negatives, drawn.positives)


def _images(rows):
  """Images drawn evenly from the rows."""
  return lambda _, key, *, num_images: jax.random.choice(
    key, jnp.asarray(rows), (num_images,)
  )


def _first_images(_, key, *, num_images):
  """Always a person's first image."""
  people = jax.random.randint(key, (num_images,), 0, len(PEOPLE))
  return jnp.asarray(np.searchsorted(np.sort(IDS), PEOPLE))[people]


def _tied_images(found, key, *, num_images):
  """The person's number and the image's come from one draw."""
  people_key, _ = jax.random.split(key)
  people = jax.random.randint(people_key, (num_images,), 0, len(PEOPLE))
  turn = jax.random.bits(people_key, (num_images,)) >> 28
  turn = (turn.astype(jnp.int32) + people) % found.counts[people]
  return found.order[found.starts[people] + turn]


def _all_alike(found, key, *, num_images):
  """One image, many times."""
  one = sampling.class_balanced(found, key, num_images=1)
  return jnp.repeat(one, num_images)


def _people_times_images(*, replace=False, order="random", weights=None):
  """A P x K batch by `jax.random.choice`, with mistakes."""

  def function(found, key, *, num_people, images_per_person):
    person_key, image_key = jax.random.split(key)
    total = len(PEOPLE)
    if order == "sorted":
      people = jnp.sort(jax.random.permutation(person_key, total)[:num_people])
    elif order == "first":
      people = jnp.arange(num_people)
    else:
      people = jax.random.choice(
        person_key, total, (num_people,), replace=False, p=weights
      )
    counts = found.counts[people][:, None]
    slots = jnp.arange(images_per_person)[None, :]
    if replace:
      noise = jax.random.bits(image_key, (num_people * images_per_person,))
      noise = (noise >> 8).astype(jnp.int32)
      chosen = noise.reshape(num_people, -1) % counts
    else:
      chosen = slots % counts
    return found.order[(found.starts[people][:, None] + chosen).reshape(-1)]

  return function


def _by_other_power(power):
  """Chances of people by another power of their numbers of images."""

  def function(found, key, *, num_people, images_per_person, by_count):
    return sampling.people_times_images(
      found,
      key,
      num_people=num_people,
      images_per_person=images_per_person,
      by_count=power * by_count,
    )

  return function


def _chosen(*, sign=1, replace=False):
  """People by `jax.random.choice`, with mistakes; their first images."""

  def function(found, key, *, num_people, images_per_person, by_count):
    weights = found.counts ** (sign * by_count)
    people = jax.random.choice(
      key,
      len(PEOPLE),
      (num_people,),
      replace=replace,
      p=weights / weights.sum(),
    )
    return jnp.repeat(found.order[found.starts[people]], images_per_person)

  return function


def _wrap_of_four(found, key, *, num_people, images_per_person):
  """Neighbouring rows exchanged: images of one person are not together."""
  rows = sampling.people_times_images(
    found, key, num_people=num_people, images_per_person=images_per_person
  )
  return rows.reshape(num_people, -1).T.reshape(-1)


def _epoch(*, first=None, key=None, pairs=False):
  """`epoch_pairs` with another step or key, or plain `pairs` instead."""

  def function(found, seed_key, step, *, num_pairs):
    if pairs:
      seed_key = jax.random.fold_in(seed_key, step)
      return sampling.pairs(found, seed_key, num_pairs=num_pairs)
    seed_key = seed_key if key is None else key(seed_key, step)
    step = step if first is None else first(step)
    return sampling.epoch_pairs(found, seed_key, step, num_pairs=num_pairs)

  return function


def _same_partners(found, seed_key, step, *, num_pairs):
  """The partner's draw does not depend on the step."""
  drawn = sampling.epoch_pairs(found, seed_key, step, num_pairs=num_pairs)
  following = jnp.asarray([2, 4, 5, 3, 11, 10, 7, 8, 9, 6, 0, 1])
  genuine = following[drawn.left]
  right = jnp.where(drawn.same == 1, genuine, drawn.right)
  return drawn._replace(right=right)


def _everyone_anchors(found, *args, **options):
  """An image without a partner anchors genuine pairs too."""
  everyone = jnp.arange(NUM, dtype=jnp.int32)
  return sampling.epoch_pairs(found.replace(paired=everyone), *args, **options)


_EVEN = np.flatnonzero(IDS != 7).astype(np.int32)

VARIANTS = {
  "sampling.pairs": Variants(
    sampling.pairs,
    check_pairs,
    {
      "genuine anchors drawn evenly": _pairs(genuine_from=_EVEN),
      "impostor anchors drawn evenly": _pairs(impostor_from=_ROWS),
      "pairs of an image with itself": _pairs(itself=True),
      "halves instead of turns": _pairs(block=True),
      "label flipped": _pairs(flip=True),
      "positions for rows": _positions_for_rows(sampling.pairs),
      "key not used": _one_key(sampling.pairs),
    },
  ),
  "sampling.triplets": Variants(
    sampling.triplets,
    check_triplets,
    {
      "anchors drawn evenly": _triplets(anchors=_EVEN),
      "anchors by their positives only": _triplets(
        anchors=np.repeat(_ROWS, _SAME.sum(1) - 1)
      ),
      "the anchor as its positive": _triplets(positives="itself too"),
      "negatives of the same person": _triplets(negatives="anyone"),
      "negatives by person": _triplets(negatives="a person first"),
      "roles swapped": _swapped_triplets,
      "positions for rows": _positions_for_rows(sampling.triplets),
      "key not used": _one_key(sampling.triplets),
    },
  ),
  "sampling.class_balanced": Variants(
    sampling.class_balanced,
    check_class_balanced,
    {
      "images drawn evenly": _images(_ROWS),
      "without the person of one image": _images(_EVEN),
      "first images only": _first_images,
      "person and image from one draw": _tied_images,
      "one image repeated": _all_alike,
      "positions for rows": _positions_for_rows(sampling.class_balanced),
      "key not used": _one_key(sampling.class_balanced),
    },
  ),
  "sampling.people_times_images": Variants(
    sampling.people_times_images,
    check_people_times_images,
    {
      "images with replacement": _people_times_images(replace=True),
      "first images only": _people_times_images(),
      "people in order": _people_times_images(replace=True, order="sorted"),
      "first people only": _people_times_images(replace=True, order="first"),
      "people by images": _people_times_images(
        replace=True, weights=np.array([4, 3, 1, 4]) / 12
      ),
      "people not together": _wrap_of_four,
      "positions for rows": _positions_for_rows(sampling.people_times_images),
      "key not used": _one_key(sampling.people_times_images),
    },
  ),
  "sampling.people_times_images by_count": Variants(
    sampling.people_times_images,
    check_people_by_count,
    {
      "people alike likely": _by_other_power(0),
      "people in proportion": _by_other_power(2),
      "people with replacement": _chosen(replace=True),
      "people with few images first": _chosen(sign=-1),
    },
  ),
  "sampling.epoch_pairs": Variants(
    sampling.epoch_pairs,
    check_epoch_pairs,
    {
      "drawn anew, not by epochs": _epoch(pairs=True),
      "the first batch again": _epoch(first=lambda step: step * 0),
      "another order every step": _epoch(key=jax.random.fold_in),
      "the same few epochs": _epoch(first=lambda step: step % 33),
      "every second batch": _epoch(first=lambda step: 2 * step),
      "partners fixed": _same_partners,
      "single images as genuine anchors": _everyone_anchors,
    },
  ),
}
