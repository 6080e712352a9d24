"""Lossless sound: 16 kHz mono int16 to FLAC bytes and back."""

import io

import av
import numpy as np
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
    with av.open(io.BytesIO(data), format="flac") as container:
        chunks = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.int16)


def sound_frame(samples: Int16[np.ndarray, " samples"], first: int) -> AudioFrame:
    """16 kHz mono samples, of which the first has the index ``first``, as PyAV's frame."""
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    frame.pts = first
    return frame
