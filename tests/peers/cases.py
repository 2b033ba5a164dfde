"""All cases and edges, in the order of docs/peers.md."""

from peers import (
  batch_cases,
  metric_cases,
  mining_cases,
  ops_cases,
  pair_cases,
)
from peers.edges import EDGES

CASES = [
  *ops_cases.CASES,
  *pair_cases.CASES,
  *batch_cases.CASES,
  *mining_cases.CASES,
  *metric_cases.CASES,
]

__all__ = ["CASES", "EDGES"]
