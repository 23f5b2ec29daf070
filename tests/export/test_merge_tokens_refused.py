"""What cannot be merged is refused with a reason."""

import pytest
import torch
from torch import nn

from vit_edge.errors import ExportError, OptionError
from vit_edge.export.passes import MergeTokens
from vit_edge.models import ViT, ViTConfig
from vit_edge.models.vit import Block

from .networks import SIZE, rewritten, traced
from .test_merge_tokens import HEADS, PATCH, TOKENS, our_vit
from .test_rewrites import Pooled


def test_a_graph_without_fused_attention_is_refused() -> None:
    """The message names the pass that is missing."""
    with pytest.raises(ExportError, match="run FuseAttention before"):
        MergeTokens(((0, 5),))(traced(our_vit().eval()))


def test_a_head_that_pools_all_tokens_is_refused() -> None:
    """A mean that does not weigh tokens by size would be another model's."""
    with pytest.raises(ExportError, match="reads the class token at place 0, got Slice"):
        MergeTokens(((0, 5),))(rewritten(traced(Pooled().eval())))


class SecondToken(ViT):
    """A ViT whose head reads another token than the first."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embed(pixels)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 1])  # type: ignore[no-any-return]


class Parallel(Block):
    """A block whose MLP reads what attention reads."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + self.attn(self.norm1(tokens)) + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]


class Placed(Block):
    """A block that adds positions of its own."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.places = nn.Parameter(torch.randn(1, TOKENS, config.width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return super().forward(tokens + self.places)


@pytest.mark.parametrize(
    ("kind", "block", "culprit"),
    [(SecondToken, Block, "Gather"), (ViT, Parallel, "Add"), (ViT, Placed, "Add")],
)
def test_a_network_that_needs_every_token_in_place_is_refused(
    kind: type[ViT], block: type[Block], culprit: str
) -> None:
    """The merged graph would fail on the device, or worse, answer."""
    config = ViTConfig((SIZE, SIZE), PATCH, width=32, depth=3, heads=HEADS, mlp_width=64, classes=5)
    module = kind(config)
    module.blocks = nn.Sequential(*(block(config) for _ in range(config.depth)))
    with pytest.raises(ExportError, match=f"got {culprit}"):
        MergeTokens(((0, 5),))(rewritten(traced(module.eval())))


def test_the_pass_checks_the_schedule_against_its_graph() -> None:
    """The command line knows neither depth nor tokens when it reads a schedule."""
    ours = rewritten(traced(our_vit().eval()))
    with pytest.raises(OptionError, match="blocks 0 to 2 of 4"):
        MergeTokens(((3, 2),))(ours)
    with pytest.raises(OptionError, match="at most 8 of the 17"):
        MergeTokens(((0, 9),))(ours)
