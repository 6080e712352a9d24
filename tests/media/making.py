"""Makes media files whose truth is known: flashes and clicks at given times, holes, late starts, odd pixel formats."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

US = Fraction(1, 1_000_000)


def grey(level: int, size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def blip(rate: int, seconds: float, at: Sequence[float], hz: float = 1000.0) -> np.ndarray:
    """Short bells of sound centred at the times ``at``, which no codec moves; the rest is silence."""
    t = np.arange(round(rate * seconds)) / rate
    wave = np.zeros(len(t))
    for c in at:
        near = slice(max(0, round((c - 0.03) * rate)), round((c + 0.03) * rate))
        wave[near] += np.exp(-(((t[near] - c) / 0.004) ** 2)) * np.cos(2 * np.pi * hz * (t[near] - c))
    return np.asarray(wave * 20_000).astype(np.int16)


def centres(samples: np.ndarray, at: Sequence[float], rate: int = 16_000, reach: float = 0.05) -> np.ndarray:
    """Seconds of the centre of energy of each bell."""
    t = np.arange(len(samples)) / rate
    power = samples.astype(np.float64) ** 2
    near = [np.abs(t - c) < reach for c in at]
    return np.array([(power[n] * t[n]).sum() / power[n].sum() for n in near])


def make(
    path: Path,
    *,
    pictures: Sequence[tuple[int, np.ndarray]] = (),
    sound: Sequence[tuple[float, np.ndarray]] = (),
    rate: int = 48_000,
    layout: str = "mono",
    video: str = "libx264",
    audio: str = "pcm_s16le",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    time_base: Fraction = US,
    muxer: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A file with ``pictures`` at times in us and pieces of ``sound`` at times in seconds."""
    if muxer is None and path.suffix in (".mp4", ".mov"):
        muxer = {"movie_timescale": "1000000", "video_track_timescale": "1000000"}
    with av.open(str(path), "w", container_options=muxer or {}) as out:
        streams = []
        if pictures:
            shape = pictures[0][1].shape
            picture = out.add_stream(
                video, rate=25, options={**({"bf": "2", "g": "10"} if video == "libx264" else {}), **options}
            )
            picture.width, picture.height, picture.pix_fmt = shape[1], shape[0], pix_fmt
            picture.time_base = picture.codec_context.time_base = time_base
            if rotation:
                picture.set_display_rotation(rotation)
            streams.append(picture)
        if sound:
            voice = out.add_stream(audio, rate=rate, layout=layout)
            streams.append(voice)
        packets = []
        if pictures:
            packets += [p for at, rgb in pictures for p in picture.encode(_picture(rgb, at, pix_fmt))]
            packets += picture.encode(None)
        if sound:
            packets += [p for at, samples in sound for p in _pieces(voice, at, samples, rate, layout)]
            packets += voice.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def _picture(rgb: np.ndarray, at_us: int, pix_fmt: str) -> VideoFrame:
    frame = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
    frame.pts, frame.time_base = at_us, US
    return frame


def _pieces(stream: av.AudioStream, at: float, samples: np.ndarray, rate: int, layout: str) -> list[av.Packet]:
    packets, size = [], stream.codec_context.frame_size or 1024
    channels = 2 if layout == "stereo" else 1
    for low in range(0, len(samples), size):
        piece = np.repeat(samples[low : low + size], channels)[None]
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="s16", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(at * rate) + low
        packets += stream.encode(frame)
    return packets
