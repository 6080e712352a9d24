"""Files are whole or absent, whatever happens in between."""

import io
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talkface.errors import ConfigError, DatasetError, RunError
from talkface.store import (
    Folder,
    TarWriter,
    from_npy,
    npy,
    read_pack_index,
    read_table,
    table_bytes,
    tar_members,
    write_pack,
)

NAMES = st.text("abc_-019", min_size=1, max_size=12)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(ValueError, match="stop"), folder.create("a/b.tar") as file:
        file.write(b"half")
        raise ValueError("stop")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_killed_write_leaves_no_final_file_and_is_swept(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom talkface.store import Folder\n"
        f"with Folder({str(tmp_path)!r}).create('x.tar') as f:\n"
        "    f.write(b'half'); f.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    assert not (tmp_path / "x.tar").exists()
    assert Folder(tmp_path).names() == []
    assert Folder(tmp_path).sweep() == 1
    assert list(tmp_path.iterdir()) == []


def test_partial_files_of_other_programs_stay(tmp_path: Path) -> None:
    (tmp_path / ".film.mp4.part").touch()
    assert Folder(tmp_path).sweep() == 0
    assert (tmp_path / ".film.mp4.part").exists()


def test_a_place_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="foo://x: cannot be reached"):
        Folder("foo://x")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"), Folder(tmp_path / "file" / "x").lock():
        pass


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """A real file system of 64 kB: /dev/full writes fail with ENOSPC."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with (
        pytest.raises(RunError, match="disk is full"),
        Folder(tmp_path).create("x") as _,
        Path("/dev/full").open("wb") as full,
    ):
        full.write(b"x" * 100_000)
    assert list(tmp_path.iterdir()) == []


def test_the_lock_keeps_a_second_writer_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import time\nfrom talkface.store import Folder\n"
        f"with Folder({str(tmp_path)!r}).lock():\n    print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(RunError, match="another toolkit"), Folder(tmp_path).lock():
        pass
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            with Folder(tmp_path).lock():
                return
        except RunError:
            time.sleep(0.05)
    pytest.fail("the lock outlived its holder")


def test_a_lock_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with Folder(tmp_path / "a" / "b").lock():
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with Folder(tmp_path / "mine" / "new").lock():
        (tmp_path / "mine" / "new" / "kept").touch()
    with Folder(tmp_path / "mine").lock():
        pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept", "mine", "new"]


def test_never_two_hold_a_lock_that_its_holders_remove(tmp_path: Path) -> None:
    """Three processes take turns, each adding 1 to a number that it reads first."""
    (tmp_path / "number").write_text("0")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from talkface.errors import RunError\nfrom talkface.store import Folder\n"
        "number, done = Path(sys.argv[1]) / 'number', 0\n"
        "while done < 100:\n"
        "    try:\n"
        "        with Folder(sys.argv[1]).lock():\n"
        "            number.write_text(str(int(number.read_text()) + 1)); done += 1\n"
        "    except RunError as error:\n"
        "        assert 'another toolkit' in str(error), error\n"
    )
    takers = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(3)]
    assert [taker.wait() for taker in takers] == [0] * 3
    assert (tmp_path / "number").read_text() == "300"


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=8))
def test_a_tar_reads_back_here_and_in_tarfile_and_has_equal_bytes(members: dict[str, bytes]) -> None:
    def write() -> tuple[bytes, list[tuple[int, int]]]:
        buffer = io.BytesIO()
        tar = TarWriter(buffer)
        places = [tar.add(name, data) for name, data in members.items()]
        tar.close()
        return buffer.getvalue(), [(p.offset, p.size) for p in places]

    data, places = write()
    assert write()[0] == data
    assert [(m.name, b) for m, b in tar_members(io.BytesIO(data))] == list(members.items())
    assert [data[o : o + n] for o, n in places] == list(members.values())
    with tarfile.open(fileobj=io.BytesIO(data)) as plain:
        assert [(i.name, plain.extractfile(i).read()) for i in plain] == list(members.items())  # type: ignore[union-attr]


@given(st.integers(1, 20))
def test_a_tar_cut_at_any_block_is_an_error(blocks: int) -> None:
    buffer = io.BytesIO()
    tar = TarWriter(buffer)
    for name in "abcdef":
        tar.add(name, b"x" * 700)
    tar.close()
    data = buffer.getvalue()
    if blocks * 512 < len(data):
        with pytest.raises(DatasetError, match=r"cut short|not a whole tar"):
            list(tar_members(io.BytesIO(data[: blocks * 512])))


def test_arrays_and_tables_round_trip(tmp_path: Path) -> None:
    for array in (np.zeros((0, 8), np.float32), np.arange(5, dtype=np.int64), np.float16([[np.nan, 1]])):
        back = from_npy(npy(array))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
    with pytest.raises(ValueError, match=r"pickle|Object"):
        from_npy(_pickled())
    schema = pa.schema([("a", pa.string()), ("b", pa.float64())])
    rows = [{"a": "x", "b": 1.5}, {"a": None, "b": None}]
    folder = Folder(tmp_path)
    folder.write("t.parquet", table_bytes(rows, schema))
    assert read_table(folder, "t.parquet").to_pylist() == rows
    folder.write("t.parquet", b"PAR1 no")
    with pytest.raises(DatasetError, match="damaged"):
        read_table(folder, "t.parquet")


def _pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_pack_is_done_when_its_index_is_there(tmp_path: Path, scheme: str) -> None:
    folder = Folder(f"{scheme}{tmp_path}/packs")
    about: dict[str, object] = {}
    with write_pack(folder, "u", about) as pack:
        pack.add("k", {"json": b"{}", "pts.npy": b"12345"})
        about["clips"] = [{"key": "k"}]
    index = read_pack_index(folder, "u")
    assert index is not None
    assert index["clips"] == [{"key": "k"}]
    offset, size = index["members"]["k"]["pts.npy"]
    assert folder.read("u.tar")[offset : offset + size] == b"12345"
    folder.write("u.tar", folder.read("u.tar")[:-512])
    assert read_pack_index(folder, "u") is None
    assert read_pack_index(folder, "other") is None
