"""The original networks in torch, from their published descriptions.

Written for comparison: the names in their state dicts are the originals', and
every size can be made small.
"""

import torch
from torch import nn
from torch.nn import functional


def randomize(network, seed=0):
  """Draws weights and running statistics that no initialiser would give."""
  torch.manual_seed(seed)
  with torch.no_grad():
    for name, value in network.state_dict().items():
      if name.endswith("num_batches_tracked"):
        value.fill_(7)
      elif name.endswith("running_var"):
        value.uniform_(0.5, 1.5)
      elif value.ndim > 1:
        value.normal_(0, (2 / value[0].numel()) ** 0.5)
      elif name.endswith("weight"):
        value.uniform_(0.6, 1.4)
      else:
        value.normal_(0, 0.1)
  return network.eval()


def _conv(inputs, outputs, side=3, stride=1, padding=None, groups=1):
  if padding is None:
    padding = side // 2
  return nn.Conv2d(
    inputs, outputs, side, stride, padding, groups=groups, bias=False
  )


class _ResNetBlock(nn.Module):
  def __init__(self, inputs, features, stride, deep):
    super().__init__()
    outputs = features * (4 if deep else 1)
    sides = (1, 3, 1) if deep else (3, 3)
    widths = (inputs, features, *([features] if deep else []), outputs)
    self.count = len(sides)
    for place, side in enumerate(sides):
      strided = place == (1 if deep else 0)
      conv = _conv(
        widths[place], widths[place + 1], side, stride if strided else 1
      )
      setattr(self, f"conv{place + 1}", conv)
      setattr(self, f"bn{place + 1}", nn.BatchNorm2d(widths[place + 1]))
    self.downsample = None
    if stride > 1 or inputs != outputs:
      self.downsample = nn.Sequential(
        _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
      )

  def forward(self, x):
    branch = x
    for place in range(1, self.count + 1):
      branch = getattr(self, f"conv{place}")(branch)
      branch = getattr(self, f"bn{place}")(branch)
      if place < self.count:
        branch = functional.relu(branch)
    if self.downsample is not None:
      x = self.downsample(x)
    return functional.relu(x + branch)


class ResNet(nn.Module):
  """He et al. 2016, stride in the bottleneck's 3x3 (torchvision's layout)."""

  def __init__(self, stages=(2, 2, 2, 2), deep=False, width=64, dim=1000):
    super().__init__()
    self.conv1 = _conv(3, width, 7, 2)
    self.bn1 = nn.BatchNorm2d(width)
    inputs = width
    for stage, count in enumerate(stages):
      features = width * 2**stage
      made = []
      for place in range(count):
        stride = 2 if stage and not place else 1
        made.append(_ResNetBlock(inputs, features, stride, deep))
        inputs = features * (4 if deep else 1)
      setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
    self.fc = nn.Linear(inputs, dim)

  def forward(self, x):
    x = functional.relu(self.bn1(self.conv1(x)))
    x = functional.max_pool2d(x, 3, 2, 1)
    for stage in (1, 2, 3, 4):
      x = getattr(self, f"layer{stage}")(x)
    return self.fc(x.mean(dim=(2, 3)))


