"""Motion: blendshapes and head pose over time, as a file of our own (.npz) and as Live Link Face's (.csv).

The files are described in docs/motion.md.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.spatial.transform import Rotation

from talkface.clip import NS, Timeline
from talkface.errors import SourceError
from talkface.motion.live_link import live_link_text, read_live_link
from talkface.store import Folder
from talkface.vocab import ARKIT

VERSION: Final = 1
HEAD_NAMES: Final = ("qw", "qx", "qy", "qz", "tx", "ty", "tz")
"""Parts of a head row: the first seven of the dataset column ``head``."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What a face does.

    ``pts_ns`` rises strictly. ``arkit`` holds Apple's 52 blendshapes in the order of `vocab.ARKIT`, 0..1. ``head`` is a
    unit quaternion wxyz (head to camera) and a translation in cm, in the axes of docs/head.md. Missing is NaN.
    ``fps`` is the rate it was made at; 0 where that is not known. ``provenance`` is plain JSON; motion that a model
    made has ``"synthetic": true`` in it, and what made it.

    Raises ValueError for arrays that do not fit together.
    """

    pts_ns: Int64[np.ndarray, " frames"]
    arkit: Float32[np.ndarray, "frames 52"]
    head: Float32[np.ndarray, "frames 7"]
    fps: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(Timeline(self.pts_ns))
        for name, width in (("arkit", len(ARKIT)), ("head", len(HEAD_NAMES))):
            value = getattr(self, name)
            if value.shape != (n, width) or value.dtype != np.float32:
                raise ValueError(f"{name}: expected float32 {(n, width)}, got {value.dtype} {value.shape}")

    def __len__(self) -> int:
        return len(self.pts_ns)

    @property
    def is_synthetic(self) -> bool:
        """Whether a model made it."""
        return bool(self.provenance.get("synthetic", False))

    def angles(self) -> Float[np.ndarray, "frames 3"]:
        """Yaw, pitch and roll of the head in rad, as `head_angles`."""
        return head_angles(self.head[:, :4])

    def live_link(self) -> str:
        """The text of a Live Link Face recording of it."""
        return live_link_text(self.pts_ns, self.arkit, self.angles())

    def save(self, path: str | Path) -> None:
        """Write ``.npz``, or ``.csv`` for Live Link Face; the file is whole or absent.

        A ``.csv`` of motion that a model made gets a ``.json`` beside it that says so: the format has no place for it.
        """
        if Path(path).suffix == ".csv":
            if self.is_synthetic:
                _write(_beside(path), json.dumps(dict(self.provenance), indent=1, sort_keys=True).encode())
            else:
                _beside(path).unlink(missing_ok=True)
            _write(path, self.live_link().encode())
            return
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            version=np.int64(VERSION),
            pts_ns=self.pts_ns,
            arkit=self.arkit,
            head=self.head,
            fps=np.float64(self.fps),
            arkit_names=np.array(ARKIT),
            head_names=np.array(HEAD_NAMES),
            provenance=np.array(json.dumps(dict(self.provenance), sort_keys=True)),
        )
        _write(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, or a Live Link Face recording. Raises SourceError for anything else.

        A ``.csv`` whose ``.json`` is not beside it is taken for a recording.
        """
        if Path(path).suffix == ".csv":
            return cls._recorded(path)
        try:
            with np.load(path, allow_pickle=False) as found:
                names = tuple(found["arkit_names"].tolist())
                if int(found["version"]) > VERSION or names != ARKIT:
                    raise SourceError(f"{path}: motion of another version. Update talkface.")
                return cls(
                    pts_ns=found["pts_ns"],
                    arkit=found["arkit"],
                    head=found["head"],
                    fps=float(found["fps"]),
                    provenance=json.loads(str(found["provenance"])),
                )
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror or error}).") from error
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise SourceError(f"{path}: not a motion file ({error}). Expected the .npz of toolkit sample.") from error

    @classmethod
    def _recorded(cls, path: str | Path) -> Self:
        found = read_live_link(path)
        about = _told_beside(path) or {"synthetic": False, "live_link_face": Path(path).name}
        head, fps = head_rows(found.angles), Timeline(found.pts_ns).fps
        return cls(pts_ns=found.pts_ns, arkit=found.arkit, head=head, fps=fps, provenance=about)


def steady_pts(frames: int, fps: float) -> Int64[np.ndarray, " frames"]:
    """Times in ns of ``frames`` frames at a steady rate, from 0."""
    return np.round(np.arange(frames) * (NS / fps)).astype(np.int64)


def head_angles(quaternion: Float[np.ndarray, "frames 4"]) -> Float[np.ndarray, "frames 3"]:
    """Yaw, pitch and roll in rad of quaternions wxyz; NaN where they are NaN.

    ``R = Ry(yaw) Rx(-pitch) Rz(roll)`` as in docs/head.md: yaw > 0 turns to the person's left, pitch > 0 looks up,
    roll > 0 tilts towards the person's right shoulder.
    """
    angles = np.full((len(quaternion), 3), np.nan)
    seen = np.isfinite(quaternion).all(axis=1)
    if seen.any():
        turned = Rotation.from_quat(quaternion[seen].astype(np.float64)[:, [1, 2, 3, 0]])
        angles[seen] = turned.as_euler("YXZ") * (1, -1, 1)
    return angles


def head_rows(
    angles: Float[np.ndarray, "frames 3"], translation: Float[np.ndarray, "frames 3"] | None = None
) -> Float32[np.ndarray, "frames 7"]:
    """Head rows of yaw, pitch and roll in rad (the inverse of `head_angles`) and a translation in cm, NaN without one.

    Each quaternion has the sign that is closer to the one before it.
    """
    rows = np.full((len(angles), len(HEAD_NAMES)), np.nan)
    seen = np.flatnonzero(np.isfinite(angles).all(axis=1))
    if len(seen) > 0:
        turned = Rotation.from_euler("YXZ", angles[seen].astype(np.float64) * (1, -1, 1))
        q = turned.as_quat()[:, [3, 0, 1, 2]]
        turns = np.where((q[1:] * q[:-1]).sum(-1) < 0, -1.0, 1.0)
        first = -1.0 if q[0, 0] < 0 else 1.0
        rows[seen, :4] = q * first * np.cumprod(np.concatenate([[1.0], turns]))[:, None]
    if translation is not None:
        rows[:, 4:] = translation
    return rows.astype(np.float32)


def _beside(path: str | Path) -> Path:
    """Where a ``.csv`` has its provenance."""
    return Path(f"{path}.json")


def _told_beside(path: str | Path) -> Mapping[str, Any]:
    """The provenance beside a ``.csv``, empty where there is none. Raises SourceError for a damaged one."""
    try:
        return dict(json.loads(_beside(path).read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(f"{_beside(path)}: not the provenance of a motion ({error}). Remove it.") from error


def _write(path: str | Path, data: bytes) -> None:
    Folder(Path(path).parent).write(Path(path).name, data)
