"""Train the embedded ARKit head and the reference face of the head pose; print the held-out table.

    pip install ai-edge-litert
    python scripts/train_arkit_head.py --media CLIPS --task face_landmarker.task --yunet yunet_n_640_640.onnx \
        --out talkface/annotate/data

CLIPS holds videos and MANIFEST.tsv (columns ``file`` and ``repository_licence``): clips under MIT or Apache-2.0 train,
except the people in HELD_OUT; all clips of people who do not train make up the table.

The student is taught in two ways: by the real head (face_blendshapes.tflite inside the .task file), asked about many
meshes that recombine identity, upper face, mouth and pose of the training clips; and by the real model's scores on the
training frames themselves, whose mesh differs from the one the student sees. Same seed, same weights. About ten minutes
on one core, half of them for the meshes, which --cache keeps.
"""

import argparse
import csv
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation
from torch import nn

from talkface.annotate._arkit_head import features, forward
from talkface.annotate.head import fit_face
from talkface.annotate.landmarks import FaceMesh
from talkface.face_mesh import BLENDSHAPE_POINTS
from talkface.vocab import ARKIT

LICENCES = ("MIT", "Apache-2.0")
FRAMES_A_CLIP = 250
RATE = 2e-3
MOVES = 0.02
"""A shape moves in a clip if the real model's score has a standard deviation above this."""

SHAPES = ARKIT[:-1]
JAW_OPEN = SHAPES.index("jawOpen")
TEACHER_ORDER = [1 + sorted(SHAPES).index(name) for name in SHAPES]
"""The teacher's outputs are ``_neutral`` and then the names from a to z."""

"""The points of the mesh that the teacher takes, in its order (MediaPipe's face blendshapes graph)."""

SAME_PERSON = {
    "M003": r"_M003_|EAMM__happy",
    "M030": r"_M030_",
    "W009": r"_W009_",
    "W036": r"_W036_",
    "feifeili": r"feifeili",
}
"""Pattern of the clips that show one person; any other clip is a person of its own."""

HELD_OUT = (
    *("M003", "W009", "EDTalk__pose_source2", "LatentSync__demo3_video", "LipNet__lrwp9a", "LivePortrait__d18"),
    *("Moore-AnimateAnyone__2", "SadTalker__WDA_KatieHill_000", "styletalk__KristiNoem", "video-retalking__face3"),
)
"""People whose clips would be free to train with, but test."""

SKIPPED = r"VisualVoice|no_face|multi_face|duda|decord|sample1"
"""Clips of two people at once, without a face, or broken."""


See = Callable[[np.ndarray], np.ndarray]
"""Meshes in pixels (frames, 478, 3) to a row for each."""


@dataclass(frozen=True)
class Take:
    """One clip's frames in which both models found a mesh.

    ``wheel`` and ``task`` are (frames, 478, 3) in pixels, ``shapes`` (frames, 51), ``matrix`` (frames, 4, 4)
    MediaPipe's of the whole frame (NaN where it found no face there), ``size`` the frame's width and height.
    """

    name: str
    trains: bool
    size: tuple[int, int]
    wheel: np.ndarray
    task: np.ndarray
    shapes: np.ndarray
    matrix: np.ndarray

    @property
    def person(self) -> str:
        """Who it shows."""
        return next((who for who, pattern in SAME_PERSON.items() if re.search(pattern, self.name)), self.name)


# ---------------------------------------------------------------------------------------------------- meshes


