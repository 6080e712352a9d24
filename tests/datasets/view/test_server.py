"""The gate, the bytes, and that nothing but the dataset is ever served."""

import http.client
import json
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkface.datasets import open_dataset
from talkface.datasets.reader import Dataset
from talkface.datasets.selection import read_selection
from talkface.datasets.view.clips import packed, packed_table
from talkface.datasets.view.server import listener, ranged
from talkface.errors import RunError
from talkface.media import ClipFrames, decode_flac
from tests.conftest import command
from tests.datasets.making import columns_of, sound_of
from tests.datasets.view.conftest import BY_KEY, Served, serving

EVERYWHERE = (
    "/", "/page/app.js", "/page/style.css", "/api/dataset", "/api/clips", "/api/rejects", "/api/selection",
    "/api/clips/a-25/json", "/api/clips/a-25/columns?names=pts", "/api/clips/a-25/media", "/api/clips/a-25/picture",
    "/nothing",
)  # fmt: skip


def ask(served: Served, path: str, *, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, bytes, Any]:
    """Status, body and headers; ``host`` and ``cookie`` are the right ones unless given, an empty one is left out."""
    own = f"127.0.0.1:{served.port}"
    wanted = {"host": own, "cookie": f"talkface_{served.port}={served.token}", **headers}
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    data = b"" if body is None else json.dumps(body).encode()
    for name, value in wanted.items():
        if value:
            connection.putheader(name.replace("_", "-"), value)
    if data:
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(len(data)))
    connection.endheaders(data)
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


@pytest.mark.parametrize("path", EVERYWHERE)
def test_nobody_comes_in_without_the_token(served: Served, path: str) -> None:
    for cookie in ("", f"talkface_{served.port}=", f"talkface_{served.port}={served.token[:-1]}x", "talkface=1"):
        status, body, _ = ask(served, path, cookie=cookie)
        assert status == 403 and b"toolkit view" in body
    sign = "&" if "?" in path else "?"
    assert ask(served, f"{path}{sign}token=wrong")[0] == 403, "a wrong token in the url is not helped by a cookie"
    assert ask(served, path)[0] == (404 if path == "/nothing" else 200)


@pytest.mark.parametrize("path", EVERYWHERE)
def test_another_name_for_this_address_is_refused(served: Served, path: str) -> None:
    for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1", f"127.0.0.1:{served.port + 1}", ""):
        assert 400 <= ask(served, path, host=host)[0] < 500
    assert ask(served, path, host=f"localhost:{served.port}")[0] in (200, 404)


def test_the_token_in_the_url_is_traded_for_a_cookie(served: Served) -> None:
    status, _, headers = ask(served, f"/?token={served.token}", cookie="")
    assert status == 303 and headers["location"] == "/"
    cookie = headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert ask(served, f"/api/dataset?token={served.token}", cookie="")[0] == 200


def test_pages_of_others_cannot_write(served: Served) -> None:
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{served.port + 1}"):
        assert ask(served, "/api/marks", method="POST", body={"a-25": "drop"}, origin=origin)[0] == 403
    assert ask(served, "/api/marks", method="POST", body={"a-25": "drop"}, cookie="")[0] == 403
    assert read_selection(Dataset(served.url).folder).marks == {}


@pytest.mark.parametrize(
    "path",
    [
        "/../dataset.json", "/dataset.json", "/selection.json", "/packs/plan.json", "/train/000000.tar",
        "/page/../server.py", "/page/..%2fserver.py", "/page/%2e%2e/server.py", "/page/..%5cserver.py",
        "/page//etc/passwd", "/page/%2fetc%2fpasswd", "//etc/passwd", "/api/clips/..%2f..%2fdataset.json/json",
        "/api/clips/../../dataset.json", "/api/clips/%2fetc%2fpasswd/media", "/api/clips/a-25/../../../dataset.json",
        "/docs", "/openapi.json", "/redoc",
    ],
)  # fmt: skip
def test_no_path_leads_out(served: Served, path: str) -> None:
    status, body, _ = ask(served, path)
    assert status == 404 and len(body) < 100


