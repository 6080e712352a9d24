"""wav2vec 2.0: rows and their places, one call's states, long sound in chunks, characters, and files that are wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
)

from talkface.annotate._transformers import FIRST_SECONDS, HOP, RATE, Speech, SpeechConfig, n_rows, open_speech
from talkface.annotate.base import Annotator, make_annotator
from talkface.annotate.ctc import NAMES, posteriors
from talkface.errors import ConfigError, WeightsError
from talkface.weights import Models
from tests.annotate.making import clip_view
from tests.annotate.stand_ins import VOCABULARY, random_wav2vec, stand_in_models

SECOND = 16_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return stand_in_models(tmp_path_factory.mktemp("models"), "wav2vec")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights at the size of wav2vec2-base-960h."""
    folder = tmp_path_factory.mktemp("base")
    random_wav2vec(folder, num_hidden_layers=12, intermediate_size=3072, conv_dim=(512,) * 7)
    return folder


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Sound whose loudness comes and goes."""
    n = round(seconds * SECOND)
    loud = 1500 * (1.1 + np.sin(np.arange(n) / 2500))
    return (np.random.default_rng(seed).normal(0, 1, n) * loud).astype(np.int16)


def by_transformers(folder: Path, sound: np.ndarray) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Hidden states of all layers, and logits, of one call of the library's own model and feature extractor."""
    net = Wav2Vec2ForCTC.from_pretrained(folder).eval()
    inputs = Wav2Vec2FeatureExtractor.from_pretrained(folder)(
        sound.astype(np.float32) / 32768, sampling_rate=SECOND, return_tensors="pt"
    )
    with torch.inference_mode():
        out = net(inputs.input_values, output_hidden_states=True)
    return [state[0] for state in out.hidden_states], out.logits[0]


def columns(annotator: Annotator, models: Models, sound: np.ndarray | None, frames: int = 25) -> Mapping:
    annotator.open(models)
    return annotator.clip(clip_view(frames, sound=sound)).columns