class Extractor:
    """Runs the wheel's mesh and the real model on the same frames."""

    def __init__(self, task: Path, yunet: Path) -> None:
        self.wheel, self.task = FaceMesh(None), FaceMesh(task)
        self.detector = cv2.FaceDetectorYN.create(str(yunet), "", (320, 320), 0.6)
        vision = mp.tasks.vision
        self.whole = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=mp.tasks.BaseOptions(model_asset_path=str(task)),
                output_facial_transformation_matrixes=True,
            )
        )

    def take(self, path: Path, *, trains: bool) -> Take:
        """The meshes of at most FRAMES_A_CLIP frames, evenly spread."""
        rows = [row for row in map(self._row, _frames(path)) if row is not None]
        if not rows:
            return Take(path.stem, trains, (0, 0), *(np.zeros((0, 1)),) * 4)
        sizes, *columns = zip(*rows, strict=True)
        return Take(path.stem, trains, sizes[0], *(np.array(column) for column in columns))

    def _row(self, rgb: np.ndarray) -> tuple | None:
        roi = self._roi(rgb)
        if roi is None:
            return None
        wheel, task = self.wheel.detect(rgb, roi), self.task.detect(rgb, roi)
        if wheel is None or task is None:
            return None
        whole = self.whole.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb))
        matrix = whole.facial_transformation_matrixes[0] if len(whole.face_landmarks) == 1 else np.full((4, 4), np.nan)
        return (rgb.shape[1], rgb.shape[0]), wheel.points, task.points, task.shapes[: len(SHAPES)], matrix

    def _roi(self, rgb: np.ndarray) -> np.ndarray | None:
        scale = min(1.0, 640 / max(rgb.shape))
        small = cv2.resize(rgb[..., ::-1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self.detector.setInputSize(small.shape[1::-1])
        faces = self.detector.detect(small)[1]
        if faces is None:
            return None
        x, y, width, height = max(faces, key=lambda f: f[2] * f[3])[:4] / scale
        side = max(width, height)
        return np.array([x + width / 2 - side, y + height / 2 - side, x + width / 2 + side, y + height / 2 + side])


def _frames(path: Path) -> Iterator[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    step = max(1, -(-int(video.get(cv2.CAP_PROP_FRAME_COUNT)) // FRAMES_A_CLIP))
    i = 0
    while video.grab():
        if i % step == 0:
            yield np.ascontiguousarray(video.retrieve()[1][..., ::-1])
        i += 1


def takes(media: Path, task: Path, yunet: Path, cache: Path) -> list[Take]:
    """All clips of the folder, from ``cache`` where they are there."""
    with (media / "MANIFEST.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    videos = [r for r in rows if re.search(r"\.(mp4|mov|mpg)$", r["file"]) and not re.search(SKIPPED, r["file"])]
    extractor, found = None, []
    for row in videos:
        path, kept = media / row["file"], cache / f"{Path(row['file']).stem}.npz"
        if not kept.exists():
            extractor = extractor or Extractor(task, yunet)
            take = extractor.take(path, trains=row["repository_licence"] in LICENCES)
            np.savez(kept, **vars(take))
            print(f"{take.name}: {len(take.wheel)} frames", flush=True)
        with np.load(kept) as a:
            found.append(
                Take(path.stem, bool(a["trains"]), tuple(a["size"]), a["wheel"], a["task"], a["shapes"], a["matrix"])
            )
    found = [t for t in found if len(t.wheel) > 0]
    return [replace(t, trains=t.trains and t.person not in HELD_OUT) for t in found]


# ---------------------------------------------------------------------------------------------------- reference face


def reference_face(training: list[Take], rounds: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean face (cm), steadiness and mirror of its points.

    Every mesh is taken into camera space, turned back by MediaPipe's matrix, and averaged: by person, then over
    people, then over both sides of the face. A point's weight is one over its variance within a clip after a rigid fit.
    The face's size is the one with which our distances grow as MediaPipe's do.
    """
    takes = [(t.person, t.size, m, t.matrix) for t in map(_seen_whole, training) for m in (t.task, t.wheel) if len(m)]
    points, weights, mirror = _first_reference(takes), np.ones(478) * (np.arange(478) < 468), np.arange(478)
    for _ in range(rounds):
        fits = [fit_face(meshes, points, weights, size=size) for _, size, meshes, _ in takes]
        ours = [np.median(camera[..., 2]) for camera, *_ in fits]
        ratio = np.polyfit(ours, [np.median(matrix[:, 2, 3]) for *_, matrix in takes], 1)[0]
        means = _mean_by_person(
            (who, np.median(_turned_back(fit[0] * ratio, matrix), axis=0))
            for fit, (who, _, _, matrix) in zip(fits, takes, strict=True)
        )
        points, mirror = _symmetric(means)
        weights = 1 / np.mean([_local(*fit).var(axis=0).sum(-1) for fit in fits], axis=0)
        weights = (weights + weights[mirror]) * (np.arange(478) < 468)
    return points, weights / weights.sum(), mirror


def _seen_whole(take: Take) -> Take:
    seen = np.isfinite(take.matrix[:, 0, 0])
    return replace(take, task=take.task[seen], wheel=take.wheel[seen], matrix=take.matrix[seen])


def _first_reference(takes: list[tuple]) -> np.ndarray:
    """Mean of the meshes seen straight on (orthographic, turned back by MediaPipe's matrices), 15 cm wide."""
    upright = ((who, meshes * (1, -1, -1), matrix) for who, _, meshes, matrix in takes)
    means = _mean_by_person(
        (who, np.median((m - m.mean(axis=1, keepdims=True)) @ matrix[:, :3, :3] / np.ptp(m), axis=0))
        for who, m, matrix in upright
    )
    return means * 15 / np.ptp(means[:, 0])


def _turned_back(camera: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return (camera - matrix[:, None, :3, 3]) @ matrix[:, :3, :3]


def _local(camera: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    return (camera - translation[:, None]) @ rotation


def _mean_by_person(values: Iterable[tuple[str, np.ndarray]]) -> np.ndarray:
    people: dict[str, list[np.ndarray]] = {}
    for who, value in values:
        people.setdefault(who, []).append(value)
    return np.mean([np.mean(v, axis=0) for v in people.values()], axis=0)


def _symmetric(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the points and their mirror image, and which point is whose mirror image."""
    flipped = points * (-1, 1, 1)
    mirror = linear_sum_assignment(((flipped[:, None] - points) ** 2).sum(-1))[1]
    assert (mirror[mirror] == np.arange(478)).all(), "mirrored points do not pair"
    return (points + flipped[mirror]) / 2, mirror


# ---------------------------------------------------------------------------------------------------- teacher


class Teacher:
    """The real head: blendshapes from 146 points in pixels. Needs ai-edge-litert."""

    def __init__(self, task: Path) -> None:
        with zipfile.ZipFile(task) as archive:
            self.net = Interpreter(model_content=archive.read("face_blendshapes.tflite"), num_threads=1)
        self.net.allocate_tensors()
        self.input = self.net.get_input_details()[0]["index"]
        self.output = self.net.get_output_details()[0]["index"]

    def __call__(self, meshes: np.ndarray) -> np.ndarray:
        """(frames, 51) scores of meshes in pixels."""
        scores = np.empty((len(meshes), len(SHAPES)), np.float32)
        for row, points in zip(scores, meshes[:, BLENDSHAPE_POINTS, :2].astype(np.float32), strict=True):
            self.net.set_tensor(self.input, points[None])
            self.net.invoke()
            row[:] = self.net.get_tensor(self.output)[TEACHER_ORDER]
        return scores


@dataclass(frozen=True)
class Person:
    """One person's neutral face (median, cm, turned to the front), all their frames' offsets from it, and poses."""

    neutral: np.ndarray
    offsets: np.ndarray
    yaw_pitch: np.ndarray


def people(training: list[Take], see: See) -> list[Person]:
    """Who is in the training clips."""
    by_name: dict[str, list[np.ndarray]] = {}
    for take in training:
        by_name.setdefault(take.person, []).append(see(take.wheel))
    return [_person(np.concatenate(parts)) for parts in by_name.values()]


def _person(x: np.ndarray) -> Person:
    front, view = x[:, :-3].reshape(-1, 478, 3), x[:, -3:]
    neutral = np.median(front, axis=0)
    yaw, pitch = np.arctan2(-view[:, 0], view[:, 2]), np.arcsin(np.clip(view[:, 1], -1, 1))
    return Person(neutral, front - neutral, np.degrees(np.stack([yaw, pitch], axis=1)))


def recombined(
    faces: list[Person], reference: np.ndarray, mirror: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """``n`` meshes that nobody made: one person's neutral face mixed from three, mouth and upper face from two frames.

    Offsets are also made smaller or larger, faces mirrored, turned, put at distances from 18 to 90 cm, and shaken.
    Returns (n, 478, 3) in pixels, as the wheel's mesh would be.
    """
    neutrals = np.stack([p.neutral for p in faces])
    middle = neutrals.mean(axis=0)
    mix = np.einsum("kj,kjni->kni", rng.dirichlet([0.5] * 3, n), neutrals[rng.integers(len(faces), size=(n, 3))])
    lower, pose = _draw(faces, n, rng)
    upper, _ = _draw(faces, n, rng)
    brows_and_eyes = 1 / (1 + np.exp((0.8 - reference[:, 1:2]) / 0.6))
    share = brows_and_eyes * (rng.random((n, 1, 1)) < 0.6)
    strength = np.where(rng.random((n, 1, 1)) < 0.5, rng.uniform(0.4, 1.5, (n, 1, 1)), 1)
    front = middle + (mix - middle) * rng.uniform(0.7, 1.5, (n, 1, 1))
    front += (lower * (1 - share) + upper * share) * strength + rng.normal(0, 0.015, (n, 478, 3))
    flipped = rng.random(n) < 0.5
    front[flipped] = front[flipped][:, mirror] * (-1, 1, 1)
    pose[flipped, 0] *= -1
    angles = np.concatenate([pose + rng.normal(0, (12, 8), (n, 2)), rng.normal(0, 6, (n, 1))], axis=1)
    return _photographed(front, angles, rng.uniform(18, 90, n))


def _draw(faces: list[Person], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and yaw and pitch of ``n`` frames, every person as often as the others."""
    who = rng.integers(len(faces), size=n)
    at = [(faces[w], rng.integers(len(faces[w].offsets))) for w in who]
    return np.stack([p.offsets[t] for p, t in at]), np.stack([p.yaw_pitch[t] for p, t in at])


def _photographed(front: np.ndarray, angles: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Faces turned by yaw, pitch and roll (degrees) in front of a camera (cm): pixels, y down, z away."""
    turned = front @ Rotation.from_euler("YXZ", angles, degrees=True).as_matrix().swapaxes(1, 2)
    turned -= turned.mean(axis=1, keepdims=True)
    closer = (distance[:, None] / (distance[:, None] - turned[..., 2]))[..., None]
    return turned * np.concatenate([closer, closer, np.ones_like(closer)], axis=2) * (10, -10, -10)


# ---------------------------------------------------------------------------------------------------- student


class Student(nn.Module):
    """Two hidden layers; see talkface/annotate/_arkit_head.py, which runs it."""

    def __init__(self, x: np.ndarray, hidden: int = 256) -> None:
        super().__init__()
        spread = x.std(axis=0)
        spread[:-3], spread[-3:] = spread[:-3].mean() + 0.02, 1 / 3
        self.mean, self.scale = torch.tensor(x.mean(axis=0)), torch.tensor(spread)
        widths = (x.shape[1], hidden, hidden, len(SHAPES))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores 0..1 of features."""
        x = (x - self.mean) / self.scale
        for layer in self.layers[:-1]:
            x = nn.functional.gelu(layer(x))
        return torch.sigmoid(self.layers[-1](x))

    def arrays(self) -> dict[str, np.ndarray]:
        """As float16, by the names that _arkit_head.py reads."""
        named = {"mean": self.mean, "scale": self.scale}
        for i, layer in enumerate(self.layers):
            named |= {f"w{i}": layer.weight.detach().T, f"b{i}": layer.bias.detach()}
        return {name: value.numpy().astype(np.float16) for name, value in named.items()}


class Clips:
    """Batches of the training clips, every person as often as the others.

    The target is halfway between the real model's scores and those of the real head on the wheel's mesh: the first is
    what we want, the second what this mesh can show. ``unit`` is each shape's usual movement within a clip.
    """

    def __init__(self, training: list[Take], taught: list[np.ndarray], see: See) -> None:
        names = [t.person for t in training]
        self.share = np.array([1 / names.count(n) for n in names]) / len(set(names))
        self.x = [torch.tensor(see(t.wheel)) for t in training]
        self.y = [torch.tensor((t.shapes + own) / 2) for t, own in zip(training, taught, strict=True)]
        self.neutral = [x[:, :-3].median(dim=0).values for x in self.x]
        usual = np.sqrt(np.mean([t.shapes.var(axis=0) for t in training], axis=0))
        self.unit = torch.tensor(usual + 0.02, dtype=torch.float32)

    def batch(self, rng: np.random.Generator, clips: int = 16, frames: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and targets; most clips with part of another person's neutral face."""
        xs, ys = [], []
        for clip in rng.choice(len(self.x), clips, p=self.share):
            rows = rng.integers(len(self.x[clip]), size=frames)
            x = self.x[clip][rows] + 0.02 * torch.randn(frames, self.x[clip].shape[1])
            if rng.random() < 0.6:
                other = rng.integers(len(self.x))
                x[:, :-3] += float(rng.random()) * (self.neutral[other] - self.neutral[clip])
            xs.append(x)
            ys.append(self.y[clip][rows])
        return torch.stack(xs), torch.stack(ys)


def fit_student(meshes: tuple[np.ndarray, np.ndarray], clips: Clips, steps: int) -> Student:
    """Learn the teacher's scores of ``meshes`` (features, scores), and the movement within ``clips``.

    Errors count in units of a shape's usual movement. Whether a clip's curve has the right shape matters more than its
    level, hence the second term without the clip's mean; identities are mixed there too.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x, y = meshes
    student = Student(x[:20000])
    optimiser = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rows = rng.integers(len(x), size=384)
        error = (student(torch.tensor(x[rows])) - torch.tensor(y[rows])) / clips.unit
        of_clips = clips.batch(rng)
        moved = (student(of_clips[0].flatten(0, 1)).view_as(of_clips[1]) - of_clips[1]) / clips.unit
        centred = moved - moved.mean(dim=1, keepdim=True)
        loss = error.clamp(-6, 6).square().mean() + 0.3 * moved.square().mean() + centred.square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        if step % 1000 == 999:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    return student


# ---------------------------------------------------------------------------------------------------- table


def correlations(real: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Correlation over time of each shape that moves; NaN for the others."""
    moves = real.std(axis=0) > MOVES
    a, b = (v - v.mean(axis=0) for v in (real, got))
    return np.where(moves, (a * b).sum(0) / np.maximum(np.sqrt((a**2).sum(0) * (b**2).sum(0)), 1e-12), np.nan)


def table(held_out: list[Take], ours: See, teacher: See) -> str:
    """A row a clip, and medians: our head and the real head, both on the wheel's mesh, against the real model."""
    columns = {"ours": ours, "real head": teacher}
    all_rows = {
        who: np.array([correlations(t.shapes, head(t.wheel)) for t in held_out]) for who, head in columns.items()
    }
    lines = [f"{'clip':45}{'moving':>8}" + "".join(f"{who:>12}{'jawOpen':>9}" for who in columns)]
    for i, take in enumerate(held_out):
        cells = "".join(f"{np.nanmedian(r[i]):12.3f}{r[i, JAW_OPEN]:9.3f}" for r in all_rows.values())
        lines.append(f"{take.name:45}{np.isfinite(all_rows['ours'][i]).sum():8}{cells}")
    cells = "".join(
        f"{np.median(np.nanmedian(r, axis=1)):12.3f}{np.nanmedian(r[:, JAW_OPEN]):9.3f}" for r in all_rows.values()
    )
    return "\n".join([*lines, f"{'median over clips':53}{cells}"])


def main() -> None:
    """Read the clips, learn, write the weights, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("media", "task", "yunet", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "talkface-train-arkit-head")
    parser.add_argument("--meshes", type=int, default=120_000, help="recombined meshes to ask the teacher about")
    parser.add_argument("--steps", type=int, default=6000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    clips = takes(args.media, args.task, args.yunet, args.cache)
    training = [t for t in clips if t.trains]
    used = {t.person for t in training}
    print(f"{len(training)} clips of {len(used)} people train", flush=True)

    points, weights, mirror = reference_face(training)
    np.savez(args.out / "head_reference.npz", points=points.astype("f4"), weights=weights.astype("f4"))
    see = partial(features, points=points, steadiness=weights)

    teacher, rng = Teacher(args.task), np.random.default_rng(0)
    faces = people(training, see)
    parts = [recombined(faces, points, mirror, 4000, rng) for _ in range(args.meshes // 4000)]
    x = np.concatenate([see(part) for part in parts])
    y = np.concatenate([teacher(part) for part in parts])
    print(f"{len(x)} meshes labelled", flush=True)
    student = fit_student((x, y), Clips(training, [teacher(t.wheel) for t in training], see), args.steps)
    arrays = student.arrays()
    np.savez(args.out / "arkit_head.npz", **arrays)
    learnt = {name: array.astype(np.float32) for name, array in arrays.items()}
    print(table([t for t in clips if t.person not in used], lambda m: forward(see(m), learnt), teacher))


if __name__ == "__main__":
    main()
