#!/usr/bin/env python3
"""A large store: how soon a daemon on it answers, and how long lists of it take.

    daemon/benches/store.py DSK [--models 2000] [--blobs 10000] [--rounds 20] [--record NAME]

DSK is a release build. The store is made of tiny files in the layout on disk: each model has weights, a template, a
licence and a configuration of its own or shared, so that there are as many blobs as asked for. Ready is from the
start of the process to the first answer, once on a new index and then on one that is there; lists are `dsk list`
as a process and `GET /api/tags` over a connection. Bounds: ready in 1 s, `dsk list` in 50 ms (medians).
"""

import argparse
import hashlib
import http.client
import json
import os
import pathlib
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse

import memory

READY_MAX_S = 1.0
LIST_MAX_S = 0.050
LAYERS = ("template", "system", "params", "license")
MEDIA_TYPE = "application/vnd.ollama.image."
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


def gguf(number):
    """The header of a GGUF file of version 3 with one key, and no tensor."""
    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()
    keys = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    keys += text("general.name") + struct.pack("<I", 8) + text(f"model {number}")
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + keys


class Store:
    def __init__(self, folder):
        self.blobs, self.manifests = folder / "blobs", folder / "manifests"
        self.blobs.mkdir(parents=True)
        self.written = set()

    def blob(self, data):
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.written:
            (self.blobs / f"sha256-{digest}").write_bytes(data)
            self.written.add(digest)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def model(self, number, layers):
        config = {"model_format": "gguf", "model_family": "llama", "model_type": "1B", "file_type": "Q4_0"}
        weights = {"mediaType": f"{MEDIA_TYPE}model", **self.blob(gguf(number))}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE,
                    "config": {"mediaType": CONFIG_TYPE, **self.blob(json.dumps(config).encode())},
                    "layers": [weights, *layers]}
        folder = self.manifests / "registry.ollama.ai" / "library" / f"model-{number // 4}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"tag-{number % 4}").write_text(json.dumps(manifest))


def layer(store, kind, number):
    data = json.dumps({"seed": number}) if kind == "params" else f"{kind} {number} " + "{{ .Prompt }}" * (kind == "template")
    return {"mediaType": f"{MEDIA_TYPE}{kind}", **store.blob(data.encode())}


def make(folder, models, blobs):
    """Every model has weights of its own; the other layers are spread so that the blobs come to the number wanted."""
    store = Store(folder)
    each = max(0, (blobs - 1 - models)) / models
    for number in range(models):
        count = int(each * (number + 1)) - int(each * number)
        store.model(number, [layer(store, kind, number) for kind in LAYERS[:count]])
    (folder / "dsk.lock").touch()
    return len(store.written)


class Daemon:
    """A daemon on a store, timed to its first answer."""

    def __init__(self, dsk, home, models):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home),
                            "DSK_MODELS": str(models), "DSK_HOST": urllib.parse.urlparse(self.url).netloc,
                            "DSK_LOG": "warn"}
        self.dsk = dsk
        start = time.perf_counter()
        self.process = subprocess.Popen([dsk, "serve"], env=self.environment)
        while not self.answers():
            time.sleep(0.002)
        self.ready_s = time.perf_counter() - start

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError("the daemon ended")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def tags(self, connection):
        connection.request("GET", "/api/tags")
        return json.loads(connection.getresponse().read())["models"]

    def list(self):
        subprocess.run([self.dsk, "list"], env=self.environment, stdout=subprocess.DEVNULL, check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def timed(rounds, work):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def resident_kib(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def measure(dsk, folder, arguments):
    models, home = folder / "models", folder / "home"
    home.mkdir()
    blobs = make(models, arguments.models, arguments.blobs)
    with Daemon(dsk, home, models) as daemon:
        first_ready = daemon.ready_s
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=120)
        start = time.perf_counter()
        assert len(daemon.tags(connection)) == arguments.models
        first_tags = time.perf_counter() - start
    ready = []
    for _ in range(5):
        with Daemon(dsk, home, models) as daemon:
            ready.append(daemon.ready_s)
    with Daemon(dsk, home, models) as daemon:
        time.sleep(3)
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=120)
        tags = timed(arguments.rounds, lambda: daemon.tags(connection))
        lists = timed(arguments.rounds, daemon.list)
        kib = resident_kib(daemon.process.pid)
    return {
        "models": arguments.models, "blobs": blobs, "ready_new_index_s": first_ready, "first_list_s": first_tags,
        "ready_s": statistics.median(ready), "tags_s": statistics.median(tags), "list_s": statistics.median(lists),
        "list_longest_s": max(lists), "resident_kib": kib,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dsk")
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--blobs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--record", metavar="NAME")
    arguments = parser.parse_args()
    dsk = str(pathlib.Path(arguments.dsk).resolve())
    with tempfile.TemporaryDirectory(prefix="dsk-store-") as folder:
        result = measure(dsk, pathlib.Path(folder), arguments)
    ready = max(result["ready_s"], result["ready_new_index_s"])
    result["met"] = ready <= READY_MAX_S and result["list_s"] <= LIST_MAX_S
    print(json.dumps(result, indent=1))
    if arguments.record:
        lines = ["`daemon/benches/store.py`.", "", "```", json.dumps(result, indent=1), "```"]
        memory.record(arguments.record, "A large store", dsk, result, lines)
    sys.exit(0 if result["met"] else 1)


if __name__ == "__main__":
    main()
