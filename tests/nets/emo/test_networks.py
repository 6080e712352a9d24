"""EMO's networks against diffusers' and small references, and what each stage trains."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers import MotionAdapter, UNet2DConditionModel

from talkface.errors import WeightsError
from talkface.nets.emo.blocks import Reading
from talkface.nets.emo.conditions import AudioProjector, FaceLocator, SpeedEncoder, neighbours, speed_vector
from talkface.nets.emo.keys import backbone_of, reference_of, temporal_of
from talkface.nets.emo.layers import zeroed
from talkface.nets.emo.model import Design, Emo, dead_tail, frozen
from talkface.nets.emo.temporal import Temporal
from talkface.nets.emo.unet import Given, Parts, Sizes, UNet, walk

SMALL = Sizes(latent=4, widths=(16, 32), attention=(True, True), layers=1, heads=4, groups=4, longest=8)
CENTRES = [0.1 * i for i in range(4)]


def design(reading: Reading = "replace", sizes: Sizes = SMALL) -> Design:
    return Design(
        sizes=sizes, reading=reading, sound=30, sound_inner=16, tokens=3, token_width=12, n=2, locator=(4, 8),
        centres=CENTRES, radii=[0.1] * 4, m=1, speed_width=8,
    )  # fmt: skip


def emo(stage: int, reading: Reading = "replace", *, randomise: bool = False, sizes: Sizes = SMALL) -> Emo:
    """A network; ``randomise`` fills the layers that begin at zero, behind which no gradient goes."""
    torch.manual_seed(0)
    net = Emo(design(reading, sizes), stage)
    if randomise:
        for parameter in net.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    return net


def inputs(stage: int, batch: int = 2) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    frames = 1 if stage == 1 else 3
    given = {
        "x": draw(batch, frames, 4, 8, 8), "t": torch.arange(batch) * 7, "reference": draw(batch, 4, 8, 8),
        "mask": (draw(batch, 1, 16, 16) > 0).float(),
    }  # fmt: skip
    if stage >= 2:
        given |= {"motion": draw(batch, 2, 4, 8, 8), "audio": draw(batch, frames, 30)}
    if stage >= 3:
        given |= {"speed": draw(batch, frames).abs()}
    return given


@torch.no_grad()
def test_one_frame_is_diffusers_unet() -> None:
    """Same weights, same numbers; the levels are equally wide, so that one text can stand for every reference."""
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(
        sample_size=16, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), block_out_channels=(32, 32, 32),
        layers_per_block=2, cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
    ).eval()  # fmt: skip
    ours = UNet(Sizes(4, (32, 32, 32), (True, True, False), 2, 4, 8), Parts("replace"))
    ours.load_state_dict(theirs.state_dict())
    x, t, text = torch.randn(3, 4, 16, 16), torch.tensor([1, 400, 999]), torch.randn(3, 5, 32)
    made, bank, sites = walk(ours, x, t, Given(read=[text] * 11))
    torch.testing.assert_close(made, theirs(x, t, text).sample, rtol=0, atol=1e-6)
    assert (len(bank), len(sites)) == (11, 16)


def diffusers_unet() -> UNet2DConditionModel:
    """Of Stable Diffusion's form with small widths: a text as wide as nothing else."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), block_out_channels=(16, 32), layers_per_block=1,
        cross_attention_dim=24, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip


@pytest.mark.parametrize("reading", ["replace", "concat"])
def test_stable_diffusions_weights_fill_backbone_and_reference(reading: Reading) -> None:
    sd, net = diffusers_unet().state_dict(), emo(1, reading)
    net.backbone.load_state_dict(backbone_of(sd, reading))
    net.reference.load_state_dict(reference_of(sd))
    at = "down_blocks.0.attentions.0.transformer_blocks.0"
    torch.testing.assert_close(net.backbone.state_dict()[f"{at}.attn1.to_k.weight"], sd[f"{at}.attn1.to_k.weight"])
    if reading == "replace":
        for of in ("to_k", "to_v"):
            torch.testing.assert_close(
                net.backbone.state_dict()[f"{at}.attn2.{of}.weight"], sd[f"{at}.attn1.{of}.weight"]
            )


