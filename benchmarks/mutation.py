"""Mutants of a module: cosmic-ray's operators, each where it can matter.

Only replacements that a person could have made by mistake are tried (table
_REPLACEMENTS): an addition becomes a subtraction but not a shift, which a float
would refuse at once and which would only flatter the score. Numbers move by one
up and down. Default arguments are mutated like everything else, for the papers'
defaults are part of what the functions promise; but not a default seed.

Left out, because no test should care: docstrings and other strings,
annotations, `__all__`, `raise` statements and f-strings (texts of errors; the
condition before them is mutated), and the `*` and `/` of a parameter list.
"""

import ast
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes

_REPLACEMENTS = {
  "Binary": (
    "Add_Sub Sub_Add Mul_Div Mul_Add Div_Mul Div_FloorDiv FloorDiv_Div "
    "Mod_FloorDiv Pow_Mul LShift_RShift BitOr_BitAnd BitAnd_BitOr BitXor_BitOr"
  ),
  "Comparison": (
    "Eq_NotEq NotEq_Eq Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt "
    "Is_IsNot IsNot_Is"
  ),
  "Unary": "Delete_USub Delete_Invert Delete_Not",
}
_OTHERS = (
  "AddNot ReplaceTrueWithFalse ReplaceFalseWithTrue ReplaceAndWithOr "
  "ReplaceOrWithAnd ReplaceBreakWithContinue ReplaceContinueWithBreak "
  "ExceptionReplacer NumberReplacer RemoveDecorator ZeroIterationForLoop"
)
# Where parso puts a `*` or `**` that multiplies nothing.
_NO_ARITHMETIC = {"parameters", "param", "argument", "atom", "dictorsetmaker"}


@dataclasses.dataclass(frozen=True)
class Mutant:
  """One change of one module.

  Attributes:
    module: path of the module below the root.
    function: dotted name of what is mutated, "" for what runs on import.
    key: module, function, operator, and the lines before and after: a name that
      holds while other lines move.
    line: number of the first changed line, from 1.
    before: the lines that change, stripped.
    after: the lines that take their place.
    start: offset of the text to replace.
    stop: where that text ends.
    text: what takes its place.
  """

  module: str
  function: str
  key: str
  line: int
  before: str
  after: str
  start: int
  stop: int
  text: str

  def applied(self, source: str) -> str:
    """Returns the module's source with the change."""
    return source[: self.start] + self.text + source[self.stop :]


def operators() -> dict[str, Any]:
  """Returns the operators tried: cosmic-ray's name -> operator."""
  names = _OTHERS.split()
  for kind, pairs in _REPLACEMENTS.items():
    names += [f"Replace{kind}Operator_{pair}" for pair in pairs.split()]
  return {name: plugins.get_operator(f"core/{name}")() for name in names}


def digest(source: str, test: str = "") -> str:
  """Hash of what a file does: neither comments nor docstrings count.

  Args:
    source: text of the file.
    test: name of the one test of it that counts; empty for all of them.

  Returns:
    The hash, of 16 digits.
  """
  tree = ast.parse(source)
  tree.body = [n for n in tree.body if not test or not _is_other_test(n, test)]
  for node in ast.walk(tree):
    body = getattr(node, "body", None)
    if isinstance(body, list) and body and _is_text(body[0]):
      body[0] = ast.Pass()
  return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_other_test(statement: ast.AST, test: str) -> bool:
  if not isinstance(statement, ast.FunctionDef):
    return False
  return statement.name.startswith("test_") and statement.name != test


def _is_text(statement: ast.AST) -> bool:
  return (
    isinstance(statement, ast.Expr)
    and isinstance(statement.value, ast.Constant)
    and isinstance(statement.value.value, str)
  )


