"""Joint attention against softmax written out by hand, and what the ablations do in its place."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from thermal_enhance.networks.diffusion import attention
from thermal_enhance.networks.diffusion.attention import FUSIONS, JointAttention

WIDTH, HEADS = 12, 3


@pytest.fixture
def attn() -> Attention:
    return Attention(WIDTH, heads=HEADS, dim_head=WIDTH // HEADS, processor=AttnProcessor2_0())


def by_hand(attn: Attention, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """One head after the other, the scores in full."""
    q, k, v = attn.to_q(query), attn.to_k(memory), attn.to_v(memory)
    size = WIDTH // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / size**0.5
        heads.append(torch.softmax(scores, dim=-1) @ v[..., part])
    return attn.to_out[0](torch.cat(heads, dim=-1))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_view_is_plain_attention(attn: Attention, fusion: str) -> None:
    tokens = torch.randn(2, 7, WIDTH)
    made = JointAttention(fusion, WIDTH, HEADS)(attn, tokens, views=1)
    assert torch.allclose(made, attn(tokens), atol=1e-6)


def test_csm_is_softmax_over_the_tokens_of_both_views(attn: Attention) -> None:
    tokens = torch.randn(4, 7, WIDTH)  # thermal 0, rgb 0, thermal 1, rgb 1
    made = JointAttention("csm")(attn, tokens, views=2)
    for scene in range(2):
        both = tokens[2 * scene : 2 * scene + 2].reshape(1, 14, WIDTH)
        wanted = by_hand(attn, both, both).reshape(2, 7, WIDTH)
        assert torch.allclose(made[2 * scene : 2 * scene + 2], wanted, atol=1e-6)


def test_asym_lets_thermal_alone_look_at_both(attn: Attention) -> None:
    tokens = torch.randn(2, 7, WIDTH)
    thermal, rgb = tokens[:1], tokens[1:]
    made = JointAttention("asym")(attn, tokens, views=2)
    assert torch.allclose(made[:1], by_hand(attn, thermal, tokens.reshape(1, 14, WIDTH)), atol=1e-6)
    assert torch.allclose(made[1:], by_hand(attn, rgb, rgb), atol=1e-6)


def test_none_keeps_the_views_apart(attn: Attention) -> None:
    tokens = torch.randn(4, 7, WIDTH)
    assert torch.allclose(JointAttention("none")(attn, tokens, views=2), attn(tokens), atol=1e-6)


@pytest.mark.parametrize("fusion", ["cross", "concat"])
def test_added_layers_start_without_effect_and_then_bring_rgb_in(attn: Attention, fusion: str) -> None:
    tokens = torch.randn(2, 7, WIDTH)
    joint = JointAttention(fusion, WIDTH, HEADS)
    assert torch.equal(joint(attn, tokens, views=2), JointAttention("none")(attn, tokens, views=2))
    for parameter in joint.parameters():
        torch.nn.init.normal_(parameter)
    other = torch.cat([tokens[:1], torch.randn(1, 7, WIDTH)])
    made, changed = joint(attn, tokens, views=2), joint(attn, other, views=2)
    assert not torch.allclose(made[0], changed[0])
    assert torch.allclose(joint(attn, tokens, views=2)[1:], by_hand(attn, tokens[1:], tokens[1:]), atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_thermal_alone_is_the_thermal_half(attn: Attention, fusion: str) -> None:
    tokens = torch.randn(4, 7, WIDTH)
    joint = JointAttention(fusion, WIDTH, HEADS)
    for parameter in joint.parameters():
        torch.nn.init.normal_(parameter)
    alone = joint(attn, tokens, views=2, thermal_only=True)
    assert torch.allclose(alone, joint(attn, tokens, views=2)[::2], atol=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("views", [1, 2])
def test_queries_in_chunks_give_the_same(attn: Attention, fusion: str, views: int) -> None:
    tokens = torch.randn(4, 7, WIDTH)
    whole = JointAttention(fusion, WIDTH, HEADS)
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter)
    pieces = JointAttention(fusion, WIDTH, HEADS, query_chunk=3)
    pieces.load_state_dict(whole.state_dict())
    assert torch.allclose(pieces(attn, tokens, views=views), whole(attn, tokens, views=views), atol=1e-6)


def test_chunks_bound_the_scores_of_a_long_sequence(attn: Attention, monkeypatch: pytest.MonkeyPatch) -> None:
    """8192 joint tokens, as at 512x512 in Stable Diffusion's finest level (METHODS trap D)."""
    sizes = []
    stock = attention.functional.scaled_dot_product_attention

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        sizes.append(q.shape[2])
        return stock(q, k, v)

    tokens = torch.randn(2, 4096, WIDTH)
    with torch.no_grad():
        whole = JointAttention("csm")(attn, tokens, views=2)
        monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", watched)
        pieces = JointAttention("csm", query_chunk=1024)(attn, tokens, views=2)
    assert sizes == [1024] * 8
    assert torch.allclose(pieces, whole, atol=1e-5)


def test_unknown_fusion_is_named() -> None:
    with pytest.raises(ValueError, match=r"fusion must be one of csm, .* not 'sum'"):
        JointAttention("sum")
