"""JPEG beside the real codec, its surrogates, and JPEG at several qualities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_local.config.plugins import find_defense
from robustbench_local.core.defense import call, is_stochastic
from robustbench_local.core.errors import ConfigError
from robustbench_local.defenses._wrapper import Wrapper
from robustbench_local.defenses.jpeg import JPEG
from robustbench_local.defenses.multi_jpeg import MultiJPEG
from robustbench_local.evaluation.evaluate import evaluate
from robustbench_local.ops import jpeg
from tests.helpers.wrapping import deployed, digits, draws, gradient, keeps_the_rules, photos, some_weights

MEAN, LARGEST = 0.4, 80  # grey levels; the largest where one coefficient is rounded the other way
QUALITIES = (1, 10, 30, 50, 75, 90, 95, 100)


def distance(x: Tensor, quality: int, subsampling: jpeg.Subsampling) -> Tensor:
    return (jpeg.compressed(x, quality, subsampling) - jpeg.by_pillow(x, quality, subsampling)).abs() * 255


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", QUALITIES)
def test_it_is_pillows(quality: int, subsampling: jpeg.Subsampling) -> None:
    noise = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for x in (photos(60), digits(60), photos(20)[..., :27, :29], noise, photos(4).repeat(1, 1, 3, 2)[..., :70, :61]):
        off = distance(x, quality, subsampling)
        assert off.mean() < MEAN and off.max() <= LARGEST
        assert (off > 1).double().mean() < 0.15  # most differ by nothing or by one


def test_most_pixels_are_exactly_pillows() -> None:
    for x, share in ((digits(60), 0.97), (photos(60), 0.85)):
        assert (distance(x, 75, "4:2:0") == 0).double().mean() > share


@pytest.mark.parametrize("twin", ["truncates", "replicates", "other table"])
def test_a_broken_codec_would_be_noticed(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def truncated(z: Tensor, hard: bool) -> Tensor:
        return z.trunc()

    def replicated(length: int) -> Tensor:
        return torch.eye((length + 1) // 2, dtype=torch.float64).repeat_interleave(2, 0)[:length]

    if twin == "truncates":
        monkeypatch.setattr(jpeg, "_coefficient", truncated)
    elif twin == "replicates":
        monkeypatch.setattr(jpeg, "_doubling", replicated)
    else:
        monkeypatch.setattr(jpeg, "_CHROMA", jpeg._LUMA)
    assert distance(photos(60), 75, "4:2:0").mean() > MEAN


@pytest.mark.parametrize(
    "wrapper",
    [JPEG(), JPEG(20, "4:4:4"), JPEG(codec="pillow"), JPEG(surrogate="identity"), MultiJPEG(), MultiJPEG((50,))],
    ids=str,
)
def test_the_rules_are_kept(wrapper: Wrapper) -> None:
    if wrapper == MultiJPEG((50,)):  # random by name, with nothing to choose from
        model = deployed(wrapper)
        x = photos()
        assert torch.equal(call(model, x, draws(12)), JPEG(50).apply(x, None).flatten(1))
    else:
        keeps_the_rules(wrapper)


def test_what_comes_out_are_grey_levels_and_pillow_agrees_with_itself() -> None:
    out = JPEG(30).apply(photos(), None) * 255
    torch.testing.assert_close(out, out.round(), atol=1e-4, rtol=0)
    x = photos()
    assert torch.equal(JPEG(30, codec="pillow").apply(x, None), jpeg.by_pillow(x, 30, "4:2:0"))


def test_gradients_are_the_surrogates() -> None:
    x = photos(6)
    for codec in ("torch", "pillow"):
        model = deployed(JPEG(50, codec=codec, surrogate="identity"))
        weights = some_weights(model, x)
        assert torch.equal(gradient(model, x, weights), weights.view_as(x))
        model = deployed(JPEG(50, codec=codec))
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad((jpeg.softly(leaf, 50, "4:2:0").flatten(1) * weights).sum(), leaf)
        assert torch.equal(gradient(model, x, weights), expected)


def test_the_soft_path_has_a_true_gradient_and_is_nearer_than_the_image() -> None:
    x = (photos(4).double() * 0.7 + 0.15)[..., :20, :18]
    for images in (x, x[:, :1]):
        for subsampling in ("4:2:0", "4:4:4"):
            leaf = images.clone().requires_grad_()
            weights = torch.rand(images.shape, generator=torch.Generator().manual_seed(1), dtype=images.dtype)
            (grad,) = torch.autograd.grad((jpeg.softly(leaf, 60, subsampling) * weights).sum(), leaf)
            way = torch.randn(images.shape, generator=torch.Generator().manual_seed(2), dtype=images.dtype)
            high, low = ((jpeg.softly(images + s * way, 60, subsampling) * weights).sum() for s in (1e-7, -1e-7))
            torch.testing.assert_close((grad * way).sum(), (high - low) / 2e-7, rtol=1e-4, atol=1e-4)
            hard = jpeg.compressed(images, 60, subsampling)
            soft, none = ((each - hard).abs().mean() for each in (jpeg.softly(images, 60, subsampling), images))
            assert soft < 0.9 * none


def test_nothing_stops_the_soft_gradient() -> None:
    weights = torch.rand(photos(4).shape, generator=torch.Generator().manual_seed(1))
    for x in (torch.zeros(4, 3, 32, 32), torch.ones(4, 3, 32, 32), photos(4)):  # black, white: values clip everywhere
        for channels in (1, 3):
            leaf = x[:, :channels].clone().requires_grad_()
            soft = jpeg.softly(leaf, 50, "4:4:4")
            (grad,) = torch.autograd.grad((soft * weights[:, :channels]).sum(), leaf)
            assert (grad != 0).double().mean() > 0.99


class OnePixel(nn.Module):
    """Whether a pixel is brighter than some level: no other pixel of what it is given matters."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, 0, 11, 11] - self.level
        return torch.stack([-bright, bright], 1) * 20


