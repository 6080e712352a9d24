"""EMO: three stages from shards, each from the one before, and video of any length."""

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from talkface.annotate.mel import log_mel
from talkface.clip import ColumnSpec
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError, WeightsError
from talkface.train.base import configure
from talkface.train.checkpoint import load
from talkface.train.inputs.audio_features import SoundFacts
from talkface.train.inputs.codec import Pixels, Waves, open_vae
from talkface.train.inputs.frame_sound import heard, width
from talkface.train.inputs.head_speed import SpeedFacts, head_speed
from talkface.train.inputs.regions import box_mask, grown, union_box
from talkface.train.loop import train
from talkface.train.protocols import Portrait, Speech

QUICK = (
    "widths=[8,16]", "groups=4", "heads=2", "sound_inner=8", "tokens=2", "token_width=8", "speed_width=8",
    "locator=[4,4,4]", "training.steps=2", "training.batch_size=2", "training.evaluate_batches=1", "training.warmup=0",
    "training.save_every=2", "training.evaluate_every=2",
)  # fmt: skip


def run(filmed: str, out: Path, *changes: str) -> Path:
    """Two steps of a very small network."""
    train("emo", configure("emo", "tiny", None, [*QUICK, *changes]), Dataset(filmed), Dataset(filmed), out, cpu=True,
          say=lambda text: None)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def stages(filmed: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of each stage, each begun from the one before."""
    root = tmp_path_factory.mktemp("emo")
    runs = [run(filmed, root / "1")]
    for stage in (2, 3):
        runs.append(run(filmed, root / str(stage), f"stage={stage}", f"training.start_from={runs[-1]}"))
    return runs


def test_what_is_frozen_is_as_it_was(stages: list[Path]) -> None:
    """To the bit, and what the stage trains has moved."""
    states = [load(path).net.state_dict() for path in stages]
    trained = {2: ("motion_modules.", ".audio_", "projector."), 3: ("motion_modules.", "speed.")}
    for stage, (before, after) in enumerate(pairwise(states), 2):
        fixed = [k for k in before if not any(part in k for part in trained[stage])]
        assert fixed and all(torch.equal(before[k], after[k]) for k in fixed)
        own = [k for k in after if any(part in k for part in trained[stage])]
        assert any(k not in before or not torch.equal(before[k], after[k]) for k in own)


def test_the_order_of_stages(filmed: str, stages: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="emo's stage 2 goes on from a run of stage 1"):
        run(filmed, tmp_path / "a", "stage=2")
    with pytest.raises(ConfigError, match="is a run of stage 1; stage 3 begins from one of stage 2"):
        run(filmed, tmp_path / "b", "stage=3", f"training.start_from={stages[0]}")


@pytest.mark.parametrize("frames", [1, 4, 5, 40])
def test_video_is_as_long_as_the_sound(stages: list[Path], frames: int) -> None:
    """One, a window, one more, ten windows: exactly so many pictures; a longer sound begins with the same ones."""
    rng = np.random.default_rng(0)
    model = load(stages[2])
    task, how = model.task, model.task.Sampling(steps=2)
    sound = rng.normal(0, 3000, 3 * 16000 * 2).astype(np.int16)
    speech = Speech(sound[: round(frames / 12.5 * 16000)], {"mel": log_mel(sound)})
    picture = rng.integers(0, 255, (64, 64, 3), np.uint8)
    portrait = Portrait(picture, np.array([16.0, 16, 48, 48, 1]), np.zeros((478, 3)))

    def made(count: int) -> list[np.ndarray]:
        seeded = torch.Generator().manual_seed(3)
        with torch.no_grad():
            return list(islice(task.sample_video(model.net, speech, portrait, seeded, how), count))

    pictures = made(1000)
    assert len(pictures) == frames and pictures[0].shape == (64, 64, 3)
    assert all(np.array_equal(a, b) for a, b in zip(made(2), pictures, strict=False))


def test_a_stage_that_draws_no_video(stages: list[Path]) -> None:
    model = load(stages[0])
    portrait = Portrait(np.zeros((64, 64, 3), np.uint8), np.array([16.0, 16, 48, 48, 1]), np.zeros((478, 3)))
    speech = Speech(np.zeros(16000, np.int16), {})
    with pytest.raises(ConfigError, match="stage 1 draws single pictures"):
        next(model.task.sample_video(model.net, speech, portrait, torch.Generator(), model.task.Sampling()))


def test_codecs_give_pictures_back() -> None:
    pictures = torch.randint(0, 256, (2, 3, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(Pixels().decode(Pixels().encode(pictures)), pictures)
    waves = Waves()
    torch.testing.assert_close(waves.basis @ waves.basis.T, torch.eye(16), rtol=0, atol=1e-5)
    once = waves.decode(waves.encode(pictures // 4 + 96))
    assert (waves.decode(waves.encode(once)).int() - once.int()).abs().max() <= 1


def test_a_folder_that_holds_no_autoencoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="no autoencoder in diffusers layout"):
        open_vae(tmp_path)


def test_head_speed_is_an_angle() -> None:
    """Three degrees a frame about an axis, whichever sign the quaternions have; a gap is unknown."""
    half = torch.deg2rad(torch.arange(6) * 3.0) / 2
    q = torch.stack([half.cos(), half.sin(), 0 * half, 0 * half], dim=-1)
    q[2] *= -1
    torch.testing.assert_close(head_speed(q[None]), torch.full((1, 6), 3.0), rtol=1e-4, atol=1e-3)
    q[4] = torch.nan
    assert torch.isfinite(head_speed(q[None])[0]).tolist() == [True, True, True, True, False, False]
    facts = SpeedFacts.of_speeds(np.linspace(0, 1, 101), 3)
    np.testing.assert_allclose(facts.centres, [0.05, 0.5, 0.95])
    np.testing.assert_allclose(facts.radii, [0.225, 0.225, 0.225])


def test_the_faces_region() -> None:
    boxes = torch.tensor([[[2.0, 2, 4, 4, 1], [3, 1, 6, 4, 1]], [[torch.nan] * 5] * 2])
    around = union_box(boxes)
    assert around[0].tolist() == [2, 1, 6, 4] and torch.isnan(around[1]).all()
    made = box_mask(around, 8)
    assert made[0, 0].sum() == 12 and made[0, 0, 1:4, 2:6].all() and not made[1].any()
    assert grown(around[:1], torch.tensor([0.5]))[0].tolist() == [1, 0.25, 7, 4.75]


def test_layers_are_heard_without_what_the_first_block_sees() -> None:
    """Rows at the frames' own times, of three layers of two numbers: layer 0 is left out."""
    spec = ColumnSpec(
        name="w2v", dtype="float16", shape=(3, 2), unit="none", clock="sound", description="", rate=25.0,
        first_seconds=0.0,
    )  # fmt: skip
    sound = SoundFacts(spec, np.zeros((3, 2), np.float32), np.ones((3, 2), np.float32), (-1.0, 0.0), "wav2vec", {})
    rows = torch.arange(4 * 6, dtype=torch.float32).reshape(1, 4, 3, 2)
    found = heard(sound, rows, torch.arange(4)[None] * 40_000_000)
    assert width(sound) == found.shape[2] == 2 * 2 * 2
    assert found[0, 2].tolist() == [*rows[0, 1, 1:].flatten().tolist(), *rows[0, 2, 1:].flatten().tolist()]
