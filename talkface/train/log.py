"""What a run writes while it goes: a line a logged step, TensorBoard's events, pictures."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import numpy as np
from torch.utils.tensorboard import SummaryWriter

from talkface.store import Folder
from talkface.train import checkpoint
from talkface.train.base import TaskConfig

Item = TypeVar("Item")


class Waiting(Generic[Item]):
    """An iterator that counts the seconds that were spent waiting for it."""

    def __init__(self, source: Iterator[Item]) -> None:
        self._source, self.seconds = source, 0.0

    def __next__(self) -> Item:
        asked = time.perf_counter()
        found = next(self._source)
        self.seconds += time.perf_counter() - asked
        return found


class Log:
    """``log.jsonl``, TensorBoard's events and pictures; lines after the step that a run goes on from are dropped.

    Everything raises RunError when the disk is full.
    """

    def __init__(self, out: Path, config: TaskConfig, step: int) -> None:
        self._out = out
        checkpoint.sweep(out)
        Folder(out).write("config.toml", config.toml().encode())
        path = out / "log.jsonl"
        before = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in before if line.endswith("\n") and json.loads(line)["step"] <= step]
        Folder(out).write("log.jsonl", "".join(kept).encode())
        with checkpoint.disk_space(out):
            self._writer = SummaryWriter(str(out / "events"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float], speed: Mapping[str, float]) -> None:
        """One line; ``speed`` differs from run to run, ``values`` do not."""
        with checkpoint.disk_space(self._out):
            with (self._out / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, **values, **speed}) + "\n")
            for key, value in {**values, **speed}.items():
                self._writer.add_scalar(key, value, step)
            self._writer.flush()

    def draw(self, step: int, picture: np.ndarray) -> None:
        """``pictures/<step>.png``, RGB."""
        done, data = cv2.imencode(".png", picture[..., ::-1])
        assert done
        with checkpoint.disk_space(self._out):
            Folder(self._out).write(f"pictures/{step:08}.png", data.tobytes())
            self._writer.add_image("what the model does", picture, step, dataformats="HWC")
