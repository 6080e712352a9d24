"""The UNet against guided-diffusion's outputs on random weights (`../shared/golden`), and its conditions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from talkface.nets.emodiffhead import EmoDiffHead, HeadShape
from talkface.nets.guided_unet import AttentionBlock, GuidedUNet, ResBlock, UNetShape, sinusoids
from talkface.train.diffusion import Noise, make_scheduler

SMALL = UNetShape(inputs=12, outputs=6, channels=32, multiples=(1, 2), blocks=1, attention=(2,), head_channels=16)


def near(got: torch.Tensor, want: np.ndarray) -> None:
    assert np.abs(got.detach().numpy() - want).max() <= 1e-5 * max(1, np.abs(want).max())


def loaded(net: nn.Module, values: np.lib.npyio.NpzFile, prefix: str = "state/") -> nn.Module:
    state = {k.removeprefix(prefix): torch.from_numpy(values[k]) for k in values.files if k.startswith(prefix)}
    net.load_state_dict(state)
    return net.eval()


def shape_of(module: dict) -> UNetShape:
    return UNetShape(
        inputs=module["in_channels"],
        outputs=module["out_channels"],
        channels=module["model_channels"],
        multiples=tuple(module["channel_mult"]),
        blocks=module["num_res_blocks"],
        attention=tuple(module["attention_resolutions"]),
        head_channels=module["num_head_channels"],
        dropout=module["dropout"],
    )


def test_the_unet_is_guided_diffusions(golden: Path) -> None:
    """Its weights load strictly, and every place that was kept gives its values."""
    z = np.load(golden / "guided_unet.npz")
    net = loaded(GuidedUNet(shape_of(json.loads(str(z["config"]))["module"])), z)
    x, t = (torch.from_numpy(z[f"in/{k}"]) for k in ("x", "t"))
    near(sinusoids(t, 32), z["out/time_embedding"])
    near(net.embed_time(t), z["out/emb"])
    for name in ("input_blocks.0", "input_blocks.1", "input_blocks.2", "middle_block", "output_blocks.0"):
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: near(out, z[f"out/{name}"]))
    near(net(x, {"time": net.embed_time(t)}), z["out/y"])


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_attention_is_guided_diffusions(golden: Path, order: str) -> None:
    z = np.load(golden / "guided_attention.npz")
    net = loaded(AttentionBlock(64, 16, order), z, f"state/{order}.")
    near(net(torch.from_numpy(z["in/x"])), z[f"out/{order}"])


def test_ten_steps_of_a_chain(golden: Path) -> None:
    """diffusers' scheduler, spaced as guided-diffusion spaces steps, and our network go where the original goes."""
    z = np.load(golden / "guided_chain.npz")
    config = json.loads(str(z["config"]))
    net = loaded(GuidedUNet(shape_of(config["module"])), z)
    noise = Noise(steps=1000, schedule="cosine", variance="learned_range", spacing="linspace")
    scheduler = make_scheduler(noise, clip=True)
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == sorted(z["out/timesteps"].tolist(), reverse=True)
    x = torch.from_numpy(z["in/x_T"])
    for number, t in enumerate(scheduler.timesteps):
        predicted = net(x, {"time": net.embed_time(t[None])})
        mean_and_noise = scheduler.step(predicted, t, x, generator=torch.Generator().manual_seed(0)).prev_sample
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        log_variance = scheduler._get_variance(t, predicted_variance=predicted[:, 3:])
        scale = torch.exp(0.5 * log_variance) if t > 0 else torch.zeros(1)
        x = mean_and_noise + scale * (torch.from_numpy(z["in/noise"][number]) - drawn)
        assert np.abs(x.detach().numpy() - z["out/x"][number]).max() < 1e-3


@pytest.mark.parametrize("gain", ["one_plus", "printed"])
def test_conditions_scale_and_shift_in_order(gain: str) -> None:
    """Eq. 13, with the paper's gains and with its ancestors': time, sound, expression."""
    shape = UNetShape(
        inputs=3, outputs=3, channels=32, conditions=("time", "sound", "expression"), gain=gain, dropout=0.0
    )
    block = ResBlock(shape, 32, 32)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, 32, 8, 8)
    given = {name: torch.randn(2, shape.embedding) for name in shape.conditions}
    h = block.out_layers[0](block.in_layers(x))
    layers = (block.emb_layers, block.sound_layers, block.expression_layers)
    for name, layer in zip(shape.conditions, layers, strict=True):
        s, b = layer(given[name]).chunk(2, dim=1)
        h = (s[..., None, None] + (gain == "one_plus")) * h + b[..., None, None]
    want = x + block.out_layers[3](torch.nn.functional.silu(h))
    torch.testing.assert_close(block(x, given), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gain", ["one_plus", "printed"])
def test_sound_and_expression_begin_with_no_effect(gain: str) -> None:
    plain = GuidedUNet(SMALL)
    whole = GuidedUNet(UNetShape(**{**vars(SMALL), "conditions": ("time", "sound", "expression"), "gain": gain}))
    keys = whole.load_state_dict(plain.state_dict(), strict=False)
    assert not keys.unexpected_keys and all("sound_" in k or "expression_" in k for k in keys.missing_keys)
    for name, parameter in whole.named_parameters():
        if gain == "printed" and name.endswith("emb_layers.1.bias"):
            with torch.no_grad():
                parameter[: len(parameter) // 2] += 1
    for net in (plain.eval(), whole.eval()):
        nn.init.normal_(net.out[2].weight, generator=torch.Generator().manual_seed(0))
    x, t = torch.randn(2, 12, 16, 16), torch.tensor([3, 700])
    given = {"time": plain.embed_time(t), "sound": torch.randn(2, 128), "expression": torch.randn(2, 128)}
    torch.testing.assert_close(plain(x, given), whole(x, given))


def test_the_papers_size() -> None:
    """190.3 million parameters without conditions (made without memory)."""
    with torch.device("meta"):
        net = GuidedUNet(UNetShape(inputs=12, outputs=6))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(190.3e6, rel=1e-3)


def test_every_parameter_learns_and_the_identity_is_seen() -> None:
    """No dead end in either network; other pictures of the person give other frames."""
    torch.manual_seed(0)
    net = EmoDiffHead(HeadShape(sound=4, expression=3, unet=SMALL, reference=(2,)))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    given = [torch.randn(2, n, 16, 16) for n in (3, 3, 6)]
    rest = (torch.randn(2, 5, 4), torch.randn(2, 5, 3))
    out = net(given[0], torch.tensor([5, 900]), *given[1:], *rest)
    out.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    seen = net.look(torch.randn(2, 3, 16, 16))
    other = net(given[0], torch.tensor([5, 900]), *given[1:], *rest, seen=seen)
    assert (out - other).abs().max() > 1e-3
