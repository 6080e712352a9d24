"""``toolkit render``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from talkface.commands._options import ModelsDir, Offline

if TYPE_CHECKING:
    import numpy as np

    from talkface.datasets.reader import Dataset
    from talkface.motion import Motion
    from talkface.render.talk import Source
    from talkface.weights import Models


def command(
    motion: Annotated[
        str, typer.Argument(help="Motion: .npz, Live Link Face .csv, a clip's key with --data, or 'shapes'.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="mp4 to write.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG of frames and curves to write.")] = None,
    rig: Annotated[str, typer.Option(help="synthetic, a .glb or .gltf file, or ICT-FaceKit's folder.")] = "synthetic",
    audio: Annotated[str | None, typer.Option(help="Sound; its start is the motion's time 0.")] = None,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Width and height of a face in pixels.")] = 512,
    side_by_side: Annotated[
        str | None, typer.Option(help="Clip to show beside it: a key of --data, or a video.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Dataset that keys are of.")] = None,
    gl: Annotated[str, typer.Option(help="auto: a GPU if there is one; never; egl: any GL.")] = "auto",
    models: ModelsDir = None,
    offline: Offline = False,
    draft: Annotated[bool, typer.Option("--draft", help="No smoothing of edges: about twice as fast.")] = False,
) -> None:
    """Draw motion as a talking face, with sound. The file says that it is synthetic, and what made it.

    'shapes' shows every shape and turn once: a look at a rig.

    Example: `toolkit render motion.npz --audio speech.wav --out talk.mp4 --sheet talk.png`
    """
    import time

    from talkface.console import console
    from talkface.errors import ConfigError
    from talkface.render import talk
    from talkface.render.rigs import open_rig
    from talkface.weights import Models

    if gl not in ("auto", "never", "egl"):
        raise ConfigError(f"--gl {gl}: expected auto, never or egl.")
    if out is None and sheet is None:
        raise ConfigError("Nothing to write: give --out talk.mp4, --sheet talk.png, or both.")
    shown = open_rig(rig, gl_use=gl, smooth_edges=not draft)  # type: ignore[arg-type]
    if shown.missing:
        console.print(f"{shown.name} lacks {len(shown.missing)} of 52 shapes: {', '.join(shown.missing)}")
    wanted = _motion(motion, data)
    tags = talk.tags_of(wanted, shown.name)
    if sheet is not None:
        picture = talk.shapes_sheet(shown) if motion == "shapes" else talk.sheet(wanted, shown)
        talk.write_png(picture, sheet, tags)
        console.print(str(sheet), markup=False)
    if out is None:
        return
    size -= size % 2
    end_ns = talk.end_ns(wanted.pts_ns)
    clip = (_dataset(data), motion) if data is not None and motion in _dataset(data) else None
    with _beside(side_by_side, data, Models(models, offline=offline)) as beside:
        pictures = talk.frames(wanted, shown, size)
        if beside is not None:
            pictures = talk.side_by_side(wanted, _source(*beside), shown, size)
        sound = _sound(audio, clip, beside, end_ns)
        started = time.perf_counter()
        n = talk.write_video(out, pictures, wanted.pts_ns, tags=tags, sound=sound)
        seconds = time.perf_counter() - started
    console.print(
        f"{n} frames in {seconds:.1f} s: {n / seconds:.1f} frames/s, {end_ns / 1e9 / seconds:.2f} x real time"
    )
    console.print(str(out), markup=False)


def _motion(what: str, data: str | None) -> "Motion":
    from talkface.datasets.export import motion_of
    from talkface.motion import Motion
    from talkface.render.talk import range_of_motion

    if what == "shapes":
        return range_of_motion()
    return Motion.load(what) if data is None or Path(what).is_file() else motion_of(_dataset(data), what)


def _dataset(url: str | None) -> "Dataset":
    from talkface.datasets.reader import Dataset
    from talkface.errors import ConfigError

    if url is None:
        raise ConfigError("A clip's key needs its dataset: add --data DATASET.")
    return Dataset(url)


@contextmanager
def _beside(what: str | None, data: str | None, store: "Models") -> Iterator["tuple[Dataset, str] | None"]:
    """The clip beside which motion is shown: a key of ``data``, or the longest clip of a video, which is ingested into
    a folder that goes away again. Raises ConfigError for what is neither, SourceError where no face is found.
    """
    from talkface.errors import ConfigError
    from talkface.generate.extract import ingested, longest

    if what is None:
        yield None
    elif data is not None and what in (dataset := _dataset(data)):
        yield dataset, what
    elif Path(what).is_file():
        with ingested(what, store) as dataset:
            yield dataset, longest(dataset)
    else:
        known = "" if data is None else f", nor a clip of {data}"
        raise ConfigError(f"--side-by-side {what}: no such file{known}. A clip's key needs --data DATASET.")


def _source(dataset: "Dataset", key: str) -> "Source":
    """Pictures of a clip and what was extracted from it."""
    from talkface.datasets.export import motion_of
    from talkface.errors import DatasetError
    from talkface.media import ClipFrames
    from talkface.render.talk import Source

    if not dataset.info.has_video:
        raise DatasetError(f"{dataset.url}: keeps no pictures to show beside the motion.")
    motion = motion_of(dataset, key)
    return Source(pictures=iter(ClipFrames(dataset.member(key, "mp4"))), pts_ns=motion.pts_ns, motion=motion)


def _sound(
    audio: str | None, clip: "tuple[Dataset, str] | None", beside: "tuple[Dataset, str] | None", end_ns: int
) -> "np.ndarray | None":
    """The sound asked for, else that of the clip that the motion is of, or that it stands beside."""
    from talkface.media import decode_flac
    from talkface.render.talk import read_audio

    if audio is not None:
        return read_audio(audio, end_ns)
    for found in (clip, beside):
        if found is not None:
            return decode_flac(found[0].member(found[1], "flac"))
    return None
