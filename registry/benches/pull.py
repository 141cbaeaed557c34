#!/usr/bin/env python3
"""Pull a large blob with dsk and with plain downloaders, in turns, from the same server.

    python3 registry/benches/pull.py [--dsk target/release/dsk] [--gib 2] [--rounds 5] [--folder /dev/shm]
                                     [--server dsk|docker] [--throttle 100] [--record NAME]

dsk fetches, hashes, syncs and publishes; curl (eight ranges side by side) and aria2c (eight connections)
only fetch. For each: the median of the wall times and their spread, CPU seconds, peak memory. With
--throttle everything goes through a link of so many MB/s (10^6), and the wall time is compared with what
the link takes. curl and aria2c are those of the PATH, else of target/peers; one that is missing is left
out. The folder should be larger than three times the blob; on /dev/shm no disk is measured.
"""

import argparse
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

CONNECTIONS = 8
CHUNK = 1 << 20
REPOSITORY = "library/bench"
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "kernels" / "benches"))
import machine  # noqa: E402, it lies beside the benchmarks of the kernels

RECORD = pathlib.Path(__file__).resolve().parent / "record"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def find(program):
    peers = sorted((ROOT / "target/peers").rglob(f"bin/{program}"))
    return shutil.which(program) or (str(peers[0]) if peers else None)


# --- the server -----------------------------------------------------------------------------------


def serve(kind, dsk, folder):
    """A running registry on a free port."""
    port = free_port()
    if kind == "dsk":
        command = [dsk, "registry", "serve", "--listen", f"127.0.0.1:{port}", "--root", f"{folder}/registry"]
    else:
        config = folder / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/registry}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
        command = [find("docker-registry"), "serve", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(port)
    return process, port


def push(port, content, digest, size):
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def request(method, path, body, headers, expected):
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != expected:
            raise SystemExit(f"{method} {path}: {response.status} {text[:200]}")
        return response

    def blob(body, digest, size):
        started = request("POST", f"/v2/{REPOSITORY}/blobs/uploads/", None, {"Content-Length": "0"}, 202)
        location = urllib.parse.urlsplit(started.getheader("Location"))
        query = f"{location.query}&" if location.query else ""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        request("PUT", f"{location.path}?{query}digest={digest}", body, headers, 201)

    with open(content, "rb") as file:
        blob(file, digest, size)
    config = b"{}"
    config_digest = "sha256:" + hashlib.sha256(config).hexdigest()
    blob(config, config_digest, len(config))
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    image = "application/vnd.docker.container.image.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {"mediaType": image, "digest": config_digest, "size": len(config)},
        "layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": size}],
    }
    body = json.dumps(manifest).encode()
    request("PUT", f"/v2/{REPOSITORY}/manifests/latest", body, {"Content-Type": kind}, 201)


def make(path, size):
    """Bytes that do not repeat; returns their digest."""
    sha = hashlib.sha256()
    with open(path, "wb") as file:
        for start in range(0, size, CHUNK):
            chunk = os.urandom(min(CHUNK, size - start))
            sha.update(chunk)
            file.write(chunk)
    return "sha256:" + sha.hexdigest()


# --- a slow link ----------------------------------------------------------------------------------


class Link:
    """Forwards connections, all of them together at `rate` bytes a second towards the client."""

    def __init__(self, target, rate):
        self.target, self.rate, self.due, self.lock = target, rate, 0.0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self.forward, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.forward, args=(server, client, True), daemon=True).start()

    def forward(self, source, sink, slow):
        buffer = memoryview(bytearray(256 << 10))
        try:
            while count := source.recv_into(buffer):
                if slow:
                    self.wait(count)
                sink.sendall(buffer[:count])
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def wait(self, count):
        with self.lock:
            now = time.monotonic()
            self.due = max(self.due, now - 0.01) + count / self.rate
            pause = self.due - now
        if pause > 0:
            time.sleep(pause)


# --- who downloads --------------------------------------------------------------------------------


