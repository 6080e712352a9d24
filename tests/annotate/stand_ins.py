"""What the annotators are tested on where the real thing cannot be had: model files of the true format with random
weights, and a clip of a synthetic face.

To cover an annotator whose weights cannot be fetched freely, add a maker of its file to ``MAKERS``.
"""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from diffusers import AutoencoderKL
from face_alignment.models import FAN
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

from talkface.clip import NS
from talkface.media import VideoWriter
from talkface.nets.deca import Encoder
from talkface.nets.light_asd import LightASD
from talkface.nets.syncnet import SyncNet
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


def _lively(net: nn.Module, side: int) -> nn.Module:
    """Weights and statistics as training would leave them: what is put in still matters at the other end."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.1)
    with torch.no_grad():
        net.train()(torch.rand(4, 3, side // 32, side // 32).repeat_interleave(32, 2).repeat_interleave(32, 3))
    return net.eval()


def random_deca(path: Path) -> None:
    """``deca_model.tar``: the coarse encoder at its true size, and the keys that are not read."""
    with _random(0):
        state = _lively(Encoder(), 224).state_dict()
    torch.save({"E_flame": state, "E_detail": {}, "D_detail": {}}, path)


def random_fan(path: Path, stacks: int = 1) -> None:
    """FAN's weights in the old format that the published file has; one stack of the published four."""
    with _random(1):
        state = _lively(FAN(stacks), 256).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)


_WRITE_FLAME = """
import pickle, sys
import numpy as np, scipy.sparse
sys.path.insert(0, sys.argv[1])
import chumpy
n, protocol = int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(0)
nearness = rng.random((n, 5)) ** 4
model = {
    "v_template": rng.normal(0, 0.1, (n, 3)),
    "f": rng.integers(0, n, (2 * n, 3)).astype(np.uint32),
    "shapedirs": chumpy.Ch(rng.normal(0, 1e-3, (n, 3, 400))),
    "posedirs": rng.normal(0, 1e-3, (n, 3, 36)),
    "J_regressor": scipy.sparse.csc_matrix(np.where(rng.random((5, n)) < 0.3, rng.random((5, n)) / n, 0)),
    "weights": nearness / nearness.sum(axis=1, keepdims=True),
    "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
    "bs_style": "lbs", "bs_type": "lrotmin",
}
with open(sys.argv[2], "wb") as file:
    pickle.dump(model, file, protocol=protocol)
"""
_CHUMPY = """
class Ch(object):
    def __init__(self, x):
        self.x = x
        self._dirty_vars = {"x"}
        self._itr = None
"""


def random_flame(path: Path, vertices: int = 30, protocol: int = 2) -> None:
    """``generic_model.pkl`` as Python 2 wrote it, with a sparse matrix and an object of a package that is not here."""
    package = path.with_name("packages") / "chumpy"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("from chumpy.ch import Ch")
    (package / "ch.py").write_text(_CHUMPY)
    arguments = [str(package.parent), str(path), str(vertices), str(protocol)]
    subprocess.run([sys.executable, "-c", _WRITE_FLAME, *arguments], check=True)


def frontal_deca(path: Path) -> None:
    """``deca_model.tar`` that says of every picture: no rotation, in the middle, eight times as large as in metres."""
    random_deca(path)
    content = torch.load(path)
    weight, bias = (content["E_flame"][f"layers.2.{part}"] for part in ("weight", "bias"))
    weight[200:209], bias[200:209] = 0, torch.tensor([0.0] * 6 + [8, 0, 0])
    torch.save(content, path)


def egg_flame(path: Path) -> None:
    """``generic_model.pkl`` of an egg, 14 x 20 x 18 cm, with a nose, whose lower end is jaw; only its pose moves it."""
    rings, around = 24, 32
    down, side = np.meshgrid(np.linspace(0, np.pi, rings), np.arange(around) / around * 2 * np.pi, indexing="ij")
    x, y, z = np.sin(down) * np.sin(side), np.cos(down), np.sin(down) * np.cos(side)
    nose = 0.3 * np.exp(-(x**2 + (y + 0.1) ** 2) / 0.02) * (z > 0)
    corner = np.arange((rings - 1) * around).reshape(rings - 1, around)
    right = np.roll(corner, -1, axis=1)
    quads = np.stack([corner, corner + around, right + around, right], axis=-1).reshape(-1, 4)
    n = rings * around
    model = {
        "v_template": np.stack([x, y, z + nose], axis=-1).reshape(n, 3) * (0.07, 0.1, 0.09),
        "f": np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]]).astype(np.uint32),
        "shapedirs": np.zeros((n, 3, 400)),
        "posedirs": np.zeros((n, 3, 36)),
        "J_regressor": np.zeros((5, n)),
        "weights": np.eye(5)[np.where(y.ravel() < -0.5, 2, 1)],
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
    }
    path.write_bytes(pickle.dumps(model, protocol=2))


