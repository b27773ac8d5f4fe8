"""The page: what it answers, what it refuses, and that nothing is left behind."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from xray_lightning.web.app import application

PAGE = {"title": "A <b>title</b>", "facts": "facts", "formats": "PNG", "accept": ".png", "limit": "1"}


def answer(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "error": "is bad" if content == b"bad" else None, "size": len(content)}


@pytest.fixture
def client() -> TestClient:
    app = application(answer, PAGE, most_bytes=1000, hosts=["127.0.0.1"])
    return TestClient(app, base_url="http://127.0.0.1:8080")


def test_the_page_is_escaped_and_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "&lt;b&gt;title" in page.text and "not a medical device" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    for name, kind in (("page.js", "text/javascript"), ("page.css", "text/css")):
        assert client.get(f"/{name}").headers["content-type"].startswith(kind) and name in page.text


def test_a_file_is_answered_and_a_bad_one_too(client: TestClient) -> None:
    good = client.post("/predict", params={"name": 'a "b".png'}, content=b"x" * 1000)
    assert (good.status_code, good.json()) == (200, {"name": 'a "b".png', "error": None, "size": 1000})
    assert client.post("/predict", content=b"bad").status_code == 422
    assert client.get("/predict").status_code == 405


def test_too_much_is_refused_by_its_word_and_by_count(client: TestClient) -> None:
    assert client.post("/predict", content=b"x" * 1001).status_code == 413
    streamed = client.post("/predict", content=(b"x" * 400 for _ in range(3)))  # whose length nobody says
    assert streamed.status_code == 413 and "larger" in streamed.json()["error"]
    assert client.post("/predict", content=b"x", headers={"content-length": "-1"}).status_code == 413


def test_other_sites_and_other_names_are_refused(client: TestClient) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    foreign = client.post("/predict", content=b"x", headers={"origin": "http://evil.example"})
    assert foreign.status_code == 403
    own = client.post("/predict", content=b"x", headers={"origin": "http://127.0.0.1:8080"})
    assert own.status_code == 200


def test_nothing_is_written(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client.post("/predict", params={"name": "a.png"}, content=b"x" * 900)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", ["9" * 5000, "1e3", "\u00b2", "0x10", ""])
def test_a_length_that_is_none_is_refused(client: TestClient, length: str) -> None:
    headers = {"content-length": length.encode("latin-1")}
    assert client.post("/predict", content=b"x", headers=headers).status_code == 413  # type: ignore[arg-type]
