"""EMO's modules against what AnimateDiff's and hallo's gave on random weights (`../shared/golden`)."""

import json
from pathlib import Path

import numpy as np
import torch

from talkface.nets.emo.blocks import Block, Heard, Reading
from talkface.nets.emo.conditions import AudioProjector, FaceLocator, neighbours
from talkface.nets.emo.keys import backbone_of, reference_of, temporal_of
from talkface.nets.emo.model import Design, Emo
from talkface.nets.emo.temporal import Temporal

Arrays = dict[str, torch.Tensor]
READINGS: tuple[Reading, ...] = ("replace", "concat")


def read(golden: Path, name: str) -> tuple[dict, Arrays]:
    z = np.load(golden / f"{name}.npz")
    return json.loads(str(z["config"])), {k: torch.as_tensor(z[k]) for k in z.files if k != "config"}


def state(arrays: Arrays, prefix: str = "state/") -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def same(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= 1e-5 * max(1.0, want.abs().max().item())


@torch.no_grad()
def test_temporal_module_is_animatediffs(golden: Path) -> None:
    config, z = read(golden, "animatediff_temporal")
    made = Temporal(64, heads=config["module"]["num_attention_heads"], groups=32, longest=32)
    made.load_state_dict(temporal_of(state(z)))
    same(made(z["in/x"].transpose(1, 2)).transpose(1, 2), z["out/y"])


@torch.no_grad()
def test_motion_frames_are_hallos(golden: Path) -> None:
    """Also zero maps, which are not the same as none."""
    config, z = read(golden, "hallo_temporal_motion_frames")
    made = Temporal(64, heads=config["module"]["num_attention_heads"], groups=32, longest=32)
    made.load_state_dict(temporal_of(state(z)))
    x = z["in/x"].transpose(1, 2)
    motion = z["in/motion_tokens"].transpose(2, 3).unflatten(3, (3, 3))
    same(made(x, motion).transpose(1, 2), z["out/y"])
    same(made(x, torch.zeros_like(motion)).transpose(1, 2), z["out/y_zero_motion"])
    same(made(x).transpose(1, 2), z["out/y_without_motion"])


@torch.no_grad()
def test_audio_projector_is_hallos(golden: Path) -> None:
    config, z = read(golden, "hallo_audio_projector")
    c = config["module"]
    made = AudioProjector(
        c["seq_len"] * c["blocks"] * c["channels"], inner=c["intermediate_dim"], tokens=c["context_tokens"],
        width=c["output_dim"],
    )  # fmt: skip
    missing = made.load_state_dict(state(z), strict=False)
    assert missing.missing_keys == ["null"] and not missing.unexpected_keys
    windows = neighbours(z["in/audio"][None], 2)
    same(windows[0], z["out/windows"])
    same(made(windows.flatten(2)), z["out/tokens"])


@torch.no_grad()
def test_face_locator_is_hallos(golden: Path) -> None:
    config, z = read(golden, "hallo_face_locator")
    c = config["module"]
    made = FaceLocator(c["conditioning_embedding_channels"], c["block_out_channels"])
    made.load_state_dict(state(z))
    for given, wanted in (("mask", "feature"), ("noise", "feature_of_noise")):
        same(made(z[f"in/{given}"][:, :, 0]), z[f"out/{wanted}"][:, :, 0])


def sounding(z: Arrays) -> Block:
    """hallo's reader: its second attention looks at sound, as ours that is called audio does."""
    made = Block(32, 4, "concat", 20)
    audio = {"attn2": "audio_attn", "norm2": "audio_norm"}
    parts = ((key.partition("."), value) for key, value in state(z, "state/reader.").items())
    made.load_state_dict({f"{audio.get(first, first)}.{rest}": value for (first, _, rest), value in parts})
    return made


def writer(z: Arrays) -> Block:
    """hallo's writer without the attention to a text."""
    made = Block(32, 4, None, None)
    made.load_state_dict({k: v for k, v in state(z, "state/writer.").items() if not k.startswith(("attn2", "norm2"))})
    return made


@torch.no_grad()
def test_reference_attention_is_hallos(golden: Path) -> None:
    """hallo repeats the bank with the clips running fastest, so that its rows here are (frames, batch)."""
    config, z = read(golden, "hallo_reference_attention")
    batch, frames = config["batch"], config["frames"]

    def by_clip(rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(0, (frames, batch)).transpose(0, 1).flatten(0, 1)

    _, bank = writer(z)(z["in/reference"], Heard())
    same(bank, z["out/bank"])
    read_ = bank.unflatten(0, (batch, -1))[:, 0]
    hidden, audio, made = by_clip(z["in/hidden"]), by_clip(z["in/hidden_context"]), sounding(z)
    same(made(hidden, Heard(read_, None, audio))[0], by_clip(z["out/reader_y"]))
    same(made(hidden, Heard(None, None, audio))[0], by_clip(z["out/reader_y_without_reference"]))


@torch.no_grad()
def test_a_clip_without_reference_attends_to_itself(golden: Path) -> None:
    """hallo's unconditional half."""
    config, z = read(golden, "hallo_reference_attention_guidance")
    read_ = z["out/bank"].unflatten(0, (2, -1))[:, 0]
    keep = torch.tensor([False, True])
    made = sounding(z)(z["in/hidden"], Heard(read_, keep, z["in/hidden_context"]))[0]
    same(made[: config["frames"]], z["out/reader_y"][: config["frames"]])


def test_sd15_and_animatediff_have_all_keys(golden: Path) -> None:
    """The public files' names and shapes fill backbone, ReferenceNet and temporal modules, none left over."""
    layouts = golden / "layouts"

    def empty(name: str) -> Arrays:
        found = json.loads((layouts / f"{name}.json").read_text())
        return {k: torch.empty(shape, device="meta") for k, (shape, _) in found.items()}

    sd = empty("sd15_unet")
    for reading in READINGS:
        with torch.device("meta"):
            net = Emo(Design(reading=reading), 2)
        keys = dict(net.backbone.state_dict())
        video = {k for k in keys if "motion_modules." in k}
        filled = backbone_of(sd, reading)
        assert set(filled) == {k for k in keys if k not in video and ".audio_" not in k}
        assert all(filled[k].shape == keys[k].shape for k in filled)
        assert {k: v.shape for k, v in reference_of(sd).items()} == {
            k: v.shape for k, v in net.reference.state_dict().items()
        }
        for name in ("motion_adapter_v1-5-2", "animatediff_mm_sd_v15_v2"):
            there = {k: v for k, v in empty(name).items() if not k.endswith(".pe")}
            moving = temporal_of(there)
            assert set(moving) == video
            assert all(moving[k].shape == keys[k].shape for k in video)
