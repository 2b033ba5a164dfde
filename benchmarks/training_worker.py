"""The process of one side of benchmarks/training.py.

  python training_worker.py MODULE '{"case": {...}, "options": {...}}'

Lines of JSON come in and go out: {"do": "steps", "count": 3} is answered by the
seconds that they took, {"do": "check", "path": FILE} by the losses of a few
plain steps, {"do": "memory"} by the largest memory the process has had.
"""

import importlib
import json
import os
import pathlib
import resource
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import training_cases as cases


def _answer(side: Any, asked: dict[str, Any]) -> dict[str, Any]:
  if asked["do"] == "check":
    return side.check(asked["path"])
  if asked["do"] == "memory":
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"bytes": 1024 * kilobytes}
  begun = time.perf_counter()
  side.steps(asked["count"])
  return {"seconds": time.perf_counter() - begun}


def main(argv: list[str]) -> None:
  """Answers until the input ends."""
  # What a framework prints must not come between the answers.
  answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  said = json.loads(argv[2])
  module = importlib.import_module(argv[1])
  side = module.Side(cases.Case(**said["case"]), **said.get("options", {}))
  for line in sys.stdin:
    print(json.dumps(_answer(side, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
  main(sys.argv)
