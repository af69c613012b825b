"""Both published layouts of the video networks load to the same features, and no key goes unread unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.tool_modules import tool
from vidprune.compat import ensure_torchvision
from vidprune.errors import CheckpointError
from vidprune.proposals import create_proposal
from vidprune.proposals.x3d_tiny import build_x3d_tiny

ensure_torchvision()
pytest.importorskip("pytorchvideo")
from pytorchvideo.models.resnet import create_resnet  # noqa: E402
from pytorchvideo.models.x3d import create_x3d  # noqa: E402

Weights = dict[str, Tensor]
CLIP = torch.randn(1, 3, 2, 32, 48, generator=torch.Generator().manual_seed(1))


def with_own_norms(net: nn.Module) -> nn.Module:
    """Every batch norm another, so that two of them swapped would show."""
    tool("random_norms").randomise_norms(net, variances=(0.01, 0.1))
    return net.eval()


def mmaction_layout(net: nn.Module, x3d: bool) -> Weights:
    """`net`'s weights under the names of mmaction2 1.2 (X3D, ResNet3dSlowOnly), found by walking the modules."""
    out: Weights = {}

    def put(name: str, module: nn.Module | None) -> None:
        if module is not None:
            out.update({f"backbone.{name}.{key}": value.clone() for key, value in module.state_dict().items()})

    stem, *stages, head = net.blocks
    if x3d:
        put("conv1_s.conv", next(m for m in stem.modules() if getattr(m, "kernel_size", None) == (1, 3, 3)))
        put("conv1_t.conv", next(m for m in stem.modules() if getattr(m, "kernel_size", None) == (5, 1, 1)))
        put("conv1_t.bn", stem.norm)
        put("conv5.conv", head.pool.pre_conv)
        put("conv5.bn", head.pool.pre_norm)
        out |= {f"cls_head.{key}": torch.zeros(3) for key in ("fc1.weight", "fc2.weight", "fc2.bias")}
    else:
        put("conv1.conv", stem.conv)
        put("conv1.bn", stem.norm)
        out |= {f"cls_head.fc_cls.{key}": torch.zeros(3) for key in ("weight", "bias")}
    for i, stage in enumerate(stages, start=1):
        for j, block in enumerate(stage.res_blocks):
            name, branch = f"layer{i}.{j}", block.branch2
            for number, letter in enumerate("abc", start=1):
                norm = getattr(branch, f"norm_{letter}")
                put(f"{name}.conv{number}.conv", getattr(branch, f"conv_{letter}"))
                put(f"{name}.conv{number}.bn", norm[0] if isinstance(norm, nn.Sequential) else norm)
            if x3d and j % 2 == 0:
                put(f"{name}.se_module.fc1", branch.norm_b[1].block[0])
                put(f"{name}.se_module.fc2", branch.norm_b[1].block[2])
            put(f"{name}.downsample.conv", block.branch1_conv)
            put(f"{name}.downsample.bn", block.branch1_norm)
    return out


def x3d_like_mmaction() -> nn.Module:
    """X3D with the batch norm on its first shortcut that mmaction has and pytorchvideo has not."""
    net = create_x3d()
    first = net.blocks[1].res_blocks[0]
    assert first.branch1_norm is None
    first.branch1_norm = nn.BatchNorm3d(24)
    return with_own_norms(net)


def features_of(net: nn.Module, x3d: bool) -> Tensor:
    out = CLIP
    with torch.no_grad():
        for block in net.blocks[:5]:
            out = block(out)
        if x3d:
            pool = net.blocks[5].pool
            out = pool.pre_act(pool.pre_norm(pool.pre_conv(out)))
    return out


def assert_same_map(name: str, path: Path, expected: Tensor) -> None:
    proposal = create_proposal(name, checkpoint=path, input_treatment="native")
    with torch.no_grad():
        found = proposal.features(CLIP)
    scale = expected.abs().max()
    assert expected.std() > 0.05 * scale
    assert (found - expected).abs().max() < 2e-3 * scale  # random weights amplify the rounding of another order of sums


def test_mmaction_x3d(tmp_path: Path) -> None:
    net = x3d_like_mmaction()
    weights = mmaction_layout(net, x3d=True)
    # The count of mmaction2 1.2.0's own X3D(gamma_w=1, gamma_b=2.25, gamma_d=2.2).
    assert sum(key.startswith("backbone.") for key in weights) == 565
    torch.save({"meta": {"epoch": 1}, "state_dict": weights}, tmp_path / "x3d.pth")
    expected = features_of(net, x3d=True)
    assert_same_map("x3d_s", tmp_path / "x3d.pth", expected)
    # What we loaded can be saved as ours and read again, its extra batch norm included.
    loaded = create_proposal("x3d_s", checkpoint=tmp_path / "x3d.pth")
    save_file(loaded.state_dict(), tmp_path / "ours.safetensors")
    assert_same_map("x3d_s", tmp_path / "ours.safetensors", expected)


