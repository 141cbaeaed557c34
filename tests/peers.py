#!/usr/bin/env python3
"""Fetch the programs of others that the tests speak to, into target/peers.

    python3 tests/peers.py docker-registry skopeo [aria2c moto_server]

Prints the path of each. One that is installed is used as it is; else Debian's packages are downloaded
with apt-get and unpacked beside the build (nothing is installed, no root is needed), and moto, a stand-in
for S3, comes from PyPI. What is there already is not fetched again.
"""

import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ROOT / "target" / "peers"

# program: (Debian packages with it and with the libraries that a bare system lacks, path in them)
DEBIAN = {
    "docker-registry": (["docker-registry"], "usr/bin/docker-registry"),
    "skopeo": (
        ["skopeo", "libgpgme11", "libassuan0", "libgpg-error0", "libdevmapper1.02.1"],
        "usr/bin/skopeo",
    ),
    "aria2c": (["aria2", "libaria2-0", "libc-ares2", "libssh2-1"], "usr/bin/aria2c"),
}
MOTO = "moto[server]==5.2.5"


def run(*command, **options):
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr, **options)


def unpacked(program):
    """The path of a program from Debian's packages; a script that also finds their libraries."""
    packages, path = DEBIAN[program]
    folder, script = PEERS / program, PEERS / "bin" / program
    if script.exists():
        return script
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        sys.exit(f"{program} is not here, and there is no apt-get to fetch it: install {program}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=PEERS) as downloads:
        try:
            run("apt-get", "download", "-q", *packages, cwd=downloads)
        except subprocess.CalledProcessError:
            sys.exit(f"apt-get could not fetch {', '.join(packages)}: install {program}")
        for package in pathlib.Path(downloads).glob("*.deb"):
            run("dpkg", "-x", package, folder)
    libraries = ":".join(str(path) for path in sorted(folder.glob("usr/lib/*-linux-gnu")))
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    linked = subprocess.run(["ldd", folder / path], env=environment, capture_output=True, text=True)
    missing = [line.split()[0] for line in linked.stdout.splitlines() if "not found" in line]
    if missing:
        sys.exit(f"{program} lacks {', '.join(missing)}: install {program}")
    script.parent.mkdir(exist_ok=True)
    fresh = script.with_suffix(".new")
    export = f'LD_LIBRARY_PATH="{libraries}" ' if libraries else ""
    fresh.write_text(f'#!/bin/sh\n{export}exec "{folder / path}" "$@"\n')
    fresh.chmod(0o755)
    fresh.rename(script)
    return script


def moto():
    """The path of moto's server, in a Python of its own."""
    folder = PEERS / "moto"
    server, proof = folder / "bin" / "moto_server", folder / "installed.txt"
    if proof.exists() and proof.read_text() == MOTO:
        return server
    run(sys.executable, "-m", "venv", "--clear", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", MOTO)
    proof.write_text(MOTO)
    return server


def main(programs):
    if not programs:
        sys.exit(__doc__)
    PEERS.mkdir(parents=True, exist_ok=True)
    with open(PEERS / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for program in programs:
            if installed := shutil.which(program):
                print(installed)
            elif program == "moto_server":
                print(moto())
            elif program in DEBIAN:
                print(unpacked(program))
            else:
                sys.exit(f"no peer is called {program}: {', '.join([*DEBIAN, 'moto_server'])}")


if __name__ == "__main__":
    main(sys.argv[1:])