def ticks(pid):
    """CPU seconds of a process so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def timed(command, **options):
    """Wall and CPU seconds and peak memory of a command and the children that it waited for."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]}: {process.returncode} {errors.decode()[-2000:]}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def with_dsk(dsk, port, digest, size, folder):
    address = f"127.0.0.1:{free_port()}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "DSK_HOME": str(folder / "dsk")}
    environment |= {"DSK_HOST": address, "XDG_RUNTIME_DIR": str(folder)}
    daemon = subprocess.Popen([dsk, "serve"], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(int(address.split(":")[1]))
        before = ticks(daemon.pid)
        command = [dsk, "pull", f"127.0.0.1:{port}/{REPOSITORY}:latest"]
        wall, cpu, _ = timed(command, env=environment)
        blob = folder / "dsk/models/blobs" / digest.replace(":", "-")
        assert blob.stat().st_size == size, "the blob is not there"
        return wall, cpu + ticks(daemon.pid) - before, peak(daemon.pid)
    finally:
        daemon.kill()
        daemon.wait()


def with_curl(curl, port, digest, size, folder):
    url = f"http://127.0.0.1:{port}/v2/{REPOSITORY}/blobs/{digest}"
    share = -(-size // CONNECTIONS)
    command = [curl, "--silent", "--show-error", "--fail", "--location", "--parallel", "--parallel-max", "8"]
    for number in range(CONNECTIONS):
        first, last = number * share, min((number + 1) * share, size) - 1
        command += ["--next"] * (number > 0)
        command += ["--silent", "--show-error", "--fail", "--range", f"{first}-{last}"]
        command += ["--output", f"{folder}/part{number}", url]
    return timed(command)


def with_aria2c(aria2c, port, digest, size, folder):
    url = f"http://127.0.0.1:{port}/v2/{REPOSITORY}/blobs/{digest}"
    command = [aria2c, "--no-conf", "--quiet", "-x", "8", "-s", "8", "-k", "16M", "--file-allocation=none"]
    environment = dict(os.environ)
    libraries = {str(path.parent) for path in (ROOT / "target/peers").rglob("lib*.so*")}
    environment["LD_LIBRARY_PATH"] = ":".join(sorted(libraries))
    return timed([*command, "--dir", str(folder), "--out", "blob", url], env=environment)


def measure(contestants, rounds, port, digest, size, folder):
    results = {name: [] for name, _, _ in contestants}
    for _ in range(rounds):
        for name, run, program in contestants:
            with tempfile.TemporaryDirectory(dir=folder) as target:
                results[name].append(run(program, port, digest, size, pathlib.Path(target)))
    return results


def show(results, size):
    """The table as lines, and the medians of the wall times."""
    lines = [f"{'':8} {'wall s':>8} {'min':>7} {'max':>7} {'MB/s':>7} {'CPU s':>7} {'cores':>6} {'MiB':>6}"]
    for name, runs in results.items():
        walls = [wall for wall, _, _ in runs]
        wall, cpu = statistics.median(walls), statistics.median(run[1] for run in runs)
        memory = max(run[2] for run in runs) / (1 << 20)
        lines.append(
            f"{name:8} {wall:8.2f} {min(walls):7.2f} {max(walls):7.2f} {size / wall / 1e6:7.0f} "
            f"{cpu:7.2f} {cpu / wall:6.2f} {memory:6.0f}"
        )
    return lines, {name: statistics.median(run[0] for run in runs) for name, runs in results.items()}


def keep(name, arguments, results, lines):
    """Keeps what was measured, with the machine and the version."""
    facts = machine.description()
    version = subprocess.run([arguments.dsk, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    link = f", a link of {arguments.throttle:g} MB/s" if arguments.throttle else ""
    told = f"`registry/benches/pull.py`: {arguments.gib:g} GiB from {arguments.server} in {arguments.folder}{link}."
    text = [*machine.heading("Pulls", facts, version), told, "", "```", *lines, "```", ""]
    data = {"machine": facts, "dsk": version, "arguments": vars(arguments), "wall_cpu_memory": results}
    print(machine.keep(name, data, "\n".join(text), RECORD))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dsk", default=str(ROOT / "target/release/dsk"))
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default="/dev/shm")
    parser.add_argument("--server", choices=["dsk", "docker"], default="dsk")
    parser.add_argument("--throttle", type=float, help="MB/s of the link")
    parser.add_argument("--record", metavar="NAME")
    arguments = parser.parse_args()
    size = int(arguments.gib * (1 << 30))
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="dsk-pull-") as name:
        folder = pathlib.Path(name)
        digest = make(folder / "content", size)
        server, port = serve(arguments.server, arguments.dsk, folder)
        try:
            push(port, folder / "content", digest, size)
            (folder / "content").unlink()
            if arguments.throttle:
                port = Link(port, arguments.throttle * 1e6).port
            peers = [("curl", with_curl), ("aria2c", with_aria2c)]
            contestants = [("dsk", with_dsk, os.path.abspath(arguments.dsk))]
            contestants += [(peer, run, find(peer)) for peer, run in peers if find(peer)]
            results = measure(contestants, arguments.rounds, port, digest, size, folder)
            lines, medians = show(results, size)
        finally:
            server.kill()
            server.wait()
    others = [wall for name, wall in medians.items() if name != "dsk"]
    if others:
        lines.append(f"dsk takes {medians['dsk'] / min(others):.3f} times the fastest plain download")
    if arguments.throttle:
        link = size / arguments.throttle / 1e6
        lines.append(f"dsk takes {medians['dsk'] / link:.3f} times the link's {link:.2f} s")
    print("\n".join(lines))
    if arguments.record:
        keep(arguments.record, arguments, results, lines)


if __name__ == "__main__":
    main()
