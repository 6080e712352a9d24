"""The loaders that people use today, over the same clips: each gives windows as its users would cut them.

All decode what a window needs and nothing else where their format lets them: arkit, head and sound, or the video's
frames. They shuffle clips and cut a clip's windows one after the other, by frame index; talkface's own loader also
shuffles the windows and reads columns at exact times.
"""

import importlib.machinery
import io
import os
import sys
import tarfile
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

Sample = Mapping[str, Any]
LENGTHS = {"motion": 32, "video": 16}
SAMPLES_A_FRAME = 640
SIZE = 256
BATCH = 16
SHARDS = 8
MEGABYTES = 16
"""Of a shard of MDS and of a chunk of litdata."""


def windows_of(clip: Sample, kind: str) -> Iterator[dict[str, np.ndarray]]:
    """All windows of one clip: its columns are decoded, its sound and video are bytes."""
    length = LENGTHS[kind]
    if kind == "motion":
        sound, _ = soundfile.read(io.BytesIO(clip["flac"]), dtype="float32")
        for first in range(0, len(clip["arkit"]) - length + 1, length):
            span = slice(first, first + length)
            part = sound[first * SAMPLES_A_FRAME : (first + length) * SAMPLES_A_FRAME]
            part = np.pad(part, (0, length * SAMPLES_A_FRAME - len(part)))
            yield {"arkit": clip["arkit"][span], "head": clip["head"][span], "sound": part}
        return
    frames: list[np.ndarray] = []
    for frame in pictures(clip["mp4"]):
        frames.append(cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA))
        if len(frames) == length:
            yield {"frames": np.stack(frames)}
            frames = []