@given(n=st.integers(0, 40_000))
@settings(deadline=None, max_examples=25)
def test_rows_are_those_of_the_convolutions(n: int) -> None:
    kernels, strides = Wav2Vec2Config().conv_kernel, Wav2Vec2Config().conv_stride
    rows = n
    for kernel, stride in zip(kernels, strides, strict=True):
        rows = max(0, (rows - kernel) // stride + 1)
    assert n_rows(n) == rows


def test_a_row_sees_400_samples_around_its_centre() -> None:
    """Gradients say which samples the convolutions look at for a row."""
    net = Wav2Vec2Model(
        Wav2Vec2Config(conv_dim=(4,) * 7, feat_extract_norm="layer", num_hidden_layers=1, hidden_size=48)
    )
    x = torch.randn(1, 6_000, requires_grad=True)
    for row in (0, 7, 17):
        (gradient,) = torch.autograd.grad(net.eval().feature_extractor(x)[0, :, row].square().sum(), x)
        seen = gradient[0].nonzero().flatten()
        first, end = int(seen.min()), int(seen.max()) + 1
        assert (first, end) == (HOP * row, HOP * row + 400)
        assert (first + end) / 2 / SECOND == pytest.approx(FIRST_SECONDS + row / RATE)
    assert (FIRST_SECONDS, RATE) == (0.0125, 50)


def test_a_clip_is_one_call_of_transformers(base: Path) -> None:
    """At true size, up to rounding: states of all layers and logits."""
    sound = noise(3.01)
    speech = Speech(base, SpeechConfig())
    states, logits = by_transformers(base, sound)
    found = speech.states(sound, range(13))
    assert speech.width == 768
    assert sorted(found) == list(range(13))
    for i, state in enumerate(states):
        np.testing.assert_allclose(found[i], state, atol=2e-5)
    np.testing.assert_allclose(speech.logits(sound), logits, atol=2e-5)
    assert found[12].shape == (n_rows(len(sound)), 768)


def test_long_sound_in_chunks_is_nearly_one_pass(base: Path) -> None:
    """At true size. The convolutions, their group norm and the grid of rows are exact; attention hears less far.

    Rows at a chunk's ends are as near as those in its middle: what overlaps is heard on both sides.
    """
    sound = noise(22.3)
    (first, *_, last), logits = by_transformers(base, sound)
    exact = Speech(base, SpeechConfig(chunk_seconds=60)).states(sound, [0])
    for i, state in ((0, first), (12, last)):
        np.testing.assert_allclose(exact[i], state, atol=1e-4)
    chunked = Speech(base, SpeechConfig(chunk_seconds=8, overlap_seconds=4))
    joined = chunked.states(sound, [0])
    np.testing.assert_allclose(joined[0], first, atol=1e-4)
    error = ((joined[12] - last).square().mean(dim=1).sqrt() / last.std()).numpy()
    assert 0 < error.max() < 0.05
    seams = np.linspace(0, len(error), 4).astype(int)[1:-1]
    assert np.concatenate([error[s - 20 : s + 20] for s in seams]).mean() < 1.5 * error.mean()
    ours, theirs = (posteriors(x[:, :29]) for x in (chunked.logits(sound), logits))
    assert np.abs(ours - theirs).max() < 0.01


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_hubert_in_pieces_is_one_pass(tmp_path: Path, norm: str) -> None:
    """Another family and the other kind of norm, without a preprocessor's settings."""
    shape = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 32, "num_attention_heads": 4}
    config = HubertConfig(**shape, conv_dim=(16,) * 7, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer")
    net = HubertModel(config).eval()
    net.save_pretrained(tmp_path)
    sound = noise(24)
    speech = Speech(tmp_path, SpeechConfig(chunk_seconds=60))
    x = sound.astype(np.float64)
    with torch.inference_mode():
        expected = net(torch.tensor((x - x.mean()) / x.std(), dtype=torch.float32)[None]).last_hidden_state[0]
    np.testing.assert_allclose(speech.states(sound, ())[2], expected, atol=1e-4)


def test_both_annotators_share_one_pass(models: Models) -> None:
    wav2vec, ctc = make_annotator("wav2vec", {"depth": 1}), make_annotator("ctc", {})
    for annotator in (wav2vec, ctc):
        annotator.open(models)
    assert wav2vec._speech is ctc._speech
    sound, passes = noise(1), []
    wav2vec._speech._net.encoder.register_forward_hook(lambda *_: passes.append(1))
    view = clip_view(25, sound=sound)
    w2v, characters = wav2vec.clip(view).columns["w2v"], ctc.clip(view).columns["ctc"]
    assert passes == [1]
    alone = columns(make_annotator("ctc", {"overlap_seconds": 3}), models, sound)["ctc"]
    assert alone.tobytes() == characters.tobytes()
    wav2vec.clip(clip_view(25, sound=noise(1, seed=1)))
    assert wav2vec.clip(view).columns["w2v"].tobytes() == w2v.tobytes()
    assert passes == [1, 1, 1]


def test_layers_are_those_that_are_named(models: Models) -> None:
    sound = noise(0.5)
    states, _ = by_transformers(models.get("wav2vec"), sound)
    every = make_annotator("wav2vec", {"depth": 1, "layers": "all"})
    assert every.columns[0].shape == (2, 768)
    found = columns(every, models, sound)["w2v"]
    every.columns[0].check(found, frames=0)
    np.testing.assert_allclose(found, torch.stack(states, dim=1), atol=5e-3)
    chosen = columns(make_annotator("wav2vec", {"depth": 1, "layers": [0]}), models, sound)["w2v"]
    np.testing.assert_array_equal(chosen, found[:, :1])
    last = columns(make_annotator("wav2vec", {"depth": 1}), models, sound)["w2v"]
    np.testing.assert_array_equal(last, found[:, 1])
    with pytest.raises(ConfigError, match=r"layers: expected numbers from 0 to 12, got \(13,\)"):
        make_annotator("wav2vec", {"layers": [13]})


def test_a_folder_says_how_large_its_states_are(tmp_path: Path) -> None:
    """What is written goes before; what is not a folder has the base model's size."""
    random_wav2vec(tmp_path / "own", num_hidden_layers=2, hidden_size=48, num_attention_heads=4)
    folder, nowhere = str(tmp_path / "own"), Models(offline=True, cache=tmp_path)
    every = make_annotator("wav2vec", {"model": folder, "layers": "all"})
    assert every.columns[0].shape == (3, 48)
    assert columns(every, nowhere, noise(0.1))["w2v"].shape == (4, 3, 48)
    again = make_annotator("wav2vec", every.config.model_dump(mode="json"))
    assert again.config == every.config, "a record of the settings says all of them"
    with pytest.raises(ConfigError, match=r"the configuration says 48 and 1\. Set width = 48 and depth = 2\."):
        make_annotator("wav2vec", {"model": folder, "depth": 1})
    for model in ("wav2vec", str(tmp_path), f"facebook/hubert-large@{'0' * 40}"):
        assert make_annotator("wav2vec", {"model": model}).columns[0].shape == (768,)


MAKE = """
import json, sys
from talkface.annotate.base import make_annotator
from talkface.errors import ConfigError
for settings in sys.argv[1:]:
    try:
        print(make_annotator("wav2vec", json.loads(settings)).columns[0].shape)
    except ConfigError as error:
        print(error)
"""


def test_a_model_on_hugging_face_is_compared_as_soon_as_it_is_there(tmp_path: Path) -> None:
    """In Hugging Face's own cache. What is declared is what is written, whether the model is there or not."""
    model = f"somebody/large@{'0' * 40}"
    folder = tmp_path / "hub" / "models--somebody--large" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 1024, "num_hidden_layers": 24}))
    tried = ({"model": model, "layers": [20]}, {"model": model, "width": 1024, "depth": 24})
    run = [sys.executable, "-c", MAKE, *map(json.dumps, tried)]
    said = subprocess.run(run, env=os.environ | {"HF_HOME": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert said.stdout == (
        f"annotate.wav2vec: {model} has width 1024 and depth 24, the configuration says 768 and 12. "
        "Set width = 1024 and depth = 24.\n(1024,)\n"
    )


def test_characters_are_the_vocabularys(models: Models) -> None:
    sound = noise(1)
    _, logits = by_transformers(models.get("wav2vec"), sound)
    found = columns(make_annotator("ctc", {}), models, sound)["ctc"]
    odds = np.exp(logits.numpy().astype(np.float64))
    spelt = {"blank": "<pad>", "space": "|", "apostrophe": "'"}
    expected = np.stack([odds[:, VOCABULARY[spelt.get(name, name.upper())]] for name in NAMES], axis=1)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-3)
    np.testing.assert_allclose(found.astype(np.float32).sum(axis=1), 1, atol=2e-3)
    assert ("blank", "space", "apostrophe", *"abcdefghijklmnopqrstuvwxyz") == NAMES


@pytest.mark.parametrize(("name", "column"), [("wav2vec", "w2v"), ("ctc", "ctc")])
@pytest.mark.parametrize("samples", [0, 399, 400, 719, 720])
def test_short_sound_has_few_rows(models: Models, name: str, column: str, samples: int) -> None:
    settings = {"depth": 1} if name == "wav2vec" else {}
    annotator = make_annotator(name, settings)
    found = columns(annotator, models, noise(1)[:samples])[column]
    assert len(found) == (samples >= 400) + (samples >= 720)
    annotator.columns[0].check(found, frames=0)
    assert np.isfinite(found).all()
    assert np.isnan(columns(annotator, models, None)[column]).all()


def test_silence_is_finite(models: Models) -> None:
    found = columns(make_annotator("wav2vec", {"depth": 1}), models, np.zeros(SECOND, np.int16))["w2v"]
    assert np.isfinite(found).all()


def test_bfloat16_is_near(base: Path) -> None:
    sound = noise(2)
    exact = Speech(base, SpeechConfig()).states(sound, ())[12]
    rough = Speech(base, SpeechConfig(precision="bfloat16")).states(sound, ())[12]
    assert 0 < (rough - exact).square().mean().sqrt() / exact.std() < 0.03


def test_characters_in_bfloat16_are_near(base: Path) -> None:
    sound = noise(2)
    exact, rough = (Speech(base, SpeechConfig(precision=p)).logits(sound)[:, :29] for p in ("float32", "bfloat16"))
    assert 0 < (rough - exact).square().mean().sqrt() / exact.std() < 0.04
    ours, theirs = (posteriors(x).astype(np.float32) for x in (rough, exact))
    assert 0 < np.abs(ours - theirs).max() < 0.01


def test_wrong_files_are_refused(tmp_path: Path, models: Models) -> None:
    folder = tmp_path / "model"
    random_wav2vec(folder)
    about = json.loads((folder / "config.json").read_text())
    changed = about | {"intermediate_size": 40}
    (folder / "config.json").write_text(json.dumps(changed))
    with pytest.raises(WeightsError, match=r"of another shape .*feed_forward"):
        Speech(folder, SpeechConfig())
    (folder / "config.json").write_text(json.dumps(about | {"num_hidden_layers": 2}))
    with pytest.raises(WeightsError, match=r"16 missing \(wav2vec2\.encoder\.layers\.1"):
        Speech(folder, SpeechConfig())
    (folder / "config.json").write_text(json.dumps(about | {"model_type": "no such"}))
    with pytest.raises(WeightsError, match="no model of transformers"):
        Speech(folder, SpeechConfig())
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json: cannot be read"):
        Speech(folder, SpeechConfig())
    with pytest.raises(ConfigError, match=r"width 768 and depth 1, the configuration says 768 and 12"):
        make_annotator("wav2vec", {}).open(models)


def test_ctc_needs_a_head_and_letters(tmp_path: Path, models: Models) -> None:
    ctc = make_annotator("ctc", {"model": str(tmp_path)})
    random_wav2vec(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 1, "é": 2}))
    with pytest.raises(WeightsError, match=rf"^ctc: {tmp_path}: has no \"'\" in its vocab\.json\. .*leave ctc out"):
        ctc.open(models)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(WeightsError, match=r"has no vocab\.json\. Use a CTC model"):
        ctc.open(models)
    del ctc  # and the network that it holds open
    Wav2Vec2Model.from_pretrained(tmp_path).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"has no CTC head and no vocab\.json\. Use"):
        make_annotator("ctc", {"model": str(tmp_path)}).open(models)
    assert open_speech(tmp_path, SpeechConfig()).width == 768


def test_a_missing_model_names_licence_and_command(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"wav2vec2-base-960h .*licence Apache.*toolkit models add wav2vec PATH"):
        make_annotator("ctc", {}).open(Models(offline=True, cache=tmp_path))
