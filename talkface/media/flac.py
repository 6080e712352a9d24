"""Lossless sound: 16 kHz mono int16 to FLAC bytes and back."""

import io

import av
import numpy as np
import soundfile
from av.audio.frame import AudioFrame
from jaxtyping import Int16

from talkface.vocab import SAMPLE_RATE

_OPTIONS = {"fflags": "+bitexact", "metadata_header_padding": "0"}
"""No name of the library in the file, and no 8 kB of padding."""


def encode_flac(samples: Int16[np.ndarray, " samples"]) -> bytes:
    """FLAC of 16 kHz mono samples; the same samples give the same bytes."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac", container_options=_OPTIONS) as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        stream.codec_context.thread_count = 1
        stream.codec_context.open()
        size = stream.codec_context.frame_size
        for low in range(0, len(samples), size):
            container.mux(stream.encode(sound_frame(samples[low : low + size], low)))
        container.mux(stream.encode(None))
    return file.getvalue()


def decode_flac(data: bytes) -> Int16[np.ndarray, " samples"]:
    """The samples of a FLAC file made by ``encode_flac``."""
    return FlacSamples(data).get(0)


class FlacSamples:
    """Random access to the samples of a FLAC file made by ``encode_flac``, from its bytes; ``len`` is their number.

    Raises an exception of the decoder's own for what is no FLAC. Not made to be pickled or shared between threads.
    """

    def __init__(self, data: bytes) -> None:
        # libsndfile takes half of the time of FFmpeg, which starts threads for each file.
        self._file = soundfile.SoundFile(io.BytesIO(data))

    def __len__(self) -> int:
        # The header has 36 bits for it; where it says none, libsndfile says the largest number that it knows.
        frames = int(self._file.frames)
        return frames if frames < 1 << 36 else 0

    def get(self, first: int, count: int = -1) -> Int16[np.ndarray, " samples"]:
        """``count`` samples (all that are left: -1) from ``first`` on; fewer at the end, none past it.

        Raises ValueError for damaged samples.
        """
        first = min(first, len(self))
        expected = len(self) - first if count < 0 else min(count, len(self) - first)
        if expected <= 0:
            return np.zeros(0, np.int16)
        if self._file.tell() != first:
            self._file.seek(first)
        samples: np.ndarray = self._file.read(expected, dtype="int16")
        if len(samples) != expected:
            raise ValueError(f"{len(samples)} of {expected} samples from sample {first} on")
        return samples


def sound_frame(samples: Int16[np.ndarray, " samples"], first: int) -> AudioFrame:
    """16 kHz mono samples, of which the first has the index ``first``, as PyAV's frame."""
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.pts = first
    return frame
