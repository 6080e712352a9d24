"""Checkpoints: tensors come out, code does not run, and what does not fit is named."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from talkface.annotate.base import annotator_class, make_annotator
from talkface.annotate.flame import FlameConfig
from talkface.commands._options import settings_of
from talkface.errors import ConfigError, WeightsError
from talkface.nets.inference import PictureNet, batches, device, fill, quick_precision, read_checkpoint


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("new", [True, False])
def test_no_code_of_a_checkpoint_runs(tmp_path: Path, new: bool) -> None:
    proof, path = tmp_path / "proof", tmp_path / "model.tar"
    torch.save({"E_flame": Runs(proof)}, path, _use_new_zipfile_serialization=new)
    torch.load(path, weights_only=False)
    assert proof.exists(), "it would run"
    proof.rmdir()
    with pytest.raises(
        WeightsError, match=rf"model\.tar: .* tensors alone: it names {os.mkdir.__module__}\.mkdir, code"
    ):
        read_checkpoint(path)
    assert not proof.exists()


OTHER_KINDS = [b"", b"PK\x03\x04 and no more", b"<html>Not Found</html>", pickle.dumps({"a": 1}, protocol=4)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", OTHER_KINDS)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    """In words that are not PyTorch's, which warns of some besides."""
    path = tmp_path / "model.tar"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        read_checkpoint(path)
    assert str(error.value) == (
        f"{path}: no PyTorch checkpoint of tensors alone: it is of another kind, or damaged. Get the original file."
    )


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = net.state_dict()
    fill(net, {name: value for name, value in state.items() if "tracked" not in name}, tmp_path, "a net")
    wrong = {"0.weight": torch.zeros(2, 4), "0.bias": state["0.bias"], "2.bias": torch.zeros(2)}
    with pytest.raises(WeightsError) as caught:
        fill(net, wrong, tmp_path / "net.pt", "a net")
    message = str(caught.value)
    assert "4 missing (1.bias, 1.running_mean, 1.running_var, ...)" in message
    assert "1 unexpected (2.bias)" in message
    assert "1 of another shape (0.weight: expected (2, 3), got (2, 4))" in message


def test_loaded_weights_are_the_files(tmp_path: Path) -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(one.state_dict(), tmp_path / "net.pt")
    fill(other, read_checkpoint(tmp_path / "net.pt"), tmp_path / "net.pt", "a net")
    torch.testing.assert_close(other.weight, one.weight, atol=0, rtol=0)


def test_pictures_are_seen_as_they_are() -> None:
    """RGB in 0..1, channels before rows; whatever the precision, float32 comes back."""
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    seen = PictureNet(nn.Identity())(pictures)
    np.testing.assert_allclose(seen.numpy(), pictures.transpose(0, 3, 1, 2) / 255, atol=1e-7)
    rough = PictureNet(nn.Identity(), "bfloat16")(pictures)
    assert rough.dtype == torch.float32
    np.testing.assert_allclose(rough.numpy(), seen.numpy(), atol=2**-8)


def test_auto_is_bfloat16_where_the_cpu_has_it() -> None:
    """As Linux names its instructions; a record of settings says what it came down to."""
    settled = FlameConfig.model_validate({"precision": "auto"}).model_dump()["precision"]
    assert settled == quick_precision() in ("float32", "bfloat16")
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    if "sse2" in flags and device().type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        assert settled == ("bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32")
    assert FlameConfig().precision == "float32", "bytes depend on no machine unless asked"


@pytest.mark.parametrize("name", ["flame", "fan", "wav2vec", "ctc"])
def test_every_precision_is_named_where_one_looks_for_it(name: str) -> None:
    with pytest.raises(ConfigError, match="'float32', 'bfloat16' or 'auto'"):
        make_annotator(name, {"precision": "half"})
    assert make_annotator(name, {"precision": "auto"}).config.precision == quick_precision()
    assert "auto: " in (annotator_class(name).Config.model_fields["precision"].description or "")


def test_batches_hold_everything_in_order() -> None:
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches([], 3)) == []


def test_an_ingest_is_told_what_auto_is_before_it_begins(tmp_path: Path) -> None:
    """Workers with other processors then do the same, and the configuration's hash knows it."""
    (tmp_path / "a.toml").write_text('[pack.annotate.flame]\nprecision = "auto"\nbatch = 4\n')
    pack = settings_of(tmp_path / "a.toml", None, "flame", True).pack
    assert pack.annotate == {"flame": {"precision": quick_precision(), "batch": 4}}
