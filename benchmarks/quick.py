"""Ours beside plain JAX and Flax, in one process: a look before a release.

  make bench-quick

Prints a table: milliseconds of both sides, alternating, medians of --rounds,
and ours by the reference's time, below 1 where ours is faster. Under three
minutes on two cores; no test, since a busy machine shifts it. The references
are what one would write first: nn.Conv, nn.max_pool, a step without sampling
and augmentation, all triplets of a batch as one array, scores of the whole
gallery and lax.top_k.
"""

import dataclasses
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import training_cases as cases
import training_ours
from absl import app, flags
from flax import linen as nn
from jax import lax

from facesiam_jax import encoders, mining, ops
from facesiam_jax.encoders import layers
from facesiam_jax.gallery import search

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed calls of each side.")

Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How large the rows are; the defaults are those of `make bench-quick`.

  Attributes:
    pairs: of a step of the article's network.
    images: of a convolution and a pooling, 32x32 and 64x64 pixels.
    batch: of embeddings that are mined.
    templates: of the gallery.
    queries: faces searched at once.
  """

  pairs: int = 64
  images: int = 128
  batch: int = 256
  templates: int = 100_000
  queries: int = 32


class _PlainCNN(nn.Module):
  """The article's network as Flax's own layers have it."""

  dim: int = 128

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for width in cases.ARTICLE_WIDTHS:
      x = nn.relu(nn.Conv(width, (3, 3))(x))
      x = nn.max_pool(x, (2, 2), (2, 2))
      x = nn.Dropout(cases.DROPOUT, deterministic=False)(x)
    return nn.Dense(self.dim)(x.reshape(len(x), -1))


def _plain_step(case: cases.Case) -> Call:
  """A whole step on a fixed batch, as a Flax tutorial has it."""
  images, ids = cases.batch(case)
  x, same = cases.standardized(images), cases.same(ids)
  network, optimizer = _PlainCNN(), optax.adam(cases.RATE)
  keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  params = {
    "encoder": network.init(keys, x[:1]),
    "head": jnp.array([cases.HEAD_WEIGHT, cases.HEAD_BIAS]),
  }
  state = [params, optimizer.init(params)]

  def loss(params: Any) -> jax.Array:
    rngs = {"dropout": jax.random.key(2)}
    y = network.apply(params["encoder"], x, rngs=rngs)
    squares = jnp.sum(jnp.square(y[0::2] - y[1::2]), axis=1)
    weight, bias = params["head"]
    logits = weight * jnp.sqrt(jnp.maximum(squares, 1e-12)) + bias
    return optax.sigmoid_binary_cross_entropy(logits, same).mean()

  @jax.jit
  def step(params: Any, opt_state: Any) -> tuple[Any, Any]:
    updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
    return optax.apply_updates(params, updates), opt_state

  def call() -> None:
    state[:] = jax.block_until_ready(step(*state))

  return call


def _article(sizes: Sizes) -> tuple[Call, Call]:
  case = cases.article(sizes.pairs)
  side = training_ours.Side(case)
  return lambda: side.steps(1), _plain_step(case)


def _gradient(
  run: Callable[..., jax.Array],
  *inputs: jax.Array,
  options: dict[str, str] | None = None,
) -> Call:
  """Value, and gradients of the sum of its squares, compiled.

  The sum itself is not formed: of a convolution's 8 million numbers XLA's CPU
  adds one after another under our options, and is 6e-4 off.
  """

  def both(*inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    value, pull_back = jax.vjp(run, *inputs)
    return value, pull_back(2 * value)

  compiled = jax.jit(both, compiler_options=options)
  return lambda: jax.block_until_ready(compiled(*inputs))


def _max_pool(sizes: Sizes) -> tuple[Call, Call]:
  images = jax.random.normal(jax.random.key(0), (sizes.images, 64, 64, 32))
  plain = lambda x: nn.max_pool(x, (2, 2), (2, 2))
  return _gradient(layers.max_pool, images), _gradient(plain, images)


def _conv(sizes: Sizes) -> tuple[Call, Call]:
  keys = jax.random.split(jax.random.key(0))
  images = jax.random.normal(keys[0], (sizes.images, 32, 32, 32))
  kernel = 0.1 * jax.random.normal(keys[1], (3, 3, 32, 64))
  plain = lambda x, k: lax.conv_general_dilated(
    x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  options = encoders.compiler_options()
  ours = _gradient(layers.conv, images, kernel, options=options)
  return ours, _gradient(plain, images, kernel)


def _mining(sizes: Sizes) -> tuple[Call, Call]:
  """The loss of the hardest triplets, whole and by way of all B^3."""
  x = jax.random.normal(jax.random.key(0), (sizes.batch, 128))
  ids = jnp.arange(sizes.batch, dtype=jnp.int32) // 4
  rows = jnp.arange(sizes.batch, dtype=jnp.int32)

  def ours(x: jax.Array) -> jax.Array:
    distances = ops.pairwise_squared_distance(x, x)
    chosen = mining.batch_hard(distances, ids, ids, anchor_rows=rows)
    of = lambda columns: jnp.take_along_axis(distances, columns[:, None], 1)
    return jax.nn.relu(of(chosen.positives) - of(chosen.negatives) + 0.3)

  def plain(x: jax.Array) -> jax.Array:
    distances = ops.pairwise_squared_distance(x, x)
    same = ids[:, None] == ids[None, :]
    positive = same & (rows[:, None] != rows[None, :])
    every = distances[:, :, None] - distances[:, None, :]
    allowed = positive[:, :, None] & ~same[:, None, :]
    hardest = jnp.max(jnp.where(allowed, every, -jnp.inf), axis=(1, 2))
    return jax.nn.relu(hardest[:, None] + 0.3)

  return _gradient(ours, x), _gradient(plain, x)


def _search(sizes: Sizes) -> tuple[Call, Call]:
  keys = jax.random.split(jax.random.key(0))
  unit = lambda key, n: ops.l2_normalize(jax.random.normal(key, (n, 128)))
  gallery, queries = (
    unit(key, n)
    for key, n in zip(keys, (sizes.templates, sizes.queries), strict=True)
  )
  valid = jnp.ones(sizes.templates, bool)
  ids = jnp.arange(sizes.templates, dtype=jnp.int32)
  ours = jax.jit(
    lambda g, q: search.top_k(g, valid, ids, q, k=10, metric="dot").scores
  )
  plain = jax.jit(
    lambda g, q: lax.top_k(
      jnp.matmul(q, g.T, precision=lax.Precision.HIGHEST), 10
    )[0]
  )
  wait = lambda run: lambda: jax.block_until_ready(run(gallery, queries))
  return wait(ours), wait(plain)


# What both sides give is compared, but for the step, whose draws differ.
ROWS: dict[str, Callable[[Sizes], tuple[Call, Call]]] = {
  "article step, sampling and augmentation ours only": _article,
  "max_pool, value and gradient": _max_pool,
  "conv 3x3, value and gradients": _conv,
  "hardest triplets, value and gradient": _mining,
  "gallery, 10 best": _search,
}


def _milliseconds(call: Call) -> float:
  begun = time.perf_counter()
  call()
  return 1e3 * (time.perf_counter() - begun)


def measure(name: str, sizes: Sizes, rounds: int) -> dict[str, float]:
  """Times one row.

  Args:
    name: of ROWS.
    sizes: how large it is.
    rounds: timed calls of each side.

  Returns:
    Median milliseconds "ours" and "reference", and the median "ratio".

  Raises:
    ValueError: if the two sides' results differ.
  """
  ours, reference = ROWS[name](sizes)
  found = [jax.tree.leaves(call()) for call in (ours, reference)]
  for a, b in zip(*found, strict=True):
    a, b = np.asarray(a), np.asarray(b)
    if np.abs(a - b).max() > 1e-4 * max(1.0, float(np.abs(b).max())):
      raise ValueError(f"{name}: the two sides differ.")
  times = [
    (_milliseconds(ours), _milliseconds(reference)) for _ in range(rounds)
  ]
  return {
    "ours": statistics.median(a for a, _ in times),
    "reference": statistics.median(b for _, b in times),
    "ratio": statistics.median(a / b for a, b in times),
  }


def main(argv: list[str]) -> None:
  """Prints the table."""
  del argv
  print(f"JAX {jax.__version__}, {os.cpu_count()} cores, medians of", end=" ")
  print(f"{_ROUNDS.value}; milliseconds, and ours by the reference's")
  print(f"{'':52}{'ours':>9}{'plain':>9}{'ratio':>8}")
  for name in ROWS:
    row = measure(name, Sizes(), _ROUNDS.value)
    numbers = f"{row['ours']:9.1f}{row['reference']:9.1f}{row['ratio']:8.2f}"
    print(f"{name:52}{numbers}", flush=True)


if __name__ == "__main__":
  app.run(main)
