"""Configuration: strict, hashed, and equal after a round trip."""

from pathlib import Path
from typing import get_args

import pytest

from talkface.commands._options import settings_of
from talkface.config import PRESETS, Build, Ingest, Pack, PresetName, Threshold
from talkface.errors import ConfigError


def test_defaults_survive_toml(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(Ingest().toml())
    assert Ingest.load(path) == Ingest.load(None) == Ingest()
    assert Ingest.load(path).hash() == Ingest().hash()


def test_any_change_changes_the_hash() -> None:
    assert Pack(unit_seconds=60).hash() != Pack().hash()


def test_settings_ask_for_the_annotators_that_they_need(tmp_path: Path) -> None:
    """In a file as on the command line, and one that is named already is not named twice."""
    path = tmp_path / "c.toml"
    path.write_text("[pack.cut]\nspeaking = true\n[pack.annotate.sync]\nfix_offset = true")
    assert Ingest.load(path).pack.wanted == (*Pack().annotators, "speaker", "sync")
    assert Pack(annotators=("sync",), annotate={"sync": {"fix_offset": True}}).wanted == ("sync",)
    assert Pack(annotate={"sync": {"fix_offset": False}}).wanted == Pack().annotators
    assert settings_of(path, None, None, True) == settings_of(path, None, None, True, speaking=True, fix_offset=True)
    assert settings_of(None, None, "mel", True, fix_offset=True).pack.wanted == ("mel", "sync")


def test_a_preset_brings_its_thresholds_and_those_given_go_before_them(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[build]\npreset = "hdtf"\n[build.thresholds]\nface_pixels = { min = 300 }\nsnr_db = { min = 9 }')
    build = Ingest.load(path).build
    assert build.thresholds["face_pixels"] == Threshold(min=300) and build.thresholds["snr_db"] == Threshold(min=9)
    assert set(build.thresholds) == {*PRESETS["hdtf"], "snr_db"}
    assert build.thresholds["yaw_max_degrees"] == Threshold(max=45)
    assert Build.model_validate(build.model_dump(mode="json")) == build
    assert set(PRESETS) == set(get_args(PresetName))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pack.cut]\nmax_second = 3", "unknown key 'pack.cut.max_second'. Did you mean 'max_seconds'?"),
        ("[bild]", "unknown key 'bild'. Did you mean 'build'?"),
        ("[pack.video]\nsize = 33", "pack.video.size: Input should be"),
        ("size = ", "not TOML"),
        ("[pack.cut]\nmin_seconds = 30", "min_seconds is more than max_seconds"),
        ("[build]\npreset = 'hdft'", "build.preset: Input should be 'mead', 'hdtf'"),
        ("[build]\nval = 0.6\ntest = 0.5", "leave nothing to train on"),
    ],
)
def test_mistakes_are_one_sentence_that_helps(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Ingest.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        Ingest.load(tmp_path / "none.toml")


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b'layout = "\xff"')
    with pytest.raises(ConfigError, match=r"c\.toml: not TOML"):
        Ingest.load(tmp_path / "c.toml")