def random_syncnet(path: Path) -> None:
    """``syncnet_v2.model`` at its true size."""
    with _random(3):
        state = SyncNet().state_dict()
    torch.save(state, path)


def random_light_asd(path: Path) -> None:
    """``light_asd_talkset.model`` at its true size."""
    with _random(5):
        state = LightASD().state_dict()
    torch.save(state, path)


def random_sface(path: Path, width: int = 128, side: int = 112) -> None:
    """An ONNX network from aligned faces to ``width`` numbers: means of 8 x 8 cells, then one random layer."""
    rng = np.random.default_rng(4)
    weight, bias = rng.normal(0, 0.05, (width, 192)), rng.normal(0, 0.1, width)
    cell = (side // 8, side // 8)
    cells = _ints("kernel_shape", cell), _ints("strides", cell)
    nodes = [
        _node("AveragePool", ["data"], "cells", *cells),
        _node("Flatten", ["cells"], "flat"),
        _node("Gemm", ["flat", "weight", "bias"], "fc1", _part(1, b"transB") + _whole(3, 1) + _whole(20, 2)),
    ]
    tensors = [_tensor("weight", weight), _tensor("bias", bias)]
    graph = b"".join([*(_part(1, n) for n in nodes), _part(2, b"stand-in"), *(_part(5, t) for t in tensors)])
    graph += _part(11, _shaped("data", (1, 3, side, side))) + _part(12, _shaped("fc1", (1, width)))
    path.write_bytes(_whole(1, 7) + _part(7, graph) + _part(8, _whole(2, 11)))


def random_moonshine(path: Path) -> None:
    """A network in onnxruntime's own format from samples and a mask to 288 numbers a row: random filters."""
    weight = np.random.default_rng(6).normal(0, 0.5, (288, 1, 895))
    nodes = [
        _node("Unsqueeze", ["input_values"], "channel", _ints("axes", (1,))),
        _node("Conv", ["channel", "weight"], "found", _ints("kernel_shape", (895,)), _ints("strides", (384,))),
        _node("Transpose", ["found"], "last_hidden_state", _ints("perm", (0, 2, 1))),
    ]
    graph = b"".join([*(_part(1, n) for n in nodes), _part(2, b"stand-in"), _part(5, _tensor("weight", weight))])
    graph += _part(11, _shaped("input_values", ("batch", "samples")))
    graph += _part(11, _shaped("attention_mask", ("batch", "samples"), kind=7))
    graph += _part(12, _shaped("last_hidden_state", ("batch", "rows", 288)))
    as_ort = onnxruntime.SessionOptions()
    as_ort.optimized_model_filepath = str(path)
    as_ort.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(_whole(1, 7) + _part(7, graph) + _part(8, _whole(2, 11)), as_ort)


def _varint(value: int) -> bytes:
    low = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(byte | 128 for byte in low[:-1]), low[-1]])


def _whole(field: int, value: int) -> bytes:
    """A whole number of a protocol buffer's message."""
    return _varint(field << 3) + _varint(value)


def _part(field: int, content: bytes) -> bytes:
    """Bytes, text or a message inside a protocol buffer's message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _ints(name: str, values: tuple[int, ...]) -> bytes:
    return _part(1, name.encode()) + b"".join(_whole(8, v) for v in values) + _whole(20, 7)


def _node(kind: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    named = b"".join(_part(1, name.encode()) for name in inputs) + _part(2, output.encode())
    return named + _part(3, output.encode()) + _part(4, kind.encode()) + b"".join(_part(5, a) for a in attributes)


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_whole(1, n) for n in values.shape)
    return dims + _whole(2, 1) + _part(8, name.encode()) + _part(9, values.astype("<f4").tobytes())


def _shaped(name: str, shape: tuple[int | str, ...], kind: int = 1) -> bytes:
    """An input or output of floats (``kind`` 7: whole numbers); a length that has a name is any."""
    each = (_whole(1, n) if isinstance(n, int) else _part(2, n.encode()) for n in shape)
    dims = b"".join(_part(1, n) for n in each)
    return _part(1, name.encode()) + _part(2, _part(1, _whole(1, kind) + _part(2, dims)))


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


def random_vae(folder: Path) -> None:
    """A folder like sd-vae-ft-mse: four blocks, narrow."""
    with _random(4):
        AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=4, scaling_factor=0.18215,
        ).save_pretrained(folder)  # fmt: skip


MAKERS: dict[str, Callable[[Path], None]] = {
    "deca": random_deca,
    "fan": random_fan,
    "light_asd": random_light_asd,
    "moonshine_tiny_en": random_moonshine,
    "sd_vae": random_vae,
    "sface": random_sface,
    "syncnet": random_syncnet,
    "wav2vec": random_wav2vec,
}
"""Name in the registry to what writes such a file (or folder) with random weights."""

SETTINGS: dict[str, dict[str, Any]] = {"fan": {"flip": False}, "wav2vec": {"depth": 1}, "vae": {"side": 64}}
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
