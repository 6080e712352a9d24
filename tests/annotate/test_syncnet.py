"""SyncNet on stand-ins of its weights: the layers, LSE-C, LSE-D and the offset against plain references."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from talkface.errors import WeightsError
from talkface.nets.syncnet import SyncNet, agreement, embeddings, load_syncnet, n_windows
from talkface.speech.mfcc import mfcc
from tests.annotate.stand_ins import random_syncnet


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    random_syncnet(path)
    return path


@pytest.fixture(scope="module")
def net(weights: Path) -> SyncNet:
    return load_syncnet(weights)


def plain(state: dict[str, torch.Tensor], x: torch.Tensor, side: str) -> torch.Tensor:
    """The layers as the published model lists them, from names and shapes alone."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, scale, shift = (
            state[f"{name}.{part}"].reshape(1, -1, *[1] * (x.ndim - 2))
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv(x: torch.Tensor, i: int, **how: object) -> torch.Tensor:
        name = f"netcnn{side}.{i}"
        convolve = F.conv2d if x.ndim == 4 else F.conv3d
        x = convolve(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)  # type: ignore[operator]
        return norm(x, f"netcnn{side}.{i + 1}").clamp(min=0)

    if side == "aud":
        x = conv(x, 0, padding=1)
        x = F.max_pool2d(conv(x, 4, padding=1), 3, (1, 2))
        x = conv(conv(x, 8, padding=1), 11, padding=1)
        x = conv(F.max_pool2d(conv(x, 14, padding=1), 3, 2), 18)
    else:
        x = F.max_pool3d(conv(x, 0, stride=(1, 2, 2)), (1, 3, 3), (1, 2, 2))
        x = conv(x, 4, stride=(1, 2, 2), padding=(0, 1, 1))
        x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for i in (8, 11, 14):
            x = conv(x, i, padding=(0, 1, 1))
        x = conv(F.max_pool3d(x, (1, 3, 3), (1, 2, 2)), 18)
    x = x.reshape(len(x), 512)
    name = f"netfc{side}"
    x = norm(x @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"], f"{name}.1").clamp(min=0)
    return x @ state[f"{name}.3.weight"].T + state[f"{name}.3.bias"]


def test_layers_are_the_published_ones(net: SyncNet) -> None:
    state, generator = net.state_dict(), torch.Generator().manual_seed(0)
    sounds = torch.randn(2, 1, 13, 20, generator=generator) * 5
    faces = torch.randint(0, 256, (2, 3, 5, 224, 224), generator=generator).float()
    with torch.inference_mode():
        torch.testing.assert_close(net.sounds(sounds), plain(state, sounds, "aud"), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(net.faces(faces), plain(state, faces, "lip"), rtol=1e-4, atol=1e-4)


def test_windows_of_picture_and_sound_start_together(net: SyncNet) -> None:
    """n frames give n - 5 windows, BGR, whatever the batch; window i hears rows of MFCC 4 i to 4 i + 20."""
    rng = np.random.default_rng(0)
    faces, sound = rng.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8), rng.normal(0, 3000, 8 * 640).astype(np.int16)
    rows = mfcc(sound).astype(np.float32)
    seen, heard = embeddings(net, faces, mfcc(sound), windows=n_windows(len(faces), len(sound)), batch=20)
    assert len(seen) == len(heard) == 3
    again = embeddings(net, faces, mfcc(sound), windows=n_windows(len(faces), len(sound)), batch=2)
    torch.testing.assert_close(seen, again[0], rtol=1e-4, atol=1e-4)
    window = torch.from_numpy(faces[2:7, :, :, ::-1].copy()).permute(3, 0, 1, 2)[None].float()
    sound = torch.from_numpy(rows[8:28].T.copy())[None, None].float()
    with torch.inference_mode():
        torch.testing.assert_close(seen[2:], net.faces(window), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(heard[2:], net.sounds(sound), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("frames", "samples", "windows"),
    [(100, 64_000, 95), (100, 63_999, 94), (100, 80_000, 95), (110, 64_639, 95), (5, 64_000, 0), (0, 0, 0)],
)
def test_there_are_as_many_windows_as_the_authors_have(frames: int, samples: int, windows: int) -> None:
    """min(frames, floor(samples / 640)) - 5, and MFCC reach to the end of the last one."""
    assert n_windows(frames, samples) == windows
    assert windows == 0 or len(mfcc(np.zeros(samples, np.int16))) >= 4 * (windows - 1) + 20


@pytest.mark.parametrize("late", [-6, 0, 4])
def test_offset_and_distances_are_the_authors(late: int) -> None:
    rng = np.random.default_rng(1)
    faces = rng.normal(size=(60, 1024))
    sounds = np.roll(faces, late, axis=0) + rng.normal(0, 0.3, (60, 1024))
    found = agreement(torch.from_numpy(faces).float(), torch.from_numpy(sounds).float())
    means = []
    for shift in range(-15, 16):
        distances = []
        for i in range(60):
            other = sounds[i + shift] if 0 <= i + shift < 60 else np.zeros(1024)
            distances.append(np.sqrt(np.sum((faces[i] - other + 1e-6) ** 2)))
        means.append(np.mean(distances))
    assert found.offset == 15 - int(np.argmin(means)) == -late
    assert found.distance == pytest.approx(min(means), rel=1e-4)
    assert found.confidence == pytest.approx(sorted(means)[15] - min(means), rel=1e-3)


def test_another_file_is_refused_with_the_difference(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["netfclip.3.weight"] = state["netfclip.3.weight"][:512]
    torch.save(state, tmp_path / "other.model")
    with pytest.raises(WeightsError, match=r"netfclip.3.weight: expected \(1024, 512\), got \(512, 512\)"):
        load_syncnet(tmp_path / "other.model")
    torch.save([1.0], tmp_path / "list.model")
    with pytest.raises(WeightsError, match="not SyncNet's weights"):
        load_syncnet(tmp_path / "list.model")
