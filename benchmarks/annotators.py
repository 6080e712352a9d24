"""What the tracker and each annotator cost: times real time on one core, and their share; wav2vec 2.0 against
transformers' own call; bfloat16 against float32; `toolkit annotate` as a whole, and what it reads.

The clip is a synthetic face, or the first clip of the video that --clip names, ingested as any other. CPU seconds of
one thread on the machine at hand; where a model file is missing, random weights of its true size stand in, which cost
the same. Opening models is not counted but for the whole job. The tracker's row is what ingest's stopwatch says. The
share is that of a run with all of them, decoding and the crop's encoding left out. It takes some minutes.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

WIDTH = 512
"""Of the synthetic clip's pictures."""
WARM = 2.0
"""CPU seconds from which the first run of an annotator counts: a shorter one warms up."""
FRAME_COLUMNS = ("box", "lm", "lm68", "arkit", "head")
IN_TRACKER = ("box", "landmarks", "arkit")
"""Annotators whose networks run in the tracker: they have no cost of their own."""
TRACKER = ("detect", "mesh")
"""Stages of the tracker: face detection, and the mesh with its blendshapes."""
PRECISE = {
    "flame": {"expression": "deviations", "pose": "rad", "camera": "of DECA's camera"},
    "fan": {"points": "px"},
}
"""Annotators that see pictures and whose precision can be chosen, and the unit of each part of what they give."""
JOBS = (("wav2vec",), ("ctc",), ("wav2vec", "ctc"))
"""What `toolkit annotate` is asked for: two annotators one after the other, and at once."""


class Cost(NamedTuple):
    """Median CPU seconds of an annotator on the clip, 0 if it cannot be opened; where its weights are from, or why it
    cannot; the columns that it made."""

    cpu: float
    weights: str
    columns: dict[str, Any]


def add_arguments(parser: Any) -> None:
    """Options of this benchmark."""
    parser.add_argument("--clip", type=Path, help="video to annotate; a synthetic face without it")
    parser.add_argument("--clip-seconds", type=float, default=3, help="length of the synthetic clip")
    parser.add_argument("--only", help="annotators to measure, with commas between; all without it")


def main(options: argparse.Namespace) -> None:
    """Print a row an annotator, then what is compared."""
    from talkface.annotate.base import annotator_names
    from talkface.threads import one_thread

    one_thread()
    import cv2
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    names = options.only.split(",") if options.only else annotator_names()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        members = ingested(folder, options)
        seconds = len(sound_of(members)) / 16_000
        rows = {"tracker": tracker(folder, seconds)} if {*names} & {*IN_TRACKER} else {}
        rows |= {name: cost(name, members, folder, options) for name in names}
        print_costs(rows, seconds)
        if any(name in rows for name in PRECISE):
            against_bfloat16(rows, members, folder, options)
        if "wav2vec" in names:
            against_transformers(folder, options)
            whole_jobs(folder, options)


def print_costs(rows: dict[str, Cost], seconds: float) -> None:
    """A row for the tracker, and one an annotator."""
    print(f"A clip of {seconds:.2f} s, one thread\n")
    print("| annotator | CPU s | x real time a core | share | weights |\n|---|---|---|---|---|")
    total = sum(row.cpu for row in rows.values())
    for name, row in rows.items():
        share = f"{row.cpu:.3f} | {times(seconds, row.cpu)} | {100 * row.cpu / total:.1f} %" if row.cpu else "- | - | -"
        print(f"| {name} | {share} | {row.weights} |")


def times(seconds: float, cpu: float) -> str:
    """Times real time, two digits."""
    return f"{float(f'{seconds / cpu:.2g}'):g}"


