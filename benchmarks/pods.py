"""What two recipes cost on pods that are not there: docs/pods.md.

  pip install 'facesiam_jax[plan]'
  python benchmarks/pods.py

Runs `facesiam plan --quick --json` for ResNet-50 with triplets and for
IResNet-100 with Partial FC of ten million classes, on slices of v5e and v5p,
and for galleries of ten million and a billion faces; writes
benchmarks/results/pods.json and docs/pods.md after each. A slice that is in the
file already is left as it is: delete the file to begin anew. An hour on two
cores; each slice is compiled for, none is run on.
"""

import json
import pathlib
import subprocess
import sys
from typing import Any

import outcome
from absl import app, flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_OUT = flags.DEFINE_string(
  "out", str(_ROOT / "benchmarks/results/pods.json"), "Results, as JSON."
)
_PAGE = flags.DEFINE_string(
  "page", str(_ROOT / "docs/pods.md"), "The page that is made of them."
)
_TOPOLOGIES = {
  "v5e:2x4": 8,
  "v5e:8x8": 64,
  "v5e:16x16": 256,
  "v5p:2x2x2": 8,
}
_RECIPES = {
  "triplet": ["--num_people=100000", "--gallery_size=0"],
  "partial_fc": ["--num_people=10000000", "--gallery_size=0"],
  "ten_million": ["--gallery_size=10000000"],
  "billion": ["--gallery_size=1000000000", "--gallery_dtype=int8"],
}
_NAMES = {
  "triplet": "ResNet-50, triplets",
  "partial_fc": "IResNet-100, Partial FC",
  "ten_million": "10 million faces",
  "billion": "a billion faces in int8",
}
_SLICES = [
  *(
    (kind, name)
    for kind in _RECIPES
    if kind != "billion"
    for name in _TOPOLOGIES
  ),
  ("billion", "v5e:16x16"),
]
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax")


def _plan(kind: str, topology: str) -> dict[str, Any]:
  """Runs one plan; a refusal and a compiler's failure are results too."""
  chips = _TOPOLOGIES[topology]
  command = [
    *(sys.executable, "-m", "facesiam_jax.cli.main", "plan", "--quick"),
    *("--json", f"--topology={topology}", *_RECIPES[kind]),
    f"--config={_ROOT}/benchmarks/pod_recipes.py:{kind}-{chips}",
  ]
  done = subprocess.run(
    command, cwd=_ROOT, check=False, capture_output=True, text=True
  )
  versions = outcome.environment(_PACKAGES)["versions"]
  if done.returncode == 0:
    return {**json.loads(done.stdout), "versions": versions}
  sentence = done.stderr.strip().splitlines()[-1].partition("error: ")[2]
  kind = "refused" if "this does not fit" in sentence else "failed"
  return {kind: sentence, "versions": versions}


def _row(told: dict[str, Any], name: str, topology: str) -> str:
  program, chip = told["programs"][0], told["chip"]
  memory = program["memory"]["total"]
  sent = sum(one["sent_bytes"] for one in program["collectives"])
  seconds = program["seconds"]
  milliseconds = [
    f"{1e3 * seconds[part]:.1f}" for part in ("arithmetic", "memory", "links")
  ]
  cells = [
    name,
    topology,
    f"{memory / 1e9:.2f} ({memory / chip['hbm_bytes']:.0%})",
    f"{program['unit_flops'] / 1e12:.2f}",
    f"{program['hbm_bytes'] / 1e9:.1f}",
    f"{sent / 1e6:.0f}",
    *milliseconds,
    program["limit"],
    told["versions"]["libtpu"],
  ]
  return f"| {' | '.join(cells)} |"


_HEAD = """\
| program | slice | memory a chip, GB | TFLOP a chip | GB moved a chip \
| MB sent a chip | arithmetic, ms | memory, ms | links, ms | limit | libtpu |
|---|---|---|---|---|---|---|---|---|---|---|"""


def _page(results: dict[str, Any]) -> str:
  """Returns the page of all results."""
  lines, refusals = [_HEAD], []
  for kind, topology in _SLICES:
    name, told = _NAMES[kind], results.get(f"{kind} {topology}", {})
    if "programs" in told:
      lines.append(_row(told, name, topology))
      continue
    why = "does not fit" if "refused" in told else "not compiled"
    lines.append(f"| {name} | {topology} | {why} ||||||||")
    cause = told.get("refused") or told.get("failed") or "not compiled yet."
    refusals.append(f"- {name} on {topology}: {cause}")
  template = pathlib.Path(__file__).with_name("pods_page.md").read_text()
  return template.format(
    table="\n".join(lines), refusals="\n".join(refusals) or "- nothing"
  )


def main(_: Any) -> None:
  """Plans what is missing, and writes the page anew after each plan."""
  path = pathlib.Path(_OUT.value)
  found = json.loads(path.read_text())["slices"] if path.exists() else {}
  for kind, topology in _SLICES:
    key = f"{kind} {topology}"
    if "programs" in found.get(key, {}) or "refused" in found.get(key, {}):
      continue
    found[key] = _plan(kind, topology)
    print(key, found[key].get("failed", "done"), flush=True)
    outcome.write(
      _OUT.value, {**outcome.environment(_PACKAGES), "slices": found}
    )
    pathlib.Path(_PAGE.value).write_text(_page(found))


if __name__ == "__main__":
  app.run(main)
