"""All cases and edges, in the order of docs/peers.md."""

from peers import loss_cases, metric_cases, mining_cases, ops_cases
from peers.edges import EDGES

CASES = [
  *ops_cases.CASES,
  *loss_cases.CASES,
  *mining_cases.CASES,
  *metric_cases.CASES,
]

__all__ = ["CASES", "EDGES"]