class _IResNetBlock(nn.Module):
  def __init__(self, inputs, features, stride):
    super().__init__()
    self.bn1 = nn.BatchNorm2d(inputs)
    self.conv1 = _conv(inputs, features)
    self.bn2 = nn.BatchNorm2d(features)
    self.prelu = nn.PReLU(features)
    self.conv2 = _conv(features, features, 3, stride)
    self.bn3 = nn.BatchNorm2d(features)
    self.downsample = None
    if stride > 1:
      self.downsample = nn.Sequential(
        _conv(inputs, features, 1, stride), nn.BatchNorm2d(features)
      )

  def forward(self, x):
    branch = self.prelu(self.bn2(self.conv1(self.bn1(x))))
    branch = self.bn3(self.conv2(branch))
    return branch + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
  """Deng et al. 2019, ArcFace (insightface's layout)."""

  def __init__(self, stages=(2, 2, 2, 2), width=64, size=112, dim=512):
    super().__init__()
    self.conv1 = _conv(3, width)
    self.bn1 = nn.BatchNorm2d(width)
    self.prelu = nn.PReLU(width)
    inputs = width
    for stage, count in enumerate(stages):
      features = width * 2**stage
      made = []
      for place in range(count):
        made.append(_IResNetBlock(inputs, features, 1 if place else 2))
        inputs = features
      setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
    self.bn2 = nn.BatchNorm2d(inputs)
    self.fc = nn.Linear(inputs * (size // 16) ** 2, dim)
    self.features = nn.BatchNorm1d(dim)

  def forward(self, x):
    x = self.prelu(self.bn1(self.conv1(x)))
    for stage in (1, 2, 3, 4):
      x = getattr(self, f"layer{stage}")(x)
    return self.features(self.fc(torch.flatten(self.bn2(x), 1)))


class _Layers(nn.Module):
  """Modules in a row, under the name `layers`."""

  def __init__(self, *modules, residual=False):
    super().__init__()
    self.layers = nn.Sequential(*modules)
    self.residual = residual

  def forward(self, x):
    return self.layers(x) + (x if self.residual else 0)


def _unit(conv, linear=False):
  outputs = conv.out_channels
  activation = [] if linear else [nn.PReLU(outputs)]
  return _Layers(conv, nn.BatchNorm2d(outputs), *activation)


def _bottleneck(inputs, outputs, inner, stride, residual=False):
  return _Layers(
    _unit(_conv(inputs, inner, 1)),
    _unit(_conv(inner, inner, 3, stride, groups=inner)),
    _unit(_conv(inner, outputs, 1), linear=True),
    residual=residual,
  )


class MobileFaceNet(nn.Module):
  """Chen et al. 2018 (insightface's layout, channels times `scale`)."""

  def __init__(self, stages=(1, 4, 6, 2), width=64, scale=2, size=112, dim=512):
    super().__init__()
    wide = width * scale
    row = lambda count, features, inner: _Layers(
      *(
        _bottleneck(features, features, inner, 1, residual=True)
        for _ in range(count)
      )
    )
    first = row(stages[0], wide, 2 * width)
    if stages[0] == 1:
      first = _unit(_conv(wide, wide, groups=width))
    self.layers = nn.ModuleList(
      [
        _unit(_conv(3, wide, 3, 2)),
        first,
        _bottleneck(wide, wide, 2 * width, 2),
        row(stages[1], wide, 2 * width),
        _bottleneck(wide, 2 * wide, 4 * width, 2),
        row(stages[2], 2 * wide, 4 * width),
        _bottleneck(2 * wide, 2 * wide, 8 * width, 2),
        row(stages[3], 2 * wide, 4 * width),
      ]
    )
    last = 8 * width
    self.conv_sep = _unit(_conv(2 * wide, last, 1))
    self.features = _Layers(
      _unit(_conv(last, last, size // 16, 1, 0, groups=last), linear=True),
      nn.Flatten(),
      nn.Linear(last, dim, bias=False),
      nn.BatchNorm1d(dim),
    )

  def forward(self, x):
    for layer in self.layers:
      x = layer(x)
    return self.features(self.conv_sep(x))


class _Basic(nn.Module):
  """Convolution, normalisation with epsilon 0.001, ReLU."""

  def __init__(self, inputs, outputs, window, stride=1, padding=0):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, window, stride, padding, bias=False)
    self.bn = nn.BatchNorm2d(outputs, eps=0.001)

  def forward(self, x):
    return functional.relu(self.bn(self.conv(x)))


def _chain(inputs, *steps):
  """steps: (channels, window, stride); a stride of 1 keeps the size."""
  made = []
  for outputs, window, stride in steps:
    sides = (window, window) if isinstance(window, int) else window
    padding = tuple(side // 2 for side in sides) if stride == 1 else 0
    made.append(_Basic(inputs, outputs, window, stride, padding))
    inputs = outputs
  return made[0] if len(made) == 1 else nn.Sequential(*made)


class _Inception(nn.Module):
  """Chains of one input joined; with a shortcut, or with a maximum."""

  def __init__(self, inputs, chains, scale=None, rectified=True):
    super().__init__()
    self.count, self.scale, self.rectified = len(chains), scale, rectified
    joined = 0
    for number, steps in enumerate(chains):
      setattr(self, f"branch{number}", _chain(inputs, *steps))
      joined += steps[-1][0]
    if scale is not None:
      self.conv2d = nn.Conv2d(joined, inputs, 1)

  def forward(self, x):
    joined = [getattr(self, f"branch{n}")(x) for n in range(self.count)]
    if self.scale is None:
      return torch.cat([*joined, functional.max_pool2d(x, 3, 2)], 1)
    x = self.conv2d(torch.cat(joined, 1)) * self.scale + x
    return functional.relu(x) if self.rectified else x


class InceptionResNetV1(nn.Module):
  """Szegedy et al. 2017 as FaceNet has it (facenet-pytorch's layout)."""

  def __init__(self, stages=(5, 10, 5), width=32, dim=512, classes=0):
    super().__init__()
    w = width
    self.conv2d_1a = _Basic(3, w, 3, 2)
    self.conv2d_2a = _Basic(w, w, 3)
    self.conv2d_2b = _Basic(w, 2 * w, 3, 1, 1)
    self.conv2d_3b = _Basic(2 * w, 5 * w // 2, 1)
    self.conv2d_4a = _Basic(5 * w // 2, 6 * w, 3)
    self.conv2d_4b = _Basic(6 * w, 8 * w, 3, 2)
    block35 = [
      [(w, 1, 1)],
      [(w, 1, 1), (w, 3, 1)],
      [(w, 1, 1), (w, 3, 1), (w, 3, 1)],
    ]
    a = 4 * w
    block17 = [[(a, 1, 1)], [(a, 1, 1), (a, (1, 7), 1), (a, (7, 1), 1)]]
    b = 6 * w
    block8 = [[(b, 1, 1)], [(b, 1, 1), (b, (1, 3), 1), (b, (3, 1), 1)]]
    c = 8 * w
    repeat = lambda count, *args: nn.Sequential(
      *(_Inception(*args) for _ in range(count))
    )
    self.repeat_1 = repeat(stages[0], 8 * w, block35, 0.17)
    self.mixed_6a = _Inception(
      8 * w, [[(12 * w, 3, 2)], [(b, 1, 1), (b, 3, 1), (c, 3, 2)]]
    )
    self.repeat_2 = repeat(stages[1], 28 * w, block17, 0.10)
    self.mixed_7a = _Inception(
      28 * w,
      [
        [(c, 1, 1), (12 * w, 3, 2)],
        [(c, 1, 1), (c, 3, 2)],
        [(c, 1, 1), (c, 3, 1), (c, 3, 2)],
      ],
    )
    self.repeat_3 = repeat(stages[2], 56 * w, block8, 0.20)
    self.block8 = _Inception(56 * w, block8, 1.0, rectified=False)
    self.last_linear = nn.Linear(56 * w, dim, bias=False)
    self.last_bn = nn.BatchNorm1d(dim, eps=0.001)
    if classes:
      self.logits = nn.Linear(dim, classes)

  def forward(self, x):
    x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
    x = self.conv2d_3b(functional.max_pool2d(x, 3, 2))
    x = self.repeat_1(self.conv2d_4b(self.conv2d_4a(x)))
    x = self.repeat_2(self.mixed_6a(x))
    x = self.block8(self.repeat_3(self.mixed_7a(x)))
    x = self.last_bn(self.last_linear(x.mean(dim=(2, 3))))
    return functional.normalize(x)