def test_animatediffs_weights_fill_the_temporal_modules() -> None:
    """diffusers' MotionAdapter; with other positions than sinusoids it is refused."""
    adapter = MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=4, motion_norm_num_groups=4, motion_max_seq_length=8,
    ).state_dict()  # fmt: skip
    net = emo(2)
    wanted = {k for k in net.backbone.state_dict() if "motion_modules." in k}
    loaded = net.backbone.load_state_dict(temporal_of(adapter), strict=False)
    assert not loaded.unexpected_keys and not wanted & set(loaded.missing_keys)
    name = next(k for k in adapter if k.endswith(".pe"))
    with pytest.raises(WeightsError, match="no sinusoids"):
        temporal_of(adapter | {name: adapter[name] + 0.1})


@torch.no_grad()
def test_temporal_module_is_what_it_says() -> None:
    """A plain reference: every pixel is a sequence of frames, statistics are each frame's own."""
    torch.manual_seed(0)
    made = Temporal(8, heads=2, groups=2, longest=8, speed=6)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, motion, speed = torch.randn(2, 3, 8, 2, 2), torch.randn(2, 2, 8, 2, 2), torch.randn(2, 3, 6)
    got, p = made(x, motion, speed), dict(made.named_parameters())

    def attend(q_in: torch.Tensor, kv: torch.Tensor, at: str) -> torch.Tensor:
        q, k, v = (of @ p[f"{at}.to_{n}.weight"].T for n, of in (("q", q_in), ("k", kv), ("v", kv)))
        heads = [(q[:, of] @ k[:, of].T / 2).softmax(-1) @ v[:, of] for of in (slice(0, 4), slice(4, 8))]
        return torch.cat(heads, -1) @ p[f"{at}.to_out.0.weight"].T + p[f"{at}.to_out.0.bias"]

    def norm(h: torch.Tensor, at: str) -> torch.Tensor:
        return F.layer_norm(h, (8,), p[f"{at}.weight"], p[f"{at}.bias"])

    angles = torch.arange(5)[:, None] / 10_000 ** (torch.arange(0, 8, 2) / 8)
    place = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    b = "transformer_blocks.0"
    for clip in range(2):
        frames = torch.cat([motion[clip], x[clip]])
        calm = torch.stack([F.group_norm(f[None], 2, p["norm.weight"], p["norm.bias"], 1e-6)[0] for f in frames])
        for i in range(2):
            for j in range(2):
                h = calm[:, :, i, j] @ p["proj_in.weight"].T + p["proj_in.bias"]
                for k in (1, 2):
                    n = norm(h, f"{b}.norm{k}") + place
                    h = h + attend(n, n, f"{b}.attn{k}")
                told = attend(norm(h[2:], f"{b}.speed_norm"), speed[clip], f"{b}.speed_attn")
                h = torch.cat([h[:2], h[2:] + told])
                inner = norm(h, f"{b}.norm3") @ p[f"{b}.ff.net.0.proj.weight"].T + p[f"{b}.ff.net.0.proj.bias"]
                value, gate = inner.chunk(2, -1)
                gelu = value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
                h = h + gelu @ p[f"{b}.ff.net.2.weight"].T + p[f"{b}.ff.net.2.bias"]
                want = x[clip, :, :, i, j] + h[2:] @ p["proj_out.weight"].T + p["proj_out.bias"]
                torch.testing.assert_close(got[clip, :, :, i, j], want, rtol=1e-4, atol=1e-5)


def test_more_frames_than_places_are_refused() -> None:
    with pytest.raises(ValueError, match="9 frames, motion frames among them, but 8"):
        Temporal(8, heads=2, groups=2, longest=8)(torch.zeros(1, 6, 8, 1, 1), torch.zeros(1, 3, 8, 1, 1))


