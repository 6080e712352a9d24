"""`toolkit ingest` from and to object stores and the web, over real servers on this machine."""

from talkface.store import Folder
from tests.conftest import BUCKET


def test_a_folder_on_s3_holds_whole_files(s3: str) -> None:
    folder = Folder(f"{BUCKET}/whole")
    assert folder.names() == []
    folder.write("a/b.bin", b"12345")
    assert folder.names("a") == ["b.bin"]
    assert folder.read("a/b.bin") == b"12345"
    folder.remove("a/b.bin")
    assert folder.names("a") == []
