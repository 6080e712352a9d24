"""What every annotator must keep, whichever files lie in talkface/annotate: a new one is covered by being there."""

import pickle
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from talkface.annotate.base import (
    Annotator,
    AnnotatorConfig,
    ClipView,
    FaceView,
    Result,
    annotator_class,
    annotator_names,
    in_order,
    make_annotator,
    producer,
    require_fit,
    require_scores,
    weights_of,
)
from talkface.clip import NS, Clip, ColumnSpec, FrameTable, Labels, Probe, ScoreSpec, Source, Timeline
from talkface.datasets.format.schema import CLIP_FIELDS
from talkface.errors import ConfigError, WeightsError
from talkface.vocab import EMOTIONS, SAMPLE_RATE
from talkface.weights import REGISTRY, Models
from tests.annotate.stand_ins import MAKERS, SETTINGS, SIZE, stand_in_models, synthetic_video

NAMES = annotator_names()
WIDTH, HEIGHT, FRAMES = 320, 240, 10
LOST, MESHLESS, SHAPELESS = 5, 7, 8
"""Frames without a face, with a face but no mesh, with a mesh but no blendshapes."""
CROP = np.array([[1.6, 0, 0], [0, 1.6, 64]])
"""The middle of the picture, where the made-up meshes are, is the middle of the crop, where the synthetic face is."""

Open = Callable[[str], list[Annotator]]


@pytest.fixture(scope="session")
def opened(request: pytest.FixtureRequest, stand_ins: Path) -> Open:
    """Open an annotator and those it needs, in their order, with default settings."""

    def models_for(annotator: Annotator) -> Models:
        missing = [group for group in annotator.weights if not any(_installed(name) for name in group)]
        made = [name for group in missing for name in group if name in MAKERS]
        if len(made) < len(missing):
            return Models(request.getfixturevalue("models"), offline=True)
        return stand_in_models(stand_ins, *made)

    def chain(name: str) -> list[Annotator]:
        annotators = [make_annotator(n, SETTINGS.get(n, {})) for n in in_order([name])]
        for annotator in annotators:
            annotator.open(models_for(annotator))
        return annotators

    return chain


def _installed(name: str) -> bool:
    return REGISTRY[name].kind in ("wheel", "package")


def mesh_at(frame: int, rng: np.random.Generator) -> np.ndarray:
    """Points around the middle of the picture that move little from frame to frame."""
    still = np.random.default_rng(0).normal(0, 25, (478, 3))
    middle = np.array([160 + frame, 120, 0])
    return np.asarray(still + middle + rng.normal(0, 0.5, (478, 3)), np.float32)


def faces(seed: int, lost: tuple[int, ...] = (LOST,)) -> list[FaceView | None]:
    """What the tracker saw in each frame of a made-up clip; None where it lost the face."""
    rng = np.random.default_rng(seed)
    views: list[FaceView | None] = []
    for frame in range(FRAMES):
        view = FaceView(
            pixels=rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
            pts_ns=frame * NS // 25,
            box=np.array([100 + frame, 60 + seed, 220 + frame, 190, 0.9], np.float32),
            mesh=None if frame == MESHLESS else mesh_at(frame, rng),
            shapes=None if frame in (MESHLESS, SHAPELESS) else rng.random(52, np.float32),
            n_faces=int(rng.integers(1, 4)),
        )
        views.append(None if frame in lost else view)
    return views


def clip_of(seed: int) -> Clip:
    probe = Probe(container="mp4", duration=1.0, width=WIDTH, height=HEIGHT, fps=25.0)
    labels = Labels(emotion=EMOTIONS[seed], intensity=2)
    source = Source(
        uri=f"{seed}.mp4", name=f"{seed}.mp4", sha256=str(seed), size=1, layout="plain", labels=labels, probe=probe
    )
    end_ns = FRAMES * NS // 25
    return Clip(
        key=f"clip-{seed}", source=source, start_ns=0, end_ns=end_ns, track=0, shot=0, crop=CROP, crop_size=SIZE
    )


def sound_of(seed: int) -> np.ndarray:
    n_samples = FRAMES * SAMPLE_RATE // 25
    return np.random.default_rng(seed).normal(0, 2000, n_samples).astype(np.int16)


def by_frame(annotators: list[Annotator], views: list[FaceView | None]) -> dict[str, np.ndarray]:
    """Columns of the annotators that see frames; NaN where a frame has no face or its row was left out."""
    seeing = [annotator for annotator in annotators if hasattr(annotator, "frame")]
    specs = {spec.name: spec for annotator in seeing for spec in annotator.columns if spec.clock == "frame"}
    columns = {name: np.full((len(views), *spec.shape), np.nan, spec.dtype) for name, spec in specs.items()}
    for index, view in enumerate(views):
        known: dict[str, np.ndarray] = {}
        for annotator in seeing if view is not None else ():
            rows = {name: known[name] for name in annotator.needs if name in known}
            known |= annotator.frame(replace(view, rows=rows))
        for name, row in known.items():
            assert (row.dtype, row.shape) == (np.dtype(specs[name].dtype), specs[name].shape), name
            columns[name][index] = row
    return columns


