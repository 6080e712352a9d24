"""The annotator ``speech`` on a stand-in of the true format, and on the real encoder where it is at hand."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from talkface.annotate.speech import FIELD, HOP, WIDTH, Annotator, SpeechEncoderConfig, n_rows, open_encoder
from talkface.errors import WeightsError
from talkface.weights import REGISTRY, Models
from talkface.weights.published import member_of
from tests.annotate.stand_ins import stand_in_models


def opened(models: Models, **settings: float) -> Annotator:
    annotator = Annotator(SpeechEncoderConfig(**settings))
    annotator.open(models)
    return annotator


@pytest.fixture(params=["stand-in", "real"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Models:
    if request.param == "real":
        return Models(request.getfixturevalue("models"), offline=True)
    return stand_in_models(tmp_path, "moonshine_tiny_en")


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2000, round(seconds * 16000)).astype(np.int16)


@pytest.mark.parametrize("samples", [0, 1, FIELD - 1, FIELD, FIELD + HOP - 1, FIELD + HOP, 16000])
def test_any_length_has_the_rows_of_the_clock(files: Models, samples: int) -> None:
    states = opened(files).states(noise(2)[:samples])
    assert states.shape == (n_rows(samples), WIDTH) and states.dtype == np.float16
    assert np.isfinite(states).all()


def test_an_impulse_changes_most_the_row_that_is_centred_on_it(files: Models) -> None:
    """The clock of the column: row i at 28 ms + 24 ms i."""
    annotator = opened(files)
    (spec,) = annotator.columns
    quiet = (noise(4) // 40).astype(np.int16)
    for at in (1.0, 1.5, 2.2):
        struck = quiet.copy()
        struck[round(at * 16000) - 40 : round(at * 16000) + 40] = 20000
        changed = np.abs(annotator.states(struck).astype(float) - annotator.states(quiet)).sum(axis=1)
        times = spec.first_seconds + np.arange(len(changed)) / spec.rate
        assert abs(times[changed.argmax()] - at) <= FIELD / 2 / 16000 + 1 / spec.rate


def test_up_to_a_chunk_it_is_one_pass_and_beyond_a_stated_part_of_it(files: Models) -> None:
    sound = noise(12)
    whole = opened(files, chunk_seconds=30).states(sound)
    assert np.array_equal(opened(files, chunk_seconds=12).states(sound), whole)
    parts = opened(files, chunk_seconds=5, overlap_seconds=2).states(sound).astype(float)
    assert parts.shape == whole.shape
    assert np.sqrt(((parts - whole) ** 2).mean()) < whole.astype(float).std()


def test_what_is_no_encoder_is_one_line(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("text", b"no network at all")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="onnxruntime cannot open it"):
            open_encoder(str(tmp_path / name))


def test_a_member_of_a_package_that_pip_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder of wheels, which is a registry to pip; what is not there is one line."""
    with zipfile.ZipFile(tmp_path / "parcel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("parcel/data.bin", b"content")
        wheel.writestr("parcel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
        wheel.writestr("parcel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("parcel-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with member_of("pypi", "parcel", "1.0", "parcel/data.bin") as file:
        assert file.read() == b"content"
    with (
        pytest.raises(WeightsError, match=r"parcel 1\.0: no parcel/other\.bin in it"),
        member_of("pypi", "parcel", "1.0", "parcel/other.bin"),
    ):
        pass
    with (
        pytest.raises(WeightsError, match=r"parcel==2\.0: .* could not fetch it"),
        member_of("pypi", "parcel", "2.0", "parcel/data.bin"),
    ):
        pass


def test_offline_asks_nobody(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--offline forbids the download"):
        Models(tmp_path, offline=True, cache=tmp_path).get("moonshine_tiny_en")
    assert REGISTRY["moonshine_tiny_en"].commercial


def test_the_encoder_starts_without_torch() -> None:
    """Workers that listen need no second of torch's import."""
    code = "import sys, talkface.annotate.speech; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
