"""What a video is to act: an emotion at an intensity by a run of expression_gan, or the expressions of a recording."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64

from talkface.clip import NS
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.generate.extract import ingested, longest
from talkface.motion import Motion
from talkface.train.checkpoint import Model
from talkface.train.inputs.expression import UPPER, Expression, intensities
from talkface.train.protocols import Style
from talkface.train.tasks.expression_gan import Task as ExpressionGan
from talkface.vocab import ARKIT
from talkface.weights import Models


def dialled_style(model: Model, gan: Model, emotion: str | None, intensity: str, frames: int, seed: int) -> Style:
    """An emotion whose intensity is a number or a curve (``0:0,2:1``), for a run that makes videos.

    Raises ConfigError for runs that do not fit together, and an emotion that the GAN has not learned.
    """
    if not isinstance(gan.task, ExpressionGan):
        raise ConfigError(f"--expression: a run of {gan.about.task} makes no expressions; give one of expression_gan.")
    if emotion is None:
        raise ConfigError(f"--expression: which --emotion? The run knows {', '.join(gan.task.facts['strongest'])}.")
    wanted, made = expression_of(model), gan.task.expression
    wanted.require(made)
    if model.task.config.fps != gan.task.config.fps:
        raise ConfigError(
            f"--expression: a run at {gan.task.config.fps:g} fps, --run at {model.task.config.fps:g} fps. Train "
            f"it anew: toolkit train expression_gan --set rate={model.task.config.fps:g}"
        )
    k = torch.from_numpy(intensities(intensity, frames, gan.task.config.fps))
    rng = torch.Generator(next(gan.net.parameters()).device).manual_seed(seed)
    rows = made.in_units(gan.task.sequences(gan.net, emotion, k, rng)[0])
    return _style({made.kind: _column(rows, made)}, f"{emotion} {intensity}")


def recorded_style(model: Model, source: str, models: Models, data: Dataset | None, frames: int) -> Style:
    """The expressions of a motion file (.npz, .csv), a clip of ``data`` or a video, on the clock of a run's frames.

    Raises ConfigError for a source that is not there or has no such expression, SourceError where no face is found.
    """
    kind, fps = expression_of(model).kind, model.task.config.fps
    if Path(source).suffix in (".npz", ".csv") and Path(source).exists():
        motion = Motion.load(source)
        return _style(_timed(kind, {"arkit": motion.arkit}, motion.pts_ns, frames, fps, source), source)
    if data is not None and source in data:
        return _of_clip(kind, data, source, frames, fps, source)
    if not Path(source).exists():
        raise ConfigError(f"--expression {source}: no run, motion file, video or clip of --data.")
    with ingested(source, models, keep_video=False) as found:
        return _of_clip(kind, found, longest(found), frames, fps, source)


def expression_of(model: Model) -> Expression:
    """What a run means by an expression. Raises ConfigError for one that follows none."""
    if "expression" not in model.about.facts:
        raise ConfigError(f"--expression: a run of {model.about.task} follows no expressions; give --run emodiffhead.")
    return Expression.of(model.about.facts["expression"])


def _of_clip(kind: str, data: Dataset, key: str, frames: int, fps: float, name: str) -> Style:
    there = {spec.name for spec in data.specs()}
    columns = data.arrays(key, [kind, "pts"]) if kind in there else {}
    return _style(_timed(kind, columns, columns.get("pts", np.zeros(0, np.int64)), frames, fps, name), name)


def _timed(
    kind: str, columns: Mapping[str, np.ndarray], pts_ns: Int64[np.ndarray, " rows"], frames: int, fps: float, name: str
) -> dict[str, np.ndarray]:
    """Rows at the frames of a video: those nearest in time, the last one going on."""
    if kind not in columns:
        raise ConfigError(f"{name}: has no {kind}, which --run follows. Add it: toolkit annotate DATASET --with {kind}")
    times = np.arange(frames) / fps * NS
    nearest = np.abs(pts_ns[None] - times[:, None]).argmin(1)
    return {kind: columns[kind][nearest]}


def _column(rows: np.ndarray, made: Expression) -> np.ndarray:
    """Numbers back in their places of the column."""
    if made.kind == "flame":
        return rows
    column: Float32[np.ndarray, "frames 52"] = np.full((len(rows), len(ARKIT)), np.nan, np.float32)
    column[:, [ARKIT.index(name) for name in UPPER]] = rows
    return column


def _style(acting: Mapping[str, np.ndarray], name: str) -> Style:
    arkit = acting.get("arkit", np.zeros((0, len(ARKIT)), np.float32))
    return Style(arkit.astype(np.float32), np.zeros((len(arkit), 7), np.float32), name, acting)
