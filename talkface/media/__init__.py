"""The only code that decodes or encodes pictures and sound.

Everything here speaks the **source clock**: int64 ns, where 0 is the earliest start of picture or sound in the
container, laid out as a player would (edit lists and encoder priming applied by the demuxer). So a recording whose
timestamps begin at 0.5 s begins at 0, and a picture that starts 8 s after its sound has its first frame at 8 s. Times
come from the container's timestamps alone; no frame index is ever divided by a frame rate.

Decoders and encoders run single-threaded: N worker processes use N cores, and results do not depend on the machine's
load. Nothing happens at import.
"""

from talkface.media.container import decoders, may_pass, plain_errors, probe
from talkface.media.flac import FlacSamples, decode_flac, encode_flac
from talkface.media.frames import ClipFrames
from talkface.media.mux import with_sound
from talkface.media.picture import Frame, VideoReader
from talkface.media.sound import Sound, read_sound
from talkface.media.start import PictureStart, picture_start
from talkface.media.still import read_picture
from talkface.media.writer import VideoWriter

__all__ = [
    "ClipFrames",
    "FlacSamples",
    "Frame",
    "PictureStart",
    "Sound",
    "VideoReader",
    "VideoWriter",
    "decode_flac",
    "decoders",
    "encode_flac",
    "may_pass",
    "picture_start",
    "plain_errors",
    "probe",
    "read_picture",
    "read_sound",
    "with_sound",
]
