"""Any sound as speech for trained models."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int16

from talkface.clip import NS
from talkface.errors import SourceError
from talkface.media import probe, read_sound
from talkface.train.checkpoint import Model
from talkface.train.inputs.audio_features import SoundFacts, speech_of
from talkface.train.protocols import Speech
from talkface.weights import Models


def read_speech(path: str, wanted: Sequence[Model], models: Models) -> Speech:
    """Any sound file or video as speech for some models. Raises MediaError; SourceError where there is no sound."""
    duration = probe(path, sound_only=True).duration
    sound = read_sound(path, 0, round(duration * NS))
    if not sound.present or len(sound.samples) == 0:
        raise SourceError(f"{path}: no sound in it. Give --audio a file with sound.", "no_sound")
    return speech_from(sound.samples, wanted, models)


def speech_from(samples: Int16[np.ndarray, " samples"], wanted: Sequence[Model], models: Models) -> Speech:
    """Samples at 16 kHz as speech for some models."""
    facts = [SoundFacts.of(m.about.facts["sound"]) for m in wanted if "sound" in m.about.facts]
    return speech_of(samples, facts, models)
