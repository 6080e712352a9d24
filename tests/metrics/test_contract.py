"""Every metric: found by its file, honest about what it needs, 0 or 1 for equal faces, and sure of itself with gaps."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from talkface.errors import ConfigError
from talkface.metrics.base import Comparison, Metric, WithWeights, metric, metric_names
from talkface.metrics.evaluate import evaluate, ready_for
from talkface.motion import Motion
from talkface.render.synthetic import write_wav
from talkface.vocab import ARKIT
from talkface.weights import Models
from tests.conftest import ROOT, Toolkit
from tests.metrics.making import JAW, face, moving, random_trunks, speech, versus

EQUAL = {
    "lip_vertex_error": 0, "lip_vertex_mean": 0, "flame_vertex_mean": 0, "flame_jaw_mean": 0,
    "mouth_error": 0, "upper_face_error": 0, "jaw_open_error": 0,
    "jaw_open_correlation": 1, "mouth_velocity_error": 0, "face_velocity_error": 0, "head_velocity_error": 0,
    "f_lmd": 0,
    "m_lmd": 0, "f_lmd_rig": 0, "m_lmd_rig": 0, "e_fid_arkit": 0, "e_fid_flame": 0, "f_sim": 1, "psnr": 100, "ssim": 1,
    "lpips_alex": 0,
}  # fmt: skip
CLOSE = ARKIT.index("mouthClose")


class Expert:
    """Knows that mouth and sound belong together when nothing is shifted."""

    def distance(self, who, shift_ns: int) -> np.ndarray:
        return np.full(5, abs(shift_ns) / 1e9)


class Head:
    """Twenty points that FLAME's expression and jaw move; the jaw carries five."""

    def on_jaw(self) -> np.ndarray:
        return np.arange(20) < 5

    def vertices(self, rows: np.ndarray, shape: np.ndarray) -> np.ndarray:
        return (rows @ np.random.default_rng(0).normal(0, 1e-3, (59, 60))).reshape(-1, 20, 3)