def test_only_this_machine_can_reach_it(served: Served) -> None:
    listening = [c.laddr for c in psutil.Process(served.process.pid).net_connections("inet") if c.status == "LISTEN"]
    assert [(a.ip, a.port) for a in listening] == [("127.0.0.1", served.port)]
    others = {a.address for all_ in psutil.net_if_addrs().values() for a in all_ if a.family == socket.AF_INET}
    for address in others - {"127.0.0.1"}:
        with pytest.raises(OSError):
            socket.create_connection((address, served.port), timeout=5)


def test_what_a_browser_is_told(served: Served) -> None:
    for path in ("/", "/nothing"):
        _, _, headers = ask(served, path)
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
    assert ask(served, "/", cookie="")[2]["content-security-policy"]


def test_the_page_needs_nothing_from_elsewhere(served: Served) -> None:
    page = Path(__file__).parents[3] / "talkface" / "datasets" / "view" / "page"
    assert len(list(page.iterdir())) > 5
    for file in page.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, file.name
        assert ask(served, f"/page/{file.name}")[1] == file.read_bytes()


@settings(deadline=None)
@given(st.binary(max_size=40), st.integers(0, 50), st.one_of(st.none(), st.integers(0, 50)))
def test_ranges(data: bytes, first: int, last: int | None) -> None:
    answer = ranged(data, f"bytes={first}-{'' if last is None else last}", "video/mp4")
    expected = data[first : len(data) if last is None else last + 1]
    if not expected:
        assert answer.status_code == 416 and answer.headers["content-range"] == f"bytes */{len(data)}"
    else:
        assert answer.status_code == 206 and answer.body == expected
        assert answer.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(data)}"
    tail = ranged(data, f"bytes=-{first}", "video/mp4")
    assert tail.body == (data[-first:] if first else b"")
    for all_ in (None, "bytes=-", "items=0-1", "bytes=0-1,3-4"):
        assert ranged(data, all_, "video/mp4").body == data


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    length = int.from_bytes(data[:4], "little")
    assert (4 + length) % 8 == 0
    header = json.loads(data[4 : 4 + length])
    arrays = {}
    for place in header["arrays"]:
        start = 4 + length + place["offset"]
        assert start % 8 == 0
        count = int(np.prod(place["shape"], dtype=int))
        arrays[place["name"]] = np.frombuffer(data, place["dtype"], count, start).reshape(place["shape"])
    return header, arrays


@settings(deadline=None)
@given(st.lists(st.sampled_from(["f4", "f8", "u1", "u4"])), st.data())
def test_arrays_are_packed_and_unpacked(dtypes: list[str], data: st.DataObject) -> None:
    shapes = [tuple(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))) for _ in dtypes]
    arrays = {f"{i}é": np.ones(s, d) * i for i, (d, s) in enumerate(zip(dtypes, shapes, strict=True))}
    header, found = unpacked(
        packed({k: v.astype(d) for (k, v), d in zip(arrays.items(), dtypes, strict=True)}, about=1)
    )
    assert header["about"] == 1 and list(found) == list(arrays)
    assert all(np.array_equal(found[k], arrays[k]) for k in arrays)


def test_a_table_is_packed() -> None:
    table = pa.table({
        "text": ["a", None, "b", "a"], "whole": pa.array([1, None, 3, 4], pa.int64()),
        "real": [0.5, None, float("nan"), 1e9], "flag": [True, False, None, True], "none": pa.nulls(4),
    })  # fmt: skip
    header, arrays = unpacked(packed_table(table))
    assert [header["words"]["text"][c] for c in arrays["text"]] == ["a", "", "b", "a"]
    assert [header["words"]["none"][c] for c in arrays["none"]] == [""] * 4
    np.testing.assert_array_equal(arrays["whole"], [1, np.nan, 3, 4])
    np.testing.assert_array_equal(arrays["real"], np.float32([0.5, np.nan, np.nan, 1e9]))
    np.testing.assert_array_equal(arrays["flag"], [1, 0, np.nan, 1])
    assert unpacked(packed_table(table.slice(0, 0)))[0]["rows"] == 0


