#!/usr/bin/env python3
"""Measure a daemon at rest: `python3 tests/at_rest.py [path to dsk] [seconds]`.

Starts `dsk serve` on an empty home, lets it settle, and prints its resident memory and how often its
threads woke up a second (voluntary context switches, from /proc), with no model loaded.
"""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

SETTLE_SECONDS = 15


def wakeups(pid):
    """Voluntary context switches so far, by thread."""
    counts = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                counts[task.name] = int(line.split()[1])
    return counts


def woken(before, after):
    """Between two readings; what a thread did that ended in between is not seen."""
    return sum(count - before.get(thread, 0) for thread, count in after.items())


def resident_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/dsk"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "DSK_HOME": home, "XDG_RUNTIME_DIR": home}
        environment["DSK_HOST"] = f"127.0.0.1:{port}"
        daemon = subprocess.Popen([program, "serve"], env=environment, stderr=subprocess.DEVNULL)
        time.sleep(SETTLE_SECONDS)
        before, began = wakeups(daemon.pid), time.monotonic()
        time.sleep(seconds)
        rate = woken(before, wakeups(daemon.pid)) / (time.monotonic() - began)
        threads = len(list(pathlib.Path(f"/proc/{daemon.pid}/task").iterdir()))
        print(f"resident {resident_kib(daemon.pid) * 1024 / 1e6:.1f} MB, {threads} threads, {rate:.2f} wakeups/s")
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


if __name__ == "__main__":
    main()