@torch.no_grad()
def test_projector_and_locator_are_what_they_say() -> None:
    torch.manual_seed(0)
    made = AudioProjector(30, inner=7, tokens=2, width=5)
    torch.nn.init.normal_(made.null)
    audio = torch.randn(3, 4, 30)
    audio[1, 2, 5] = math.nan
    keep = torch.tensor([True, True, False])
    h = (audio @ made.proj1.weight.T + made.proj1.bias).clamp(min=0)
    h = (h @ made.proj2.weight.T + made.proj2.bias).clamp(min=0)
    want = F.layer_norm((h @ made.proj3.weight.T + made.proj3.bias).unflatten(-1, (2, 5)), (5,))
    want[1, 2], want[2] = made.null, made.null
    torch.testing.assert_close(made(audio, keep), want)
    locator = FaceLocator(6, (3, 4, 5))
    torch.nn.init.normal_(locator.conv_out.weight)
    mask = torch.rand(2, 3, 16, 16)
    h = mask
    for layer, stride in ((locator.conv_in, 1), *zip(locator.blocks, (1, 2, 1, 2), strict=True)):
        h = F.conv2d(h, layer.weight, layer.bias, stride=stride, padding=1)
        h = h / (1 + torch.exp(-h))
    torch.testing.assert_close(locator(mask), F.conv2d(h, locator.conv_out.weight, locator.conv_out.bias, padding=1))


@torch.no_grad()
def test_speed_is_told_by_buckets() -> None:
    centres, radii = torch.tensor([0.1, 0.4]), torch.tensor([0.1, 0.2])
    told = speed_vector(torch.tensor([[0.1, 0.5]]), centres, radii)
    want = [[math.tanh(0), math.tanh(3 * -0.3 / 0.2)], [math.tanh(3 * 0.4 / 0.1), math.tanh(3 * 0.1 / 0.2)]]
    torch.testing.assert_close(told[0], torch.tensor(want))
    near = neighbours(torch.tensor([[1.0, 2.0, 3.0]]), 1)
    assert near.tolist() == [[[1, 1, 2], [1, 2, 3], [2, 3, 3]]]
    encoder = SpeedEncoder([0.1, 0.4], [0.1, 0.2], m=1, width=4)
    torch.nn.init.normal_(encoder.null)
    known = encoder(torch.tensor([[0.1, 0.2, 0.3, 0.4, math.nan]]))
    torch.testing.assert_close(known[0, 3:], encoder.null.expand(2, -1))
    assert not torch.isclose(known[0, 2], encoder.null).any()


