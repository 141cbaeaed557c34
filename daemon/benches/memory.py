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
import platform
import subprocess
import time

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


def machine(dsk):
    version = subprocess.run([dsk, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    names = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    cpu = f"{names[0] if names else platform.processor()}, {len(names)} threads"
    return {"date": time.strftime("%Y-%m-%d"), "dsk": version, "cpu": cpu, "kernel": platform.release()}


def record(name, facts, reports):
    folder = pathlib.Path(__file__).parent / "record"
    stem = f"{facts['date']}-{name}"
    (folder / f"{stem}.json").write_text(json.dumps({"machine": facts, "runs": reports}, indent=1) + "\n")
    lines = [f"# Predicted against measured memory, {facts['date']}", "",
             f"{facts['dsk']}; {facts['cpu']}; Linux {facts['kernel']}. In MiB. `daemon/benches/memory.py`.", "",
             table(reports), ""]
    (folder / f"{stem}.md").write_text("\n".join(lines))


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
        record(arguments.record, machine(arguments.dsk), reports)
    raise SystemExit(0 if all(report["met"] for report in reports) else 1)


if __name__ == "__main__":
    main()
