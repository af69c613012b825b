"""The folded copy of a proposal network gives the network's own maps, whatever happens to the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.tool_modules import tool
from vidprune.proposals import create_proposal
from vidprune.proposals.folding import fold_batch_norms
from vidprune.proposals.nets3d import NET_SPECS, NetProposal

CLIP = torch.randn(2, 3, 4, 48, 40, generator=torch.Generator().manual_seed(1))


def with_own_norms(proposal: NetProposal, seed: int = 0) -> NetProposal:
    """Every batch norm another, so that one left out, or folded into the wrong convolution, would show."""
    tool("random_norms").randomise_norms(proposal.features, seed)
    return proposal


def plain(proposal: NetProposal, clip: Tensor = CLIP) -> Tensor:
    return proposal.features(clip).mean(dim=1)


def assert_equal_maps(found: Tensor, expected: Tensor) -> None:
    assert float(expected.std()) > 1e-3 * float(expected.abs().max()), "a flat map would hide mistakes"
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["x3d_s", "x3d_tiny", "slowonly_r50"])
def test_equal_maps_without_batch_norms(name: str) -> None:
    proposal = with_own_norms(create_proposal(name, input_treatment="native"))
    assert_equal_maps(proposal(CLIP), plain(proposal))
    calls = {"norms": 0}
    for module in proposal.features.modules():
        module.register_forward_hook(lambda *_: calls.update(norms=calls["norms"] + 1))
    proposal(CLIP)
    assert calls["norms"] == 0, "the network as built runs beside its copy"
    folded = fold_batch_norms(proposal.features)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in folded.modules())
    proposal.fast = False
    proposal(CLIP)
    assert calls["norms"] > 0


@pytest.mark.parametrize("name", ["x3d_s", "slowonly_r50"])
def test_depthwise_convolutions_give_the_same_in_either_order(name: str) -> None:
    proposal = with_own_norms(create_proposal(name, input_treatment="native"))
    orders: dict[bool, list[bool]] = {True: [], False: []}  # whether each depthwise input has channels innermost
    maps = {}
    for innermost, seen in orders.items():
        folded = fold_batch_norms(proposal.features, depthwise_innermost=innermost)
        for module in folded.modules():
            if isinstance(module, nn.Conv3d) and module.groups > 1:
                note = lambda _, x, seen=seen: seen.append(x[0].is_contiguous(memory_format=torch.channels_last_3d))  # noqa: E731
                module.register_forward_pre_hook(note)
        maps[innermost] = folded(CLIP.contiguous(memory_format=torch.channels_last_3d))
        assert maps[innermost].is_contiguous(memory_format=torch.channels_last_3d)
    assert_equal_maps(maps[False].mean(dim=1), maps[True].mean(dim=1))
    num_depthwise = 27 if name == "x3d_s" else 0  # X3D's stem in time and one in each of its 26 blocks
    assert orders == {True: [True] * num_depthwise, False: [False] * num_depthwise}


def test_the_copy_is_in_no_state_dict_and_saves_load_again() -> None:
    proposal, built = (with_own_norms(create_proposal("x3d_tiny", fast=fast), seed=3) for fast in (True, False))
    proposal(CLIP)
    state = proposal.state_dict()
    assert list(state) == list(built.state_dict())
    assert all(value.is_contiguous() for value in state.values())
    assert sum(p.numel() for p in proposal.parameters()) == sum(p.numel() for p in built.parameters())
    other = create_proposal("x3d_tiny", seed=5)
    before = other(CLIP)
    other.load_state_dict(state)
    assert torch.equal(other(CLIP), proposal(CLIP))
    assert not torch.equal(before, proposal(CLIP))


def test_every_change_of_the_weights_reaches_the_copy() -> None:
    proposal = with_own_norms(create_proposal("x3d_tiny", input_treatment="native"))
    old = proposal(CLIP)
    with torch.no_grad():
        next(proposal.features.parameters()).mul_(1.5)
    new = proposal(CLIP)
    assert not torch.equal(old, new)
    assert_equal_maps(new, plain(proposal))
    with_own_norms(proposal, seed=7)
    assert_equal_maps(proposal(CLIP), plain(proposal))
    holder = nn.Sequential(proposal)
    holder.load_state_dict(nn.Sequential(create_proposal("x3d_tiny", seed=9)).state_dict(), assign=True)
    assert_equal_maps(proposal(CLIP), plain(proposal))
    proposal.features = with_own_norms(create_proposal("x3d_tiny", seed=4)).features
    assert_equal_maps(proposal(CLIP), plain(proposal))


def test_weights_made_in_inference_mode_are_not_trusted_to_stay() -> None:
    with torch.inference_mode():
        proposal = create_proposal("x3d_tiny", input_treatment="native")
        with_own_norms(proposal)
        assert_equal_maps(proposal(CLIP), plain(proposal))


def test_moves_and_casts_reach_the_copy() -> None:
    proposal = with_own_norms(create_proposal("x3d_tiny", input_treatment="native"))
    expected = proposal(CLIP)
    doubled = nn.Sequential(proposal).double()[0]
    torch.testing.assert_close(doubled(CLIP), plain(doubled, CLIP.double()).float(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(proposal.float()(CLIP), expected)
    made = proposal._folded.net
    proposal(CLIP)
    assert proposal._folded.net is made, "nothing changed, yet the network was folded anew"
    with torch.device("meta"):
        assert create_proposal("x3d_tiny").to("meta")(CLIP.to("meta")).device.type == "meta"
    if torch.cuda.is_available():
        torch.testing.assert_close(proposal.cuda()(CLIP.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)


def test_copies_are_independent() -> None:
    proposal = with_own_norms(create_proposal("x3d_tiny", input_treatment="native"))
    expected = proposal(CLIP)
    with torch.no_grad():
        next(copy.deepcopy(proposal).features.parameters()).zero_()
    assert torch.equal(proposal(CLIP), expected)


def test_gradients_reach_the_clip_through_the_copy() -> None:
    proposal = with_own_norms(create_proposal("x3d_tiny", input_treatment="native"))
    found, expected = (CLIP.clone().requires_grad_() for _ in range(2))
    proposal(found).square().sum().backward()
    plain(proposal, expected).square().sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in proposal.parameters())


@pytest.mark.parametrize("name", ["x3d_s", "x3d_tiny", "slowonly_r50"])
def test_stride_says_how_many_cells(name: str) -> None:
    stride = NET_SPECS[name].stride
    with torch.device("meta"):
        features = NET_SPECS[name].build().eval()
        for height, width in ((2 * stride, 3 * stride), (2 * stride + 1, 3 * stride - 1)):
            shape = features(torch.empty(1, 3, 4, height, width)).shape[3:]
            assert tuple(shape) == (-(-height // stride), -(-width // stride))
