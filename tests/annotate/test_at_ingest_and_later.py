"""The annotators that are added on demand, all of them, at an ingest and on a finished dataset: the same to the bit.

Their weights are stand-ins of the true format, random inside. `flame`, `wav2vec`, `ctc`, `identity` and `sync` go
through the command; those whose files the registry knows by hash go through the functions behind it.
"""

import json
import re
import shutil
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from talkface.annotate._transformers import n_rows
from talkface.config import Build, Ingest, Pack, Video
from talkface.datasets import Dataset, open_dataset
from talkface.datasets.build.job import build
from talkface.datasets.identities import same_face
from talkface.datasets.sidecars.job import annotate_dataset, remake
from talkface.datasets.verify.dataset import verify
from talkface.errors import ConfigError, DatasetError, WeightsError
from talkface.ingest.job import ingest
from talkface.ingest.scan import scan
from talkface.make_dataset import plan_of
from talkface.media import decode_flac, encode_flac
from talkface.render.synthetic import PEOPLE, make_clip
from talkface.store import Folder
from talkface.train.inputs.audio_features import SoundFacts
from talkface.weights import REGISTRY, Models
from tests.annotate.stand_ins import MAKERS, stand_in_models
from tests.conftest import Toolkit, files_of
from tests.datasets.making import edit_base

BEFORE = ("box", "landmarks", "mel")
BY_COMMAND = ("flame", "wav2vec", "ctc", "identity", "sync")
BY_HASH = ("fan", "syncnet", "speaker")
SECONDS = 1.8
"""Of the clip: `sync` says nothing of less than 1.5."""
ROWS = {
    "flame": ("float32", lambda frames, _: (frames, 59)),
    "flame_shape": ("float32", lambda *_: (100,)),
    "w2v": ("float16", lambda _, samples: (n_rows(samples), 768)),
    "ctc": ("float16", lambda _, samples: (n_rows(samples), 29)),
    "fan": ("float32", lambda frames, _: (frames, 68, 2)),
    "talk": ("float32", lambda frames, _: (frames,)),
    "lip_motion": ("float32", lambda frames, _: (frames,)),
    "identity": ("float32", lambda *_: (128,)),
}
SCORES = ("fan_confidence", "sync_offset_ms", "sync_confidence", "sync_margin", "syncnet_offset_ms", "lse_c", "lse_d",
          "speaking_share", "identity_agreement")  # fmt: skip


Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Made:
    """Two datasets of one clip: all at the ingest, and all added later."""

    whole: Path
    later: Path
    models: Models
    settings: Settings


def config_file(path: Path, settings: Settings) -> Path:
    lines = (f"[pack.annotate.{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in given.items())
             for name, given in settings.items())  # fmt: skip
    path.write_text("\n".join(lines))
    return path


def ingested(
    clip: Path, out: Path, annotators: tuple[str, ...], settings: Settings, models: Models, megabytes: float = 256
) -> Path:
    pack = Pack(annotators=annotators, annotate=settings, video=Video(size=160))
    chosen = Ingest(layout="plain", pack=pack, build=Build(shard_megabytes=megabytes))
    folder, used = Folder(out), {name: given for name, given in settings.items() if name in annotators}
    chosen = chosen.model_copy(update={"pack": chosen.pack.model_copy(update={"annotate": used})})
    build(folder, plan_of(ingest(scan([str(clip)], "plain"), folder, chosen, models, workers=0), chosen))
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, stand_ins: Path, toolkit: Toolkit) -> Made:
    root = tmp_path_factory.mktemp("made")
    models = stand_in_models(stand_ins, *MAKERS)
    how_shown = {
        "emotion": "happy",
        "seconds": SECONDS,
        "fps": 10.0,
        "size": (256, 256),
    }  # few pictures: large networks
    make_clip(root / "clip.mp4", identity=PEOPLE["M003"], **how_shown)
    (face := root / "sface").mkdir()
    shutil.copy(models.get("sface"), face / "own.onnx")
    speech = str(models.get("wav2vec"))
    settings: Settings = {
        "wav2vec": {"model": speech, "depth": 1},
        "ctc": {"model": speech},
        "identity": {"model": str(face)},
        "fan": {"flip": False},
    }
    whole = ingested(root / "clip.mp4", root / "whole", (*BEFORE, *BY_COMMAND, *BY_HASH), settings, models)
    later = ingested(root / "clip.mp4", root / "later", BEFORE, settings, models)
    config = config_file(root / "config.toml", settings)
    how = ("--config", config, "--models", stand_ins, "--offline", "--workers", "0")
    toolkit("annotate", later, "--with", ",".join(BY_COMMAND), *how)
    annotate_dataset(str(later), BY_HASH, settings, models, workers=0)
    return Made(whole, later, models, settings)


