"""The Vision Transformer of Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", to be read top-down.

Equation numbers in the comments are the paper's. Modules carry the names that timm gives them, so that a
state dict of the one loads into the other.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ImageError
from .config import ViTConfig

# Up to so many a formula's attention was the faster one on a processor, at every width and batch that was tried.
_FEW_TOKENS = 100


class ViT(nn.Module):
    """The pre-norm Vision Transformer: patches, a class token, learned positions, an encoder, a head.

    Args:
        config: The sizes. The weights start at random, ready to be trained from scratch.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, config.classes)
        if config.distilled:
            self.head_dist = nn.Linear(config.width, config.classes)
        self.initialise()

    def forward(self, pixels: Tensor) -> Tensor:
        """Classify images.

        Args:
            pixels: (batch, channels, height, width) float32, normalised; height and width are the config's.

        Returns:
            (batch, classes) logits. With a distillation token they are the mean of its head's and the class token's
            (Touvron et al. 2021, section 4), but while training both: (batch, 2, classes).

        Raises:
            ImageError: *pixels* has another shape.
        """
        return self.answer(self.encode(pixels))

    def encode(self, pixels: Tensor) -> Tensor:
        """Take images, as `forward` does, to (batch, tokens, width); the first tokens are those that the heads read.

        Raises:
            ImageError: *pixels* has another shape.
        """
        expected = (self.config.channels, *self.config.image_size)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != expected:
            wanted, got = ", ".join(map(str, expected)), ", ".join(map(str, pixels.shape))
            raise ImageError(
                f"expected pixels of shape (batch, {wanted}), got ({got}); "
                "resize the images, or load the weights at another image size"
            )
        patches = self.patch_embed(pixels)  # (batch, patches, width)
        first = [self.cls_token, self.dist_token] if self.config.distilled else [self.cls_token]
        tokens = torch.cat([*(token.expand(patches.shape[0], -1, -1) for token in first), patches], dim=1)
        tokens = tokens + self.pos_embed  # (batch, tokens, width)   eq. 1
        encoded: Tensor = self.norm(self.blocks(tokens))  # eq. 2 to 4
        return encoded

    def answer(self, tokens: Tensor) -> Tensor:
        """Take what `encode` gives, or its first tokens alone, to what `forward` gives."""
        logits: Tensor = self.head(tokens[:, 0])  # (batch, classes)
        if self.config.distilled:
            both = torch.stack([logits, self.head_dist(tokens[:, 1])], dim=1)  # (batch, 2, classes)
            return both if self.training else both.mean(dim=1)
        return logits

    def initialise(self) -> None:
        """Set the weights to random values to train from, in place.

        Normal with a deviation of 0.02, cut at two units, and biases at zero, as timm's; the projection of
        patches keeps the deviation of its input (LeCun), as in the paper's own code.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        projection = self.patch_embed.proj
        nn.init.trunc_normal_(projection.weight, std=math.sqrt(1 / projection.weight[0].numel()))
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.config.distilled:
            nn.init.normal_(self.dist_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)


class PatchEmbedding(nn.Module):
    """Cut images into patches and project each to a token (eq. 1); a strided convolution does both."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        side = config.patch_size
        self.proj = nn.Conv2d(config.channels, config.width, kernel_size=side, stride=side)

    def forward(self, pixels: Tensor) -> Tensor:
        """Take (batch, channels, height, width) to (batch, patches, width), row by row."""
        grid: Tensor = self.proj(pixels)  # (batch, width, rows, columns)
        return grid.flatten(2).transpose(1, 2)  # (batch, patches, width)


class Block(nn.Module):
    """One layer of the encoder: attention, then an MLP, each normed before and added after (eq. 2 and 3)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.depth1, self.depth2 = StochasticDepth(), StochasticDepth()

    def forward(self, tokens: Tensor) -> Tensor:
        """Take (batch, tokens, width) to the same shape."""
        tokens = tokens + self.depth1(self.attn(self.norm1(tokens)))
        tokens = tokens + self.depth2(self.mlp(self.norm2(tokens)))
        return tokens


class StochasticDepth(nn.Module):
    """Leaves a branch out for some images of a training batch (stochastic depth, Huang et al. 2016).

    Attributes:
        factors: (batch, 1, 1) what each image's branch is multiplied by: 0, or one over the share that is kept. Whoever
            trains draws them, so that chance is one affair and a run can be repeated. None, as on a device, changes
            nothing.
    """

    factors: Tensor | None = None

    def forward(self, branch: Tensor) -> Tensor:
        """Take (batch, tokens, width) to the same shape."""
        return branch if self.factors is None or not self.training else branch * self.factors


class Attention(nn.Module):
    """Multi-head self-attention (appendix A).

    Shapes: B batch, N tokens, D width, H heads; q, k, v are queries, keys and values.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.qkv_bias)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Take (B, N, D) to the same shape."""
        B, N, D = tokens.shape  # noqa: N806 (the legend above)
        qkv = self.qkv(tokens).reshape(B, N, 3, self.heads, D // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, N, D/H)
        # On a processor torch's fused attention pays where scores are many: with its gradient it takes up to twice the
        # formula's time for few tokens, and four times in bfloat16.
        slow = q.dtype == torch.bfloat16 or N <= _FEW_TOKENS
        formula = slow and self.training and q.device.type == "cpu"
        attend = by_hand if formula else functional.scaled_dot_product_attention
        mixed = attend(q, k, v)  # (B, H, N, D/H)
        output: Tensor = self.proj(mixed.transpose(1, 2).reshape(B, N, D))  # (B, N, D)
        return output


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend as eq. 6 and 7 are written, (batch, heads, tokens, width) each, with products and a softmax."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (batch, heads, tokens, tokens)
    return torch.softmax(scores, dim=-1) @ v


class MLP(nn.Module):
    """Two layers with a GELU between, for each token alone; the GELU is the exact one, by erf."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Take (batch, tokens, width) to the same shape."""
        output: Tensor = self.fc2(functional.gelu(self.fc1(tokens)))
        return output