def ingested(folder: Path, options: argparse.Namespace) -> dict[str, bytes]:
    """Members of the first sample of the dataset ``out`` that `toolkit ingest` makes of the clip."""
    clip = options.clip or synthetic(folder, options.clip_seconds)
    run = [sys.executable, "-m", "talkface.cli", "ingest", str(clip), "--out", str(folder / "out"), "--offline"]
    models = ["--models", str(options.models)] if options.models.is_dir() else []
    subprocess.run([*run, *models, "--workers", "1"], check=True, capture_output=True)
    with tarfile.open(next((folder / "out").glob("*/*.tar"))) as tar:
        first = tar.getnames()[0].split(".")[0]
        return {m.name.split(".", 1)[1]: tar.extractfile(m).read() for m in tar if m.name.split(".")[0] == first}  # type: ignore[union-attr]


def synthetic(folder: Path, seconds: float) -> Path:
    """A video of a synthetic face."""
    from talkface.render.synthetic import PEOPLE, make_clip

    make_clip(folder / "a.mp4", identity=PEOPLE["M003"], emotion="happy", seconds=seconds, size=(WIDTH, WIDTH))
    return folder / "a.mp4"


def tracker(folder: Path, seconds: float) -> Cost:
    """What the tracker costs on so many seconds, by the stopwatch of the run that made the dataset ``out``."""
    run, about = (json.loads((folder / "out" / name).read_text()) for name in ("run.json", "dataset.json"))
    cpu = sum(run["cpu_seconds"].get(stage, 0.0) for stage in TRACKER)
    models = [*about["faces"], *about["annotators"]["landmarks"]["weights"]]
    return Cost(cpu * seconds / run["video_seconds"], ", ".join(model["name"] for model in models), {})


def cost(name: str, members: dict[str, bytes], folder: Path, options: argparse.Namespace, **settings: Any) -> Cost:
    """What an annotator with these settings costs on the clip."""
    from talkface.annotate.base import make_annotator
    from talkface.errors import TalkfaceError

    if name in IN_TRACKER:
        return Cost(0.0, "with the tracker", {})
    annotator = make_annotator(name, settings)
    try:
        models, weights = models_of(annotator, folder, options)
        annotator.open(models)
    except TalkfaceError as error:
        return Cost(0.0, str(error).split(" (")[0][:60], {})
    views = faces(members) if hasattr(annotator, "frame") else {}
    needed = {column: array(members, column) for column in annotator.needs}
    table = (seen(annotator, views, members) if views else {}) | needed
    timed: list[float] = []
    while len(timed) < max(1, options.rounds) + (timed[:1] < [WARM]):
        started = time.process_time()
        for view in views.values():
            annotator.frame(view)
        columns = annotator.clip(clip_view(members, table)).columns if hasattr(annotator, "clip") else {}
        forget(annotator)
        timed.append(time.process_time() - started)
    return Cost(median(timed[-max(1, options.rounds) :]), weights, dict(columns))


def forget(annotator: Any) -> None:
    """Speech networks keep what they heard for the other annotator: each is measured as if alone."""
    if hasattr(annotator, "_speech"):
        annotator._speech._sound = None


def models_of(annotator: Any, folder: Path, options: argparse.Namespace) -> tuple[Any, str]:
    """Real models where they are; else stand-ins of true size."""
    from talkface.annotate.base import chosen_weights
    from talkface.errors import WeightsError
    from talkface.weights import Models
    from tests.annotate import stand_ins

    real = Models(options.models if options.models.is_dir() else None, offline=True)
    try:
        chosen_weights(annotator, real)
        return real, "real" if annotator.weights else "none"
    except WeightsError:
        made = [name for group in annotator.weights for name in group if name in stand_ins.MAKERS]
        for name in made:
            write = TRUE_SIZE.get(name, stand_ins.MAKERS[name])
            if not (path := folder / real.registry[name].filename).exists():
                write(path)
        return stand_ins.stand_in_models(folder, *made), "random"


def _fan(path: Path) -> None:
    from tests.annotate.stand_ins import random_fan

    random_fan(path, stacks=4)


def _wav2vec(path: Path) -> None:
    from tests.annotate.stand_ins import random_wav2vec

    random_wav2vec(path, num_hidden_layers=12, intermediate_size=3072, conv_dim=(512,) * 7)


TRUE_SIZE: dict[str, Callable[[Path], None]] = {"fan": _fan, "wav2vec": _wav2vec}


