"""StyleGAN2's layers and networks, by hand where a hand can."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raremix.generate import Form, StyleGAN2
from raremix.generate.stylegan2_layers import (
    NoisyConv,
    ScaledConv,
    ScaledLinear,
    StyledConv,
    double,
    low_pass,
    unit_length,
    with_spread,
)
from raremix.generate.stylegan2_networks import HalvingBlock, PairDiscriminator, StyleMapping, noise_sides, widths_of

FORM = Form(size=32, channels=2, classes=3)
SMALL = StyleGAN2(latent=5, style=6, channel_max=8)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def networks() -> dict[str, nn.Module]:
    return SMALL.networks(FORM, seed=0)


# Layers


def test_demodulation_by_hand() -> None:
    conv = StyledConv(2, 1, 1, style=1)
    conv.weight.data = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1) / conv.gain
    conv.affine.weight.data.zero_()
    x = torch.ones(1, 2, 1, 1)
    for scale, expected in (((1.0, 1.0), 7 / 5), ((2.0, 0.0), 1.0), ((1.0, 3.0), 15 / math.sqrt(9 + 144))):
        conv.affine.bias.data = torch.tensor(scale)
        assert float(conv(x, torch.zeros(1, 1)).detach()) == pytest.approx(expected, rel=1e-5)
    conv.is_demodulated = False
    assert float(conv(x, torch.zeros(1, 1)).detach()) == pytest.approx(15, rel=1e-5)


def test_demodulated_outputs_have_unit_variance_whatever_the_style() -> None:
    conv = StyledConv(16, 32, 3, style=4)
    for size in (0.1, 1.0, 30.0):
        # The border sees zeros, and is left out.
        found = conv(torch.randn(8, 16, 20, 20), size * torch.randn(8, 4))[..., 1:-1, 1:-1].detach()
        assert float(found.std()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("is_doubling", [False, True])
def test_it_is_the_convolution_with_weights_of_its_own_per_image(is_doubling: bool) -> None:
    conv = StyledConv(3, 5, 3, style=4, is_doubling=is_doubling)
    x, style = torch.randn(2, 3, 8, 8), torch.randn(2, 4)
    scale = conv.affine(style)
    weight = (conv.weight * conv.gain)[None] * scale[:, None, :, None, None]
    weight = weight / weight.square().sum(dim=(2, 3, 4), keepdim=True).add(1e-8).sqrt()
    grouped = x.view(1, 6, 8, 8)
    if is_doubling:
        weight = weight.transpose(1, 2).reshape(6, 5, 3, 3)
        expected = functional.conv_transpose2d(grouped, weight, stride=2, groups=2).view(2, 5, 17, 17)
        expected = low_pass(expected, padding=1, gain=4.0)
    else:
        expected = functional.conv2d(grouped, weight.reshape(10, 3, 3, 3), padding=1, groups=2).view(2, 5, 8, 8)
    assert torch.allclose(conv(x, style), expected, atol=1e-5)


def test_all_layers_learn_at_the_same_relative_speed() -> None:
    for inner in (4, 400):
        layer = ScaledLinear(inner, 8)
        x = torch.randn(2000, inner)
        assert float(layer(x).detach().std()) == pytest.approx(1, rel=0.15), "as wide as it comes in"
        assert float(layer.weight.detach().std()) == pytest.approx(1, rel=0.25)
    layer = ScaledLinear(4, 1)
    layer.weight.data.fill_(1.0)
    layer.bias.data.fill_(3.0)
    assert layer(torch.ones(1, 4)).tolist() == [[0.5 * 4 + 3]]
    conv = ScaledConv(4, 1, 3)
    conv.weight.data.fill_(1.0)
    assert float(conv(torch.ones(1, 4, 3, 3))[0, 0, 1, 1].detach()) == pytest.approx(36 / 6)


def test_a_slower_layer_is_the_same_function_and_moves_less() -> None:
    moved = []
    for rate in (1.0, 0.01):
        layer = ScaledLinear(4, 1, bias=0.5, rate=rate)
        assert layer(torch.zeros(1, 4)).tolist() == [[pytest.approx(0.5)]]
        before = layer(torch.ones(1, 4)).detach()
        layer(torch.ones(1, 4)).sum().backward()
        torch.optim.Adam(layer.parameters(), lr=0.1).step()
        moved.append(float((before - layer(torch.ones(1, 4))).detach()))
    # Adam moves every parameter by its rate: four weights at gain 1/2, and the bias.
    assert moved[0] == pytest.approx(0.1 * (4 * 0.5 + 1), rel=1e-4)
    assert moved[1] == pytest.approx(0.01 * moved[0], rel=1e-3)


def test_filters_keep_the_mean() -> None:
    ones = torch.ones(1, 2, 8, 8)
    for found in (low_pass(ones, padding=1), double(ones)):
        assert torch.allclose(found[..., 1:-1, 1:-1], torch.ones(()), atol=1e-6)
    dot = torch.zeros(1, 1, 8, 8)
    dot[0, 0, 3, 3] = 1
    assert float(double(dot).sum()) == pytest.approx(4), "as bright, on four times the pixels"
    assert double(dot)[0, 0, 6].tolist() == pytest.approx([0, 0, 0, 0, 0, 3 / 16, 9 / 16, 9 / 16, 3 / 16, *[0] * 7])
    assert float(low_pass(dot, padding=1, gain=4.0).sum()) == pytest.approx(4)


def test_nothing_moves_sideways() -> None:
    # With a symmetric kernel, what is symmetric stays so: the filters and strides are centred.
    x = torch.randn(1, 2, 8, 8)
    x = x + x.flip(-1)
    grow, shrink = StyledConv(2, 3, 3, style=1, is_doubling=True), ScaledConv(2, 3, 3, is_halving=True)
    short = ScaledConv(2, 3, 1, is_halving=True)
    for layer in (grow, shrink, short):
        layer.weight.data = layer.weight.data + layer.weight.data.flip(-1)
    for found in (grow(x, torch.ones(1, 1)), shrink(x), short(x), double(x)):
        assert torch.allclose(found, found.flip(-1), atol=1e-5)
    assert [found.shape[-1] for found in (grow(x, torch.ones(1, 1)), shrink(x), short(x))] == [16, 4, 4]


def test_noise_counts_once_its_strength_is_learnt() -> None:
    layer = NoisyConv(2, 2, style=1, is_doubling=False)
    x, style, noise = torch.randn(1, 2, 4, 4), torch.ones(1, 1), torch.randn(1, 1, 4, 4)
    still = layer(x, style, torch.zeros_like(noise))
    assert torch.equal(layer(x, style, noise), still)
    layer.strength.data.fill_(1.0)
    inner = layer.conv(x, style) + noise
    assert torch.allclose(layer(x, style, noise), math.sqrt(2) * functional.leaky_relu(inner, 0.2))


def test_the_spread_of_a_group_by_hand() -> None:
    # Two groups of four: rows 0, 2, 4, 6 and 1, 3, 5, 7; deviations 2 and 0.
    x = torch.tensor([0.0, 5.0, 0.0, 5.0, 4.0, 5.0, 4.0, 5.0]).view(8, 1, 1, 1).expand(-1, 3, 2, 2)
    found = with_spread(x)
    assert found.shape == (8, 4, 2, 2)
    assert torch.equal(found[:, :3], x)
    assert found[:, 3, 0, 0].tolist() == pytest.approx([2, 0, 2, 0, 2, 0, 2, 0], abs=2e-4)
    # Six images make two groups of three; five make one.
    assert with_spread(torch.tensor([0.0, 7.0, 0.0, 7.0, 3.0, 7.0]).view(6, 1, 1, 1))[:, 1, 0, 0].tolist() == (
        pytest.approx([math.sqrt(2), 0] * 3, abs=2e-4)
    )
    assert with_spread(torch.rand(5, 1, 1, 1)).shape == (5, 2, 1, 1)


# Networks


def test_parameters_are_as_many_as_a_hand_counts() -> None:
    built = StyleGAN2(latent=5, style=6, depth=2, channel_base=512, channel_max=32).networks(FORM, seed=0)
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in built.items()}
    assert widths_of(32, base=512, widest=32) == [32, 32, 32, 16]
    # Classes' vectors, then 5 + 6 -> 6 -> 6.
    assert counts["mapping"] == 3 * 6 + (11 * 6 + 6) + (6 * 6 + 6)
    # Of a convolution: weights, bias, strength, and style -> scale.
    pairs = [(32, 32), *[(32, 32)] * 4, (32, 16), (16, 16)]
    convs = sum(9 * a * b + b + 1 + (6 * a + a) for a, b in pairs)
    draws = sum(2 * a + (6 * a + a) for a in (32, 32, 32, 16))
    assert counts["synthesis"] == 32 * 16 + convs + draws + 2
    blocks = sum(9 * a * a + a + 9 * a * b + b + a * b for a, b in ((16, 32), (32, 32), (32, 32)))
    end = (9 * 33 * 32 + 32) + (16 * 32 * 32 + 32) + (32 * 32 + 32) + 3 * 32
    assert counts["discriminator"] == (2 * 16 + 16) + blocks + end


@pytest.mark.parametrize(("side", "first", "last"), [(32, 512, 512), (128, 512, 128), (256, 512, 64), (512, 512, 64)])
def test_published_widths(side: int, first: int, last: int) -> None:
    base = 2**15 if side > 256 else 2**14
    found = widths_of(side, base=base, widest=512)
    assert (found[0], found[-1], len(found)) == (first, last, int(math.log2(side)) - 1)


def test_a_style_does_not_know_how_loud_the_noise_is() -> None:
    mapping = StyleMapping(latent=5, style=6, depth=2, classes=3, share=1.0)
    noise, classes = torch.randn(3, 5), torch.arange(3)
    assert torch.allclose(mapping(10 * noise, classes), mapping(noise, classes), atol=1e-5)
    assert unit_length(noise).square().mean(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_at_a_share_of_0_the_class_does_not_matter(networks: dict[str, nn.Module]) -> None:
    mapping, noise = networks["mapping"], torch.randn(2, 5)
    zero, two = torch.tensor([0, 0]), torch.tensor([2, 2])
    assert not torch.allclose(mapping(noise, zero), mapping(noise, two))
    mapping.share.fill_(0.0)
    assert torch.equal(mapping(noise, zero), mapping(noise, two))


def test_every_size_adds_to_the_drawing(networks: dict[str, nn.Module]) -> None:
    synthesis = networks["synthesis"]
    styles, noise = torch.randn(2, 7, 6), torch.randn(2, sum(s * s for s in noise_sides(4)))
    whole = synthesis(styles, noise)
    assert whole.shape == (2, 2, 32, 32)
    # Each of seven convolutions listens to its own style.
    for number in range(7):
        other = styles.clone()
        other[:, number] += 1
        assert not torch.allclose(synthesis(other, noise), whole)
    # With nothing drawn but by the first size, the drawing is that one, doubled three times.
    for draw in synthesis.draws[1:]:
        draw.weight.data.zero_()
    seen: list[Tensor] = []
    hook = synthesis.draws[0].register_forward_hook(lambda module, given, out: seen.append(out))
    found = synthesis(styles, noise)
    hook.remove()
    assert torch.allclose(found, double(double(double(seen[0]))), atol=1e-6)


def test_a_logit_is_a_product_with_the_class(networks: dict[str, nn.Module]) -> None:
    judge = networks["discriminator"]
    seen: list[Tensor] = []
    judge.project.register_forward_hook(lambda module, given, out: seen.append(out))
    images = torch.rand(3, 2, 32, 32)
    found = judge(images, torch.arange(3))
    expected = (seen[0] * unit_length(judge.table.weight)).sum(dim=1, keepdim=True) / math.sqrt(8)
    assert torch.allclose(found, expected, atol=1e-6)


def test_the_logit_without_a_class_does_not_depend_on_it() -> None:
    judge = PairDiscriminator(widths=[4, 4, 4, 4], channels=1, classes=2, is_doubled=True)
    images = torch.rand(2, 1, 32, 32)
    one, other = judge(images, torch.tensor([0, 0])), judge(images, torch.tensor([1, 1]))
    assert one.shape == (2, 2)
    assert torch.equal(one[:, 0], other[:, 0])
    assert not torch.allclose(one[:, 1], other[:, 1])


def test_a_residual_block_keeps_the_variance() -> None:
    block = HalvingBlock(32, 32)
    x = torch.randn(16, 32, 16, 16)
    # White noise loses most of its power to the low-pass filter; smooth maps do not.
    smooth = functional.interpolate(x[..., :4, :4], size=32, mode="bilinear")
    ratio = float((block(smooth).square().mean() / smooth.square().mean()).detach())
    assert 0.6 < ratio < 1.4


def test_in_bf16_what_comes_out_has_32_bits(networks: dict[str, nn.Module]) -> None:
    styles, noise = torch.randn(2, 7, 6), torch.randn(2, sum(s * s for s in noise_sides(4)))
    plain = networks["synthesis"](styles, noise)
    logits = networks["discriminator"](plain.detach(), torch.tensor([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        drawn = networks["synthesis"](styles, noise)
        judged = networks["discriminator"](plain.detach(), torch.tensor([0, 1]))
        style = networks["mapping"](torch.ones(1, 5), torch.tensor([1]))
    assert drawn.dtype == judged.dtype == torch.float32
    assert torch.equal(style, networks["mapping"](torch.ones(1, 5), torch.tensor([1])))
    assert not torch.equal(drawn, plain)
    assert torch.allclose(drawn, plain, atol=0.1)
    assert torch.allclose(judged, logits, atol=0.1)


@pytest.mark.parametrize(("images", "layers"), [(1, 2), (9_999, 2), (10_000, 8), (200_000, 8)])
def test_the_mapping_is_as_deep_as_the_images_allow(images: int, layers: int) -> None:
    sized = StyleGAN2(latent=4, style=4, channel_max=8).sized(images)
    mapping = sized.networks(FORM, seed=0)["mapping"]
    assert sized.depth == layers
    assert len([weight for weight in mapping.parameters() if weight.shape == (4, 4)]) >= layers - 1
    assert StyleGAN2(depth=5).sized(images).depth == 5, "what is asked for is kept"


def test_without_data_the_mapping_is_shallow() -> None:
    first, second = (
        StyleGAN2(latent=4, style=4, channel_max=8, depth=depth).networks(FORM, seed=0)["mapping"].state_dict()
        for depth in (None, 2)
    )
    assert {key: value.shape for key, value in first.items()} == {key: value.shape for key, value in second.items()}
