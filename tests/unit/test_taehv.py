"""TAEHV: layout and strictness of the files, parity, exact sparse decoding, gradients."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from vlmteach.builtin.taehv import FULL_WIDTHS, save_random_taehv
from vlmteach.decoders.taehv import TaehvDecoder
from vlmteach.decoders.taehv_file import infer_architecture
from vlmteach.decoders.taehv_latents import LATENT_DEVIATION, LATENT_MEAN
from vlmteach.decoders.taehv_layers import TimeLayer

SHAPES = json.loads(
    (Path(__file__).parents[1] / "data" / "taehv_state_dict_shapes.json").read_text()
)
VARIANTS = ("taew2_2", "taew2_2_super", "taew2_1")
PARAMETERS = {"taew2_2": 9_923_532, "taew2_2_super": 18_993_420, "taew2_1": 9_844_611}


@pytest.fixture(params=VARIANTS)
def file(request, tmp_path):
    path = tmp_path / f"{request.param}.safetensors"
    save_random_taehv(path, variant=request.param)
    return path


def load(path, dtype=torch.float64, **options):
    return TaehvDecoder.load(path, dtype=dtype, device="cpu", **options)


def latents(decoder, frames=4, height=2, width=3, dtype=torch.float64, seed=0):
    shape = (1, decoder.facts.latent_channels, frames, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rewrite(source, target, **changes):
    """A copy of a file with tensors replaced (or removed, where None)."""
    tensors = load_file(source)
    for key, value in changes.items():
        key = key.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value(tensors.get(key))
    save_file({key: value.contiguous() for key, value in tensors.items()}, target)
    return target


# An independent decoder, frame by frame: each layer is a generator fed one frame at a time that
# gives none, one or several frames on, with its memory in a local variable.


def pointwise(function):
    def layer():
        out: list = []
        while True:
            frame = yield out
            out = [function(frame)]

    return layer


def memory_block(weights, name, is_super):
    def block(both, frame):
        if is_super:
            channels = both.shape[0]
            x = F.conv2d(both, weights[f"{name}.conv.0.weight"], padding=3, groups=channels)
            x = F.conv2d(x, weights[f"{name}.conv.1.weight"], weights[f"{name}.conv.1.bias"])
            return F.conv2d(x.clamp(min=0), weights[f"{name}.conv.3.weight"]) + frame
        x = both
        for index in (0, 2, 4):
            kernel, bias = (weights[f"{name}.conv.{index}.{part}"] for part in ("weight", "bias"))
            x = F.conv2d(x.clamp(min=0) if index else x, kernel, bias, padding=1)
        return (x + frame).clamp(min=0)

    def layer():
        out: list = []
        past = None
        while True:
            frame = yield out
            past = frame * 0 if past is None else past
            out = [block(torch.cat([frame, past]), frame)]
            past = frame

    return layer


def grow(weights, name):
    def layer():
        out: list = []
        while True:
            frame = yield out
            kernel = weights[f"{name}.conv.weight"]
            out = list(F.conv2d(frame, kernel).split(frame.shape[0]))

    return layer


def reference(path, z0):
    """[1, C, t, h, w] -> unclamped [4 t, 3, H, W], one latent frame after the other."""
    weights = {key: value.to(z0.dtype) for key, value in load_file(path).items()}
    is_super = "decoder.0.weight" in weights

    def conv(index):
        kernel = weights[f"decoder.{index}.weight"]
        bias = weights.get(f"decoder.{index}.bias")
        return pointwise(lambda x: F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2))

    relu = pointwise(lambda x: x.clamp(min=0))
    double = pointwise(lambda x: x.repeat_interleave(2, 1).repeat_interleave(2, 2))
    layers = [conv(0)] if is_super else [pointwise(lambda x: 3 * torch.tanh(x / 3)), conv(1), relu]
    for start in (1, 8, 15) if is_super else (3, 9, 15):
        blocks = range(start, start + 3)
        layers += [memory_block(weights, f"decoder.{index}", is_super) for index in blocks]
        if is_super:
            layers += [conv(start + 3), relu, pointwise(lambda x: F.pixel_shuffle(x, 2))]
            layers += [grow(weights, f"decoder.{start + 6}")]
        else:
            layers += [double, grow(weights, f"decoder.{start + 4}"), conv(start + 5)]
    layers += [conv(22)] if is_super else [relu, conv(22)]

    running = [layer() for layer in layers]
    for layer in running:
        next(layer)
    done = []

    def push(frame, depth):
        if depth == len(running):
            done.append(frame)
            return
        for result in running[depth].send(frame):
            push(result, depth + 1)

    for latent in z0[0].unbind(1):
        push(latent, 0)
    patch = {3: 1, 12: 2}[done[0].shape[0]]
    return F.pixel_shuffle(torch.stack(done), patch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_width_file_has_the_published_tensors(variant, tmp_path):
    path = tmp_path / "full.safetensors"
    save_random_taehv(path, variant=variant, widths=FULL_WIDTHS[variant])
    assert {key: list(value.shape) for key, value in load_file(path).items()} == SHAPES[variant]
    decoder = load(path, torch.float32)
    assert sum(p.numel() for p in decoder.network.parameters()) == PARAMETERS[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_architecture_found_from_the_published_shapes(variant):
    found = infer_architecture({k: tuple(v) for k, v in SHAPES[variant].items()}, variant)
    assert found.kind == ("super" if variant == "taew2_2_super" else "base")
    assert found.widths == FULL_WIDTHS[variant]
    assert (found.latent_channels, found.patch) == ((16, 1) if variant == "taew2_1" else (48, 2))
    with torch.device("meta"):
        built = found.build()
    assert {f"decoder.{k}": list(v.shape) for k, v in built.state_dict().items()} == {
        k: v for k, v in SHAPES[variant].items() if k.startswith("decoder.")
    }


def test_random_file_is_deterministic_and_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        save_random_taehv(tmp_path / f"{name}.safetensors", seed=seed)
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert torch.equal(torch.get_rng_state(), before)
    assert a == b
    assert a != c


def test_random_decoder_is_lively(file):
    decoder = load(file)
    z0 = latents(decoder).requires_grad_()
    pixels = decoder.decode(z0)
    assert 0.2 < pixels.detach().std() < 0.45
    assert 0.02 < (pixels == 0).double().mean() < 0.4
    assert 0.01 < (pixels == 1).double().mean() < 0.4
    (gradient,) = torch.autograd.grad(pixels[-1].square().sum(), z0)
    assert (gradient.abs().amax((0, 1, 3, 4)) > 1e-3).all()  # every latent frame counts


def test_equals_a_sequential_decoder(file):
    decoder = load(file)
    z0 = latents(decoder)
    expected = reference(file, z0)
    assert expected.shape[0] == 16  # four frames a latent, the first three are dropped
    torch.testing.assert_close(decoder.decode(z0), expected[3:].clamp(0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("frames", [[0], [12], [0, 5, 12], [3, 4, 7, 8], [2, 2, 9]], ids=str)
def test_some_frames_equal_those_of_the_whole_clip(file, frames, dtype):
    decoder = load(file, dtype)
    z0 = latents(decoder, dtype=dtype).requires_grad_()
    whole, some = decoder.decode(z0)[frames], decoder.decode(z0, frames)
    weight = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    (whole_gradient,) = torch.autograd.grad((whole * weight).sum(), z0)
    (some_gradient,) = torch.autograd.grad((some * weight).sum(), z0)
    # Bit-equal as a rule; kernels may round differently for a single frame in float32.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    scale = float(whole_gradient.abs().max())
    torch.testing.assert_close(some, whole, rtol=0, atol=tolerance)
    torch.testing.assert_close(some_gradient, whole_gradient, rtol=0, atol=tolerance * scale)


def test_some_frames_run_each_layer_on_no_more_than_they_need(file):
    decoder = load(file)
    seen: list[int] = []
    for layer in decoder.network:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    decoder.decode(latents(decoder, frames=10), [36])
    assert seen[-1] == 1
    assert seen[0] == 8  # latent frames 2 to 9
    strides = [layer for layer in decoder.network if isinstance(layer, TimeLayer)]
    assert len(strides) == 12


def test_causal(file):
    decoder = load(file)
    z0 = latents(decoder).requires_grad_()
    (gradient,) = torch.autograd.grad(decoder.decode(z0)[8].sum(), z0)
    assert (gradient[:, :, :3] != 0).any()
    assert (gradient[:, :, 3] == 0).all()


def test_saturated_pixels_keep_their_gradient(file, tmp_path):
    gradients = []
    for name, shift in (("white", 50), ("black", -50)):
        copy = rewrite(
            file, tmp_path / f"{name}.safetensors", decoder__22__bias=lambda b, s=shift: b + s
        )
        decoder = load(copy)
        z0 = latents(decoder).requires_grad_()
        pixels = decoder.decode(z0)
        assert (pixels == (1 if shift > 0 else 0)).all()
        weight = torch.linspace(-1, 1, pixels.numel(), dtype=pixels.dtype).view_as(pixels)
        gradients += torch.autograd.grad((pixels * weight).sum(), z0)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradient_equals_finite_differences(file, tmp_path):
    decoder = load(
        rewrite(
            file,
            tmp_path / "flat.safetensors",
            decoder__22__weight=lambda w: w * 0.2,  # far from the clamp
            decoder__22__bias=lambda b: b * 0 + 0.5,
        )
    )
    z0, direction = latents(decoder), latents(decoder, seed=1)
    weight = torch.linspace(-1, 1, 13 * 3, dtype=torch.float64).view(13, 3, 1, 1)

    def loss(z):
        pixels = decoder.decode(z)
        assert 0 < pixels.min() < pixels.max() < 1
        return (pixels * weight).square().sum()

    z = z0.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z), z)
    step = 1e-6
    numeric = (loss(z0 + step * direction) - loss(z0 - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-6, atol=0)


def test_frozen_and_pixels_at_least_float32(file):
    decoder = load(file, torch.bfloat16)
    assert not decoder.network.training
    assert not any(p.requires_grad for p in decoder.network.parameters())
    assert {p.dtype for p in decoder.network.parameters()} == {torch.bfloat16}
    assert decoder.decode(latents(decoder, dtype=torch.float32)).dtype == torch.float32
    assert load(file, torch.float64).decode(latents(decoder)).dtype == torch.float64


def test_encoder_is_neither_needed_nor_built(file, tmp_path):
    tensors = load_file(file)
    half = {key: value for key, value in tensors.items() if key.startswith("decoder.")}
    save_file(half, tmp_path / "decoder.safetensors")
    decoder = load(tmp_path / "decoder.safetensors")
    z0 = latents(decoder)
    assert torch.equal(decoder.decode(z0), load(file).decode(z0))
    assert sum(p.numel() for p in decoder.network.parameters()) == sum(
        value.numel() for value in half.values()
    )


def test_larger_grow_kernel_keeps_its_last_channels(tmp_path):
    plain = tmp_path / "taew2_1.safetensors"
    save_random_taehv(plain, variant="taew2_1")
    larger = rewrite(
        plain,
        tmp_path / "larger.safetensors",
        decoder__7__conv__weight=lambda w: torch.cat([torch.full_like(w, 7.0), w]),
    )
    z0 = latents(load(plain))
    assert torch.equal(load(larger).decode(z0), load(plain).decode(z0))


@pytest.mark.parametrize("variant", ["taew2_2", "taew2_1", "taehv1_5"])
def test_lighttae_files_are_given_the_vae_latents(variant, tmp_path):
    plain = tmp_path / f"{variant}.safetensors"
    save_random_taehv(plain, variant=variant)
    light = tmp_path / f"light{variant}.safetensors"
    light.write_bytes(plain.read_bytes())
    z0 = latents(load(plain))
    channels = z0.shape[1]
    mean = torch.tensor(LATENT_MEAN[channels], dtype=z0.dtype).view(1, -1, 1, 1, 1)
    deviation = torch.tensor(LATENT_DEVIATION[channels], dtype=z0.dtype).view(1, -1, 1, 1, 1)
    expected = load(plain).decode(z0 * deviation + mean)
    assert load(light).vae_latents
    torch.testing.assert_close(load(light).decode(z0), expected)
    torch.testing.assert_close(load(plain, vae_latents=True).decode(z0), expected)
    assert torch.equal(load(light, vae_latents=False).decode(z0), load(plain).decode(z0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder__22__bias": None}, r"missing: decoder\.22\.bias"),
        ({"decoder__22__weight": None}, r"'decoder\.22\.weight' is missing"),
        ({"decoder__3__skip__weight": lambda _: torch.zeros(2)}, r"no place for: decoder\.3\.skip"),
        ({"taehv__decoder": lambda _: torch.zeros(2)}, r"no place for: taehv\.decoder"),
        ({"decoder__22__bias": lambda b: b[:-1]}, r"'decoder\.22\.bias': got shape .* expected"),
        ({"decoder__22__weight": lambda w: w[:2]}, r"got 2 output channels, expected 3 .* or 12"),
    ],
    ids=["missing", "missing-last", "extra", "foreign", "shape", "patch"],
)
def test_files_that_are_not_exactly_a_decoder_are_refused(file, changes, message, tmp_path):
    copy = rewrite(file, tmp_path / "changed.safetensors", **changes)
    with pytest.raises(ValueError, match=message) as refusal:
        load(copy)
    assert str(copy) in str(refusal.value)
    assert "expected a TAEHV file for Wan" in str(refusal.value)


def test_pickles_are_refused_with_the_remedy(tmp_path):
    path = tmp_path / "taew2_2.pth"
    torch.save({}, path)
    with pytest.raises(ValueError, match=r"\.pth.*never read.*safetensors/"):
        load(path)
    path.rename(tmp_path / "renamed.safetensors")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load(tmp_path / "renamed.safetensors")
    with pytest.raises(FileNotFoundError, match="no such TAEHV file"):
        load(tmp_path / "absent.safetensors")
