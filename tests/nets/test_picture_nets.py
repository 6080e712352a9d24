"""AlexNet, VGG, Inception and LPIPS: the originals' outputs on random weights, read from files of the true form."""

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.errors import WeightsError
from talkface.nets.inception import load_inception, to_input
from talkface.nets.lpips import Lpips, heads_file, load_heads
from talkface.nets.vgg import IMAGENET_MEAN, IMAGENET_STD, Trunk, load_alexnet, load_trunk


def by_rule(golden: Path, name: str) -> tuple[np.lib.npyio.NpzFile, dict[str, torch.Tensor]]:
    """Golden values, and the weights they were made with."""
    values = np.load(golden / f"{name}.npz")
    config = json.loads(str(values["config"]))
    state = {key: made(key, shape, dtype, config, values) for key, shape, dtype in config["layout"]}
    return values, {key: torch.from_numpy(value) for key, value in state.items()}


def made(key: str, shape: list[int], dtype: str, config: dict, values: np.lib.npyio.NpzFile) -> np.ndarray:
    if f"state/{key}" in values.files:
        scalar = key.endswith("num_batches_tracked")
        return values[f"state/{key}"].reshape(() if scalar else shape).astype(dtype)
    rng = np.random.RandomState((zlib.crc32(key.encode()) + config["seed"]) % 2**32)
    n = rng.standard_normal(int(np.prod(shape))).astype(np.float32).reshape(shape)
    if key.endswith("running_var"):
        return 0.5 + abs(n)
    if len(shape) >= 2:
        return n * np.float32(config["gain"] / np.sqrt(np.prod(shape[1:])))
    return 1 + np.float32(0.2) * n if key.endswith("weight") else np.float32(0.1) * n


def saved(state: dict[str, torch.Tensor], folder: Path, *classifier: str) -> Path:
    """The weights as a file of the published form, with a classifier that must be passed over."""
    path = folder / "weights.pth"
    torch.save({**state, **{name: torch.zeros(3) for name in classifier}}, path)
    return path


def near(got: torch.Tensor, want: np.ndarray, tolerance: float = 2e-5) -> None:
    assert got.shape == want.shape
    assert np.abs(got.numpy() - want).max() <= tolerance * max(1, np.abs(want).max())


@pytest.mark.parametrize(("net", "trunk", "step"), [("alex", "alexnet", 1), ("vgg", "vgg16", 2)])
def test_lpips_is_the_published_distance(golden: Path, net: str, trunk: str, step: int, tmp_path: Path) -> None:
    values, state = by_rule(golden, f"lpips_{net}")
    loaded = load_trunk(trunk, saved(state, tmp_path, "classifier.6.weight", "classifier.6.bias"))
    a, b, noisy = (torch.from_numpy(values[f"in/{name}"]) for name in ("a", "b", "a_noisy"))
    for heads in ("rule_heads", "published_heads_v0.1"):
        ours = load_heads(net) if heads != "rule_heads" else [
            torch.from_numpy(values[f"out/rule_heads/lin{i}"]).reshape(1, -1, 1, 1) for i in range(5)
        ]  # fmt: skip
        distance = Lpips(loaded, ours)
        near(distance(a, b), values[f"out/{heads}/a_b"].reshape(1))
        near(distance(a, noisy), values[f"out/{heads}/a_noisy"].reshape(1))
        near(distance(b, a), values[f"out/{heads}/a_b"].reshape(1))
        assert distance(a, a).item() == 0
    for tap, found in enumerate(loaded((a - distance.shift) / distance.scale)):
        near(found[:, ::step], values[f"out/tap{tap}_a"])


def test_lpips_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    distance = Lpips(Trunk("alexnet"), load_heads("alex"))
    a, b = torch.rand(2, 5, 3, 64, 64) * 2 - 1
    together = distance(a, b)
    one_by_one = torch.cat([distance(x[None], y[None]) for x, y in zip(a, b, strict=True)])
    assert together == pytest.approx(one_by_one, rel=1e-4) and together.min() > 0


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_heads_are_the_published_ones(golden: Path, net: str) -> None:
    known = json.loads((golden / "metrics.json").read_text())["lpips_heads_v0.1"][net]
    digest = hashlib.sha256(heads_file(net).read_bytes()).hexdigest()
    assert digest == known["sha256_of_the_file_inside_torchmetrics"]


def test_vgg19_sees_what_the_perceptual_loss_sees(golden: Path, tmp_path: Path) -> None:
    values, state = by_rule(golden, "vgg19_perceptual")
    net = load_trunk("vgg19", saved(state, tmp_path, "classifier.0.weight"))
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    for tap, found in enumerate(net((torch.from_numpy(values["in/a"]) - mean) / std), start=1):
        want = values[f"out/relu{tap}_1"]
        near(found[:, :: found.shape[1] // want.shape[1]], want)


def test_inception_is_pytorch_fids(golden: Path, tmp_path: Path) -> None:
    values, state = by_rule(golden, "fid_inception")
    net = load_inception(saved(state, tmp_path, "fc.weight", "fc.bias"))
    pictures = torch.from_numpy(values["in/image"])
    near(to_input(pictures)[:, :, ::9, ::9], values["out/input_299_every_9th"])
    near(net(to_input(pictures)), values["out/pool3"], 1e-4)


def test_inception_without_counters_is_accepted(golden: Path, tmp_path: Path) -> None:
    _, state = by_rule(golden, "fid_inception")
    load_inception(saved({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, tmp_path))


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    path = saved(dict(Trunk("vgg16").state_dict()), tmp_path)
    with pytest.raises(WeightsError, match=r"not the weights of alexnet: .* missing"):
        load_alexnet(path)
