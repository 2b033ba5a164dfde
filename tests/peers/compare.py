"""Two hundred random batches, and how far two functions differ on them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

BATCHES = 200
ROWS, WIDTH, PEOPLE, CENTERS = 24, 8, 10, 3
PAIRS = 200

Batch = dict[str, Any]


class Case(NamedTuple):
  """One function and its counterpart.

  Attributes:
    name: ours, such as "losses.supcon".
    peer: theirs, such as "PML SupConLoss".
    kind: what `theirs` takes: "torch" (float64), "jax" or "numpy". Ours takes
      JAX arrays, and those of `metrics` NumPy's.
    ours: batch -> array or scalar.
    theirs: batch -> the same, from the counterpart.
    by: names of the arrays to differentiate by; none = values only.
    tolerance: largest relative difference of the values.
    gradient_tolerance: the same of the gradients.
    plain: (ours, theirs) as one would call them, where they differ; `ours`
      and `theirs` above then state the exact relation.
    verdict: "same", or what differs, in a few words.
    why: who is right by the paper, and why.
  """

  name: str
  peer: str
  kind: str
  ours: Callable[[Batch], Any]
  theirs: Callable[[Batch], Any]
  by: tuple[str, ...] = ()
  tolerance: float = 1e-5
  gradient_tolerance: float = 1e-4
  plain: tuple[Callable[[Batch], Any], Callable[[Batch], Any]] | None = None
  verdict: str = "same"
  why: str = ""


class Difference(NamedTuple):
  """Largest relative differences; the gradient's is NaN if not compared."""

  value: float
  gradient: float


class Edge(NamedTuple):
  """One input out of the ordinary, with what each side answers.

  Attributes:
    name: ours.
    peer: theirs.
    given: the input, in words.
    ours: () -> number.
    theirs: () -> number.
    right: the number that ours must be.
    why: who is right, and why.
  """

  name: str
  peer: str
  given: str
  ours: Callable[[], Any]
  theirs: Callable[[], Any]
  right: float
  why: str


def make_batch(seed: int) -> Batch:
  """Returns the arrays that all cases draw from, float32 and int32.

  People have two images on average and some have one, so that anchors
  without a positive occur; scores are rounded, so that ties occur.
  """
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, PEOPLE, ROWS)
  means = rng.normal(size=(PEOPLE, WIDTH))
  draw = lambda *shape: rng.normal(size=shape)
  same = rng.random(PAIRS) < 0.4
  batch = {
    "x": 0.8 * means[ids] + draw(ROWS, WIDTH),
    "y": 0.8 * means[ids] + draw(ROWS, WIDTH),
    "z": 0.8 * means[rng.permutation(ids)] + draw(ROWS, WIDTH),
    "ids": ids,
    "two": np.repeat(np.arange(ROWS // 2), 2),
    "same": rng.random(ROWS) < 0.5,
    "logit": 3 * draw(ROWS),
    "logits": 3 * draw(ROWS, PEOPLE),
    "centers": draw(PEOPLE, WIDTH),
    "sub_centers": draw(PEOPLE, CENTERS, WIDTH),
    "scores": np.round(draw(PAIRS) + 1.2 * same, 1),
    "labels": same,
    "folds": np.arange(PAIRS) % 10,
  }
  types = {"f": np.float32, "i": np.int32, "b": np.int32}
  return {k: v.astype(types[v.dtype.kind]) for k, v in batch.items()}


def make_batches() -> list[Batch]:
  """Returns the batches of seeds 0 to 199."""
  return [make_batch(seed) for seed in range(BATCHES)]


def _flat(arrays: Any) -> np.ndarray:
  return np.concatenate([np.ravel(np.asarray(a, np.float64)) for a in arrays])


def _in_jax(
  function: Callable[[Batch], Any], by: tuple[str, ...], batches: list[Batch]
) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns all values and gradients: one compilation, mapped over batches."""
  stacked = {k: np.stack([b[k] for b in batches]) for k in batches[0]}

  def summed(leaves: Batch, rest: Batch) -> Any:
    value = jnp.asarray(function({**rest, **leaves}))
    return jnp.sum(value), value

  def one(batch: Batch) -> Any:
    if not by:
      return jnp.asarray(function(batch)), ()
    leaves = {name: batch[name] for name in by}
    grad, value = jax.grad(summed, has_aux=True)(leaves, batch)
    return value, tuple(grad[name] for name in by)

  values, grads = jax.jit(jax.vmap(one))(stacked)
  values = np.asarray(values, np.float64).reshape(len(batches), -1)
  if not by:
    return values, None
  return values, np.stack([_flat(g) for g in zip(*grads, strict=True)])


def _in_torch(
  function: Callable[[Batch], Any], by: tuple[str, ...], batches: list[Batch]
) -> tuple[np.ndarray, np.ndarray | None]:
  """The same in torch, float64, one batch after the other."""
  values, grads = [], []
  for batch in batches:
    tensors = {k: torch.from_numpy(v) for k, v in batch.items()}
    tensors = {
      k: v.double() if v.is_floating_point() else v.long()
      for k, v in tensors.items()
    }
    leaves = [tensors[name].requires_grad_() for name in by]
    value = torch.as_tensor(function(tensors))
    if by:
      grads.append(_flat(torch.autograd.grad(value.sum(), leaves)))
    values.append(_flat([value.detach()]))
  return np.stack(values), np.stack(grads) if by else None


def _in_numpy(
  function: Callable[[Batch], Any], by: tuple[str, ...], batches: list[Batch]
) -> tuple[np.ndarray, None]:
  assert not by, "NumPy has no gradients"
  rows = [_flat([function(batch)]) for batch in batches]
  width = max(row.size for row in rows)
  # Curves have as many points as there are scores: filled up, ours and
  # theirs alike only if they have the same length.
  fill = lambda row: np.pad(row, (0, width - row.size), constant_values=-7.0)
  return np.stack([fill(row) for row in rows]), None


_RUN = {"jax": _in_jax, "torch": _in_torch, "numpy": _in_numpy}


def _relative(ours: np.ndarray, theirs: np.ndarray) -> float:
  """The largest difference, relative to each batch's largest number."""
  assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
  size = np.max(np.abs(theirs), axis=1)
  gap = np.max(np.abs(ours - theirs), axis=1)
  return float(np.max(gap / np.where(size > 0, size, 1.0)))


def difference(
  case: Case, batches: list[Batch], *, plain: bool = False
) -> Difference:
  """Measures a case, or what one would call naively if it has a `plain`.

  Returns:
    The largest relative difference of values and of gradients, relative to
    each batch's largest number; NaN if either side has a NaN.
  """
  ours, theirs = (case.ours, case.theirs)
  if plain:
    assert case.plain is not None
    ours, theirs = case.plain
  home = "numpy" if case.name.startswith("metrics.") else "jax"
  values, grads = _RUN[home](ours, case.by, batches)
  other_values, other_grads = _RUN[case.kind](theirs, case.by, batches)
  value = _relative(values, other_values)
  if grads is None or other_grads is None:
    return Difference(value, float("nan"))
  return Difference(value, _relative(grads, other_grads))
