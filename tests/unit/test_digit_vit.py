"""The image ViT's canvases, training and shipped weights."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tool_modules import tool

pytest.importorskip("sklearn", reason="scikit-learn holds the digits")


@pytest.fixture(scope="module")
def canvases() -> ModuleType:
    return tool("digit_canvases")


@pytest.fixture(scope="module")
def training() -> ModuleType:
    return tool("train_digit_vit")


def test_a_seed_draws_one_set_and_another_seed_another(canvases: ModuleType) -> None:
    first, again, other = (canvases.heldout_set(4, seed) for seed in (1, 1, 2))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.pixels, other.pixels)


def test_the_digit_is_small_and_where_the_opacity_says(canvases: ModuleType) -> None:
    found = canvases.draw_canvases("train", 40, canvases.SIDE, 0.0, torch.Generator().manual_seed(0))
    shown = F.avg_pool2d(found.opacity, canvases.PATCH).flatten(1) > 0.03
    assert 0.03 < float(shown.float().mean()) < 0.2
    # Without fragments, the ink is all that is brighter than the plain ground.
    bright = found.pixels.mean(1, keepdim=True) > canvases.GROUND + 40
    assert bool((bright <= (found.opacity > 0.15)).all())
    assert bool(bright.flatten(1).any(1).all())


def test_splits_share_no_image(canvases: ModuleType) -> None:
    scenes = tool("digit_scenes")
    indices = [scenes.digit_indices(split) for split in scenes.SPLITS]
    assert sum(map(len, indices)) == len(np.unique(np.concatenate(indices))) == 1797
    for split, own in zip(scenes.SPLITS, indices, strict=True):
        sprites, labels = canvases._digits_of(split)
        assert np.array_equal(sprites[:, 0].numpy(), scenes.digit_sprites()[0][own])
        assert np.array_equal(labels.numpy(), scenes.digit_sprites()[1][own])


def test_fragments_keep_clear_of_the_digit_and_are_pieces(canvases: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    sprites, _ = canvases._digits_of("train")
    x = torch.zeros(200)
    fragments = canvases._draw_fragment(sprites, canvases.SIDE, x, x, generator)
    middle = slice(canvases.SIDE // 2 - 4, canvases.SIDE // 2 + 4)
    assert float(fragments[:, :, middle, middle].max()) == 0.0
    whole = canvases.draw(sprites[:200], canvases.SIDE, x, x, x, torch.full((200,), 26.0 / canvases.SPRITE_INK))
    assert float(fragments.sum()) < 0.6 * float(whole.sum())


def test_a_window_over_the_whole_canvas_is_the_vit_itself(training: ModuleType) -> None:
    torch.manual_seed(0)
    vit = training.build_vit().eval()
    inputs = torch.randn(2, 3, training.SIDE, training.SIDE)
    with torch.inference_mode():
        tokens = training.window_tokens(vit, inputs, 0, 0)
        assert torch.allclose(vit.forward_head(tokens), vit(inputs), atol=1e-5)


def test_a_window_gets_the_position_codes_of_its_place(training: ModuleType) -> None:
    torch.manual_seed(0)
    vit = training.build_vit().eval()
    inputs = torch.randn(1, 3, training.SIDE, training.SIDE)
    vit.blocks, vit.norm = torch.nn.Identity(), torch.nn.Identity()
    p = training.PATCH
    with torch.inference_mode():
        whole = training.window_tokens(vit, inputs, 0, 0)[:, 1:].view(training.GRID, training.GRID, -1)
        part = training.window_tokens(vit, inputs[:, :, 2 * p : 7 * p, 3 * p : 8 * p], 2, 3)[:, 1:]
    assert torch.allclose(part.view(5, 5, -1), whole[2:7, 3:8], atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "net"])
def test_training_ends_on_whole_canvases_and_can_go_on_from_a_checkpoint(training: ModuleType, name: str) -> None:
    recipe = training.RECIPES[name]
    starts = np.cumsum([0, *(phase.num for phase in recipe.phases)])[:-1]
    assert [recipe.at(int(start), 0)[0] for start in starts] == [phase.patches for phase in recipe.phases]
    assert recipe.at(recipe.total - 1, 1) == (training.GRID, 1.0)
    assert recipe.learning_rate_at(recipe.total - 1, 10**6) < 1e-3 * recipe.learning_rate
    straight, stopped = training.Training(name, 3), training.Training(name, 3)
    losses = [straight.train_step() for _ in range(3)]
    stopped.train_step()
    resumed = training.Training(name, 4)
    resumed.seed = 3
    resumed.restore(stopped.checkpoint())
    assert [resumed.train_step() for _ in range(2)] == pytest.approx(losses[1:], rel=1e-5)


def test_token_labels_reward_the_right_answer(training: ModuleType) -> None:
    labels, opacity = torch.tensor([3, 7]), torch.tensor([[0.0, 0.5], [0.4, 0.0]])
    heads = training.TokenLabels(11)
    heads.head = torch.nn.Identity()
    tokens = torch.zeros(2, 2, 11)
    for b, n, answer in ((0, 0, 10), (0, 1, 3), (1, 0, 7), (1, 1, 10)):
        tokens[b, n, answer] = 30.0
    assert float(heads.loss(tokens, labels, opacity)) < 1e-4
    assert float(heads.loss(tokens, labels, opacity.flip(1))) > 1.0


def test_the_proposal_is_the_channel_mean_and_costs_what_the_counter_says() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    networks = tool("digit_vit")
    torch.manual_seed(0)
    net = networks.DigitNet()
    images = torch.randn(2, 3, 80, 80)
    net(images)  # so that the batch norms have something to say
    proposal = networks.DigitNetProposal(net.eval())
    with torch.inference_mode():
        expected = net.features(images).mean(1)
        assert torch.allclose(proposal(images[:, :, None])[:, 0], expected, atol=1e-5)
        with FlopCounterMode(display=False) as counter:
            net.features(images[:1])
    assert proposal.gmacs((1, 80, 80)) == pytest.approx(counter.get_total_flops() / 2e9)


@pytest.fixture(scope="module")
def shipped() -> ModuleType:
    networks = tool("digit_vit")
    if not (networks.WEIGHTS / "digit_vit.safetensors").exists():
        pytest.skip("the digit ViT's weights are not in this checkout")
    return networks


def test_the_shipped_networks_read_digits_they_have_not_seen(shipped: ModuleType, canvases: ModuleType) -> None:
    found = canvases.heldout_set(200, seed=0)
    with torch.inference_mode():
        for model in (shipped.load_vit(), shipped.load_digit_net()):
            assert float((model(found.inputs).argmax(1) == found.labels).float().mean()) > 0.84


def test_the_shipped_proposal_finds_the_digit(shipped: ModuleType, canvases: ModuleType, training: ModuleType) -> None:
    """Its top 30 % tokens hold nearly all of the digit, 30 % by chance; it was trained on class labels alone."""
    found = canvases.heldout_set(100, seed=0)
    proposal = shipped.DigitNetProposal(shipped.load_digit_net())
    with torch.inference_mode():
        kept = proposal(found.inputs[:, :, None]).flatten(1).topk(30).indices
    mass = F.avg_pool2d(found.opacity, canvases.PATCH).flatten(1)
    assert float((mass.gather(1, kept).sum(1) / mass.sum(1)).mean()) > 0.9