def array(members: dict[str, bytes], column: str) -> Any:
    """A column of the clip."""
    import numpy as np

    return np.load(io.BytesIO(members[f"{column}.npy"]))


def sound_of(members: dict[str, bytes]) -> Any:
    """The clip's samples."""
    from talkface.media import decode_flac

    return decode_flac(members["flac"])


def faces(members: dict[str, bytes]) -> dict[int, Any]:
    """The clip's crop as frames, with the mesh, where there is a face in them."""
    import numpy as np

    from talkface.annotate.base import FaceView
    from talkface.media import ClipFrames

    matrix = np.array(json.loads(members["json"])["crop"])
    columns = {name: array(members, name) for name in FRAME_COLUMNS}
    known = np.isfinite(columns["lm"]).all(axis=(1, 2)) & np.isfinite(columns["box"]).all(axis=1)
    views = {}
    for i, picture in enumerate(ClipFrames(members["mp4"])):
        box = np.append(columns["box"][i, :4].reshape(2, 2) @ matrix[:, :2].T + matrix[:, 2], columns["box"][i, 4])
        mesh = columns["lm"][i] * matrix[0, 0]
        mesh[:, :2] += matrix[:, 2]
        rows = {name: columns[name][i] for name in FRAME_COLUMNS}
        if known[i]:
            views[i] = FaceView(picture, i * 40_000_000, box.astype(np.float32), mesh, columns["arkit"][i], rows)
    return views


def seen(annotator: Any, views: dict[int, Any], members: dict[str, bytes]) -> dict[str, Any]:
    """The annotator's own frame columns, for its `clip`."""
    import numpy as np

    frames = range(len(array(members, "pts")))
    rows = {i: annotator.frame(view) for i, view in views.items()}
    specs = [spec for spec in annotator.columns if spec.clock == "frame"]
    gap = {s.name: np.full(s.shape, np.nan, s.dtype) for s in specs}
    return {name: np.stack([rows.get(i, {}).get(name, none) for i in frames]) for name, none in gap.items()}


def clip_view(members: dict[str, bytes], table: dict[str, Any]) -> Any:
    """The closed clip with these columns."""
    import numpy as np

    from talkface.annotate.base import ClipView
    from talkface.clip import Clip, FrameTable, Probe, Source, Timeline

    facts = json.loads(members["json"])
    side = facts["crop_size"]
    probe = Probe(container="mp4", duration=facts["end_ns"] / 1e9, width=side, height=side, fps=25.0)
    source = Source(uri="a.mp4", name="a.mp4", sha256="", size=0, layout="plain", probe=probe)
    clip = Clip(
        key="a", source=source, start_ns=facts["start_ns"], end_ns=facts["end_ns"], track=0, shot=0,
        crop=np.array(facts["crop"]), crop_size=facts["crop_size"],
    )  # fmt: skip
    timeline = Timeline(array(members, "pts"))
    return ClipView(clip, FrameTable(timeline, table), sound_of(members), True, members["mp4"])


def against_bfloat16(
    rows: dict[str, Cost], members: dict[str, bytes], folder: Path, options: argparse.Namespace
) -> None:
    """Both precisions of the networks that see pictures, and how far apart their results are.

    Heat-maps of random weights have no peaks: FAN's points then jump, whatever its real ones do.
    """
    from talkface.nets.inference import quick_precision

    seconds = len(sound_of(members)) / 16_000
    print(f'\n`precision = "auto"` is {quick_precision()} on this machine\n')
    both = {
        n: (rows[n], cost(n, members, folder, options, precision="bfloat16"))
        for n in PRECISE
        if n in rows and rows[n].cpu
    }
    print("| annotator | float32, x real time | bfloat16, x real time | weights |\n|---|---|---|---|")
    for name, (exact, rough) in both.items():
        print(f"| {name} | {times(seconds, exact.cpu)} | {times(seconds, rough.cpu)} | {exact.weights} |")
    print("\n| annotator | part | apart (RMS) | in the part's deviation over the frames |\n|---|---|---|---|")
    for name, (exact, rough) in both.items():
        print_apart(name, exact.columns[name], rough.columns[name])


