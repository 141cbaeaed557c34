#!/usr/bin/env python3
"""Predicted against measured memory: `dsk bench --memory` for models, contexts and kinds of keys and values.

    daemon/benches/memory.py DSK MODEL.gguf... [--contexts 2048,8192,32768] [--record NAME]

DSK is a release build. What is measured is the memory that only the process has (RssAnon), with every
buffer written to and a prompt and an answer computed. The error is to be at most 16 MiB or 0.5 %,
whichever is more. --record writes the table and its data to daemon/benches/record/.
"""

import argparse
import json
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent.parent / "kernels" / "benches"))
import machine  # noqa: E402, it lies beside the benchmarks of the kernels

RECORD = FOLDER / "record"
MIB = 1 << 20
ALLOWED_BYTES = 16 * MIB
ALLOWED_SHARE = 0.005


def measure(dsk, model, context, kv):
    command = [dsk, "bench", model, "--memory", "--ctx", str(context), "--kv", kv, "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)


def judge(report):
    error = report["predicted_bytes"] - report["measured_bytes"]
    allowed = max(ALLOWED_BYTES, ALLOWED_SHARE * report["measured_bytes"])
    return {**report, "error_bytes": error, "allowed_bytes": int(allowed), "met": abs(error) <= allowed}


def row(report):
    kinds = [report["predicted"][kind] for kind in ("weights", "kv", "other", "runtime")]
    figures = kinds + [report[name] for name in ("predicted_bytes", "measured_bytes", "error_bytes")]
    cells = [pathlib.Path(report["model"]).stem, str(report["context"]), report["kv"]]
    cells += [f"{figure / MIB:.1f}" for figure in figures] + ["met" if report["met"] else "NOT met"]
    return "| " + " | ".join(cells) + " |"


def table(reports):
    names = ["model", "context", "keys and values", "weights", "kv", "buffers", "process", "predicted", "measured",
             "error", "at most 16 MiB or 0.5 %"]
    return "\n".join(["| " + " | ".join(names) + " |", "|---" * len(names) + "|"] + [row(one) for one in reports])


def version(dsk):
    return subprocess.run([dsk, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def record(name, title, dsk, result, lines):
    """Keeps a result, its data and its text, with what it was measured on."""
    facts = machine.description()
    text = "\n".join([*machine.heading(title, facts, version(dsk)), *lines, ""])
    print(machine.keep(name, {"machine": facts, "dsk": version(dsk), **result}, text, RECORD))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dsk")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--contexts", default="2048,8192,32768")
    parser.add_argument("--record", metavar="NAME")
    arguments = parser.parse_args()
    reports = []
    for model in arguments.models:
        for context in map(int, arguments.contexts.split(",")):
            for kv in ("f16", "q8_0"):
                reports.append(judge(measure(arguments.dsk, model, context, kv)))
                print(row(reports[-1]), flush=True)
    if arguments.record:
        lines = ["In MiB. `daemon/benches/memory.py`.", "", table(reports)]
        record(arguments.record, "Predicted against measured memory", arguments.dsk, {"runs": reports}, lines)
    raise SystemExit(0 if all(report["met"] for report in reports) else 1)


if __name__ == "__main__":
    main()
