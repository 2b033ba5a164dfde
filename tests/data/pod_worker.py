"""One process of a pod of two: writes its share of two batches."""

import sys


def main(rank, port, folder, out):
  """Joins the pod, takes steps 3 and 4, saves rows read and rows held."""
  import jax

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 2)
  jax.distributed.initialize(
    f"localhost:{port}", num_processes=2, process_id=rank
  )
  import numpy as np

  from facesiam_jax import parallel
  from facesiam_jax.data import records, streaming
  from facesiam_jax.training import objectives

  faces = records.open_faces(folder)
  read = []
  take = records.RecordImages._read
  records.RecordImages._read = lambda self, rows: (
    read.append(rows) or take(self, rows)
  )
  mesh = parallel.make_mesh()
  assert mesh.size == 4
  feed = streaming.Streaming(
    faces.images,
    faces.identity_ids,
    objective=objectives.create("supcon", num_people=4, images_per_person=2),
    draw_key=jax.random.key(5),
    mesh=mesh,
    num_steps=5,
    options=streaming.Options(threads=1),
  )
  batches = [feed.at(step) for step in (3, 4)]
  feed.close()
  shares = {"read": np.concatenate(read), "own": feed.batches.own}
  for number, batch in enumerate(batches):
    assert batch.images.shape[0] == 8
    shards = sorted(batch.images.addressable_shards, key=lambda s: s.index[0])
    shares[f"images{number}"] = np.concatenate([s.data for s in shards])
    shards = sorted(
      batch.identity_ids.addressable_shards, key=lambda s: s.index[0]
    )
    shares[f"ids{number}"] = np.concatenate([s.data for s in shards])
  np.savez(out, **shares)


if __name__ == "__main__":
  main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4])