def print_apart(name: str, exact: Any, rough: Any) -> None:
    """How far two results are apart, a row a part: in its unit, and against what changes from frame to frame."""
    import numpy as np

    from talkface.vocab import FLAME

    for part, unit in PRECISE[name].items():
        a, b = (column[:, FLAME.get(part, slice(None))] for column in (exact, rough))
        apart = np.sqrt(np.nanmean((a - b) ** 2))
        deviation = np.sqrt(np.nanmean(np.nanvar(a, axis=0)))
        print(f"| {name} | {part} | {apart:.4f} {unit} | {apart / deviation:.2f} |")


def whole_jobs(folder: Path, options: argparse.Namespace) -> None:
    """`toolkit annotate` on a dataset with video, in this process: opening models and writing shards are counted."""
    from benchmarks._reading import bytes_within, counted
    from talkface.annotate.base import make_annotator
    from talkface.datasets.reader import Dataset
    from talkface.datasets.sidecars.job import annotate_dataset

    models, weights = models_of(make_annotator("wav2vec", {}), folder, options)
    places = list(Dataset(str(folder / "out")).places.values())
    print(f"\n| toolkit annotate DATASET --with ({weights} weights) | CPU s | sound read, kB | pictures read, kB |")
    print("|---|---|---|---|")
    for names in JOBS:
        copy = shutil.copytree(folder / "out", folder / "-".join(names))
        started, spans = time.process_time(), counted()
        annotate_dataset(f"counting://{copy}", names, None, models, workers=0)
        spent = time.process_time() - started
        spans = [span for span in spans if "/packs/" not in span[0]]
        read = [f"{bytes_within([p[member] for p in places], spans) / 1000:.1f}" for member in ("flac", "mp4")]
        print(f"| {','.join(names)} | {spent:.2f} | {read[0]} | {read[1]} |")


def against_transformers(folder: Path, options: argparse.Namespace) -> None:
    """The annotator and the library's own model and feature extractor on the same sound, turn about."""
    import numpy as np
    import torch
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    from talkface.annotate._transformers import Speech, SpeechConfig

    path = folder / "wav2vec2-base-960h"
    if not path.exists():
        _wav2vec(path)
    net, extract = Wav2Vec2ForCTC.from_pretrained(path).eval(), Wav2Vec2FeatureExtractor.from_pretrained(path)
    speech = Speech(path, SpeechConfig())

    def ours(sound: np.ndarray) -> Any:
        speech._sound = None
        return speech.states(sound, ())[speech.depth]

    def theirs(sound: np.ndarray) -> Any:
        with torch.inference_mode():
            values = extract(sound.astype(np.float32) / 32768, sampling_rate=16_000, return_tensors="pt").input_values
            return net.wav2vec2(values).last_hidden_state[0]

    print("\n| sound | talkface, CPU s | transformers, CPU s | ratio | farthest row |\n|---|---|---|---|---|")
    for seconds in (10, 40):
        sound = np.random.default_rng(0).normal(0, 2000, seconds * 16_000).astype(np.int16)
        spent: dict[str, list[float]] = {"ours": [], "theirs": []}
        rows: dict[str, Any] = {}
        for _ in range(max(2, options.rounds)):
            for name, run in (("ours", partial(ours, sound)), ("theirs", partial(theirs, sound))):
                started = time.process_time()
                rows[name] = run()
                spent[name].append(time.process_time() - started)
        a, b = median(spent["ours"]), median(spent["theirs"])
        far = farthest(rows["ours"], rows["theirs"])
        print(f"| {seconds} s | {a:.2f} | {b:.2f} | {a / b:.2f} | {far:.1e} of the states' deviation |")


def farthest(rows: Any, whole: Any) -> float:
    """The greatest difference of a row, RMS, in standard deviations of all."""
    return float((rows - whole).square().mean(dim=1).sqrt().max() / whole.std())