def annotate(
    annotators: list[Annotator], seed: int, *, has_sound: bool = True, lost: tuple[int, ...] = (LOST,)
) -> Result:
    """Run a made-up clip through the annotators; the columns of all, the scores of the last."""
    columns = by_frame(annotators, faces(seed, lost))
    on_frames = {spec.name for annotator in annotators for spec in annotator.columns if spec.clock == "frame"}
    timeline = Timeline(np.arange(FRAMES, dtype=np.int64) * (NS // 25))
    sound = sound_of(seed) * has_sound
    result = Result()
    for annotator in annotators:
        table = FrameTable(timeline, {name: column for name, column in columns.items() if name in on_frames})
        view = ClipView(clip_of(seed), table, sound, has_sound, synthetic_video(seed, FRAMES))
        result = annotator.clip(view) if hasattr(annotator, "clip") else Result()
        columns |= result.columns
    return Result(columns=columns, scores=result.scores)


CASES = {"none_lost": (True, ()), "one_lost_and_mute": (False, (LOST,)), "all_lost": (True, tuple(range(FRAMES)))}
"""Has the clip sound, and in which frames was its face lost."""

Alone = Callable[[str, str], tuple[list[Annotator], Result]]


@pytest.fixture(scope="session")
def alone(opened: Open) -> Alone:
    """The annotators of a name, and what a case's clip is to them as their first: run once, networks are slow."""

    @cache
    def run(name: str, case: str) -> tuple[list[Annotator], Result]:
        has_sound, lost = CASES[case]
        annotators = opened(name)
        return annotators, annotate(annotators, seed=1, has_sound=has_sound, lost=lost)

    return run


def same(one: Result, other: Result) -> None:
    assert one.columns.keys() == other.columns.keys()
    for name, column in one.columns.items():
        assert column.tobytes() == other.columns[name].tobytes(), name
    np.testing.assert_equal(dict(one.scores), dict(other.scores))


@pytest.mark.parametrize("name", NAMES)
def test_declares_what_the_protocol_asks(name: str) -> None:
    cls = annotator_class(name)
    assert cls.name == name
    assert isinstance(cls.version, int)
    assert cls.version >= 1
    assert cls.licence
    assert issubclass(cls.Config, AnnotatorConfig)
    assert all(isinstance(spec, ColumnSpec) for spec in cls.columns)
    assert all(isinstance(spec, ScoreSpec) for spec in cls.scores)
    assert {entry for group in cls.weights for entry in group} <= REGISTRY.keys()
    assert all(producer(column) for column in cls.needs)
    assert hasattr(cls, "frame") or hasattr(cls, "clip")


@pytest.mark.parametrize("name", NAMES)
def test_columns_say_what_they_are(name: str) -> None:
    for spec in annotator_class(name).columns:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", spec.name)
        assert spec.unit
        assert spec.description
        assert not spec.names or len(spec.names) == spec.shape[-1]
        assert (spec.rate > 0) == (spec.clock == "sound")


def test_no_two_columns_or_scores_share_a_name() -> None:
    classes = [annotator_class(name) for name in NAMES]
    columns = Counter(spec.name for cls in classes for spec in cls.columns)
    scores = Counter([*(spec.name for cls in classes for spec in cls.scores), *(name for name, _ in CLIP_FIELDS)])
    assert {name for name, count in (columns + scores).items() if columns[name] > 1 or scores[name] > 1} == set()


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "annotators.md").read_text()
    cls = annotator_class(name)
    words = [name, *(spec.name for spec in cls.columns), *(spec.name for spec in cls.scores)]
    assert [word for word in words if f"`{word}`" not in page] == []
    assert f"## {name}\n" in page
    (row,) = (line for line in page.splitlines() if line.startswith(f"| [`{name}`](#{name}) |"))
    _, _, gives, _, licence, cost, share, checked, _ = (cell.strip() for cell in row.split("|"))
    assert [told(spec) for spec in cls.columns if told(spec) not in gives] == []
    assert "score" in gives or not cls.scores
    assert licence.startswith(REGISTRY[cls.weights[0][0]].licence if cls.weights else cls.licence)
    assert cost and share and "`" in checked


def told(spec: ColumnSpec) -> str:
    """A column as the page's table has it: name, shape of a row, clock."""
    clocks = {"frame": "a frame", "clip": "a clip"}
    return f"`{spec.name}` {' x '.join(map(str, spec.shape)) or '1'} {clocks.get(spec.clock, f'at {spec.rate:g} Hz')}"


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_strict_and_explained(name: str) -> None:
    config = annotator_class(name).Config
    config()
    with pytest.raises(ValidationError, match="extra"):
        config(no_such_setting=1)
    assert [key for key, field in config.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_returns_what_it_declares(name: str, case: str, alone: Alone) -> None:
    annotators, result = alone(name, case)
    declared = {spec.name: spec for annotator in annotators for spec in annotator.columns}
    assert result.columns.keys() == declared.keys()
    for column, spec in declared.items():
        spec.check(result.columns[column], frames=FRAMES)
    assert set(result.scores) == {spec.name for spec in annotators[-1].scores}
    assert all(type(value) is float for value in result.scores.values())


@pytest.mark.parametrize("name", NAMES)
def test_missing_is_nan(name: str, alone: Alone) -> None:
    """A frame without a face has no value in any column of frames, a source without sound none in any of sound.

    Latents are of the whole picture, which is there.
    """
    annotators, result = alone(name, "one_lost_and_mute")
    for spec in annotators[-1].columns:
        if spec.clock == "frame" and spec.name != "latent":
            assert np.isnan(result.columns[spec.name][LOST]).all(), spec.name
        if spec.clock == "sound" and np.issubdtype(np.dtype(spec.dtype), np.floating):
            assert np.isnan(result.columns[spec.name]).all(), spec.name


@pytest.mark.parametrize("name", NAMES)
def test_results_depend_on_their_clip_alone(name: str, opened: Open, alone: Alone) -> None:
    """Not on the clip before; and what is made of pixels, mesh, shapes or sound is not a constant."""
    _, expected = alone(name, "none_lost")
    annotators = opened(name)
    other = annotate(annotators, seed=2, lost=())
    same(annotate(annotators, seed=1, lost=()), expected)
    for spec in (s for s in annotators[-1].columns if s.unit != "ns"):  # times of clips of one length may agree
        assert other.columns[spec.name].tobytes() != expected.columns[spec.name].tobytes(), spec.name


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_are(name: str, opened: Open) -> None:
    views = [view for view in faces(3) if view is not None]
    for view in views:
        for array in (view.pixels, view.box, view.mesh, view.shapes):
            if array is not None:
                array.flags.writeable = False
    by_frame(opened(name), list(views))


@pytest.mark.parametrize("name", NAMES)
def test_pickles_before_it_is_opened(name: str) -> None:
    """Workers are started afresh: annotators travel to them as name and settings, specs to the manifest."""
    cls = annotator_class(name)
    again = pickle.loads(pickle.dumps(cls(cls.Config())))
    assert again.name == name
    assert pickle.loads(pickle.dumps((cls.columns, cls.scores))) == (cls.columns, cls.scores)


def test_a_threshold_on_no_score_is_refused() -> None:
    require_scores(["coverage", "speech_share"])
    with pytest.raises(ConfigError, match="Did you mean 'coverage'"):
        require_scores(["coverge"])


def test_all_licences_are_asked_for_before_any_file(tmp_path: Path) -> None:
    """wav2vec's file is free and not here, those of fan and syncnet are neither: told is that these may not be used."""
    annotators = [make_annotator(name, {}) for name in ("wav2vec", "fan", "syncnet")]
    with pytest.raises(ConfigError) as refused:
        require_fit(annotators, Models(offline=True, cache=tmp_path), "commercial")
    assert [line.split(", which does not allow commercial use")[0] for line in str(refused.value).splitlines()] == [
        f"{name}: its model file {name} has the licence {REGISTRY[name].licence}" for name in ("fan", "syncnet")
    ]
    with pytest.raises(WeightsError, match=r"wav2vec: wav2vec2-base-960h .* is not on this machine"):
        require_fit(annotators[:1], Models(offline=True, cache=tmp_path), "commercial")


def test_all_files_that_are_missing_are_told_at_once(tmp_path: Path) -> None:
    """Without a way to one of them nothing is downloaded: fan's download fails, and would be one line more."""
    registry = {name: replace(weight, url="http://127.0.0.1:9/") for name, weight in REGISTRY.items()}
    models = Models(cache=tmp_path, registry=registry)
    annotators = [make_annotator(name, {}) for name in ("fan", "flame", "mel", "ctc")]
    annotators[-1].weights = (("flame",),)
    with pytest.raises(WeightsError) as missing:
        require_fit(annotators, models, "any")
    flame, ctc = str(missing.value).splitlines()
    for line, words in {flame: ("flame", "deca", "flame, flame_shape"), ctc: ("ctc", "flame", "ctc")}.items():
        assert line.startswith(f"{words[0]}: {REGISTRY[words[1]].filename} ({words[1]}, licence ")
        assert f"toolkit models add {words[1]} PATH" in line
        assert line.endswith(f"To go on without {words[2]}, leave {words[0]} out.")
    with pytest.raises(WeightsError, match=r"^fan: [^\n]* could not be downloaded [^\n]*leave fan out\.$"):
        weights_of(annotators[:1], models)
    require_fit(annotators[:1], models, "any")


def test_a_package_that_is_not_installed_is_missed_before_any_file(tmp_path: Path) -> None:
    class Odd(annotator_class("ctc")):  # type: ignore[misc]
        packages = ("no_such_package",)

    for name, package in {"wav2vec": "transformers", "ctc": "transformers", "fan": "face_alignment"}.items():
        assert annotator_class(name).packages == (package,)  # type: ignore[attr-defined]
    with pytest.raises(WeightsError) as error:
        require_fit([make_annotator("wav2vec", {}), Odd(Odd.Config())], Models(offline=True, cache=tmp_path), "any")
    for words in ("ctc: needs the package no_such_package", "pip install 'talkface[annotate]'", "leave ctc out"):
        assert words in str(error.value)
