"""Where init_from finds weights: a path, or the Hugging Face hub, here a loopback server through HF_ENDPOINT."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fdl.checkpoint import weights
from fdl.checkpoint.find import find_weights
from fdl.data import Request
from fdl.types import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIND = """
import sys
from pathlib import Path
from fdl.checkpoint.find import find_weights
from fdl.data import Request
from fdl.types import UserError
try:
    print("FOUND", find_weights(sys.argv[1], Request(offline=sys.argv[2] == "offline")))
except UserError as error:
    print("ERROR", error)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server with one repository, owner/net at COMMIT; (its address, the file it serves)."""
    served = weights.save(tmp_path / "served.safetensors", {"w": np.arange(4, dtype=np.float32)})

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            content = served.read_bytes()
            known = self.path.split("?")[0] in {
                f"/owner/net/resolve/{revision}/model.safetensors" for revision in ("main", COMMIT)
            }
            content = content if known else json.dumps({"error": "not found"}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content)))
            if known:
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_once_and_its_file_verified(hub: tuple[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    endpoint, served = hub
    env = os.environ | {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip

    def find(name: str, *how: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", FIND, name, *(how or ("online",))], env=env | more, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1, done.stdout
        return done.stdout.strip()

    assert "not in the hub's cache" in find("hf:owner/net", "offline")
    found = Path(find(f"hf:owner/net@{COMMIT}").removeprefix("FOUND "))
    assert found.read_bytes() == served.read_bytes()
    assert COMMIT in found.parts
    assert find(f"hf:owner/net@{COMMIT}", "offline") == f"FOUND {found}"
    assert find(f"hf:owner/net@{COMMIT}", HF_HUB_OFFLINE="1") == f"FOUND {found}"
    assert find("hf:owner/net") == f"FOUND {found}"  # main is this commit
    assert find("hf:owner/other").startswith("ERROR init_from=hf:owner/other: hf:owner/other cannot be had: ")
    found.resolve().write_bytes(served.read_bytes()[:-1] + b"x")
    assert "its sha256 differs" in find(f"hf:owner/net@{COMMIT}", "offline")


def test_a_path_is_relative_to_the_data_folder_and_names_are_tried_in_turn(tmp_path: Path) -> None:
    path = weights.save(tmp_path / "pretrained" / "w.safetensors", {"w": np.ones(1, np.float32)})
    request = Request(data_dir=tmp_path, offline=True)
    assert find_weights("pretrained/w.safetensors", request) == path
    assert find_weights("absent.safetensors | pretrained/w.safetensors", request) == path
    with pytest.raises(UserError) as error:
        find_weights("absent.safetensors | hf:one/two/three", request)
    text = str(error.value)
    assert "\n" not in text
    assert "no file absent.safetensors" in text
    assert "expected hf:OWNER/NAME" in text