def _left_out(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
  """Spans (line, column) in which nothing is mutated."""
  found: list[Any] = []
  for node in ast.walk(tree):
    found += [getattr(node, "annotation", None), getattr(node, "returns", None)]
    if isinstance(node, ast.Raise | ast.JoinedStr):
      found.append(node)
    if isinstance(node, ast.Assign) and any(
      getattr(target, "id", "") == "__all__" for target in node.targets
    ):
      found.append(node)
    if isinstance(node, ast.FunctionDef):
      pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
      found += [
        default for argument, default in pairs if argument.arg == "seed"
      ]
  return [
    ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
    for node in found
    if node is not None
  ]


def _places(source: str, tree: ast.AST) -> list[str]:
  """For each line, the dotted name of the function or class it lies in."""
  places = [""] * (len(source.splitlines()) + 2)

  def visit(node: ast.AST, prefix: str) -> None:
    for child in ast.iter_child_nodes(node):
      name = prefix
      if isinstance(child, ast.FunctionDef | ast.ClassDef):
        name = f"{prefix}.{child.name}".lstrip(".")
        lines = range(child.lineno, (child.end_lineno or 0) + 1)
        places[lines.start : lines.stop] = [name] * len(lines)
      visit(child, name)

  visit(tree, "")
  return places


def _headers(tree: ast.AST) -> set[int]:
  """Lines with the arguments of functions: they run with the module."""
  return {
    line
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef)
    for line in range(node.lineno, node.body[0].lineno)
  }


def _state(node: Any) -> list[tuple[Any, Any]]:
  """What an operator may change below a node, for putting it back."""
  if not hasattr(node, "children"):
    return [(node, node.value)]
  below = itertools.chain.from_iterable(map(_state, node.children))
  return [(node, list(node.children)), *below]


def _mutations(node: Any, operator: Any) -> Iterator[str]:
  """The code of a node after each mutation; the node is as before."""
  for index, _ in enumerate(list(operator.mutation_positions(node))):
    state = _state(node)
    changed = operator.mutate(node, index)
    yield "" if changed is None else changed.get_code()
    for each, content in state:
      if isinstance(content, list):
        each.children = content
      else:
        each.value = content


def _changed_lines(before: str, after: str) -> tuple[int, str, str]:
  """Number of the first line that differs, and the lines that do."""
  old, new = before.splitlines(), after.splitlines()
  first = 0
  while first < min(len(old), len(new)) and old[first] == new[first]:
    first += 1
  last = 0
  while last < min(len(old), len(new)) - first and old[~last] == new[~last]:
    last += 1

  def strip(lines: list[str]) -> str:
    return " | ".join(line.strip() for line in lines)

  return (
    first + 1,
    strip(old[first : len(old) - last]),
    strip(new[first : len(new) - last]),
  )


def _starts(source: str) -> list[int]:
  """Offset at which each line begins."""
  lengths = map(len, source.splitlines(keepends=True))
  return [0, *itertools.accumulate(lengths)]


def _may_change(node: Any, left_out: list[Any]) -> bool:
  return not any(begin <= node.start_pos < end for begin, end in left_out)


def _is_sign(node: Any) -> bool:
  """Whether a `*` or `/` multiplies or divides nothing."""
  return getattr(node.parent, "type", "") in _NO_ARITHMETIC


def mutants(module: str, source: str) -> list[Mutant]:
  """Returns all mutants of a module, in the order of the source.

  Args:
    module: path of the module below the root.
    source: its text.
  """
  tree = ast.parse(source)
  left_out, places, headers = (
    _left_out(tree),
    _places(source, tree),
    _headers(tree),
  )
  starts, found, seen = _starts(source), [], {source}
  table = operators()
  keys: dict[str, int] = {}
  for node in ast_nodes(parso.parse(source)):
    if not _may_change(node, left_out):
      continue
    begin = node.get_start_pos_of_prefix()
    start, stop = (starts[at[0] - 1] + at[1] for at in (begin, node.end_pos))
    for name, operator in table.items():
      if "Binary" in name and _is_sign(node):
        continue
      for text in _mutations(node, operator):
        after = source[:start] + text + source[stop:]
        if after in seen:
          continue
        seen.add(after)
        line, old, new = _changed_lines(source, after)
        key = f"{module}:{places[line]}:{name}: {old} -> {new}"
        keys[key] = keys.get(key, 0) + 1
        if keys[key] > 1:
          key = f"{key} ({keys[key]})"
        place = (line, old, new, start, stop, text)
        where = "" if line in headers else places[line]
        found.append(Mutant(module, where, key, *place))
  return found
