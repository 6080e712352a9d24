"""Face-vid2vid's networks against what the open implementation gave on random weights (`../shared/golden`)."""

import json
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.nets.facevid2vid.critic import Discriminator
from talkface.nets.facevid2vid.design import Design, Widths
from talkface.nets.facevid2vid.generator import Generator
from talkface.nets.facevid2vid.geometry import degrees_of, gaussians, grid, posed, rotation
from talkface.nets.facevid2vid.keypoints import KeypointDetector
from talkface.nets.facevid2vid.model import PARTS, FaceVid2Vid
from talkface.nets.facevid2vid.pose import PoseEstimator

Arrays = dict[str, torch.Tensor]
AS_PUBLISHED = Design(corners=False)


def read(golden: Path, name: str) -> tuple[dict, Arrays]:
    z = np.load(golden / f"facevid2vid_{name}.npz")
    return json.loads(str(z["config"])), {k: torch.as_tensor(z[k]) for k in z.files if k != "config"}


def state(arrays: Arrays, config: dict | None = None) -> Arrays:
    """The stored weights, and those that follow from the rule of golden's README."""
    stored = {k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")}
    for key, shape, _ in (config or {}).get("layout", []):
        if key not in stored:
            stored[key] = by_rule(key, shape, config)
    return stored


def by_rule(key: str, shape: list[int], config: dict) -> torch.Tensor:
    random = np.random.RandomState((zlib.crc32(key.encode()) + config["seed"]) % 2**32)
    n = random.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    if key.endswith("running_var"):
        return torch.as_tensor(0.5 + np.abs(n))
    if len(shape) >= 2:
        return torch.as_tensor(n * np.float32(config["gain"] / np.sqrt(np.prod(shape[1:]))))
    return torch.as_tensor(1 + np.float32(0.2) * n if key.endswith("weight") else np.float32(0.1) * n)


def same(got: torch.Tensor, want: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= tolerance * max(1.0, want.abs().max().item())


def widths(of: dict) -> Widths:
    return Widths(of["block_expansion"], of["max_features"], of["num_blocks"])


def detector_design(module: dict) -> Design:
    return Design(
        keypoints=module["num_kp"], depth=module["reshape_depth"], detector=widths(module),
        detector_scale=module["scale_factor"], temperature=module["temperature"], corners=False,
    )  # fmt: skip


def generator_design(module: dict, **more: object) -> Design:
    motion = module["dense_motion_params"]
    made = Design(
        keypoints=module["num_kp"], depth=module["reshape_depth"], volume=module["reshape_channel"],
        appearance=Widths(module["block_expansion"], module["max_features"], module["num_down_blocks"]),
        residuals=module["num_resblocks"], motion=widths(motion), compress=motion["compress"], corners=False,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["keypoints", "full_keypoints"])
@torch.no_grad()
def test_keypoints(golden: Path, name: str) -> None:
    config, z = read(golden, name)
    net = KeypointDetector(detector_design(config["module"])).eval()
    net.load_state_dict(state(z, config))
    same(net(z["in/image"]), z["out/value"])
    same(net.down(z["in/image"]), z["out/downscaled"])
    if name == "keypoints":
        same(net.heatmaps(z["in/image"]), z["out/heatmap_logits"])
        same(net.train()(z["in/image"]), z["out/value_train_mode"])


@torch.no_grad()
def test_pose_and_expression(golden: Path) -> None:
    """Yaw from the layer that the checkpoint calls fc_roll."""
    for name, divide in (("pose_expression", 16), ("full_pose_expression", 1)):
        config, z = read(golden, name)
        made = tuple(width // divide for width in Design().pose_widths)
        module = config["module"]
        design = Design(keypoints=module["num_kp"], pose_first=module["block_expansion"], pose_widths=made)
        net = PoseEstimator(design).eval()
        net.load_state_dict(state(z, config))
        tolerance = 1e-5 if divide > 1 else 1e-4
        given = net.features(z["in/image"])
        same(net.fc_roll(given), z["out/yaw"], tolerance)
        same(net.fc_yaw(given), z["out/roll"], tolerance)
        pose = net(z["in/image"])
        for axis, angle in enumerate(("yaw", "pitch", "roll")):
            same(pose.angles[:, axis], degrees_of(z[f"out/{angle}"], 99), 1e-4)
        same(pose.translation, z["out/t"], tolerance)
        same(pose.expression.flatten(1), z["out/exp"], tolerance)


@torch.no_grad()
def test_transform(golden: Path) -> None:
    """Ours turns degrees to radians with pi: the open code's 3.14 moves points by 2e-4, and nothing else differs."""
    _, z = read(golden, "transform")
    angles = {a: degrees_of(z[f"in/{a}_logits"], 99) for a in ("yaw", "pitch", "roll")}
    for name, value in angles.items():
        same(value, z[f"out/{name}_degrees_of_logits"], 1e-6)
    short = 3.14 / math.pi
    turn = rotation(*(value * short for value in angles.values()))
    same(turn, z["out/rotation_of_logits"], 1e-6)
    points = posed(z["in/canonical"], turn, z["in/t"], z["in/exp"].unflatten(1, (-1, 3)))
    same(points, z["out/value"], 1e-6)
    exact = posed(z["in/canonical"], rotation(*angles.values()), z["in/t"], z["in/exp"].unflatten(1, (-1, 3)))
    assert 1e-5 < (exact - z["out/value"]).abs().max() < 1e-2
    same(grid((3, 4, 5), z["in/t"]), z["out/grid_3d"], 1e-6)
    same(gaussians(z["in/canonical"][:1, :2], z["out/gaussian"].shape[2:]), z["out/gaussian"], 1e-6)


@pytest.mark.parametrize("name", ["generator", "spade_generator", "full_generator", "full_spade_generator"])
@torch.no_grad()
def test_generator(golden: Path, name: str) -> None:
    config, z = read(golden, name)
    more: dict = {"spade": "spade" in name}
    if "ic" in config:
        more |= {"spade_hidden": config["nhidden"], "spade_widths": (config["ic"], config["oc"])}
    net = Generator(generator_design(config["module"], **more)).eval()
    net.load_state_dict(state(z, config))
    tolerance = 1e-4 if "full" in name else 1e-5
    appearance = net.appearance(z["in/source"])
    painted = net.paint(appearance, z["in/kp_driving"], z["in/kp_source"])
    same(painted.picture, z["out/prediction"], tolerance)
    same(painted.flow.occlusion, z["out/occlusion_map"], tolerance)
    if "full" not in name:
        same(painted.flow.field, z["out/deformation"])
        same(appearance.volume, z["out/volume"])
    if name == "generator":
        same(net.dense_motion_network.compress(appearance.volume), z["out/compressed"])
        same(painted.flow.mask, z["out/mask"])
        same(painted.flow.sparse, z["out/sparse_motion"])


@torch.no_grad()
def test_sampling_over_corners_is_another_picture(golden: Path) -> None:
    """The open code samples half a cell off its own grids; ours does not unless asked to, and rest is then rest."""
    config, z = read(golden, "generator")
    made = {}
    for corners in (True, False):
        net = Generator(generator_design(config["module"], corners=corners)).eval()
        net.load_state_dict(state(z))
        made[corners] = net(z["in/source"], z["in/kp_driving"], z["in/kp_source"]).picture
    assert (made[True] - z["out/prediction"]).abs().max() > 0.1
    same(made[False], z["out/prediction"])


@pytest.mark.parametrize("name", ["discriminator", "full_discriminator"])
@torch.no_grad()
def test_discriminator(golden: Path, name: str) -> None:
    """Also one step of the power iteration in training."""
    config, z = read(golden, name)
    net = Discriminator(Design(critic=widths(config["module"]))).eval()
    net.load_state_dict(state(z, config))
    judged = net(z["in/image"])
    same(judged.scores, z["out/prediction_map_1"])
    for level, features in enumerate(judged.features):
        same(features, z[f"out/feature_maps_1/{level}"])
    same(net.train()(z["in/image"]).scores, z["out/prediction_map_1_train_mode"])
    first = net.state_dict()["discs.1.down_blocks.0.conv.weight_u"]
    same(first, z["out/first_weight_u_after_train"])


@pytest.mark.parametrize("name", ["vox-256", "vox-256_spade"])
def test_names_and_shapes_are_the_public_checkpoints(golden: Path, name: str) -> None:
    layout = json.loads((golden / "layouts" / f"facevid2vid_{name}.json").read_text())
    with torch.device("meta"):
        net = FaceVid2Vid(Design(spade=name.endswith("spade")))
    for part in PARTS:
        ours = {key: list(value.shape) for key, value in net.get_submodule(part).state_dict().items()}
        assert ours == {key: shape for key, (shape, _) in layout[part].items()}
