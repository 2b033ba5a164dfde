"""Tests of what imports what: rooms in one direction, light entry points."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "facesiam_jax"

# From the bottom up; a room may import those of its own line and above it.
ORDER = (
  ("", "errors", "files"),
  ("ops", "fusion"),
  (
    *("heads", "losses", "mining", "sampling", "metrics"),
    *("warping", "augment", "glasses", "alignment", "quality"),
    *("preprocess", "parallel", "gallery.search"),
  ),
  ("encoders",),
  ("data", "faces"),
  ("bundle",),
  ("pretrained", "export"),
  ("training", "gallery"),
  ("evaluation", "serving"),
  ("cli",),
)
PURE = {
  "losses": {"jax", "chex", "numpy"},
  "mining": {"jax", "chex", "numpy"},
  "ops": {"jax", "chex", "numpy"},
  "augment": {"jax", "chex", "numpy"},
  "glasses": {"jax", "chex", "numpy"},
  "fusion": {"jax", "chex", "numpy"},
  "warping": {"jax", "chex", "numpy"},
  "alignment": {"jax", "chex", "numpy"},
  "quality": {"jax", "chex", "numpy"},
  # SciPy comes with JAX, which imports it.
  "metrics": {"jax", "chex", "numpy", "scipy"},
  "gallery.search": {"jax", "chex", "numpy"},
  "sampling": {"jax", "chex", "numpy", "flax"},
  "heads": {"jax", "chex", "numpy", "flax"},
}
HEAVY = ("orbax", "tensorflow_datasets", "cv2", "matplotlib", "grain", "jinja2")


def _room(module):
  """Place of a module of the package, e.g. training.loop, in ORDER."""
  parts = module.split(".")
  for level, names in enumerate(ORDER):
    if ".".join(parts[:2]) in names:
      return level
  for level, names in enumerate(ORDER):
    if parts[0] in names:
      return level
  raise AssertionError(f"{module} is in no room of ORDER: add it")


def _modules():
  for path in sorted(PACKAGE.rglob("*.py")):
    relative = path.relative_to(PACKAGE).with_suffix("")
    parts = [part for part in relative.parts if part != "__init__"]
    yield ".".join(parts), path


def _imports(path, package):
  """Names a file imports, anywhere in it: (absolute name, at the top?)."""
  tree = ast.parse(path.read_text(encoding="utf-8"))
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      for alias in node.names:
        yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("module, path", list(_modules()))
def test_rooms_import_one_way(module, path):
  for name in _imports(path, module):
    if not name.startswith("facesiam_jax."):
      continue
    other = name.removeprefix("facesiam_jax.")
    if (
      not (PACKAGE / other.split(".")[0]).exists()
      and not (PACKAGE / f"{other.split('.')[0]}.py").exists()
    ):
      continue  # a name of the package itself, such as __version__
    if module == "":
      continue  # the package's own names are loaded on first use
    assert _room(other) <= _room(module), f"{module} must not import {other}"


@pytest.mark.parametrize("module, path", list(_modules()))
def test_pure_rooms_import_jax_and_each_other_only(module, path):
  pair = ".".join(module.split(".")[:2])
  key = pair if pair in PURE else module.split(".")[0]
  if key not in PURE:
    return
  allowed = PURE[key] | set(sys.stdlib_module_names) | {"facesiam_jax"}
  for name in _imports(path, module):
    assert name.split(".")[0] in allowed, f"{module} must not import {name}"


@pytest.mark.parametrize(
  "module",
  [
    "facesiam_jax",
    "facesiam_jax.alignment",
    "facesiam_jax.losses",
    "facesiam_jax.metrics",
    "facesiam_jax.encoders",
    "facesiam_jax.gallery.search",
  ],
)
def test_single_functions_load_nothing_heavy(module):
  code = f"import sys, {module}; print(*sys.modules)"
  done = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", code],
    capture_output=True, text=True, check=True, cwd=ROOT,
  )  # fmt: skip
  loaded = {name.split(".")[0] for name in done.stdout.split()}
  assert not loaded & {*HEAVY, "tensorflow"}