@pytest.fixture
def stale(made: Made, tmp_path: Path) -> Path:
    """The one that was added to, built anew since with other sound."""
    root = Path(shutil.copytree(made.later, tmp_path / "stale"))
    dataset = Dataset(str(root))
    (key,) = dataset.keys()
    edit_base(root, key, "flac", encode_flac(decode_flac(dataset.member(key, "flac"))[::-1].copy()))
    return root


def test_an_ingest_and_a_later_annotation_give_the_same(made: Made) -> None:
    whole, later = open_dataset(str(made.whole)), open_dataset(str(made.later))
    (one,), (other,) = whole.clips.to_pylist(), later.clips.to_pylist()
    names = [s.name for s in whole.specs() if s.name != "valid"]  # its bits are those of the base's columns
    before, after = whole.arrays(one["key"], names), later.arrays(other["key"], names)
    assert set(ROWS) < set(names)
    assert [n for n in names if before[n].tobytes() != after[n].tobytes() or before[n].dtype != after[n].dtype] == []
    assert {s.name: one[s.name] for s in whole.scores()} == {s.name: other[s.name] for s in whole.scores()}
    assert set(SCORES) < {s.name for s in whole.scores()}


def test_models_that_learn_from_either_hear_new_sound_in_the_same_way(made: Made) -> None:
    """What makes a column of new sound is what made it in the dataset, with its settings."""
    for column, settings in (("w2v", made.settings["wav2vec"]), ("ctc", made.settings["ctc"])):
        for url in (made.whole, made.later):
            facts = SoundFacts.learn(open_dataset(str(url)), column)
            assert settings.items() <= facts.settings.items(), url


def test_both_are_whole(made: Made) -> None:
    assert verify(str(made.whole)) == []
    assert verify(str(made.later)) == []


