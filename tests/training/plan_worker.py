"""Compiles a known program for sixteen TPUs; prints what it costs.

A process of its own, without what tests tell XLA's CPU: libtpu ends a process
that has flags it does not know.
"""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from facesiam_jax import errors, parallel
from facesiam_jax.training import chips, plan


def main(rows):
  """Sums x'x over the chips, `rows` rows of 256 numbers on each."""
  mesh = plan.open_mesh("v5e:4x4")
  sharding = NamedSharding(mesh, P(parallel.AXIS))
  x = jax.ShapeDtypeStruct((16 * rows, 256), jnp.float32, sharding=sharding)
  step = lambda x: lax.psum(x.T @ x, parallel.AXIS)
  mapped = parallel.pmap(step, mesh, out_specs=P())
  try:
    found = plan.measure("sum", mapped.trace(x), chips.CHIPS["v5e"], 16)
  except errors.UserError as error:
    print(json.dumps({"refused": str(error)}))
    return
  print(json.dumps(dataclasses.asdict(found)))


if __name__ == "__main__":
  main(int(sys.argv[1]))
