"""A clip's picture and sound in one file, for players: nothing is encoded again."""

import io
from typing import Any

import av

_MUXER = {"fflags": "+bitexact", "movie_timescale": "1000000"}


def with_sound(mp4: bytes, flac: bytes) -> bytes:
    """An mp4 with the packets of a clip's H.264 and of its FLAC, each at its own time.

    One file has one clock: a player keeps picture and sound together by itself. Raises av.FFmpegError for bytes that
    are neither.
    """
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(mp4)) as picture,
        av.open(io.BytesIO(flac), format="flac") as sound,
        av.open(file, "w", format="mp4", container_options=_MUXER) as both,
    ):
        streams: list[Any] = [picture.streams.video[0], sound.streams.audio[0]]
        places = [both.add_stream_from_template(stream) for stream in streams]
        places[0].time_base = streams[0].time_base
        packets = [(p, place) for s, place in zip(streams, places, strict=True) for p in s.container.demux(s) if p.size]
        for packet, place in sorted(packets, key=lambda item: float(item[0].dts * item[0].time_base)):
            packet.stream = place
            both.mux(packet)
    return file.getvalue()
