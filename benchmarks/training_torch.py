"""PyTorch's side of benchmarks/training.py: channels_last, a fixed batch."""

import pathlib
import sys
from typing import Any

import numpy as np
import torch
import training_cases as cases
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
torch.set_num_threads(cases.cores())


class _ArticleCNN(nn.Module):
  """Convolution, ReLU, pooling and dropout, thrice; then one dense layer."""

  def __init__(self, case: cases.Case) -> None:
    super().__init__()
    inputs = case.channels
    for number, width in enumerate(cases.ARTICLE_WIDTHS):
      setattr(self, f"conv{number + 1}", nn.Conv2d(inputs, width, 3, padding=1))
      inputs = width
    side = case.size // 2 ** len(cases.ARTICLE_WIDTHS)
    self.fc = nn.Linear(inputs * side * side, case.dim)
    self.dropout = case.dropout

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    for number in range(len(cases.ARTICLE_WIDTHS)):
      x = functional.relu(getattr(self, f"conv{number + 1}")(x))
      x = functional.max_pool2d(x, 2)
      x = functional.dropout(x, self.dropout, self.training)
    # In channels_last this is no copy, and the order that NHWC networks have.
    return self.fc(x.permute(0, 2, 3, 1).flatten(1))


def _network(case: cases.Case) -> Any:
  from tests.pretrained import torch_networks as networks

  if case.network == "article_cnn":
    return _ArticleCNN(case)
  if case.network == "mobilefacenet":
    return networks.MobileFaceNet(dim=case.dim)
  stages, deep = cases.RESNET_STAGES[case.network]
  return networks.ResNet(stages, deep, dim=case.dim)


def _distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
  return (x - y).square().sum(1).clamp_min(1e-12).sqrt()


class Side:
  """A network, its optimizer and a fixed batch.

  Attributes:
    case: what is trained.
  """

  def __init__(self, case: cases.Case) -> None:
    """Draws the weights."""
    torch.manual_seed(0)
    self.case = case
    self._start(_network(case), head=(cases.HEAD_WEIGHT, cases.HEAD_BIAS))
    self._optimizer: Any = torch.optim.Adam(
      self._parameters(), lr=cases.RATE, fused=True
    )
    images, ids = cases.batch(case)
    images = cases.standardized(images).transpose(0, 3, 1, 2)
    self._images = torch.from_numpy(np.ascontiguousarray(images))
    self._images = self._images.to(memory_format=torch.channels_last)
    self._same = torch.from_numpy(cases.same(ids)) if case.group == 2 else None

  def _start(self, network: nn.Module, head: tuple[float, float]) -> None:
    self._network = network.to(memory_format=torch.channels_last).train()
    self._head = nn.Parameter(torch.tensor(head))

  def _parameters(self) -> list[nn.Parameter]:
    head = [self._head] if self.case.group == 2 else []
    return [*self._network.parameters(), *head]

  def _loss(self) -> torch.Tensor:
    x = self._network(self._images)
    if self._same is not None:
      distance = _distance(x[0::2], x[1::2])
      return functional.binary_cross_entropy_with_logits(
        self._head[0] * distance + self._head[1], self._same
      )
    positive = _distance(x[0::3], x[1::3])
    negative = _distance(x[0::3], x[2::3])
    return functional.relu(positive - negative + cases.MARGIN).mean()

  def _step(self) -> float:
    self._optimizer.zero_grad()
    loss = self._loss()
    loss.backward()
    self._optimizer.step()
    return loss.item()

  def steps(self, count: int) -> None:
    """Makes steps."""
    for _ in range(count):
      self._step()

  def check(self, path: str) -> dict[str, Any]:
    """Writes the weights to a file, and makes a few plain steps from them.

    Args:
      path: NumPy archive to write, of the state dict.
    """
    state = self._network.state_dict()
    np.savez(path, **{name: x.numpy() for name, x in state.items()})
    self._optimizer = torch.optim.SGD(
      self._parameters(), lr=self.case.check_rate
    )
    losses = [self._step() for _ in range(cases.CHECK_STEPS)]
    count = sum(x.numel() for x in self._network.parameters())
    return {"losses": losses, "parameters": count}
