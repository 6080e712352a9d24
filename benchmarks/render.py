"""Frames a second of drawing motion on one core, at 256 and 512 pixels, against real time (25 frames/s).

Seconds are the process's CPU seconds on one thread: what else the machine does matters little.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

FPS = 25
SIZES = (256, 512)


def main(options: argparse.Namespace) -> None:
    """Draw a range of motion on the built-in head and on the same head as a GLB; with and without the mp4."""
    from talkface.render import gl, talk
    from talkface.render.gltf import read_gltf, write_glb
    from talkface.render.morph import MorphRig
    from talkface.render.rigs import SyntheticRig, head_mesh
    from talkface.threads import one_thread

    one_thread()
    motion = talk.range_of_motion(FPS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.glb"
        write_glb(head_mesh(SyntheticRig().head), path)
        mesh = read_gltf(path)
        rigs = {"built-in head": SyntheticRig(), "built-in head, --draft": SyntheticRig(smooth_edges=False)}
        rigs |= {"GLB": MorphRig(mesh), "GLB, --draft": MorphRig(mesh, smooth_edges=False)}
        try:
            painter = gl.painter("egl")
            rigs[f"GLB, --gl egl ({painter.name})"] = MorphRig(mesh, draw=painter)
        except Exception as error:
            print(f"no GL: {error}")
        print("| rig | size | frames/s | x real time | with mp4 |\n|---|---|---|---|---|")
        for name, rig in rigs.items():
            for size in SIZES:
                drawn = median(drawing(motion, rig, size) for _ in range(options.rounds))
                written = median(writing(motion, rig, size, folder) for _ in range(options.rounds))
                print(f"| {name} | {size} | {drawn:.0f} | {drawn / FPS:.1f} | {written / FPS:.1f} |", flush=True)


def drawing(motion, rig, size: int, n: int = 60) -> float:
    """Frames a second without writing them."""
    frames = iter(talk_frames(motion, rig, size))
    next(frames)
    started = time.process_time()
    for _ in range(n):
        next(frames)
    return n / (time.process_time() - started)


def writing(motion, rig, size: int, folder: str, n: int = 60) -> float:
    """Frames a second into an mp4."""
    from itertools import islice

    from talkface.render import talk

    started = time.process_time()
    pictures = islice(talk_frames(motion, rig, size), n)
    talk.write_video(Path(folder) / "out.mp4", pictures, motion.pts_ns[:n], tags=talk.tags_of(motion, rig.name))
    return n / (time.process_time() - started)


def talk_frames(motion, rig, size: int):
    from talkface.render import talk

    return talk.frames(motion, rig, size)
