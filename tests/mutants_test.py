"""Tests of the mutation tool: what it changes, kills, reports and remembers."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import mutation

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = '''"""A module with 1 docstring."""

__all__ = ["of" + "text"]


def doubled(x: "int | 3", *, by: int = 2) -> "int | 4":
  """Is not 5 times x."""
  if x < 0:
    raise ValueError(f"x must not be below {0 + 6}")
  return by * x


def spare(x):
  return x + 1
'''
LOWER = "  if x < 0:"
KILLED = [
  ("AddNot", "if x < 0: -> if not x < 0:"),
  ("ReplaceComparisonOperator_Lt_LtE", "if x < 0: -> if x <= 0:"),
  ("ReplaceComparisonOperator_Lt_GtE", "if x < 0: -> if x >= 0:"),
  ("NumberReplacer", "if x < 0: -> if x < 1:"),
  ("ReplaceBinaryOperator_Mul_Div", "return by * x -> return by / x"),
  ("ReplaceBinaryOperator_Mul_Add", "return by * x -> return by + x"),
]
SPARE = [
  ("ReplaceBinaryOperator_Add_Sub", "return x + 1 -> return x - 1"),
  ("NumberReplacer", "return x + 1 -> return x + 2"),
  ("NumberReplacer", "return x + 1 -> return x + 0"),
]


def _texts(mutants):
  return {mutant.key.split(": ", 1)[1]: mutant for mutant in mutants}


def test_only_code_is_mutated():
  found = _texts(mutation.mutants("m.py", SOURCE))
  before = {mutant.before for mutant in found.values()}
  assert before == {
    'def doubled(x: "int | 3", *, by: int = 2) -> "int | 4":',
    "if x < 0:",
    "return by * x",
    "return x + 1",
  }
  assert sum("def doubled" in text for text in found) == 2  # by = 1 and 3


@pytest.mark.parametrize("text", [text for _, text in KILLED + SPARE])
def test_a_mutant_is_its_line_changed(text):
  before, after = text.replace("  ", " ").split(" -> ")
  (mutant,) = [
    found
    for found in mutation.mutants("m.py", SOURCE)
    if (found.before, found.after.replace("  ", " ")) == (before, after)
  ]
  assert SOURCE.splitlines()[mutant.line - 1].strip() == before
  changed = mutant.applied(SOURCE).replace("  ", " ")
  assert changed == SOURCE.replace("  ", " ").replace(before, after)


def test_same_lines_are_told_apart_and_keys_do_not_move():
  twice = SOURCE + "\n\ndef spare_too(x):\n  return x + 1\n  return x + 1\n"
  keys = [mutant.key for mutant in mutation.mutants("m.py", twice)]
  assert len(keys) == len(set(keys))
  moved = [m.key for m in mutation.mutants("m.py", "# head\n\n" + twice)]
  assert moved == keys


def test_digest_ignores_comments_and_docstrings_only():
  same = SOURCE.replace("Is not 5 times x.", "Other.") + "# end\n"
  assert mutation.digest(same) == mutation.digest(SOURCE)
  assert mutation.digest(SOURCE.replace("x + 1", "x + 2")) != mutation.digest(
    SOURCE
  )


def test_digest_of_one_test_ignores_the_others():
  file = "LOW = 1\n\n\ndef test_a():\n  assert LOW\n"
  longer = file + "\n\ndef test_b():\n  assert LOW > 0\n"
  assert mutation.digest(longer, "test_a") == mutation.digest(file, "test_a")
  assert mutation.digest(longer) != mutation.digest(file)
  for old, new in (("LOW = 1", "LOW = 2"), ("assert LOW\n", "assert 1\n")):
    changed = mutation.digest(longer.replace(old, new), "test_a")
    assert changed != mutation.digest(file, "test_a")


def _commit(root):
  git = ["git", "-c", "user.name=n", "-c", "user.email=e@e", "-C", str(root)]
  subprocess.run([*git, "add", "--all"], check=True)
  subprocess.run([*git, "commit", "--quiet", "--message=m"], check=True)


def _run(root):
  done = subprocess.run(
    [
      *(sys.executable, "benchmarks/mutants.py", f"--root={root}"),
      *(f"--out={root}/out.json", "--minutes=5"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  report = json.loads((root / "out.json").read_text())
  outcomes = {
    (key.split(":")[2], key.split(": ", 1)[1].replace("  ", " ")): record
    for key, record in report["mutants"].items()
  }
  return done, report["summary"]["ops"], outcomes


@pytest.fixture
def root(tmp_path):
  """A repository with a function that is tested and one that is not."""
  for name, text in {
    ".gitignore": "out.json\n.pytest_cache\n",
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\n',
    "facesiam_jax/__init__.py": "",
    "facesiam_jax/ops/__init__.py": "",
    "facesiam_jax/ops/tiny.py": SOURCE,
    "benchmarks/survivors.json": "{}",
    "tests/ops_test.py": (
      "import pytest\n"
      "from facesiam_jax.ops import tiny\n\n\n"
      "def test_doubled():\n"
      "  assert [tiny.doubled(x) for x in (0, 3)] == [0, 6]\n"
      "  with pytest.raises(ValueError, match='below'):\n"
      "    tiny.doubled(-1)\n"
    ),
  }.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
  subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
  _commit(tmp_path)
  return tmp_path


def test_kills_what_is_tested_reports_what_is_not_and_remembers(root):
  done, counts, first = _run(root)
  assert done.returncode == 1, done.stderr
  for mutant in KILLED:
    assert first[mutant]["outcome"] == "killed", mutant
    assert first[mutant]["by"] == "tests/ops_test.py::test_doubled"
  for mutant in SPARE:
    assert first[mutant]["outcome"] == "survived", mutant
    assert f"+ {mutant[1].split(' -> ')[1]}" in done.stdout.replace("  ", " ")
  assert counts["tried"] == counts["possible"] == len(first)
  assert counts["unexplained"] == len(first) - counts["killed"]

  with open(root / "tests" / "ops_test.py", "a") as file:
    file.write("\n\ndef test_spare():\n  assert tiny.spare(4) == 5\n")
  _commit(root)
  report = json.loads((root / "out.json").read_text())["mutants"]
  (root / "benchmarks" / "survivors.json").write_text(
    json.dumps({key: "x < -1 is never asked" for key in report if LOWER in key})
  )
  done, counts, second = _run(root)
  assert done.returncode == 0, done.stdout + done.stderr
  for mutant in SPARE:
    assert second[mutant]["outcome"] == "killed", mutant
  for mutant in KILLED:
    assert second[mutant] == first[mutant], "judged before: not tried again"
  assert counts["unexplained"] == 0


def test_stops_where_the_right_code_fails(root):
  (root / "tests" / "ops_test.py").write_text("def test_it():\n  assert 0\n")
  _commit(root)
  (root / "out.json").write_text('{"mutants": {}, "summary": {"ops": {}}}')
  done, _, _ = _run(root)
  assert done.returncode == 1
  assert "the unmutated tests do not pass" in done.stderr