def test_the_identity_is_blind_where_only_rounding_helps() -> None:
    """The pixel itself may rise by 0.1; that it comes out 0.2 brighter takes its neighbours, which round for it."""
    x = 0.3 + 0.2 * torch.rand(40, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    x[:, 0, 11, 11] = 0.4
    y = torch.zeros(40, dtype=torch.int64)
    left = {}
    for surrogate in ("identity", "soft"):
        model = deployed(JPEG(20, surrogate=surrogate), OnePixel(0.6))
        left[surrogate] = evaluate(model, x, y, attack="pgd", threat="linf:0.1", steps=40).robust_accuracy
    assert left["soft"] <= left["identity"] / 2


def test_every_block_has_the_quality_it_drew() -> None:
    x, qualities = photos(40)[..., :28], (20, 40, 60, 80)
    out = call(deployed(MultiJPEG(qualities)), x, draws(40)).view_as(x)
    candidates = [jpeg.compressed(x, quality, "4:2:0") for quality in qualities]
    found = torch.zeros(len(qualities))
    for row in range(0, 32, 8):
        for column in range(0, 28, 8):
            block = (slice(None), slice(None), slice(row, row + 8), slice(column, column + 8))
            same = torch.stack([(out[block] == each[block]).flatten(1).all(1) for each in candidates])
            assert same.any(0).all()
            found += (same & (same.sum(0) == 1)).sum(1)
    assert (found / found.sum() - 0.25).abs().max() < 0.08  # 640 blocks


def test_gradients_of_random_blocks_are_those_of_the_qualities_drawn() -> None:
    x, qualities = photos(6), (20, 80)
    model = deployed(MultiJPEG(qualities))
    leaf = x.clone().requires_grad_()
    softs = [jpeg.softly(leaf, quality, "4:2:0") for quality in qualities]
    out = call(model, x, draws(6)).view_as(x)
    for block in (slice(0, 8), slice(24, 32)):
        weights = torch.zeros_like(x)
        weights[..., block, block] = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
        grads = [torch.autograd.grad((soft * weights).sum(), leaf, retain_graph=True)[0] for soft in softs]
        grad = gradient(model, x, weights.flatten(1))
        for i in range(len(x)):
            images = [jpeg.compressed(x, quality, "4:2:0")[i] for quality in qualities]
            same = [torch.equal(image[:, block, block], out[i][:, block, block]) for image in images]
            assert sum(same) == 1
            torch.testing.assert_close(grad[i], grads[same.index(True)][i])


class Ramp(nn.Module):
    """Three classes by the mean brightness of the left half."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[..., :16].mean((1, 2, 3))
        return torch.stack([40 * (0.4 - bright), torch.zeros_like(bright), 40 * (bright - 0.5)], 1)


def test_the_vote_is_the_majoritys() -> None:
    x, qualities = photos(60), (1, 2, 4, 75)
    model = deployed(MultiJPEG(qualities, mode="vote"), Ramp())
    assert not is_stochastic(model)
    out = model(x)
    answers = torch.stack([Ramp()(jpeg.compressed(x, quality, "4:2:0")) for quality in qualities])
    votes = nn.functional.one_hot(answers.argmax(2), 3).sum(0)
    probabilities = answers.softmax(2).mean(0)
    torch.testing.assert_close(out, votes + probabilities)
    most = votes.max(1).values
    assert (votes.gather(1, out.argmax(1, keepdim=True))[:, 0] == most).all() and (most < 4).any()
    tied = (votes == most[:, None]).sum(1) > 1
    among = probabilities.masked_fill(votes < most[:, None], 0)
    assert tied.any() and torch.equal(out[tied].argmax(1), among[tied].argmax(1))


def test_the_votes_gradient_is_that_of_the_mean_probability() -> None:
    x = photos(10)
    model = deployed(MultiJPEG((10, 80), mode="vote"), Ramp())
    weights = torch.tensor([[1.0, -0.5, 0.2]]).expand(10, -1)
    leaf = x.clone().requires_grad_()
    seen = [call(deployed(JPEG(quality)), leaf, None).view_as(x) for quality in (10, 80)]
    soft = torch.stack([Ramp()(each).softmax(1) for each in seen]).mean(0).log()
    (expected,) = torch.autograd.grad((soft * weights).sum(), leaf)
    torch.testing.assert_close(gradient(model, x, weights), expected)


@pytest.mark.parametrize(
    "name, settings, text",
    [
        ("jpeg", {"quality": 0}, "quality is 0"),
        ("jpeg", {"quality": 101}, "1, 100"),
        ("jpeg", {"subsampling": "4:1:1"}, "4:2:0 or 4:4:4"),
        ("jpeg", {"codec": "webp"}, "torch or pillow"),
        ("multi_jpeg", {"qualities": []}, "qualities is empty"),
        ("multi_jpeg", {"qualities": [20, 400]}, "quality is 400"),
        ("multi_jpeg", {"mode": "global"}, "local or vote"),
    ],
)
def test_bad_settings_are_refused(name: str, settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_defense(name, settings)


def test_two_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        jpeg.compressed(torch.rand(1, 2, 8, 8), 75, "4:2:0")
