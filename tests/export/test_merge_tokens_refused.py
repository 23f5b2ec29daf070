"""What cannot be merged is refused with a reason, and schedules are read, checked and proposed."""

import pytest
import torch
from torch import nn

from vit_edge.errors import ExportError, OptionError
from vit_edge.export.graph import named
from vit_edge.export.passes.merge_tokens import (
    MergeTokens,
    Sites,
    check_schedule,
    format_schedule,
    parse_schedule,
    schedules,
)
from vit_edge.export.trace import trace
from vit_edge.models import ViT, ViTConfig
from vit_edge.models.vit import Block

from .test_merge_tokens import HEADS, PATCH, TOKENS, our_vit, rewritten
from .test_rewrites import SIZE, Pooled


def test_a_graph_without_fused_attention_is_refused() -> None:
    """The message names the pass that is missing."""
    traced = named(trace(our_vit().eval(), size=(SIZE, SIZE), opset=20, batch=None))
    with pytest.raises(ExportError, match="run FuseAttention before"):
        MergeTokens(((0, 5),))(traced)


def test_a_head_that_pools_all_tokens_is_refused() -> None:
    """A mean that does not weigh tokens by size would be another model's."""
    with pytest.raises(ExportError, match="reads the class token at place 0, got Slice"):
        MergeTokens(((0, 5),))(rewritten(Pooled().eval()))


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
        MergeTokens(((0, 5),))(rewritten(module.eval()))


def test_a_schedule_is_read_as_it_is_written() -> None:
    """It is typed, shown in tables, and stored in the file."""
    assert parse_schedule(" 5:32, 7:48") == ((5, 32), (7, 48))
    for sites in schedules(12, 197):
        assert parse_schedule(format_schedule(sites)) == sites


@pytest.mark.parametrize(
    "text", ["", "5", "5:", "5:x", "5:32;7:32", "5:-1", "5:32:1", "7:32,5:32", "5:32,5:32"]
)
def test_nonsense_is_no_schedule(text: str) -> None:
    """The answer says what a schedule looks like, or that blocks ascend."""
    with pytest.raises(OptionError, match="expected"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (((11, 8),), "blocks 0 to 10 of 12.* got block 11"),
        (((5, 99),), "at most 98 of the 197 tokens in block 5.* got 99"),
        (((5, 98), (6, 50)), "at most 49 of the 99 tokens in block 6.* got 50"),
        (((7, 8), (5, 8)), "ascending blocks.* got 7:8,5:8"),
    ],
)
def test_a_schedule_that_does_not_fit_the_network_is_refused(sites: Sites, message: str) -> None:
    """Each second token can go at a site, the class token stays, and what follows has to gain by it."""
    with pytest.raises(OptionError, match=message):
        check_schedule(sites, depth=12, tokens=197)


def test_the_pass_checks_the_schedule_against_its_graph() -> None:
    """The command line knows neither depth nor tokens when it reads a schedule."""
    ours = rewritten(our_vit().eval())
    with pytest.raises(OptionError, match="blocks 0 to 2 of 4"):
        MergeTokens(((3, 2),))(ours)
    with pytest.raises(OptionError, match="at most 8 of the 17"):
        MergeTokens(((0, 9),))(ours)


@pytest.mark.parametrize(
    ("depth", "tokens"), [(12, 197), (12, 577), (24, 257), (6, 65), (4, 17), (2, 5), (1, 2)]
)
def test_candidates_fit_any_network_and_grow_stronger(depth: int, tokens: int) -> None:
    """They are stated by relative depth and share, and some of a small network's fall together."""
    found = schedules(depth, tokens)
    assert len(set(found)) == len(found)
    assert len(found) >= (8 if depth >= 12 else 2 if depth >= 4 else 0)
    for sites in found:
        check_schedule(sites, depth=depth, tokens=tokens)
    saved = [sum((depth - block) * count for block, count in sites) for sites in found]
    assert saved == sorted(saved)
