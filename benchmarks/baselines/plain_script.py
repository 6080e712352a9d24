"""The plain script: what people write today to turn talking-face videos into blendshapes, as the benchmark's baseline.

For each video: ffmpeg writes it out as PNG pictures at 25 fps, MediaPipe's FaceLandmarker looks at each picture
(IMAGE mode, with blendshapes and matrices), the results go to .npy, the face is cut out to a 512 x 512 mp4 by
OpenCV's writer. One process, nothing held back: ffmpeg, OpenCV and MediaPipe use as many cores as they do by default.

    python benchmarks/baselines/plain_script.py --models DIR --out DIR VIDEO...

Prints one JSON object a video and one for all: frames, faces, seconds, frames per second, CPU seconds (of ffmpeg too).
Needs ffmpeg on the path, or `pip install imageio-ffmpeg`, or --ffmpeg FILE.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np

FPS = 25
SIZE = 512
SCALE = 1.8


def find_ffmpeg() -> str:
    """The ffmpeg on the path, else the one that comes with imageio-ffmpeg."""
    on_path = shutil.which("ffmpeg")
    if on_path:
        return on_path
    try:
        import imageio_ffmpeg
    except ImportError:
        raise SystemExit("plain_script: no ffmpeg on the path. Install it, or `pip install imageio-ffmpeg`.") from None
    return imageio_ffmpeg.get_ffmpeg_exe()


def make_landmarker(models: Path) -> mp.tasks.vision.FaceLandmarker:
    vision = mp.tasks.vision
    options = vision.FaceLandmarkerOptions(
        base_options=mp.tasks.BaseOptions(model_asset_path=str(models / "face_landmarker.task")),
        running_mode=vision.RunningMode.IMAGE,
        num_faces=1,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    return vision.FaceLandmarker.create_from_options(options)


def extract_frames(ffmpeg: str, video: Path, folder: Path, suffix: str) -> list[Path]:
    # The default of older ffmpegs, which most people have; version 9 predicts rows, which takes twice as long.
    options = {"png": ["-pred", "none"], "jpg": ["-qscale:v", "2"]}
    pictures = ["-vf", f"fps={FPS}", *options[suffix], str(folder / f"%06d.{suffix}")]
    subprocess.run([ffmpeg, "-y", "-loglevel", "error", "-i", str(video), *pictures], check=True)
    return sorted(folder.glob(f"*.{suffix}"))


def crop_face(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A square around the landmarks, black beyond the picture."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    side = SCALE * (high - low).max()
    x, y = ((low + high) / 2 - side / 2).astype(int)
    side = int(side)
    height, width = image.shape[:2]
    square = np.zeros((side, side, 3), np.uint8)
    inside = image[max(y, 0) : min(y + side, height), max(x, 0) : min(x + side, width)]
    top, left = max(-y, 0), max(-x, 0)
    square[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return cv2.resize(square, (SIZE, SIZE), interpolation=cv2.INTER_AREA if side > SIZE else cv2.INTER_LINEAR)


def process(
    video: Path, out: Path, landmarker: mp.tasks.vision.FaceLandmarker, ffmpeg: str, suffix: str
) -> tuple[int, int]:
    """Annotate one video; returns how many frames it had, and how many with a face."""
    out.mkdir(parents=True, exist_ok=True)
    landmarks, blendshapes, matrices = [], [], []
    writer = cv2.VideoWriter(str(out / "face.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (SIZE, SIZE))
    with tempfile.TemporaryDirectory(dir=out) as folder:
        pictures = extract_frames(ffmpeg, video, Path(folder), suffix)
        for picture in pictures:
            image = cv2.imread(str(picture))
            height, width = image.shape[:2]
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            result = landmarker.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb))
            if not result.face_landmarks:
                continue
            points = np.array([(p.x * width, p.y * height, p.z * width) for p in result.face_landmarks[0]], np.float32)
            landmarks.append(points)
            blendshapes.append(np.array([shape.score for shape in result.face_blendshapes[0]], np.float32))
            matrices.append(result.facial_transformation_matrixes[0])
            writer.write(crop_face(image, points))
    writer.release()
    np.save(out / "landmarks.npy", np.array(landmarks))
    np.save(out / "blendshapes.npy", np.array(blendshapes))
    np.save(out / "matrices.npy", np.array(matrices))
    return len(pictures), len(landmarks)


def cpu_seconds() -> float:
    """CPU time of this process and of the ffmpeg processes it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def report(name: str, frames: int, faces: int, seconds: float, cpu: float) -> None:
    row = {"video": name, "frames": frames, "faces": faces, "seconds": round(seconds, 3)}
    print(json.dumps({**row, "frames_per_second": round(frames / seconds, 2), "cpu_seconds": round(cpu, 3)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with face_landmarker.task")
    parser.add_argument("--out", type=Path, required=True, help="a folder a video is made in here")
    parser.add_argument("--pictures", choices=("png", "jpg"), default="png", help="jpg (quality 2) is the faster habit")
    parser.add_argument("--ffmpeg", help="the ffmpeg to run")
    parser.add_argument("videos", type=Path, nargs="+")
    args = parser.parse_args()
    ffmpeg = args.ffmpeg or find_ffmpeg()
    start, cpu_start, total, total_faces = time.perf_counter(), cpu_seconds(), 0, 0
    with make_landmarker(args.models) as landmarker:
        for video in args.videos:
            begin, cpu_begin = time.perf_counter(), cpu_seconds()
            frames, faces = process(video, args.out / video.stem, landmarker, ffmpeg, args.pictures)
            report(str(video), frames, faces, time.perf_counter() - begin, cpu_seconds() - cpu_begin)
            total, total_faces = total + frames, total_faces + faces
    report("all", total, total_faces, time.perf_counter() - start, cpu_seconds() - cpu_start)


if __name__ == "__main__":
    main()
