"""The types of a sample for Hugging Face ``datasets``; `talkface.datasets.reader.hf_features` is the way in."""

from typing import Any

import datasets as hf

from talkface.datasets.format import schema
from talkface.datasets.format.sidecar import SidecarInfo


def features(info: schema.DatasetInfo | SidecarInfo) -> hf.Features:
    """What ``datasets`` cannot guess: the type of every member of a dataset's shards, or of a sidecar's."""
    columns = {schema.member_name(s.name): _hf_array(s.dtype, len(s.shape) + (s.clock != "clip")) for s in info.specs()}
    media = {ext: hf.Value("binary") for ext in ("mp4", "flac")}
    known = columns | media | ({"json": _hf_json(info)} if isinstance(info, schema.DatasetInfo) else {})
    keys = {"__key__": hf.Value("string"), "__url__": hf.Value("string")}
    return hf.Features({ext: known[ext] for ext in info.members()} | keys)


def _hf_array(dtype: str, axes: int) -> Any:
    feature: Any = hf.Value(dtype)
    for _ in range(axes):
        feature = hf.List(feature)
    return feature


def _hf_json(info: schema.DatasetInfo) -> dict[str, Any]:
    text, whole, real = hf.Value("string"), hf.Value("int64"), hf.Value("float64")
    return {
        **dict.fromkeys(("key", "source", "source_sha256"), text),
        **dict.fromkeys(("track", "shot", "start_ns", "end_ns", "frames", "crop_size"), whole),
        **dict.fromkeys(schema.JSON_NUMBERS, real),
        "is_vfr": hf.Value("bool"),
        "labels": dict.fromkeys(("speaker", "emotion", "camera", "language", "licence"), text) | {"intensity": whole},
        "crop": hf.List(hf.List(real)),
        "scores": {s["name"]: real for s in info.scores},
        "share": dict.fromkeys(info.annotators, real),
        "status": dict.fromkeys(info.annotators, text),
    }
