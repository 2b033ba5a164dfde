"""One process of a job: adds up process numbers over all devices."""

import argparse

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P


def main():
  """Joins the job that its flags describe and prints the sum."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--coordinator")
  for name in ("num_processes", "process_id", "cpu_devices"):
    parser.add_argument(f"--{name}", type=int)
  args = parser.parse_args()
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", args.cpu_devices)
  jax.distributed.initialize(
    args.coordinator, args.num_processes, args.process_id
  )
  mesh = jax.make_mesh(
    (jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  total = jax.jit(
    jax.shard_map(
      lambda: jax.lax.psum(jnp.float32(args.process_id + 1), "data"),
      mesh=mesh,
      in_specs=(),
      out_specs=P(),
      check_vma=False,
    )
  )()
  print(f"{jax.device_count()} devices, sum {float(total):.0f}")


if __name__ == "__main__":
  main()
