"""All annotators that look or listen, on real people: every value is there where a face or a sound is.

The clips' first seconds with few of their pictures, which large networks look at one by one. Weights are the real ones
where they are at hand, else stand-ins of the true format; those whose files the registry knows by hash go through the
function behind the command.
"""

from pathlib import Path

import numpy as np
import pytest

from talkface.config import Ingest, Pack, Video
from talkface.datasets.build.job import build
from talkface.datasets.open import open_dataset
from talkface.datasets.reader import Dataset
from talkface.datasets.sidecars.job import annotate_dataset
from talkface.datasets.verify.dataset import verify
from talkface.ingest.job import ingest
from talkface.ingest.scan import scan
from talkface.make_dataset import plan_of
from talkface.media import VideoReader, VideoWriter, read_sound
from talkface.store import Folder
from talkface.weights import Models
from tests.annotate.stand_ins import MAKERS, SETTINGS, stand_in_models
from tests.conftest import Toolkit

CLIPS = ("EDTalk__pose_source2", "MimicTalk__German_20s", "LatentSync__demo3_video",
         "Audio-driven-TalkingFace-HeadPose__31")  # fmt: skip
SECONDS, STEP_SECONDS = 1.6, 0.2
"""Of each clip, and between its pictures: `sync` says nothing of less than 1.5 s."""
AT_INGEST = ("box", "landmarks", "arkit", "head", "mel", "voice", "quality")
BY_COMMAND = ("flame", "wav2vec", "ctc", "sync", "speaker", "identity")
BY_HASH = ("fan", "syncnet")
ON_FACES = {"flame": "lm68", "fan": "box", "talk": "box", "lm": "lm68"}
"""Column to the one that says where there is a face."""
WHOLE = ("flame_shape", "identity", "mel", "w2v", "ctc")
SETTINGS_OF = """
[pack.annotate]
wav2vec = {{ model = "{speech}", depth = 1 }}
ctc = {{ model = "{speech}" }}
identity = {{ model = "{face}" }}
"""


def shortened(source: Path, out: Path) -> None:
    """The first seconds with their sound, and a picture each ``STEP_SECONDS``."""
    end_ns, step_ns = round(SECONDS * 1e9), round(STEP_SECONDS * 1e9)
    sound = read_sound(str(source), 0, end_ns).samples
    taken: dict[int, tuple[int, np.ndarray]] = {}
    with VideoReader(str(source), end_ns=end_ns) as frames:
        for frame in frames:
            taken.setdefault(frame.pts_ns // step_ns, (frame.pts_ns, frame.rgb))
    height, width = next(iter(taken.values()))[1].shape[:2]
    with VideoWriter(out, width, height, sound=sound) as video:
        for pts_ns, rgb in taken.values():
            video.write(rgb, pts_ns)


def weights(folder: Path, real: Path, stand_ins: Path) -> Models:
    """The real files where they are, and stand-ins."""
    for path in (*real.iterdir(), *stand_ins.iterdir()):
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return stand_in_models(folder, *MAKERS)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, media: Path, models: Path, stand_ins: Path, toolkit: Toolkit
) -> Path:
    root = tmp_path_factory.mktemp("real")
    for name in ("clips", "models", "sface"):
        (root / name).mkdir()
    for name in CLIPS:
        shortened(media / "talking" / f"{name}.mp4", root / "clips" / f"{name}.mp4")
    found = weights(root / "models", models, stand_ins)
    (root / "sface" / "own.onnx").symlink_to(found.get("sface"))
    chosen = Ingest(pack=Pack(annotators=AT_INGEST, video=Video(size=224)))
    out = Folder(root / "out")
    build(out, plan_of(ingest(scan([str(root / "clips")]), out, chosen, found, workers=0), chosen))
    (root / "config.toml").write_text(SETTINGS_OF.format(speech=found.get("wav2vec"), face=root / "sface"))
    how = ("--config", root / "config.toml", "--models", root / "models", "--offline", "--workers", "0")
    toolkit("annotate", root / "out", "--with", ",".join(BY_COMMAND), *how)
    annotate_dataset(str(root / "out"), BY_HASH, SETTINGS, found, workers=0)
    return root / "out"


@pytest.fixture(scope="module")
def dataset(made: Path) -> Dataset:
    return open_dataset(str(made))


def test_all_are_there_and_whole(made: Path, dataset: Dataset) -> None:
    assert verify(str(made)) == []
    assert set(dataset.sidecars) == {*BY_COMMAND, *BY_HASH}
    assert all(not sidecar.info.rejects for sidecar in dataset.sidecars.values())
    assert {row["source"].removesuffix(".mp4") for row in dataset.clips.to_pylist()} == set(CLIPS)


def test_every_column_has_a_value_where_a_face_or_a_sound_is(dataset: Dataset) -> None:
    for key in dataset.keys():  # noqa: SIM118
        arrays = dataset.arrays(key, [*ON_FACES, *set(ON_FACES.values()), *WHOLE])
        known = {n: np.isfinite(a.astype(np.float32)).reshape(len(a), -1).all(axis=1) for n, a in arrays.items()}
        for name, face in ON_FACES.items():
            assert known[face].mean() > 0.9, f"{key}: {face}"
            np.testing.assert_array_equal(known[name], known[face], err_msg=f"{key}: {name}")
        assert all(known[name].all() and len(known[name]) > 0 for name in WHOLE), key
        shapes = np.isfinite(dataset.arrays(key, ["arkit"])["arkit"])
        np.testing.assert_array_equal(shapes[:, :-1].all(axis=1), known["lm68"], err_msg=f"{key}: all but tongueOut")
        turned = np.isfinite(dataset.arrays(key, ["head"])["head"])
        np.testing.assert_array_equal(turned[:, :7].all(axis=1), known["lm68"], err_msg=f"{key}: pose")
        assert turned[:, 7:].all(axis=1).mean() > 0.5, "velocity, from neighbouring frames"


def test_every_score_is_there(dataset: Dataset) -> None:
    names = {score.name for score in dataset.scores()}
    assert {"fan_confidence", "sync_offset_ms", "lse_c", "speaking_share", "identity_agreement"} < names
    assert {"sharpness", "speech_share", "head_speed"} < names
    gaps = [(clip["key"], n) for clip in dataset.clips.to_pylist() for n in names if clip[n] is None]
    assert gaps == []
