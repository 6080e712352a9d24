"""Latents are those of each picture, beside the shards, and windows read them where they are."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from talkface.annotate.vae import load_autoencoder
from talkface.datasets import open_dataset
from talkface.datasets.loading.pictures import Pictures
from talkface.datasets.loading.windows import Windows
from talkface.errors import ConfigError, WeightsError
from tests.annotate.stand_ins import random_vae
from tests.conftest import Toolkit


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory, filmed: str, toolkit: Toolkit) -> tuple[Path, Path]:
    """The filmed talkers with latents, and the model's folder."""
    root = tmp_path_factory.mktemp("vae")
    random_vae(root / "vae")
    shutil.copytree(filmed, root / "data")
    (root / "settings.toml").write_text(f'[pack.annotate.vae]\nmodel = "{root / "vae"}"\nside = 64\n')
    settings = ("--config", root / "settings.toml")
    toolkit("annotate", root / "data", "--with", "vae", *settings, "--offline", "--workers", "1")
    return root / "data", root / "vae"


def test_windows_hold_the_latents_of_their_pictures(annotated: tuple[Path, Path]) -> None:
    """Encoded picture by picture, at a rate that is not the clip's; references too."""
    dataset, net = open_dataset(str(annotated[0])), AutoencoderKL.from_pretrained(annotated[1]).eval()
    windows = Windows(length=4, fps=20, columns=("latent",), pictures=Pictures(size=64), reference=1, margin=5)
    key = dataset.keys()[1]
    window = next(windows.of(dataset, key, np.random.default_rng(2)))
    for frames, latents in (("frames", "latent"), ("reference", "reference_latent")):
        x = torch.from_numpy(window[frames]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            expected = torch.stack([net.encode(one[None]).latent_dist.mean[0] * 0.18215 for one in x])
        assert window[latents].shape == (len(x), 4, 8, 8)
        np.testing.assert_allclose(window[latents], expected.numpy(), atol=2e-3, rtol=2e-3)
    alone = next(Windows(length=4, fps=20, columns=("latent",)).of(dataset, key))
    assert (alone["latent"] == window["latent"]).all() and np.ptp(window["latent"][:, 0, 0, 0]) > 0


def test_the_record_names_the_model_by_its_hash(annotated: tuple[Path, Path]) -> None:
    record = open_dataset(str(annotated[0])).annotators["vae"]
    assert record.config["side"] == 64
    (made_with,) = record.weights
    assert made_with["name"] == "vae/" and len(made_with["sha256"]) == 64


@pytest.mark.parametrize("pictures", [Pictures(zoom=0.1), Pictures(light=0.1), Pictures(part=0.9), None])
def test_what_does_not_fit_latents_is_refused(pictures: Pictures | None) -> None:
    with pytest.raises(ConfigError, match="latents show the whole crop"):
        Windows(length=4, fps=25, columns=("latent",), pictures=pictures, mirror=0.5 if pictures is None else 0.0)


def test_a_folder_that_is_cut_short(tmp_path: Path) -> None:
    random_vae(tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="a damaged one"):
        load_autoencoder(tmp_path / "vae")
