"""What a measurement was made on and with, and the files that keep it. For compare.py, quality.py."""

import datetime
import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RECORD = pathlib.Path(__file__).resolve().parent / "record"
# Those that kernels are chosen by.
FLAGS = {
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_int8",
    "asimddp", "i8mm", "bf16", "sve",
}


def field(path, name):
    """The first value of `name` in a file of lines like `name : value`."""
    found = re.search(rf"^{name}\s*:\s*(.*)$", pathlib.Path(path).read_text(), re.MULTILINE)
    return found[1] if found else ""


def output(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def steal_ticks():
    """Time that the machine below took from all cores of this one, in hundredths of a second."""
    return int(pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[8])


def description():
    flags = field("/proc/cpuinfo", "flags") or field("/proc/cpuinfo", "Features")
    huge = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "cpu": field("/proc/cpuinfo", "model name") or platform.machine(),
        "cpu_family_model_stepping": [field("/proc/cpuinfo", name) for name in ("cpu family", "model", "stepping")],
        "flags": sorted(FLAGS & set(flags.split())),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": int(field("/proc/meminfo", "MemTotal").split()[0]) << 10,
        "huge_pages": huge.read_text().strip() if huge.exists() else "",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "rustc": output("rustc", "--version"),
        "commit": output("git", "rev-parse", "HEAD"),
        "changed_files": len(output("git", "status", "--porcelain", "--untracked-files=no").splitlines()),
    }


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def model_path(name):
    """A path as it is; anything else is a name of tests/models.py or tests/synthetic.py."""
    if pathlib.Path(name).is_file():
        return pathlib.Path(name).resolve()
    for script in ["models.py", "synthetic.py"]:
        found = output("python3", ROOT / "tests" / script, name)
        if found:
            return pathlib.Path(found.splitlines()[-1])
    raise SystemExit(f"{name} is neither a file nor a model that tests/models.py or tests/synthetic.py knows")


def dsk_path(given):
    """The binary to measure: the one given, or a release build of this tree."""
    if given:
        return str(pathlib.Path(given).resolve())
    subprocess.run(["cargo", "build", "--release", "--locked", "--package", "dsk-cli"], cwd=ROOT, check=True)
    target = json.loads(output("cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"))
    return str(pathlib.Path(target["target_directory"], "release", "dsk"))


def keep(name, result, text, folder=RECORD):
    """Writes NAME with today's date as .json and .md into the record, never over an earlier one."""
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    stem = f"{datetime.date.today()}-{name}"
    for number in range(1, 1000):
        path = pathlib.Path(folder) / (stem if number == 1 else f"{stem}-{number}")
        if not path.with_name(path.name + ".json").exists():
            break
    path.with_name(path.name + ".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_name(path.name + ".md").write_text(text)
    return path.with_name(path.name + ".md")


def heading(title, machine, versions):
    """The lines that every record begins with."""
    return [
        f"# {title}", "",
        f"{machine['cpu']} ({', '.join(machine['flags'])}), {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}; {versions}; commit "
        f"{machine['commit'][:12]}" + (f" with {machine['changed_files']} files changed" if machine["changed_files"] else ""),
        "",
    ]
