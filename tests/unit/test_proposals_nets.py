"""Sizes, costs, precision and options of the network proposals, and proposals of other packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from vidprune.errors import ConfigError, UnknownNameError
from vidprune.proposals import PROPOSALS, create_proposal
from vidprune.proposals.macs import count_gmacs
from vidprune.proposals.nets3d import NET_SPECS
from vidprune.types import TokenGrid

NETS = ("x3d_s", "x3d_m", "x3d_tiny", "slowonly_r50", "slowonly_r101")
CLIP_224 = (16, 224, 224)


@pytest.mark.parametrize(
    ("name", "treatment", "clip_shape", "gmacs"),
    [
        ("x3d_s", "default", CLIP_224, 1.207),  # the cost that PaPr's code has for X3D-S
        ("x3d_s", "release", (8, 112, 112), 1.207),
        ("x3d_s", "native", CLIP_224, 4.731),  # the cost that PaPr's table 8 counts
        ("x3d_s", "own_norm", CLIP_224, 4.731),
        ("x3d_s", "native", (13, 160, 160), 1.961),  # X3D-S in its paper: 1.96
        ("x3d_m", "release", CLIP_224, 4.731),
        ("x3d_m", "release", (16, 160, 160), 2.365),
        ("slowonly_r50", "release", CLIP_224, 41.74),  # PaPr table 9, batch norms counted: 41.9
    ],
)
def test_gmacs(name: str, treatment: str, clip_shape: tuple[int, int, int], gmacs: float) -> None:
    proposal = cached(name, treatment)
    assert proposal.gmacs(clip_shape) == pytest.approx(gmacs, rel=0.002)


def test_gmacs_of_slowonly_r101() -> None:
    spec = NET_SPECS["slowonly_r101"]  # without drawing its 42 million weights
    # PaPr table 9 has 85.67, batch norms counted.
    assert count_gmacs(spec.build, spec.release_size(CLIP_224)) == pytest.approx(85.41, rel=0.002)


_made: dict[tuple[str, str], nn.Module] = {}


def cached(name: str, treatment: str) -> nn.Module:
    if (name, treatment) not in _made:
        _made[name, treatment] = create_proposal(name, input_treatment=treatment)
    return _made[name, treatment]


@pytest.mark.parametrize("name", ["x3d_s", "x3d_tiny"])
def test_gmacs_equal_a_count_by_hand(name: str) -> None:
    """Weights times outputs of every convolution that a real forward pass calls."""
    proposal = create_proposal(name, input_treatment="native", fast=False)  # the hooks sit on the net as built
    macs = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += module.weight[0].numel() * output[0].numel()

    for module in proposal.modules():
        assert not isinstance(module, nn.Linear)
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(count)
    proposal(torch.zeros(1, 3, 5, 48, 33))
    assert proposal.gmacs((5, 48, 33)) == pytest.approx(macs / 1e9, rel=1e-9)


@pytest.mark.parametrize("name", ["x3d_tiny", "x3d_s"])
@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 40, 72), (13, 33, 65)])
def test_any_clip_length_and_size(name: str, shape: tuple[int, int, int]) -> None:
    proposal = cached(name, "native")
    clip = torch.randn(2, 3, *shape)
    found = proposal(clip, grid=TokenGrid(8, 14, 14))  # a network answers on its own grid
    assert found.dtype == torch.float32
    assert found.ndim == 4
    assert found.shape[0] == 2
    if name == "x3d_s":
        assert tuple(found.shape[1:]) == (shape[0], -(-shape[1] // 32), -(-shape[2] // 32))
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("x3d_s", CLIP_224, (8, 160, 160)),
        ("x3d_s", (16, 160, 160), (8, 160, 160)),  # a 160-pixel clip still loses half its frames
        ("x3d_s", (1, 224, 224), (8, 160, 160)),
        ("x3d_m", CLIP_224, CLIP_224),
        ("x3d_m", (32, 224, 224), (32, 224, 224)),
        ("x3d_m", (16, 256, 224), (8, 224, 224)),
        ("slowonly_r50", CLIP_224, (8, 224, 224)),
    ],
)
def test_release_sizes(name: str, shape: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    assert cached(name, "default").input_size(shape) == expected
    assert cached(name, "native" if name != "x3d_m" else "own_norm").input_size(shape) == shape


def test_random_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (create_proposal("x3d_tiny", seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers are left alone
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.checkpoint_source is None


def test_stays_in_eval_mode_and_needs_no_gradients() -> None:
    proposal = create_proposal("x3d_tiny")
    host = nn.Sequential(proposal, nn.Dropout())
    host.train()
    assert host[1].training
    assert not any(module.training for module in proposal.modules())
    assert not any(p.requires_grad for p in proposal.parameters())
    before = {k: v.clone() for k, v in proposal.state_dict().items()}
    proposal(torch.randn(1, 3, 8, 56, 56))
    assert all(torch.equal(v, before[k]) for k, v in proposal.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_half_precision_gives_a_float32_map(dtype: torch.dtype, how: str) -> None:
    clip = torch.randn(2, 3, 8, 64, 64)
    expected = create_proposal("x3d_tiny", own_norm=True)(clip)
    proposal = create_proposal("x3d_tiny", own_norm=True)
    if how == "weights":
        found = proposal.to(dtype)(clip.to(dtype))
        assert torch.equal(proposal(clip.to(dtype).float()), found)  # a clip of another type is cast to the weights'
    else:
        with torch.autocast("cpu", dtype=dtype):
            found = proposal(clip)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("treatment", ["release", "own_norm"])
def test_one_graph_under_compile(treatment: str) -> None:
    proposal = cached("x3d_tiny", treatment)
    clip = torch.randn(1, 3, 2, 32, 32)
    torch._dynamo.reset()
    compiled = torch.compile(proposal, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(clip), proposal(clip), rtol=1e-4, atol=1e-4)


def test_wrong_use_is_one_line() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown proposal 'x3ds': did you mean 'x3d_s'"):
        create_proposal("x3ds")
    with pytest.raises(UnknownNameError, match=r"unknown input treatment 'releas': did you mean 'release'"):
        create_proposal("x3d_tiny", input_treatment="releas")
    with pytest.raises(ConfigError, match=r"unknown option of proposal 'x3d_tiny' 'own_nrm': did you mean 'own_norm'"):
        create_proposal("x3d_tiny", own_nrm=True)
    with pytest.raises(ConfigError, match=r"proposal 'uniform' takes no checkpoint, got 'a\.pth'"):
        create_proposal("uniform", checkpoint="a.pth")
    with pytest.raises(ConfigError, match="proposal 'random' takes no input_treatment"):
        create_proposal("random", input_treatment="native")
    with pytest.raises(ConfigError, match=r"\[B, 3, T, H, W\] \(an image is T = 1\), got \[1, 3, 8, 8\]"):
        create_proposal("x3d_tiny")(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("name", [*NETS, "random", "uniform", "centre", "frame_difference"])
def test_every_name_is_described(name: str) -> None:
    assert name in PROPOSALS.names()
    assert len(PROPOSALS.describe(name)) > 10
    if name in ("x3d_tiny", "random"):
        assert create_proposal(name).description == PROPOSALS.describe(name)
        assert create_proposal(name).name == name


PLUGIN = '''
import torch
from torch import nn
from vidprune.proposals.base import Proposal

class Brightness(Proposal):
    """Keep what is bright; has a batch norm, to see that it is put into eval mode."""
    name = "brightness"
    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain
        self.norm = nn.BatchNorm3d(3)
    def forward(self, clip, *, grid=None):
        return self.gain * clip.mean(dim=1)
    def gmacs(self, clip_shape):
        return 0.0

def not_a_proposal():
    return 3
'''

USE = """
import torch
from vidprune.errors import VidpruneError
from vidprune.proposals import PROPOSALS, create_proposal
assert PROPOSALS.describe("brightness") == "from vidprune-brightness"
p = create_proposal("brightness", gain=2.0)
assert not p.norm.training and p.description
assert torch.equal(p(torch.ones(1, 3, 2, 4, 4)), torch.full((1, 2, 4, 4), 2.0))
assert create_proposal("random").name == "random"  # a name of ours cannot be taken over
for name, options in (("brightness", {"checkpoint": "a.pth"}), ("brightness", {"gian": 1}), ("broken", {})):
    try:
        create_proposal(name, **options)
    except VidpruneError as error:
        print(error)
"""


def test_another_package_adds_a_proposal_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "brightness_plugin.py").write_text(PLUGIN)
    info = tmp_path / "vidprune_brightness-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vidprune-brightness\nVersion: 1.0\n")
    entries = ("brightness = brightness_plugin:Brightness", "broken = brightness_plugin:not_a_proposal")
    (info / "entry_points.txt").write_text(
        "\n".join(["[vidprune.proposals]", *entries, "random = brightness_plugin:Brightness", ""])
    )
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
    done = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    no_checkpoint, unknown_option, broken = done.stdout.splitlines()
    assert no_checkpoint == "proposal 'brightness' takes no checkpoint, got 'a.pth'"
    assert "did you mean 'gain'" in unknown_option
    assert broken == "proposal 'broken' made an object of type int, not a vidprune.proposals.base.Proposal"
