"""A local server that speaks the part of the Hugging Face Hub's protocol that an upload uses.

Repositories, preupload, LFS batch and upload, commit, and the validation of a card's metadata as
huggingface/hub-docs, modelcard.md, describes it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from huggingface_hub import ModelCard

LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "openrail", "other", "unknown"}
"""Some of the identifiers in the hub's documentation, repositories-licenses."""
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass
class Hub:
    """Repositories by id, stored LFS objects by hash, and what was asked for."""

    endpoint: str = ""
    token: str = "hf_local"
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


def metadata_errors(content: str) -> list[str]:
    """What is wrong with a card's metadata."""
    data = ModelCard(content, ignore_metadata_errors=True).data.to_dict()
    errors = []
    if data.get("license") not in LICENCES:
        errors.append('"license" must be one of the identifiers')
    for key in ("base_model", "datasets"):
        ids = data.get(key) or []
        if not all(_ID.fullmatch(one) for one in ([ids] if isinstance(ids, str) else ids)):
            errors.append(f'"{key}" must be ids of the hub')
    for entry in data.get("model-index") or []:
        for result in entry["results"]:
            if not result["task"]["type"] or not {"type", "name"} <= result["dataset"].keys():
                errors.append('"model-index" lacks a field')
            if not all(isinstance(one["value"], int | float) for one in result["metrics"]):
                errors.append('"model-index" needs numbers')
    return errors


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        self.hub.requests.append(f"GET {self.path}")
        repo = re.sub(r"^/api/(models|datasets)/", "", self.path).partition("?")[0]
        if repo not in self.hub.private:
            return self.answer({"error": "Repository not found"}, 404)
        content = {"id": repo, "private": self.hub.private[repo], "sha": "0" * 40}
        return self.answer(content)

    def do_PUT(self) -> None:
        self.hub.requests.append(f"PUT {self.path}")
        content = self.body()
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self.answer({})

    def do_POST(self) -> None:
        self.hub.requests.append(f"POST {self.path}")
        body, path = self.body(), self.path.partition("?")[0]
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.answer({"error": "Invalid credentials"}, 401)
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            errors = metadata_errors(json.loads(body)["content"])
            content = {"errors": [{"message": one} for one in errors], "warnings": []}
            return self.answer(content, 400 if errors else 200)
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"}}
            return self.answer({"transfer": "basic", "objects": objects})
        _, _, _, owner, name, action, _ = path.split("/")
        if action == "preupload":
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        return self.commit(f"{owner}/{name}", body)

    def create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.endpoint}/{repo}"}
        if repo in self.hub.private:
            return self.answer({"error": "You already created this model repo", **url}, 409)
        self.hub.private[repo] = asked.get("visibility") == "private"
        return self.answer(url)

    def commit(self, repo: str, body: bytes) -> None:
        stored = self.hub.files.setdefault(repo, {})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                stored[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                stored[value["path"]] = self.hub.objects[value["oid"]]
        url = f"{self.hub.endpoint}/{repo}/commit/{'1' * 40}"
        self.answer({"commitUrl": url, "commitOid": "1" * 40})


@contextmanager
def local_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine, until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