def test_mmaction_slowonly_brings_its_own_normalisation(tmp_path: Path) -> None:
    net = with_own_norms(create_resnet(model_depth=50, stem_conv_kernel_size=(1, 7, 7)))
    weights = mmaction_layout(net, x3d=False)
    assert sum(key.startswith("backbone.") for key in weights) == 318  # as in mmaction2 1.2.0's own model
    torch.save({"state_dict": weights}, tmp_path / "slow.pth")
    assert_same_map("slowonly_r50", tmp_path / "slow.pth", features_of(net, x3d=False))
    ported = create_proposal("slowonly_r50", checkpoint=tmp_path / "slow.pth")
    torch.testing.assert_close(
        ported.norm_scale, torch.ones(3, 1, 1, 1)
    )  # mmaction trained it on ImageNet's statistics
    torch.testing.assert_close(ported.norm_shift, torch.zeros(3, 1, 1, 1))


@pytest.fixture(scope="module")
def x3d_weights() -> Weights:
    torch.manual_seed(0)
    return with_own_norms(create_x3d()).state_dict()


def drop(key: str) -> Callable[[Weights], Weights]:
    return lambda w: {k: v for k, v in w.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("blocks.3.res_blocks.2.branch2.norm_a.bias"), "1 missing: blocks.3.res_blocks.2.branch2.norm_a.bias"),
        (lambda w: w | {"blocks.2.surprise": torch.zeros(1)}, "1 not known: blocks.2.surprise"),
        (lambda w: w | {"blocks.5.pool.pre_conv.bias": torch.zeros(1)}, "not known: blocks.5.pool.pre_conv.bias"),
        (
            lambda w: w | {"blocks.0.norm.weight": torch.zeros(12)},
            r"1 of another shape: blocks.0.norm.weight \[12\] instead of \[24\]",
        ),
        (drop("blocks.5.pool.pre_conv.weight"), "1 missing: blocks.5.pool.pre_conv.weight"),
        (lambda w: {f"s1.{k}": v for k, v in w.items()}, "in no known layout"),
        (lambda w: {"epoch": 3}, "holds no weights"),
    ],
)
def test_every_difference_is_refused(
    tmp_path: Path, x3d_weights: Weights, change: Callable[[Weights], Weights], message: str
) -> None:
    path = tmp_path / "w.pyth"
    torch.save({"model_state": change(dict(x3d_weights))}, path)
    with pytest.raises(CheckpointError, match=message) as error:
        create_proposal("x3d_s", checkpoint=path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 900


@pytest.mark.parametrize("prefix", ["module.", "net.", "features.", "module.net."])
def test_wrappers_around_the_network_are_seen_through(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)
    weights = with_own_norms(build_x3d_tiny(num_classes=5)).state_dict()
    save_file({prefix + key: value for key, value in weights.items()}, tmp_path / "tiny.safetensors")
    loaded = create_proposal("x3d_tiny", checkpoint=tmp_path / "tiny.safetensors").features.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in loaded.items())


def test_only_the_head_may_go_unread(tmp_path: Path, x3d_weights: Weights) -> None:
    head = [k for k in x3d_weights if k.startswith("blocks.5.") and not k.startswith("blocks.5.pool.pre_")]
    assert sorted(head) == ["blocks.5.pool.post_conv.weight", "blocks.5.proj.bias", "blocks.5.proj.weight"]
    counters = [k for k in x3d_weights if k.endswith("num_batches_tracked")]
    kept = {k: v for k, v in x3d_weights.items() if k not in (*head, *counters)}
    torch.save(kept, tmp_path / "bare.pyth")  # no container, no head, no counters: all that inference needs
    proposal = create_proposal("x3d_s", checkpoint=tmp_path / "bare.pyth")
    loaded = proposal.features.state_dict()
    assert kept.keys() <= loaded.keys()
    assert all(torch.equal(loaded[k], v) for k, v in kept.items())


def test_a_mmaction_file_of_another_network_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = mmaction_layout(create_resnet(model_depth=50, stem_conv_kernel_size=(1, 7, 7)), x3d=False)
    slow = {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}  # one number each: the file stays small
    torch.save({"state_dict": slow}, tmp_path / "slow.pth")
    with pytest.raises(CheckpointError, match=r"does not fit x3d_s: .*missing.*not known.*of another shape"):
        create_proposal("x3d_s", checkpoint=tmp_path / "slow.pth")
    with pytest.raises(CheckpointError, match="does not fit slowonly_r101: 255 missing"):
        create_proposal("slowonly_r101", checkpoint=tmp_path / "slow.pth")


@pytest.mark.parametrize("name", ["x3d_s", "x3d_tiny", "slowonly_r50"])
def test_an_absent_file_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="no weight file"):
        create_proposal(name, checkpoint=tmp_path / "absent.pyth")
