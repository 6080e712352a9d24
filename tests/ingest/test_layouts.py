"""Every layout keeps one contract, and each reads the names of its dataset."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.clip import Labels
from talkface.errors import ConfigError
from talkface.ingest.layouts.base import (
    AUTO,
    EMOTION_WORDS,
    PLAIN,
    SOUND_ENDINGS,
    Layout,
    emotion_of,
    layout_class,
    layout_names,
    load,
    share,
    with_ending,
)
from talkface.ingest.layouts.mead import CAMERAS
from talkface.vocab import EMOTIONS

NAMES = layout_names()
MEAD_TREE = "M003/video/front/angry/level_3/001.mp4"

EXAMPLES = {
    "mead": {
        MEAD_TREE: ("M003", "angry", 3, "front", "en"),
        "W009/video/left_30/neutral/level_1/040.mp4": ("W009", "neutral", 1, "left_30", "en"),
        "M003/video-001/video/down/fear/level_2/007.mp4": ("M003", "fear", 2, "down", "en"),
        "dreamtalk__M030_front_angry_level3_001.mp4": ("M030", "angry", 3, "front", "en"),
        "M030_right_60_surprised_level2_011.mp4": ("M030", "surprised", 2, "right_60", "en"),
        "spectre__M003_level_1_disgusted_015.mp4": ("M003", "disgusted", 1, None, "en"),
        "M030_ang_3_004.mp4": ("M030", "angry", 3, None, "en"),
    },
    "hdtf": {
        "RD_Radio1_000.mp4": ("Radio1", None, None, None, "en"),
        "WDA_KatieHill_000.mp4": ("KatieHill", None, None, None, "en"),
        "WDA_ChrisMurphy0_012.mp4": ("ChrisMurphy", None, None, None, "en"),
        "WRA_MarcoRubio_1.mp4": ("MarcoRubio", None, None, None, "en"),
    },
    "ravdess": {
        "Actor_01/01-01-05-02-01-01-01.mp4": ("Actor_01", "angry", 3, None, "en"),
        "Actor_24/02-02-02-02-01-01-24.mp4": ("Actor_24", "neutral", 1, None, "en"),
        "Actor_07/01-01-06-01-02-02-07.mp4": ("Actor_07", "fear", 2, None, "en"),
        "Actor_08/01-01-08-01-02-02-08.mp4": ("Actor_08", "surprised", 2, None, "en"),
    },
    "crema_d": {
        "VideoFlash/1001_DFA_ANG_XX.flv": ("1001", "angry", None, None, "en"),
        "1091_IEO_FEA_HI.flv": ("1091", "fear", 3, None, "en"),
        "1040_ITH_SAD_X.flv": ("1040", "sad", None, None, "en"),
        "1002_IEO_DIS_LO.mp4": ("1002", "disgusted", 1, None, "en"),
        "1002_IEO_HAP_MD.mp4": ("1002", "happy", 2, None, "en"),
        "1002_IEO_NEU_XX.mp4": ("1002", "neutral", 1, None, "en"),
    },
    "vfhq": {
        "Clip+G0DGRma_p48+P0+C0+F11208-11383.mp4": ("G0DGRma_p48-P0", None, None, None, None),
        "Clip+--MJTR3evMw+P2+C1+F205-350.mp4": ("--MJTR3evMw-P2", None, None, None, None),
    },
    "celebv_hq": {
        "CelebV-HQ/M2Ohb0FAaJU_1.mp4": ("M2Ohb0FAaJU", None, None, None, None),
        "CelebV-HQ/_IEVigeuffM_7_0.mp4": ("_IEVigeuffM", None, None, None, None),
    },
    "voxceleb2": {"dev/mp4/id00012/21Uxsk56VDQ/00001.mp4": ("id00012", None, None, None, None)},
    "plain": {"any thing.mp4": (None, None, None, None, None)},
}

STRANGERS = (
    "IMG_2041.MOV",
    "interview with Ana.mp4",
    "MVI_001.mp4",
    "M003.mp4",
    "videos/front/001.mp4",
    "happy_level_3.mp4",
    "2024-01-05-02.mp4",
    "clip_001_final.mp4",
    "video/front/angry/level_3/001.mp4",
    "M003/video/front/bored/level_3/001.mp4",
    "M003/video/front/angry/level_4/001.mp4",
)


def told(labels: Labels | None) -> tuple[object, ...] | None:
    return labels and (labels.speaker, labels.emotion, labels.intensity, labels.camera, labels.language)


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_has_examples(name: str) -> None:
    assert EXAMPLES[name]


@pytest.mark.parametrize(("name", "path"), [(n, p) for n, paths in EXAMPLES.items() for p in paths])
@pytest.mark.parametrize("below", ["", "/data/my videos/", "s3://bucket/raw/"])
def test_reads_the_names_of_its_dataset(name: str, path: str, below: str) -> None:
    assert told(layout_class(name)().labels(below + path)) == EXAMPLES[name][path]


@pytest.mark.parametrize("name", [n for n in NAMES if n != PLAIN])
@pytest.mark.parametrize("path", STRANGERS)
def test_leaves_others_alone(name: str, path: str) -> None:
    if layout_class(name).hint:
        assert load(AUTO, [path], {}).name == PLAIN
        return
    assert layout_class(name)().labels(path) is None


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    cls = layout_class(name)
    layout: Layout = cls()
    assert cls.name == name
    assert cls.licence
    assert cls.__doc__
    assert pickle.loads(pickle.dumps(layout)).licence == layout.licence
    for path in EXAMPLES[name]:
        sounds = layout.audio(path)
        assert all(s.endswith(SOUND_ENDINGS) for s in sounds)
        assert len(set(sounds)) == len(sounds)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=30)
@given(st.text(max_size=40))
def test_any_path_is_survived(name: str, text: str) -> None:
    layout = layout_class(name)()
    labels = layout.labels(text)
    assert labels is None or isinstance(labels, Labels)
    assert all(isinstance(s, str) for s in layout.audio(text))


@pytest.mark.parametrize("name", NAMES)
def test_auto_finds_it(name: str) -> None:
    paths = list(EXAMPLES[name])
    assert load(AUTO, paths, {}).name == name


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text()
    assert re.search(rf"^\| `{name}` \|.*\| {re.escape(layout_class(name).licence)} \|", page, re.MULTILINE)


def test_auto_needs_half() -> None:
    mead, others = list(EXAMPLES["mead"]), [f"holiday {i}.mp4" for i in range(20)]
    assert load(AUTO, mead + others[: len(mead)], {}).name == "mead"
    assert load(AUTO, mead + others[: len(mead) + 1], {}).name == PLAIN
    assert load(AUTO, [], {}).name == PLAIN
    assert share(layout_class("mead")(), [*mead, *others[: len(mead)]]) == 0.5


def test_weak_names_need_a_sign_of_their_dataset() -> None:
    """Eleven characters and a number may be anything: the word in the path or the information file must agree."""
    paths = ["/data/interview_x_1.mp4", "/data/interview_x_2.mp4"]
    assert load(AUTO, paths, {}).name == PLAIN
    assert load(AUTO, paths, {"celebvhq_info.json": b'{"clips": {}}'}).name == "celebv_hq"
    assert load("celebv_hq", paths, {}).name == "celebv_hq"


def test_unknown_layout() -> None:
    with pytest.raises(ConfigError, match="no layout named 'meda'; there are: auto, celebv_hq"):
        load("meda", [], {})


def test_celebv_hq_emotions() -> None:
    def clip(labels: object, several: bool) -> dict[str, object]:
        return {"attributes": {"emotion": {"sep_flag": several, "labels": labels}}}

    def parts(*words: str) -> list[dict[str, object]]:
        return [{"emotion": w, "start_sec": i, "end_sec": i + 1} for i, w in enumerate(words)]

    clips = {
        "M2Ohb0FAaJU_1": clip("anger", False),
        "M2Ohb0FAaJU_2": clip(parts("neutral", "happy"), True),
        "M2Ohb0FAaJU_3": clip(parts("happy", "happiness"), True),
        "M2Ohb0FAaJU_4": {"attributes": {}},
    }
    layout = layout_class("celebv_hq")(json.dumps({"clips": clips}).encode())
    found = [layout.labels(f"{name}.mp4") for name in (*clips, "M2Ohb0FAaJU_5")]
    assert [labels and labels.emotion for labels in found] == ["angry", None, "happy", None, None]


@pytest.mark.parametrize("side", [b"", b"[]", b"{}", b"\xff"])
def test_damaged_information_file(side: bytes) -> None:
    with pytest.raises(ConfigError, match="information file of CelebV-HQ"):
        layout_class("celebv_hq")(side)


def test_every_emotion_has_words() -> None:
    assert set(EMOTION_WORDS.values()) == set(EMOTIONS)
    assert all(emotion_of(name) == name for name in EMOTIONS)
    words = ("Anger", " ANG ", "fearful", "disgust", "happiness", "surprise", "calm", "contempt", "sadness")
    assert [emotion_of(w) for w in words] == [
        "angry", "angry", "fear", "disgusted", "happy", "surprised", "neutral", "contempt", "sad",
    ]  # fmt: skip
    assert emotion_of("bored") is None


PARALLEL: dict[str, Callable[[str], tuple[str, str]]] = {
    "mead": lambda root: (
        f"{root}M003/video/right_60/angry/level_3/001.mp4", f"{root}M003/audio/angry/level_3/001.m4a",
    ),
    "ravdess": lambda root: (f"{root}Actor_01/02-01-05-02-01-01-01.mp4", f"{root}Actor_01/03-01-05-02-01-01-01.wav"),
    "crema_d": lambda root: (f"{root}VideoFlash/1001_DFA_ANG_XX.flv", f"{root}AudioWAV/1001_DFA_ANG_XX.wav"),
    "voxceleb2": lambda root: (
        f"{root}mp4/id00012/21Uxsk56VDQ/00001.mp4", f"{root}aac/id00012/21Uxsk56VDQ/00001.m4a",
    ),
    "plain": lambda root: (f"{root}a.b/c d.mp4", f"{root}a.b/c d.wav"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARALLEL)
@pytest.mark.parametrize("root", ["", "/data/video/", "/mp4/front/", "memory://x/"])
def test_where_the_sound_lies(name: str, root: str) -> None:
    picture, sound = PARALLEL[name](root)
    assert layout_class(name)().audio(picture)[0] == sound


def test_endings_of_odd_names() -> None:
    assert with_ending("a.b/c", (".wav",)) == ["a.b/c.wav"]
    assert with_ending("a.b.mp4", (".wav",)) == ["a.b.wav"]


actors = st.from_regex(r"[MW]\d{3}", fullmatch=True)
cells = st.tuples(actors, st.sampled_from(CAMERAS), st.sampled_from(EMOTIONS), st.integers(1, 3), st.integers(0, 999))


@settings(deadline=None, max_examples=100)
@given(cells, st.sampled_from(["", "/data/M999/", "raw__", "x_y_"]))
def test_mead_round_trip(cell: tuple[str, str, str, int, int], before: str) -> None:
    """The tree and both flat spellings tell what they were made of, whatever stands before them."""
    actor, camera, emotion, level, take = cell
    layout = layout_class("mead")()
    flat = f"{before}{actor}_{camera}_{emotion}_level{level}_{take:03d}.mp4"
    assert told(layout.labels(flat)) == (actor, emotion, level, camera, "en")
    if "_" not in before:
        tree = f"{before}{actor}/video/{camera}/{emotion}/level_{level}/{take:03d}.mp4"
        assert told(layout.labels(tree)) == (actor, emotion, level, camera, "en")
    short = f"{before}{actor}_level_{level}_{emotion}_{take:03d}.mp4"
    assert told(layout.labels(short)) == (actor, emotion, level, None, "en")


@settings(deadline=None, max_examples=50)
@given(st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99999))
def test_video_ids_with_dashes_and_underscores(video: str, person: int, clip: int, frame: int) -> None:
    vfhq = layout_class("vfhq")().labels(f"Clip+{video}+P{person}+C{clip}+F{frame}-{frame + 90}.mp4")
    assert told(vfhq) == (f"{video}-P{person}", None, None, None, None)
    celebv = layout_class("celebv_hq")().labels(f"{video}_{person}_{clip}.mp4")
    assert celebv is not None
    assert celebv.speaker == video
