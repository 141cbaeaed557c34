#!/usr/bin/env python3
"""Fetch the programs of others that the tests speak to, into target/peers.

    python3 tests/peers.py docker-registry skopeo [aria2c moto_server model_signing]

Prints the path of each. One that is installed is used as it is; else Debian's packages are downloaded
with apt-get and unpacked beside the build (nothing is installed, no root is needed). moto, a stand-in for
S3, and OpenSSF's model_signing come from PyPI. What is there already is not fetched again.
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
# program: (folder, packages from PyPI)
PYPI = {
    "moto_server": ("moto", ["moto[server]==5.2.5"]),
    "model_signing": ("model-signing", ["model-signing==1.1.1", "pyOpenSSL==26.4.0"]),
}


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


def from_pypi(program):
    """The path of a program from PyPI, in a Python of its own."""
    name, packages = PYPI[program]
    folder, wanted = PEERS / name, "\n".join(packages)
    path, proof = folder / "bin" / program, folder / "installed.txt"
    if proof.exists() and proof.read_text() == wanted:
        return path
    run(sys.executable, "-m", "venv", "--clear", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    proof.write_text(wanted)
    return path


def main(programs):
    if not programs:
        sys.exit(__doc__)
    PEERS.mkdir(parents=True, exist_ok=True)
    with open(PEERS / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for program in programs:
            if installed := shutil.which(program):
                print(installed)
            elif program in PYPI:
                print(from_pypi(program))
            elif program in DEBIAN:
                print(unpacked(program))
            else:
                sys.exit(f"no peer is called {program}: {', '.join([*DEBIAN, *PYPI])}")


if __name__ == "__main__":
    main(sys.argv[1:])
