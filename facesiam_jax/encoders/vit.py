"""Vision transformers for faces, in the layout of ViT and DeiT.

Tiny, small and base differ in width and heads alone. Faces of 112x112 pixels
are cut into patches of 8x8, which gives the 14x14 patches that the original
has at 224: what face recognisers of this kind do (Zhong and Deng's ViT-P8S8,
Sun and Tzimiropoulos's fViT), since patches of 16 would leave 7x7, too coarse
for eyes and mouth. Parameters are named as in timm; "blocks.0" is blocks_0
and "patch_embed.proj" is patch_embed_proj.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from facesiam_jax.encoders import blocks, layers

_SMALL_NORMAL = nn.initializers.truncated_normal(0.02)


def _dense(features: int, dtype: Any, name: str) -> nn.Dense:
  return nn.Dense(features, dtype=dtype, kernel_init=_SMALL_NORMAL, name=name)


def _norm(tokens: jax.Array, name: str) -> jax.Array:
  """Normalises each token in float32; the result has the tokens' dtype."""
  norm = nn.LayerNorm(1e-6, "float32", use_fast_variance=False, name=name)
  return norm(tokens).astype(tokens.dtype)


class _Attention(nn.Module):
  """Every token reads from every token; the softmax is float32."""

  heads: int

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    batch, count, width = tokens.shape
    each = _dense(3 * width, tokens.dtype, "qkv")(tokens)
    each = each.reshape(batch, count, 3, self.heads, width // self.heads)
    query, key, value = (each[:, :, i] for i in range(3))
    read = jax.nn.dot_product_attention(query, key, value)
    read = read.reshape(tokens.shape)
    return _dense(width, tokens.dtype, "proj")(read)


class _Mlp(nn.Module):
  """Two layers with an exact GELU between them."""

  hidden: int

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    hidden = _dense(self.hidden, tokens.dtype, "fc1")(tokens)
    hidden = jax.nn.gelu(hidden, approximate=False)
    return _dense(tokens.shape[-1], tokens.dtype, "fc2")(hidden)


class _Block(nn.Module):
  """Attention, then the layers; each after its norm and added to its input."""

  heads: int
  hidden: int
  drop_path: float

  def _kept(
    self,
    branch: jax.Array,
    name: str,
    train: bool,
    rows: jax.Array | None,
  ) -> jax.Array:
    """Leaves the branch out for some rows, where training drops any."""
    if not train or self.drop_path == 0:
      return branch
    ones = jnp.ones((len(branch), 1), jnp.float32)
    drop = layers.RowDropout(self.drop_path, name=name)
    mask = drop(ones, train=train, rows=rows)
    return branch * mask.astype(branch.dtype)[:, :, None]

  @nn.compact
  def __call__(
    self, tokens: jax.Array, train: bool, rows: jax.Array | None
  ) -> jax.Array:
    branch = _norm(tokens, "norm1")
    branch = _Attention(self.heads, name="attn")(branch)
    tokens = tokens + self._kept(branch, "drop_path1", train, rows)
    branch = _norm(tokens, "norm2")
    branch = _Mlp(self.hidden, name="mlp")(branch)
    return tokens + self._kept(branch, "drop_path2", train, rows)


class ViT(nn.Module):
  """Patches as tokens, blocks of attention, and the class token's embedding.

  The embedding is a linear map of the class token after the last norm, in
  place of the original's classes; it is not normalised. The positions are
  learned, so that a network takes images of one size. For 112x112 RGB faces
  and 512 numbers: 5,512,640 parameters (tiny), 21,641,600 (small), 85,750,016
  (base). bfloat16 moves an embedding of a network as it is at first by 1 % of
  its length.

  Attributes:
    dim: size of the embedding.
    size: height and width of the faces in pixels, a multiple of `patch`.
    patch: side of a patch in pixels.
    width: numbers a token has, a multiple of `heads`.
    depth: number of blocks.
    heads: of attention.
    mlp_ratio: width of a block's hidden layer, in widths of a token.
    drop_path: probability that the last block leaves a branch out for a face
      when training, in [0, 1); it grows from 0 at the first block.
    dtype: what is computed in, a name or a dtype; parameters, softmax and
      norms are float32.
    remat: whether blocks are computed again for the gradient, to save memory.
  """

  dim: int = 512
  size: int = 112
  patch: int = 8
  width: int = 192
  depth: int = 12
  heads: int = 3
  mlp_ratio: int = 4
  drop_path: float = 0.0
  dtype: Any = "float32"
  remat: bool = False

  def _check(self, images: jax.Array) -> None:
    if min(self.patch, self.heads, self.depth, self.mlp_ratio) < 1:
      raise ValueError(
        "patch, heads, depth and mlp_ratio must be at least 1, not"
        f" {self.patch}, {self.heads}, {self.depth} and {self.mlp_ratio}."
      )
    if self.size < 1 or self.size % self.patch:
      raise ValueError(
        f"size must be a multiple of patch, not {self.size} and {self.patch}."
      )
    if self.width < 1 or self.width % self.heads:
      raise ValueError(
        f"width must be a multiple of heads, not {self.width} and {self.heads}."
      )
    if not 0 <= self.drop_path < 1:
      raise ValueError(f"drop_path must be in [0, 1), not {self.drop_path}.")
    blocks.check_images(images, size=self.size)

  def _tokens(self, images: jax.Array) -> jax.Array:
    """Returns the class token, then the patches', with their positions."""
    patches = layers.Conv(
      self.width,
      (self.patch, self.patch),
      strides=self.patch,
      padding="VALID",
      kernel_init=nn.initializers.lecun_normal(),
      name="patch_embed_proj",
    )(images)
    patches = patches.reshape(len(images), -1, self.width)
    first = self.param("cls_token", _SMALL_NORMAL, (1, 1, self.width))
    first = jnp.broadcast_to(first, (len(images), 1, self.width))
    tokens = jnp.concatenate([first.astype(patches.dtype), patches], axis=1)
    places = self.param("pos_embed", _SMALL_NORMAL, (1, *tokens.shape[1:]))
    return tokens + places.astype(tokens.dtype)

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    rows: jax.Array | None = None,
  ) -> jax.Array:
    """Embeds faces.

    Args:
      images: standardised faces, float [B, size, size, C].
      train: whether to leave branches out; with a `drop_path` above 0 that
        needs `rows` and the "dropout" stream.
      rows: index of each row in the global batch, int32 [B].

    Returns:
      Embeddings, float32 [B, dim].

    Raises:
      ValueError: if the images are not of `size`, the attributes do not fit
        each other, or training drops without `rows`.

    References: Dosovitskiy et al. 2021, An image is worth 16x16 words;
      Touvron et al. 2021, DeiT (tiny and small); Zhong and Deng 2021, Face
      Transformer for recognition; Sun and Tzimiropoulos 2022, Part-based face
      recognition with vision transformers; Huang et al. 2016, Deep networks
      with stochastic depth.
    """
    dtype = blocks.compute_dtype(self.dtype)
    self._check(images)
    tokens = self._tokens(images.astype(dtype))
    # Argument 2 is `train`, after the module and its tokens.
    block = nn.remat(_Block, static_argnums=(2,)) if self.remat else _Block
    for number in range(self.depth):
      tokens = block(
        self.heads,
        self.mlp_ratio * self.width,
        self.drop_path * number / max(1, self.depth - 1),
        name=f"blocks_{number}",
      )(tokens, train, rows)
    tokens = _norm(tokens, "norm")
    embeddings = _dense(self.dim, dtype, "head")(tokens[:, 0])
    return embeddings.astype(jnp.float32)