@pytest.mark.parametrize("reading", ["replace", "concat"])
@torch.no_grad()
def test_parts_that_begin_at_zero_change_nothing(reading: Reading) -> None:
    """A stage begins as the one before it ended: exactly."""
    given, pictures = inputs(3), emo(1, reading, randomise=True)
    frames = {name: given[name] for name in ("x", "t", "reference", "mask")}
    video = emo(2, reading)
    assert not video.load_state_dict(pictures.state_dict(), strict=False).unexpected_keys
    silent = replace(video.conditions(*(given[k] for k in ("reference", "mask", "motion", "audio")), frames=3),
                     audio=None, motion=None)  # fmt: skip
    still = UNet(SMALL, Parts(reading))
    still.load_state_dict(pictures.backbone.state_dict())
    alone, _, _ = walk(still, given["x"].flatten(0, 1), given["t"].repeat_interleave(3), silent)
    assert torch.equal(video(**frames, motion=given["motion"], audio=given["audio"]), alone.unflatten(0, (2, 3)))
    moving, speedy = emo(2, reading, randomise=True), emo(3, reading)
    assert not speedy.load_state_dict(moving.state_dict(), strict=False).unexpected_keys
    assert torch.equal(speedy(**given), moving(**{k: v for k, v in given.items() if k != "speed"}))
    placed, given = emo(1, reading), inputs(1)
    assert torch.equal(placed(**given), placed(**given | {"mask": torch.zeros_like(given["mask"])}))


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("reading", ["replace", "concat"])
@pytest.mark.parametrize("attention", [(True, True), (False, True)])
def test_gradients_are_where_the_stage_says(stage: int, reading: Reading, attention: tuple[bool, bool]) -> None:
    sizes = Sizes(4, (16, 32), attention, 1, 4, 4, 8)
    net = emo(stage, reading, randomise=True, sizes=sizes)
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    keep = torch.tensor([False, True])  # a learned null has a gradient only where it stands in
    kept = {"keep_audio": keep} if stage >= 2 else {}
    kept |= {"keep_speed": keep} if stage >= 3 else {}
    net(**inputs(stage), **kept).square().mean().backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    trained = {name for name, _ in net.named_parameters()} - set(frozen(net))
    if stage == 1:
        unreached = {name for name, _ in net.named_parameters()} - reached
        assert unreached == {f"reference.{name}" for name in dead_tail(net.reference)} == set(frozen(net))
    assert trained <= reached
    named = {1: ("backbone.", "reference.", "locator."), 2: ("motion_modules.", ".audio_", "projector."),
             3: ("motion_modules.", "speed.")}  # fmt: skip
    assert all(any(part in name for part in named[stage]) for name in trained)
    assert stage == 1 or not any("reference." in name or ".audio_" in name for name in trained) or stage == 2


@torch.no_grad()
def test_what_does_not_change_is_made_once_a_window() -> None:
    """Forty steps run the ReferenceNet, the projector, the locator and the speed's MLP once each."""
    net, calls = emo(3), dict.fromkeys(("reference.conv_in", "projector", "locator", "speed", "backbone.conv_in"), 0)
    for name in calls:
        net.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    given = inputs(3)
    x, t = given.pop("x"), given.pop("t")
    conditions = net.conditions(**given, frames=3)
    for _ in range(40):
        x = net.denoise(x, t, conditions)
    assert calls.pop("backbone.conv_in") == 40 and set(calls.values()) == {1}


@torch.no_grad()
def test_a_first_clip_has_zero_maps() -> None:
    net, given = emo(2, randomise=True), inputs(2)
    motion = given.pop("motion")
    first = net(**given)
    torch.testing.assert_close(first, net(**given, motion=motion, keep_motion=torch.tensor([False, False])))
    assert not torch.allclose(first, net(**given, motion=torch.zeros_like(motion)), atol=1e-3), "not zero pictures"


@torch.no_grad()
def test_a_batch_is_its_clips() -> None:
    """Nothing leaks from clip to clip, whatever is left out of each."""
    for reading in ("replace", "concat"):
        net, given = emo(3, reading, randomise=True), inputs(3)
        first, second = torch.tensor([True, False]), torch.tensor([False, True])
        keep = {"keep_reference": first, "keep_motion": second, "keep_audio": first, "keep_speed": second}
        both = net(**given, **keep)
        for i in range(2):
            alone = net(**{k: v[[i]] for k, v in (given | keep).items()})
            torch.testing.assert_close(both[[i]], alone, rtol=1e-4, atol=1e-5)


def test_the_papers_sizes_without_memory() -> None:
    with torch.device("meta"):
        parts = dict(Emo(Design(speed_width=768), 3).named_children())
    counted = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
    assert counted["backbone"] == pytest.approx(1432.6, abs=0.1)
    assert counted["reference"] == pytest.approx(815.5, abs=0.1)
    assert counted["projector"] == pytest.approx(36.5, abs=0.1)
    assert counted["locator"] == pytest.approx(0.51, abs=0.01)


def test_zeroed_layers_are_zero() -> None:
    layer = torch.nn.Linear(2, 3)
    zeroed(layer)
    assert not layer.weight.any() and not layer.bias.any()
