"""No function is too long to read at a glance, no file to find one's way in."""

import ast
import pathlib

import pytest

_PACKAGE = pathlib.Path(__file__).parents[1] / "facesiam_jax"
_PURE_ROOMS = ("ops", "heads", "losses", "mining", "sampling", "metrics")
_MOST_BODY_LINES = 40
_MOST_FILE_LINES = 400


def _files(*rooms):
  for room in rooms:
    found = list((_PACKAGE / room).glob("*.py")) or [_PACKAGE / f"{room}.py"]
    yield from sorted(found)


def _body_lines(function):
  """Lines from the first statement after the docstring to the last."""
  body = function.body
  if ast.get_docstring(function, clean=False) is not None:
    body = body[1:]
  return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def _long_functions(source, most):
  return [
    f"{node.name}: {_body_lines(node)}"
    for node in ast.walk(ast.parse(source))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    and _body_lines(node) > most
  ]


def test_long_functions_are_found():
  lines = "\n".join(["def f(x):", '  """One.', '  Two."""'] + ["  x += 1"] * 3)
  assert _long_functions(lines, 2) == ["f: 3"]
  assert not _long_functions(lines, 3)
  assert _long_functions(f"class C:\n{_indented(lines)}", 2) == ["f: 3"]


def _indented(source):
  return "\n".join(f"  {line}" for line in source.splitlines())


@pytest.mark.parametrize("room", _PURE_ROOMS)
def test_functions_of_the_pure_rooms_are_short(room):
  files = list(_files(room))
  assert files
  for path in files:
    long = _long_functions(path.read_text(), _MOST_BODY_LINES)
    assert not long, f"{path.name}: {long}"


@pytest.mark.parametrize("room", [*_PURE_ROOMS, "evaluation"])
def test_files_of_these_rooms_are_short(room):
  for path in _files(room):
    lines = len(path.read_text().splitlines())
    assert lines <= _MOST_FILE_LINES, f"{path.name} has {lines} lines"
