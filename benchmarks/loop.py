"""A long file from a short clip, by copying its packets again and again: no decoding, no new picture."""

from fractions import Fraction
from pathlib import Path

import av


def loop(clip: Path, out: Path, *, seconds: float, fps: float) -> None:
    """Write ``clip``'s picture packets end to end at ``fps`` until ``seconds`` are full."""
    with av.open(str(clip)) as source, av.open(str(out), "w") as target:
        stream = source.streams.video[0]
        packets = [p for p in source.demux(stream) if p.size]
        copy = target.add_stream_from_template(stream)
        base = Fraction(1, 90_000)
        step = round(90_000 / fps)
        start = min(p.pts for p in packets)
        unit = packets[1].dts - packets[0].dts
        for turn in range(int(seconds * fps / len(packets)) + 1):
            for packet in packets:
                again = av.Packet(bytes(packet))
                shift = turn * len(packets)
                again.time_base, again.stream = base, copy
                again.is_keyframe = packet.is_keyframe
                again.pts = ((packet.pts - start) // unit + shift) * step
                again.dts = ((packet.dts - start) // unit + shift) * step
                target.mux(again)
