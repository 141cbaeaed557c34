#!/usr/bin/env python3
"""Predicted against measured speed: what `dsk fit` says of models on this machine, and what they do.

    daemon/benches/speed.py DSK MODEL.gguf MODEL.gguf... [--rounds 3] [--only MODEL] [--record NAME]

DSK is a release build. Each model in turn is left out: a daemon that has seen all the others (and this
machine never before) is asked what to expect of it ("calibrated"); then it runs, and the daemon is asked
again ("measured"). Both are compared with the median of rounds that follow. Generation is to be predicted
within 15 %, loading within 30 %. A load counts when the one before it was of the same model: the second of
two in a row finds the file and the memory where the first one left them.
"""

import argparse
import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import memory

ALLOWED = {"decode_tps": 0.15, "load_seconds": 0.30}
PROMPT = "The history of the printing press begins long before the fifteenth century. " * 12
ANSWER_TOKENS = 96


class Daemon:
    """A daemon whose index is new; the models are in a folder that outlives it."""

    def __init__(self, dsk, models, **variables):
        self.home = tempfile.TemporaryDirectory(prefix="dsk-speed-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        home = self.home.name
        self.environment = {"PATH": os.environ["PATH"], "HOME": home, "XDG_RUNTIME_DIR": home, "DSK_MODELS": str(models),
                            "DSK_HOST": f"127.0.0.1:{port}", **variables}
        self.dsk = dsk
        self.log = open(pathlib.Path(home) / "log", "w")
        self.process = subprocess.Popen([dsk, "serve"], env=self.environment, stdout=self.log, stderr=self.log)

    def __enter__(self):
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/api/version", timeout=5).close()
                return self
            time.sleep(0.05)
        raise RuntimeError("the daemon does not answer")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.home.cleanup()

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=1800) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code}: {error.read().decode()}") from error

    def create(self, name, file):
        modelfile = pathlib.Path(self.home.name) / "Modelfile"
        modelfile.write_text(f"FROM {file}\n")
        subprocess.run([self.dsk, "create", name, "-f", modelfile], env=self.environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def run(self, name):
        """One request to a model that was just loaded for the second time in a row."""
        for _ in range(2):
            self.post("/api/generate", {"model": name, "keep_alive": 0})
            options = {"num_predict": ANSWER_TOKENS, "temperature": 0}
            body = {"model": name, "prompt": PROMPT, "raw": True, "stream": False, "options": options}
            answer = self.post("/api/generate", body)
        seconds = answer["eval_duration"] / 1e9
        return {"decode_tps": answer["eval_count"] / seconds, "load_seconds": answer["load_duration"] / 1e9,
                "prefill_tps": answer["prompt_eval_count"] / answer["prompt_eval_duration"] * 1e9}

    def measure(self, name, rounds):
        runs = [self.run(name) for _ in range(rounds)]
        return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}

    def fit(self, name):
        row = next(row for row in self.post("/api/dsk/fit", {"model": name})["rows"] if row["chosen"] or row["local"])
        return row["speeds"]


def compare(name, predicted, measured):
    row = {"model": name, "basis": predicted["basis"]}
    for figure, value in measured.items():
        error = predicted[figure] / value - 1
        row[figure] = {"predicted": predicted[figure], "measured": value, "error": error}
        if figure in ALLOWED:
            row[figure]["met"] = abs(error) <= ALLOWED[figure]
    return row


def left_out(dsk, store, names, name, rounds):
    with Daemon(dsk, store) as daemon:
        for other in names:
            if other != name:
                daemon.measure(other, rounds)
        calibrated, first = daemon.fit(name), daemon.measure(name, rounds)
        seen, second = daemon.fit(name), daemon.measure(name, rounds)
    return [compare(name, calibrated, first), compare(name, seen, second)]


def line(row):
    cells = [row["model"], row["basis"]]
    for figure in ("decode_tps", "load_seconds", "prefill_tps"):
        one = row[figure]
        verdict = {True: " met", False: " NOT met", None: ""}[one.get("met")]
        cells.append(f"{one['predicted']:.3g} : {one['measured']:.3g} ({100 * one['error']:+.0f} %){verdict}")
    return "| " + " | ".join(cells) + " |"


HEAD = ("| model | basis | generation, tokens/s, predicted : measured | load, s | prompt, tokens/s |\n"
        "|---|---|---|---|---|")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dsk")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", metavar="MODEL", help="leave out no other model than this file")
    parser.add_argument("--record", metavar="NAME")
    arguments = parser.parse_args()
    names = {pathlib.Path(file).stem.split(".Q")[0].lower(): pathlib.Path(file).resolve() for file in arguments.models}
    rows = []
    with tempfile.TemporaryDirectory(prefix="dsk-speed-models-") as store:
        with Daemon(arguments.dsk, store) as daemon:
            for name, file in names.items():
                daemon.create(name, file)
        left = [name for name, file in names.items() if arguments.only in (None, file.name)]
        for name in left:
            rows += left_out(arguments.dsk, store, names, name, arguments.rounds)
            print("\n".join(map(line, rows[-2:])), flush=True)
    if arguments.record:
        lines = ["`daemon/benches/speed.py`: calibrated is before the model ever ran, measured after.", "", HEAD]
        lines += map(line, rows)
        memory.record(arguments.record, "Predicted against measured speed", arguments.dsk, {"rows": rows}, lines)
    sys.exit(0 if all(one.get("met", True) for row in rows for one in row.values() if isinstance(one, dict)) else 1)


if __name__ == "__main__":
    main()
