"""What every task promises, the ones that are still to be written too."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from talkface.config import Strict
from talkface.datasets.loading.loader import Batch
from talkface.datasets.reader import Dataset
from talkface.errors import ConfigError
from talkface.train.base import Task, configure, task_class, task_names
from talkface.train.data import require_columns, training_loader
from talkface.train.optim import Part, only, parts_of
from talkface.train.preflight import probe
from tests.train.making import ARKIT_COLUMN, TALKERS, make

SMALL = ("training.batch_size=4",)


class Tried:
    """A task in its tiny preset on the talkers, with a batch."""

    def __init__(self, name: str, url: str) -> None:
        dataset = Dataset(url)
        config = configure(name, "tiny", None, SMALL)
        require_columns(dataset, config, name)
        self.facts = task_class(name).learn(config, dataset)
        self.task: Task = task_class(name)(config, self.facts)
        self.batch: Batch = next(batch for batch in training_loader(dataset, config) if has_gaps(batch))
        torch.manual_seed(0)
        self.net = self.task.build()

    def parts(self, net: torch.nn.Module | None = None) -> list[Part]:
        return parts_of(self.task, net or self.net, self.task.config.training)


def has_gaps(batch: Batch) -> bool:
    """Whether something is missing in it."""
    floats = [v for v in batch.values() if torch.is_tensor(v) and v.is_floating_point()]
    return any(bool(torch.isnan(v).any()) for v in floats)


@pytest.fixture(scope="module", params=task_names())
def tried(request: pytest.FixtureRequest) -> Tried:
    """A task that looks at pictures tries them on talkers who were filmed."""
    looks = configure(request.param, "tiny").windows.pictures is not None
    return Tried(request.param, request.getfixturevalue("filmed" if looks else "talkers"))


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", task_names())
def test_presets(name: str) -> None:
    """tiny and paper are there; configurations are strict and frozen, and survive a checkpoint."""
    task = task_class(name)
    assert {"tiny", "paper"} <= task.presets.keys()
    for config in task.presets.values():
        assert isinstance(config, Strict)
        assert task.Config.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config
        assert config.windows.fps == config.fps > 0
        assert set(config.windows.columns) <= set(config.needs)
    with pytest.raises(ConfigError, match="Did you mean"):
        configure(name, "tiny", None, ["training.stepz=3"])


def test_facts_are_plain_json_and_enough(tried: Tried) -> None:
    again = type(tried.task)(tried.task.config, json.loads(json.dumps(tried.facts)))
    torch.manual_seed(0)
    made, before = again.build().state_dict(), tried.net.state_dict()
    assert made.keys() == before.keys()
    assert all(torch.equal(made[k], before[k]) for k in made)


def test_a_step_gives_a_loss_and_gradients(tried: Tried) -> None:
    """Finite, though the batch has gaps; the same draws give the same loss to the bit; something is trained."""
    net = tried.net.train()
    assert has_gaps(tried.batch)
    torch.manual_seed(1)
    for part in (parts := tried.parts()):
        with only(part, parts):
            torch.manual_seed(1)
            one = tried.task.step(deepcopy(net), tried.batch, draw(), part.phase.name).loss
            torch.manual_seed(1)
            two = tried.task.step(net, tried.batch, draw(), part.phase.name).loss
            assert one.ndim == 0 and torch.isfinite(one) and torch.equal(one, two)
            two.backward()
        owned = {id(p) for p in part.parameters}
        gradients = {id(p): p.grad for p in net.parameters() if p.grad is not None}
        assert gradients.keys() and gradients.keys() <= owned, "a phase moves what is its own"
        assert all(torch.isfinite(g).all() for g in gradients.values())
        net.zero_grad(set_to_none=True)


def test_numbers_and_a_picture_of_what_is_held_out(tried: Tried) -> None:
    net = tried.net.eval()
    with torch.no_grad():
        found = tried.task.evaluate(net, [tried.batch], draw())
        picture = tried.task.picture(net, tried.batch, draw())
    assert np.isfinite(found["loss"])
    assert all(isinstance(v, float) for v in found.values())
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def test_a_batch_of_which_nothing_is_known_has_no_say(tried: Tried) -> None:
    """Held-out numbers are means over what is known: of nothing there is none, and not a loss of 0."""
    blank = {k: torch.full_like(v, torch.nan) if torch.is_tensor(v) and v.is_floating_point() else v
             for k, v in tried.batch.items()}  # fmt: skip
    net = tried.net.eval()
    with torch.no_grad():
        one, both = (tried.task.evaluate(net, b, draw())["loss"] for b in ([tried.batch], [tried.batch, blank]))
        assert one == both and np.isnan(list(tried.task.evaluate(net, [blank], draw()).values())).all()
        assert tried.task.picture(net, blank, draw()).dtype == np.uint8


def test_the_cost_of_a_batch(tried: Tried) -> None:
    """The probe counts, and leaves the network as it was."""
    before = {k: v.clone() for k, v in tried.net.state_dict().items()}
    found = probe(tried.task, tried.net, tried.batch, draw(), tried.parts())
    assert found.parameters == sum(p.numel() for p in tried.net.parameters()) >= found.trained > 0
    assert found.flops > 0 and found.activations > 0
    assert "parameters" in str(found) and "GFLOP" in str(found)
    assert all(torch.equal(v, before[k]) for k, v in tried.net.state_dict().items())
    assert all(p.grad is None for p in tried.net.parameters())


def test_the_probe_casts_as_training_does(tried: Tried) -> None:
    """What a forward pass in bf16 keeps is not what one in fp32 keeps."""
    plain = probe(tried.task, tried.net, tried.batch, draw(), tried.parts())

    def bf16() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    cast = probe(tried.task, tried.net, tried.batch, draw(), tried.parts(), autocast=bf16)
    assert cast.activations != plain.activations and cast.flops == plain.flops


class Greedy(torch.nn.Module):
    """A network that wants a petabyte."""

    def forward(self, *_: torch.Tensor, **__: torch.Tensor) -> torch.Tensor:
        return torch.empty(1 << 50)


def test_a_batch_that_does_not_fit_says_what_to_lower(tried: Tried) -> None:
    with pytest.raises(ConfigError, match=r"does not fit into memory. Lower training\.batch_size"):
        probe(tried.task, Greedy(), tried.batch, draw(), tried.parts())


def test_missing_columns_name_the_command(tmp_path: Path) -> None:
    """One that does: what is made of landmarks cannot be added to a dataset that has none."""
    columns = (ARKIT_COLUMN,)
    dataset = Dataset(make(tmp_path / "data", TALKERS[:1], columns=columns))
    for name in task_names():
        needed = [c for c in configure(name, "tiny").needs if c != "arkit"]
        ingest = {"box", "head", "lm", "lm68"} & set(needed)  # of whole frames, which a dataset does not keep
        command = r"toolkit ingest \.\.\. --with \.\.\.," if ingest else f"toolkit annotate {dataset.url} --with "
        if needed:
            with pytest.raises(ConfigError, match=f"Add it: {command}"):
                require_columns(dataset, configure(name, "tiny"), name)


def test_settings_over_settings(tmp_path: Path) -> None:
    """Preset, then file, then single values."""
    (tmp_path / "a.toml").write_text("width = 64\n[training]\nsteps = 7\n")
    config: Any = configure("emodiff", "tiny", tmp_path / "a.toml", ["training.steps=9", "sound=ctc"])
    assert (config.width, config.training.steps, config.sound, config.layers) == (64, 9, "ctc", 3)
    for bad, word in ((["steps"], "expected a.b=value"), (["width=many"], "width"), (["noise.steps=1"], "noise.steps")):
        with pytest.raises(ConfigError, match=word):
            configure("emodiff", "tiny", None, bad)
    with pytest.raises(ConfigError, match="no preset"):
        configure("emodiff", "huge")
    with pytest.raises(ConfigError, match="no task named"):
        configure("emodif")
    with pytest.raises(ConfigError, match="cannot be read"):
        configure("emodiff", "tiny", tmp_path / "no.toml")
