"""What the annotators are tested on where the real thing cannot be had: model files of the true format with random
weights, and a clip of a synthetic face.

To cover an annotator whose weights cannot be fetched freely, add a maker of its file to ``MAKERS``.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from face_alignment.models import FAN
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from talkface.annotate._deca import Encoder
from talkface.clip import NS
from talkface.media import VideoWriter
from talkface.render.identity import Identity
from talkface.render.performance import perform
from talkface.render.raster import Camera
from talkface.render.rig import wall
from talkface.render.synthetic import head_of, pictures
from talkface.weights import REGISTRY, Models

SIZE = 512


@contextmanager
def _random(seed: int) -> Iterator[None]:
    """PyTorch's random numbers from a seed, and as they were afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def random_deca(path: Path) -> None:
    """``deca_model.tar``: the coarse encoder at its true size, and the keys that are not read."""
    with _random(0):
        state = Encoder().state_dict()
    torch.save({"E_flame": state, "E_detail": {}, "D_detail": {}}, path)


def random_fan(path: Path, stacks: int = 1) -> None:
    """FAN's weights in the old format that the published file has; one stack of the published four."""
    with _random(1):
        state = FAN(stacks).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)


VOCABULARY = {
    token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"])
}
"""The published model's: blank, three that are never spelt, space, and letters by how often they come."""


def random_wav2vec(folder: Path, **changes: Any) -> None:
    """A folder like wav2vec2-base-960h: one narrow block by default, the states' width true."""
    tiny = {"num_hidden_layers": 1, "intermediate_size": 32, "conv_dim": (16,) * 7, "vocab_size": len(VOCABULARY)}
    with _random(2):
        Wav2Vec2ForCTC(Wav2Vec2Config(**(tiny | changes))).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY))


MAKERS: dict[str, Callable[[Path], None]] = {"deca": random_deca, "fan": random_fan, "wav2vec": random_wav2vec}
"""Name in the registry to what writes such a file (or folder) with random weights."""

SETTINGS: dict[str, dict[str, Any]] = {"fan": {"flip": False}, "wav2vec": {"depth": 1}}
"""Settings of annotators on stand-ins, where the default ones do not fit or take long."""


def stand_in_models(folder: Path, *names: str) -> Models:
    """Models that find the named entries' stand-ins in ``folder``, where they are made if they are not there yet."""
    registry = dict(REGISTRY)
    for name in names:
        parts = tuple(replace(part, sha256="", size=0) for part in REGISTRY[name].parts)
        registry[name] = replace(REGISTRY[name], sha256="", size=0, parts=parts)
        path = folder / REGISTRY[name].filename
        if not path.exists():
            MAKERS[name](path)
    return Models(folder, offline=True, registry=registry)


@cache
def synthetic_video(seed: int, frames: int) -> bytes:
    """H.264 of a synthetic face in the middle of 512 x 512 pixels, 25 frames a second."""
    pts_ns = np.arange(frames, dtype=np.int64) * (NS // 25)
    identity = Identity.from_seed(seed)
    acted = perform(pts_ns, identity, emotion="happy", intensity=2, seed=seed, seconds=frames / 25, motion="talk")
    camera = Camera(width=SIZE, height=SIZE)
    buffer = BytesIO()
    with VideoWriter(buffer, SIZE, SIZE) as video:
        shown = pictures([(head_of(identity), acted)], camera, wall(SIZE, SIZE, identity.wall))
        for rgb, at in zip(shown, pts_ns.tolist(), strict=True):
            video.write(rgb, at)
    return buffer.getvalue()