def complete(key: str = "a", seed: int = 0):
    """A face with everything that any metric needs."""
    rng = np.random.default_rng(seed)
    arkit = moving(seed)
    pictures = rng.integers(0, 255, (50, 32, 32, 3), np.uint8)
    columns = {
        "flame": rng.normal(size=(50, 59)), "lips": rng.normal(size=(50, 30, 3)),
        "lm68": rng.uniform(0, 256, (50, 68, 2)), "rig68": rng.uniform(0, 256, (50, 68, 2)),
    }  # fmt: skip
    sound = speech(arkit[:, 17])
    angles = np.cumsum(rng.normal(0, 0.02, (50, 3)), axis=0)
    return face(
        arkit, key=key, angles=angles, columns=columns, sound=sound, pictures=lambda: iter(pictures),
        identity=rng.normal(size=128), scores={"lse_d": 7.0 + seed, "lse_c": 6.0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return random_trunks(tmp_path_factory.mktemp("trunks"))


def opened(name: str, models: Models) -> Metric:
    measure = metric(name)
    if isinstance(measure, WithWeights):
        measure.open(models)
    return measure


@pytest.mark.parametrize("name", metric_names())
def test_values_are_what_was_promised(name: str, trunks: Models) -> None:
    measure = opened(name, trunks)
    both = versus(complete(), complete())
    given = replace(both, sync_expert=Expert(), flame_model=Head())
    numbers = measure.compute(given)
    assert measure.name == name and set(numbers) == set(measure.values)
    assert all(isinstance(n, float) for n in numbers.values())
    for value, number in numbers.items():
        if value in EQUAL:
            assert number == pytest.approx(EQUAL[value], abs=1e-5), value


@pytest.mark.parametrize("name", metric_names())
def test_docs_name_every_value_and_sources_are_told(name: str) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    for value in metric(name).values:
        assert f"`{value}`" in page, value


@pytest.mark.parametrize("name", [n for n in metric_names() if n not in ("pictures", "lpips")])
def test_gaps_change_little(name: str) -> None:
    """A tenth of the frames missing, and tongueOut never known: numbers stay finite and near."""
    whole, reference = complete(), complete(seed=1)
    holes = complete()
    lost = np.arange(50) % 10 == 4
    for values in holes.columns.values():
        assert values.dtype.kind == "f"
        values[lost] = np.nan
    holes.columns["arkit"][:, 51] = np.nan
    numbers = []
    for generated in (whole, holes):
        both = versus(generated, reference)
        numbers.append(metric(name).compute(replace(both, sync_expert=Expert(), flame_model=Head())))
    for value, number in numbers[0].items():
        if np.isfinite(number) and value not in ("blink_rate", "blink_length", "beat_alignment", "boundary_ratio"):
            assert numbers[1][value] == pytest.approx(number, rel=0.4, abs=0.1), value


def test_what_is_lacking_is_said() -> None:
    alone = Comparison(generated=[face()])
    assert ready_for(metric("mouth_shapes"), alone) == "no pairs"
    assert ready_for(metric("expression_frechet"), alone) == "no references"
    assert ready_for(metric("sync"), alone) == "no sync expert"
    assert "sound" in ready_for(metric("beat"), alone)
    with pytest.raises(ConfigError, match="there are"):
        metric("beauty")


def test_report_is_json_with_references_beside_descriptions() -> None:
    found = evaluate(versus(complete(), complete("b", 2)), ["head_speed", "mouth_shapes", "sync"])
    again = json.loads(json.dumps(found))
    assert again["values"]["head_velocity"]["reference"] != again["values"]["head_velocity"]["value"]
    assert again["values"]["mouth_error"]["reference"] is None
    assert again["skipped"] == {"sync": "no sync expert"}


def write(path: Path, seed: int, **about: object) -> None:
    who = face(moving(seed))
    Motion(pts_ns=who.pts_ns, arkit=who.columns["arkit"], head=who.columns["head"], provenance=about).save(path)


def test_command_on_files_and_folders(tmp_path: Path, toolkit: Toolkit) -> None:
    made, real = tmp_path / "made", tmp_path / "real"
    made.mkdir()
    real.mkdir()
    for name, seed in (("x", 0), ("y", 1)):
        write(made / f"{name}-0.npz", seed, synthetic=True, sound_sha256=name)
        write(made / f"{name}-1.npz", seed + 5, synthetic=True, sound_sha256=name)
        write(real / f"{name}.npz", seed)
    found = json.loads(toolkit("evaluate", made, "--reference", real, "--json").stdout)
    assert found["generated"]["faces"] == 4 and found["reference"]["pairs"] == 4
    values = {n: v["value"] for n, v in found["values"].items()}
    assert values["diversity"] > 0.1 and values["lip_vertex_error"] > 1 and values["f_lmd_rig"] > 0.1
    assert "beat" in found["skipped"]
    table = toolkit("evaluate", made / "x-0.npz", "--reference", real / "x.npz", "--metrics", "mouth_shapes").stdout
    assert "mouth_error" in table and " 0 " in table
    assert "no metric named" in toolkit("evaluate", made, "--metrics", "beauty", code=2).stderr
    lost = toolkit("evaluate", made, "--sync", tmp_path / "nowhere", code=1).stderr
    assert "nowhere" in lost and len(lost.strip().splitlines()) == 1


def test_motion_alone_is_measured_against_its_sound(tmp_path: Path, toolkit: Toolkit) -> None:
    who = face(moving(0))
    write(tmp_path / "m.npz", 0, synthetic=True)
    write_wav(tmp_path / "a.wav", speech(who.columns["arkit"][:, JAW] - who.columns["arkit"][:, CLOSE]))
    arguments = (tmp_path / "m.npz", "--audio", tmp_path / "a.wav", "--metrics", "beat", "--json")
    values = json.loads(toolkit("evaluate", *arguments).stdout)["values"]
    assert values["mouth_energy_correlation"]["value"] > 0.9
    write(tmp_path / "n.npz", 1)
    several = toolkit("evaluate", tmp_path, "--audio", tmp_path / "a.wav", code=2).stderr
    assert "one motion file, but here are 2 faces" in several and len(several.strip().splitlines()) == 1