@pytest.mark.parametrize("key", BY_KEY)
def test_a_clip_comes_as_it_is_stored_those_in_packs_too(served: Served, key: str) -> None:
    made = BY_KEY[key]
    _, arrays = unpacked(served.get(f"/api/clips/{key}/columns?names=pts,valid,box,lm,arkit,mel,head_degrees,nothing"))
    np.testing.assert_array_equal(arrays["pts"], made.pts_ns / 1e9)
    for name in ("box", "lm", "arkit"):
        np.testing.assert_array_equal(arrays[name], columns_of(made)[name])
    np.testing.assert_array_equal(arrays["mel"], columns_of(made)["mel"].astype(np.float32))
    assert arrays["head_degrees"].shape == (len(made.pts_ns), 3) and "nothing" not in arrays
    media = served.get(f"/api/clips/{key}/media")
    assert np.abs(ClipFrames(media).pts_ns - made.pts_ns).max() <= 500
    found = json.loads(served.get(f"/api/clips/{key}/json"))
    assert found["frames"] == len(made.pts_ns) and found["crop"] == [[0.5, 0.0, -10.0], [0.0, 0.5, -20.0]]
    assert served.get(f"/api/clips/{key}/picture")[:2] == b"\xff\xd8"


def test_tables(served: Served) -> None:
    header, arrays = unpacked(served.get("/api/clips"))
    assert [header["words"]["key"][c] for c in arrays["key"]] == sorted(set(BY_KEY) - {"d-left-out"})
    header, arrays = unpacked(served.get("/api/rejects"))
    assert header["rows"] == 1 and arrays["playable"].tolist() == [1]
    about = json.loads(served.get("/api/dataset"))
    assert about["writable"] and "box" in [c["name"] for c in about["columns"]]


def test_marks_are_written_and_mistakes_told(copy: str) -> None:
    with serving(copy) as served:
        status, body, _ = ask(served, "/api/marks", method="POST", body={"a-25": "drop", "d-left-out": "keep"})
        assert status == 200 and json.loads(body)["marks"] == {"a-25": "drop", "d-left-out": "keep"}
        assert "a-25" not in open_dataset(copy)
        status, body, _ = ask(served, "/api/marks", method="POST", body={"a-26": "drop"})
        assert status == 400 and "Did you mean 'a-25'" in json.loads(body)["detail"]
        assert ask(served, "/api/marks", method="POST", body={"a-25": "love"})[0] == 422
        with Dataset(copy).folder.lock():
            status, body, _ = ask(served, "/api/marks", method="POST", body={"a-25": None})
        assert status == 409 and "another toolkit is writing" in json.loads(body)["detail"]
        assert ask(served, "/api/marks", method="POST", body={"a-25": None, "d-left-out": None})[0] == 200
    assert len(open_dataset(copy)) == 3


def test_a_dataset_without_pictures_is_heard(tmp_path: Path) -> None:
    from tests.datasets.making import make  # noqa: PLC0415

    made = BY_KEY["a-25"]
    with serving(make(tmp_path / "quiet", [made])) as served:
        assert np.array_equal(decode_flac(served.get("/api/clips/a-25/media")), sound_of(made))
        assert json.loads(served.get("/api/dataset"))["has_video"] is False


def test_ctrl_c_ends_it_quietly(made: str) -> None:
    with serving(made) as served:
        served.get("/api/dataset")  # it answers: the address is printed just before it does
        served.process.send_signal(signal.SIGINT)
        out, _ = served.process.communicate(timeout=30)
    assert "Traceback" not in out and served.process.returncode == 0


def test_a_port_that_is_taken_and_a_folder_that_is_no_dataset(served: Served, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"--port {served.port}: .*Choose another"):
        listener(served.port)
    done = subprocess.run(command("view", tmp_path, "--no-browser"), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no dataset.json" in done.stderr
