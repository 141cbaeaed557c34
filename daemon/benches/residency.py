#!/usr/bin/env python3
"""Three models and room for two, alternating: what a daemon does under it, and what is left of it.

    daemon/benches/residency.py DSK MODEL.gguf MODEL.gguf MODEL.gguf [--minutes 10] [--record NAME]

DSK is a release build. Each of three clients asks each model in turn, beginning at a different one, so that
at any time more models are wanted than there are places (max_loaded = 2). What must hold: every request is
answered, no request waits longer than the bound, the daemon lives, no process is left, and its own memory does not
grow: after a minute to warm up it is looked at once a minute, with all models gone, and the median of the last three
looks is that of the first three, within 1 %. --log info adds the last lines of its log, which it keeps in memory
(1 MiB at most).
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import memory
import speed

WAIT_MAX_S = 300.0
MEMORY_SHARE_MAX = 0.01
CLIENTS = 3
# Idle threads of the daemon's runtime leave after ten seconds, and their stacks with them.
SETTLED_S = 12
LOOKS = 10
REQUEST = {"raw": True, "stream": False, "prompt": "Once upon a time", "options": {"num_predict": 8, "temperature": 0}}


def own_bytes(pid):
    """Memory that only the daemon has, in bytes."""
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss_Anon")


def children(pid):
    return subprocess.run(["pgrep", "-P", str(pid)], stdout=subprocess.PIPE, text=True, check=False).stdout.split()


class Load:
    def __init__(self, daemon, names, until):
        self.daemon, self.names, self.until = daemon, names, until
        self.waits, self.errors, self.loads = [], [], 0
        self.lock = threading.Lock()

    def client(self, first):
        turn = first
        while time.monotonic() < self.until:
            start = time.monotonic()
            try:
                answer = self.daemon.post("/api/generate", {**REQUEST, "model": self.names[turn % len(self.names)]})
                with self.lock:
                    self.waits.append(time.monotonic() - start)
                    self.loads += answer["load_duration"] > 50e6
            except (RuntimeError, OSError) as error:
                with self.lock:
                    self.errors.append(str(error))
            turn += 1

    def run(self):
        threads = [threading.Thread(target=self.client, args=(first,)) for first in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads


def idle(daemon, names):
    """The daemon's memory once no model is left and it has settled."""
    for name in names:
        daemon.post("/api/generate", {"model": name, "keep_alive": 0})
    for _ in range(100):
        if not children(daemon.process.pid):
            break
        time.sleep(0.1)
    time.sleep(SETTLED_S)
    return own_bytes(daemon.process.pid), children(daemon.process.pid)


def phase(daemon, names, minutes):
    load = Load(daemon, names, time.monotonic() + 60 * minutes)
    for thread in load.run():
        thread.join()
    return load


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dsk")
    parser.add_argument("models", nargs=3)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--log", default="error")
    parser.add_argument("--record", metavar="NAME")
    arguments = parser.parse_args()
    files = {pathlib.Path(file).stem.split(".Q")[0].lower(): pathlib.Path(file).resolve() for file in arguments.models}
    names = list(files)
    with tempfile.TemporaryDirectory(prefix="dsk-residency-") as store:
        with speed.Daemon(arguments.dsk, store, DSK_MAX_LOADED="2", DSK_LOG=arguments.log) as daemon:
            for name, file in files.items():
                daemon.create(name, file)
            phase(daemon, names, min(1.0, arguments.minutes / 4))
            looks, loads = [], []
            for _ in range(LOOKS):
                loads.append(phase(daemon, names, arguments.minutes / LOOKS))
                seen, left = idle(daemon, names)
                looks.append(seen)
    waits = [wait for load in loads for wait in load.waits]
    errors = [error for load in loads for error in load.errors]
    longest = max(waits, default=0.0)
    growth = statistics.median(looks[-3:]) / statistics.median(looks[:3]) - 1
    result = {
        "minutes": arguments.minutes, "log": arguments.log, "requests": len(waits), "waited_for_a_load": sum(load.loads for load in loads),
        "errors": errors[:10], "median_s": statistics.median(waits or [0.0]), "longest_s": longest,
        "daemon_bytes": looks, "growth": growth, "processes_left": len(left),
        "met": not errors and longest <= WAIT_MAX_S and growth <= MEMORY_SHARE_MAX and not left,
    }
    print(json.dumps(result, indent=1))
    if arguments.record:
        lines = [f"`daemon/benches/residency.py`, {', '.join(names)}.", "", "```", json.dumps(result, indent=1), "```"]
        memory.record(arguments.record, "Three models, room for two", arguments.dsk, {"models": names, **result}, lines)
    sys.exit(0 if result["met"] else 1)


if __name__ == "__main__":
    main()