def test_columns_have_their_types_and_rows(made: Made) -> None:
    dataset = open_dataset(str(made.later))
    (clip,) = dataset.clips.to_pylist()
    samples = len(decode_flac(dataset.member(clip["key"], "flac")))
    arrays = dataset.arrays(clip["key"], list(ROWS))
    for name, (dtype, rows) in ROWS.items():
        assert (str(arrays[name].dtype), arrays[name].shape) == (dtype, rows(clip["frames"], samples)), name
        assert np.isfinite(arrays[name].astype(np.float32)).mean() > 0.9, name
    assert all(clip[score] is not None for score in SCORES)
    assert np.linalg.norm(arrays["identity"]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(arrays["ctc"].astype(np.float32).sum(axis=1), 1, atol=3e-3)


def test_valid_says_where_flame_is(made: Made) -> None:
    """Bit 4, of a column that was there when the clip was made."""
    dataset = open_dataset(str(made.whole))
    (key,) = dataset.keys()
    arrays = dataset.arrays(key, ["valid", "flame"])
    known = np.isfinite(arrays["flame"]).all(axis=1)
    assert known.any()
    np.testing.assert_array_equal(arrays["valid"] >> 4 & 1, known)


def test_workers_change_no_byte(made: Made, tmp_path: Path) -> None:
    """Clips in shards of their own are units of their own: two processes share them."""
    (videos := tmp_path / "videos").mkdir()
    for emotion in ("happy", "sad", "neutral"):
        shown = {"emotion": emotion, "seconds": 1.2, "fps": 5.0, "size": (256, 256)}
        make_clip(videos / f"{emotion}.mp4", identity=PEOPLE["M003"], **shown)
    here = ingested(videos, tmp_path / "here", BEFORE, made.settings, made.models, megabytes=0.001)
    there = Path(shutil.copytree(here, tmp_path / "there"))
    names = ("flame", "wav2vec")
    for root, workers in ((here, 0), (there, 2)):
        annotate_dataset(str(root), names, made.settings, made.models, workers=workers)
        assert all(len(list(root.glob(f"sidecars/{name}/packs/*.tar"))) == 3 for name in names)
    assert files_of(here) == files_of(there)


def test_a_record_says_which_libraries_and_which_device(made: Made, tmp_path: Path) -> None:
    """All of them, where one run went on from another's packs."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    for name, device in {"flame": gpu, "wav2vec": gpu, "speaker": gpu, "sync": "cpu"}.items():
        record = Dataset(str(made.later)).sidecars[name].info.made_with
        assert record["device"] == (device,)
        assert (record["numpy"], record["torch"]) == ((version("numpy"),), (version("torch"),))
    root = Path(shutil.copytree(made.later, tmp_path / "later"))
    (pack,) = root.glob("sidecars/ctc/packs/*.json")
    index = json.loads(pack.read_text())
    pack.write_text(json.dumps(index | {"made_with": index["made_with"] | {"device": "another"}}))
    (root / "sidecars/ctc/record.json").unlink()
    (again,) = annotate_dataset(str(root), ("ctc",), made.settings, made.models, workers=0)
    assert again.progress.clips_kept == 1 and again.info.made_with["device"] == ("another",)


@pytest.mark.parametrize("name", ["w2v", "ctc"])
def test_rows_of_sound_lie_where_the_page_says(made: Made, name: str) -> None:
    """Row i at 12.5 ms + 20 ms i, for whoever asks by time."""
    dataset = open_dataset(str(made.later))
    (key,) = dataset.keys()
    whole = dataset.arrays(key, [name])[name].astype(np.float32)
    times = 12_500_000 + 20_000_000 * np.arange(len(whole))
    np.testing.assert_array_equal(dataset.column(key, name, times), whole)
    between = dataset.column(key, name, times[:-1] + 10_000_000)
    np.testing.assert_allclose(between, (whole[:-1] + whole[1:]) / 2, atol=1e-3)
    np.testing.assert_array_equal(dataset.span(key, 500_000_000, 1_000_000_000)[name], whole[25:50])


def test_the_card_states_the_strictest_term(made: Made) -> None:
    licences = {"deca": "DECA licence, non-commercial research", "fan": REGISTRY["fan"].licence}
    for root in (made.whole, made.later):
        card = (root / "README.md").read_text()
        assert all(f"{name} ({licence}, sha256 " in card for name, licence in licences.items())
        assert "unknown, sha256 " in card, "a folder's terms are not known"
        for of in ("Strictest term of all that went in", "Of the models whose terms are known"):
            assert f"{of}: **{licences['deca']}**." in card


def test_what_tells_of_weights_names_folders_and_not_where_they_lie(made: Made) -> None:
    """The card, and the records by annotator; the settings keep the path, by which the folder is found again."""
    for root in (made.whole, made.later):
        dataset = Dataset(str(root))
        records = dataset.info.annotators | {name: s.info.annotator() for name, s in dataset.sidecars.items()}
        names = {n: [w["name"] for w in records[n].weights] for n in ("ctc", "identity")}
        assert names == {"ctc": ["wav2vec2-base-960h/"], "identity": ["sface/"]}
        assert same_face(dataset, None) is None, "a folder of that name is not SFace"
        card = (root / "README.md").read_text()
        assert "wav2vec2-base-960h/ (unknown" in card
        assert not [given["model"] for given in made.settings.values() if given.get("model", "\0") in card]


def test_sound_is_annotated_whatever_the_pictures_are(made: Made, tmp_path: Path) -> None:
    """Pictures that are damaged stop those annotators alone that look at them."""
    root = Path(shutil.copytree(made.later, tmp_path / "later"))
    dataset = Dataset(str(root))
    ((shard, offset, size),) = (places["mp4"] for places in dataset.places.values())
    with (root / shard).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    shutil.rmtree(root / "sidecars")
    again = annotate_dataset(str(root), ("wav2vec", "ctc"), made.settings, made.models, workers=0)
    assert [m.rejects for m in again] == [(), ()]
    with pytest.raises(DatasetError, match=r"fan could not read 1 clips: .*\.mp4 is damaged"):
        annotate_dataset(str(root), ("fan",), made.settings, made.models, workers=0)
    for name in ("wav2vec", "ctc"):
        shards = [p.relative_to(root) for p in root.glob(f"*-{name}/*.tar")]
        assert shards and all((root / s).read_bytes() == (made.later / s).read_bytes() for s in shards)


def test_other_settings_redo_one_annotator_alone(made: Made, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made.later, tmp_path / "later"))
    changed = made.settings | {"wav2vec": made.settings["wav2vec"] | {"layers": "all"}}
    wav2vec, ctc = annotate_dataset(str(root), ("wav2vec", "ctc"), changed, made.models, workers=0)
    assert not wav2vec.kept and wav2vec.progress.clips_kept == 0 and ctc.kept
    dataset = open_dataset(str(root))
    (key,) = dataset.keys()
    rows = dataset.arrays(key, ["w2v"])["w2v"]
    assert rows.shape[1:] == (2, 768)
    before = open_dataset(str(made.later)).arrays(key, ["w2v"])["w2v"]
    np.testing.assert_array_equal(rows[:, 1], before)


def test_a_finished_dataset_keeps_its_sound_where_it_is(made: Made, toolkit: Toolkit, tmp_path: Path) -> None:
    """Nothing is made before moving the sound is refused."""
    root = Path(shutil.copytree(made.later, tmp_path / "later", ignore=shutil.ignore_patterns("sidecars", "*-*")))
    config = config_file(tmp_path / "config.toml", {"sync": {"fix_offset": True}})
    refused = toolkit("annotate", root, "--with", "voice,sync", "--config", config, "--offline", "-j", "0", code=2)
    assert "Run: toolkit ingest ... --fix-offset" in refused.stderr
    assert not (root / "sidecars").exists()


def test_results_are_kept_without_the_files_that_made_them(made: Made, stale: Path, tmp_path: Path) -> None:
    """Their hashes are the registry's (fan), or recorded (flame); a folder of one's own must be there (identity)."""
    registry = {name: replace(REGISTRY[name], sha256="") for name in REGISTRY}
    registry["fan"] = made.models.choose(["fan"])[0]
    (tmp_path / "none").mkdir()
    bare = Models(tmp_path / "none", offline=True, registry=registry, cache=tmp_path)
    again = annotate_dataset(str(stale), ("fan", "flame"), None, bare, workers=0)
    assert [m.info.name for m in again if m.progress.clips_kept == 1] == ["fan", "flame"]
    assert not any(Dataset(str(stale)).sidecars[name].stale for name in ("fan", "flame"))
    (row,) = again[0].info.weights
    assert row == registry["fan"].row()
    (stale / "sidecars/fan/members.parquet").unlink()
    assert remake(str(stale), "fan", bare, workers=0).progress.clips_kept == 1
    changed = {"flame": {"batch": 3}}
    with pytest.raises(WeightsError, match=r"^flame: deca_model\.tar [^\n]*leave flame out\.$"):
        annotate_dataset(str(stale), ("voice", "flame"), changed, bare, workers=0)
    assert not (stale / "sidecars/voice").exists(), "of other settings nothing is there: told at the start"


def test_what_lacks_its_file_does_not_keep_the_others_from_being_brought_up_to_date(
    stale: Path, toolkit: Toolkit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clip has other sound now, and the files that the registry knows are not those of the sidecars."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    some = toolkit("annotate", stale, "--offline", "-j", "0", code=1)
    lines = some.stderr.split("WeightsError: ")[1].splitlines()
    left = {"fan": "fan", "speaker": "light_asd", "syncnet": "syncnet"}
    for (name, entry), line in zip(left.items(), lines, strict=True):
        assert line.startswith(f"{name}: {REGISTRY[entry].filename} ({entry}, licence ")
        assert line.endswith(f", leave {name} as it is: the other sidecars are brought up to date.")
    kept = {"flame": 1, "wav2vec": 0, "ctc": 0, "identity": 1, "sync": 0}
    for name, clips in kept.items():
        assert re.search(rf"^{name}: .* for 1 clips, {clips} of them kept", some.stdout, re.MULTILINE), name
    sidecars = Dataset(str(stale)).sidecars
    assert {name for name in sidecars if sidecars[name].stale} == left.keys()


@pytest.mark.parametrize("name", ["flame", "fan", "syncnet"])
def test_what_may_not_be_used_is_refused_at_the_start(made: Made, tmp_path: Path, name: str) -> None:
    root = Path(shutil.copytree(made.later, tmp_path / "later", ignore=shutil.ignore_patterns("sidecars", "*-*")))
    with pytest.raises(ConfigError, match=f"{name}: its model file .* does not allow commercial use"):
        annotate_dataset(str(root), ("voice", name), None, made.models, use="commercial", workers=0)
    assert not (root / "sidecars").exists()


def test_what_the_dataset_was_made_with_binds_what_is_added(made: Made, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made.whole, tmp_path / "whole"))
    with pytest.raises(ConfigError, match=r"whole: ctc: its model file .* licence unknown, which does not"):
        annotate_dataset(str(root), ("voice",), None, made.models, use="commercial", workers=0)
    assert not (root / "sidecars").exists()
    assert len(annotate_dataset(str(root), ("voice",), None, made.models, workers=0)) == 1


def test_an_ingest_that_may_not_be_is_refused_at_the_start(tmp_path: Path, toolkit: Toolkit) -> None:
    how = ("--with", "box,landmarks,fan,syncnet", "--licence", "commercial", "--offline")
    refused = toolkit("ingest", tmp_path, "--out", tmp_path / "out", *how, code=2)
    for name in ("fan", "syncnet"):
        said = f"{name}: its model file {name} has the licence {REGISTRY[name].licence}, which does not"
        assert said in refused.stderr
    assert not (tmp_path / "out").exists()


def test_an_ingest_tells_at_the_start_all_that_is_missing(
    tmp_path: Path, toolkit: Toolkit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the input is looked at: there is none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    how = ("--with", "flame,mel,wav2vec,fan", "--offline")
    missing = toolkit("ingest", tmp_path / "none", "--out", tmp_path / "out", *how, code=1)
    lines = missing.stderr.removeprefix("WeightsError: ").splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "flame: deca_model.tar", "wav2vec: wav2vec2-base-960h", "fan: 2DFAN4-11f355bf06.pth.tar",
    ]  # fmt: skip
    assert not (tmp_path / "out").exists()