def pictures(video: bytes) -> Iterator[np.ndarray]:
    """Every frame, RGB, by PyAV on one thread."""
    with av.open(io.BytesIO(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            yield frame.to_ndarray(format="rgb24")


class Cut(IterableDataset):
    """Windows of the clips that an iterable of samples gives."""

    def __init__(self, clips: Iterable[Sample], kind: str) -> None:
        self.clips, self.kind = clips, kind

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for clip in self.clips:
            for window in windows_of(clip, self.kind):
                yield {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in window.items()}


def _batches(clips: Iterable[Sample], kind: str, workers: int) -> Iterable[Any]:
    return DataLoader(Cut(clips, kind), batch_size=BATCH, num_workers=workers, persistent_workers=True)


def _needed(kind: str) -> tuple[str, ...]:
    return ("arkit.npy", "head.npy", "flac") if kind == "motion" else ("mp4",)


def _shards(home: Path) -> list[str]:
    return [str(path) for path in sorted((home / "shards").iterdir())]


def webdataset(home: Path, kind: str, workers: int) -> Iterable[Any]:
    """Plain webdataset; members that a window does not need are not decoded."""
    import webdataset as wds

    needed = _needed(kind)
    samples = wds.WebDataset(
        [f"file:{shard}" for shard in _shards(home)],
        shardshuffle=100, select_files=lambda name: name.partition(".")[2] in needed, nodesplitter=None,
    )  # fmt: skip
    clips = samples.shuffle(100).decode().map(lambda s: {k.removesuffix(".npy"): v for k, v in s.items()})
    return _batches(clips, kind, workers)


class _Streamed:
    """Hugging Face shares the shards out among a DataLoader's workers by itself."""

    def __init__(self, home: Path, kind: str) -> None:
        self.home, self.kind = home, kind

    def __iter__(self) -> Iterator[Sample]:
        import datasets as hf

        from talkface.datasets import open_dataset
        from talkface.datasets.reader import hf_features

        features = hf_features(open_dataset(str(self.home / "dataset"), sidecars=()).info)
        stream = hf.load_dataset(
            "webdataset", data_files=_shards(self.home), split="train", streaming=True, features=features
        )
        for sample in stream.select_columns(list(_needed(self.kind))).with_format("numpy").shuffle(buffer_size=100):
            yield {k.removesuffix(".npy"): v if ".npy" in k else bytes(v) for k, v in sample.items()}


def hugging_face(home: Path, kind: str, workers: int) -> Iterable[Any]:
    """Hugging Face ``datasets``, streaming the same shards."""
    return _batches(_Streamed(home, kind), kind, workers)


def mds(home: Path, kind: str, workers: int) -> Iterable[Any]:
    """MosaicML streaming: the same samples in MDS shards."""
    _without_torchvision()
    from streaming import StreamingDataset

    return _batches(StreamingDataset(local=str(home / "mds"), shuffle=True, batch_size=BATCH), kind, workers)


def litdata(home: Path, kind: str, workers: int) -> Iterable[Any]:
    """litdata: the same samples in its chunks."""
    from litdata import StreamingDataset

    return _batches(StreamingDataset(str(home / "litdata"), shuffle=True), kind, workers)


class Folder(Dataset):
    """A folder a clip with .npy, .wav and .mp4; each item loads its files whole and keeps a window."""

    def __init__(self, home: Path, kind: str) -> None:
        self.kind, self.length = kind, LENGTHS[kind]
        clips = sorted((home / "folder").iterdir())
        self.places = [
            (clip, first)
            for clip in clips
            for first in range(0, len(np.load(clip / "arkit.npy", mmap_mode="r")) - self.length + 1, self.length)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        clip, first = self.places[index]
        span = slice(first, first + self.length)
        if self.kind == "motion":
            sound, _ = soundfile.read(clip / "audio.wav", dtype="float32")
            part = sound[first * SAMPLES_A_FRAME : (first + self.length) * SAMPLES_A_FRAME]
            part = np.pad(part, (0, self.length * SAMPLES_A_FRAME - len(part)))
            found = {
                "arkit": np.load(clip / "arkit.npy")[span],
                "head": np.load(clip / "head.npy")[span],
                "sound": part,
            }
        else:
            import decord

            reader = decord.VideoReader(str(clip / "video.mp4"), width=SIZE, height=SIZE, num_threads=1)
            last = len(reader) - 1
            found = {"frames": reader.get_batch([min(i, last) for i in range(span.start, span.stop)]).asnumpy()}
        return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in found.items()}


def folder(home: Path, kind: str, workers: int) -> Iterable[Any]:
    """.npy, .wav and .mp4 files, as most repositories keep them: decord, one window an item, shuffled."""
    return DataLoader(Folder(home, kind), batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=True)


RIVALS: Mapping[str, Callable[[Path, str, int], Iterable[Any]]] = {
    "webdataset": webdataset,
    "datasets, streaming": hugging_face,
    "MDS": mds,
    "litdata": litdata,
    ".npy and .mp4 files": folder,
}


def write_shards(home: Path, dataset: Any) -> None:
    """The dataset's samples, all members, in as many tars as can be shared out evenly among one, two or four workers.

    talkface's own shards may be of any sizes; loaders that share out shards would stand still with those.
    """
    keys = dataset.keys()
    (home / "shards").mkdir()
    for number in range(SHARDS):
        with tarfile.open(home / "shards" / f"{number:06d}.tar", "w") as tar:
            for key in keys[number::SHARDS]:
                for member, data in dataset.read([dataset.row(key)], dataset.info.members())[0].items():
                    about = tarfile.TarInfo(f"{key}.{member}")
                    about.size = len(data)
                    tar.addfile(about, io.BytesIO(data))


def write_mds(home: Path, samples: Iterable[Sample]) -> None:
    """All samples as MDS shards."""
    _without_torchvision()
    from streaming import MDSWriter

    kinds = {"key": "str", "arkit": "ndarray", "head": "ndarray", "pts": "ndarray", "lm": "ndarray"}
    with MDSWriter(
        out=str(home / "mds"), columns={**kinds, "flac": "bytes", "mp4": "bytes"}, size_limit=MEGABYTES << 20
    ) as writer:
        for sample in samples:
            writer.write(
                {"key": sample["key"], **{k: sample[k] for k in ("arkit", "head", "pts", "lm", "flac", "mp4")}}
            )


def write_litdata(home: Path, samples: list[Sample]) -> None:
    """All samples as litdata's chunks; the environment names the folders it may work in and empty."""
    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        assert name in os.environ, f"{name} must be set: litdata empties the folders it works in"
    from litdata import optimize

    optimize(fn=_itself, inputs=samples, output_dir=str(home / "litdata"), chunk_bytes=f"{MEGABYTES}MB", num_workers=1)


def _itself(sample: Sample) -> Sample:
    return sample


def write_folder(home: Path, samples: Iterable[Sample]) -> None:
    """A folder a clip."""
    for sample in samples:
        clip = home / "folder" / sample["key"]
        clip.mkdir(parents=True)
        for name in ("arkit", "head", "pts", "lm"):
            np.save(clip / f"{name}.npy", sample[name])
        sound, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16")
        soundfile.write(clip / "audio.wav", sound, rate)
        (clip / "video.mp4").write_bytes(sample["mp4"])


def _without_torchvision() -> None:
    """MDS imports torchvision for datasets of pictures; where there is none, an empty one lets the rest run."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        return
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")
    for name in names:
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        module.__path__ = []
        sys.modules[name] = module
    sys.modules["torchvision.datasets"].VisionDataset = object
    sys.modules["torchvision.transforms.functional"].to_tensor = None
