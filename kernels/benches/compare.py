#!/usr/bin/env python3
"""dsk and llama.cpp side by side, on the same file in the same run.

    python3 kernels/benches/compare.py prefill decode --model qwen2.5-coder-1.5b --threads 2 --pairs 6

Scenarios: prefill, decode, depth (decode behind a long context), batch (sequences decoding together),
busy (decode beside one hog a core of equal priority), load (page cache to first token), memory
(resident after a prompt of 512); `all` for all. Each side is measured in turn, A-B-B-A, so that what
else the machine does falls on both. Before, a short round finds llama.cpp's best setting for the
scenario out of {repacked weights on, off} x {flash attention on, off} x {micro-batch 256, 512, 1024};
load and memory are compared with what it does by default, which is to repack weights, and without. Nothing is discarded. The record is written
to kernels/benches/record/ unless --no-record.

llama.cpp comes from `llama-cpp-python`; see peer.py for where. A session of it stays loaded and idle
while dsk is measured; dsk is a fresh process every time, which warms itself up. `--peer-only`
measures llama.cpp alone.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

import machine
import peer

SCENARIOS = ["prefill", "decode", "depth", "batch", "busy", "load", "memory"]
# A ratio is not to be believed where a side differs from itself by more.
NOISE_MAX = 0.03
UBATCHES = [256, 512, 1024]
HOG = "while True: pass"
# What is read before the first token of scenario `load`.
LOAD_PROMPT = 4


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenarios", nargs="+", choices=[*SCENARIOS, "all"])
    parser.add_argument("--model", required=True, help="a GGUF file, or a name of tests/models.py or tests/synthetic.py")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", type=int, default=10, help="measurements of each side")
    parser.add_argument("--repetitions", type=int, default=2, help="within a measurement, which is their median")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of prefill")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of decode")
    parser.add_argument("--depth", type=int, default=4096, help="tokens before, in scenario depth")
    parser.add_argument("--sequences", type=int, default=8, help="in scenario batch")
    parser.add_argument("--isa", help="the instruction set dsk is to use")
    parser.add_argument("--dsk", help="the binary; else a release build of this tree")
    parser.add_argument("--python", help=f"a Python with llama_cpp; else ${peer.VARIABLE}, or one is made")
    parser.add_argument("--peer-only", action="store_true")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    if "all" in options.scenarios:
        options.scenarios = SCENARIOS
    return options


class Run:
    """Both sides on one file."""

    def __init__(self, options):
        self.options = options
        self.path = machine.model_path(options.model)
        self.python = peer.python(options.python)
        self.dsk = None if options.peer_only else machine.dsk_path(options.dsk)
        self.peers, self.contexts, self.versions = {}, {}, {}

    def ours(self, *arguments):
        """What `dsk bench` reports."""
        command = [self.dsk, "bench", str(self.path), "--json", "-t", str(self.options.threads), *map(str, arguments)]
        if self.options.isa:
            command += ["--isa", self.options.isa]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return json.loads(done.stdout)

    def peer(self, extra):
        """The session with, or without, repacked weights."""
        if extra not in self.peers:
            self.peers[extra] = self.fresh_peer(extra)
        return self.peers[extra]

    def fresh_peer(self, extra):
        session = peer.Peer(self.python, self.path, extra=extra)
        loaded = session.loaded
        self.versions = {"llama-cpp-python": loaded["version"], "llama.cpp runs with": loaded["system"]}
        return session

    def theirs(self, work, setting, warm=True):
        """Tokens a second of `work`, a request and its arguments, with a setting of llama.cpp's; in a
        fresh context after a run that does not count, if `warm`."""
        session, (request, arguments, context) = self.peer(setting["extra"]), work
        wanted = {"threads": self.options.threads, "flash": setting["flash"], "ubatch": setting["ubatch"], **context}
        if self.contexts.get(setting["extra"]) != wanted:
            session.ask("context", **wanted)
            self.contexts[setting["extra"]] = wanted
            if warm:
                session.ask(request, **{**arguments, "repetitions": 1})
        return session.ask(request, **arguments)["tps"]

    def best_setting(self, work, ubatches):
        """The setting that was fastest in one of two runs, the first of which may not be warm; a glance
        is enough, as they differ by tens of percent."""
        request, arguments, context = work
        short = {**arguments, "repetitions": 2, "tokens": min(arguments["tokens"], 512 if request == "prefill" else 12)}
        tried = []
        for extra, flash, ubatch in itertools.product([True, False], [False, True], ubatches):
            setting = {"extra": extra, "flash": flash, "ubatch": ubatch}
            tried.append({**setting, "tps": max(self.theirs((request, short, context), setting, warm=False))})
            report(f"  {name_of(setting)}: {tried[-1]['tps']:.1f} tok/s")
        best = max(tried, key=lambda one: one["tps"])
        return {key: best[key] for key in ("extra", "flash", "ubatch")}, tried

    def close(self):
        for session in self.peers.values():
            session.close()
        self.peers, self.contexts = {}, {}


def report(line):
    print(line, file=sys.stderr, flush=True)


def name_of(setting):
    packed = "repacked" if setting["extra"] else "as in the file"
    return f"{packed}, flash attention {'on' if setting['flash'] else 'off'}, micro-batch {setting['ubatch']}"


@contextlib.contextmanager
def hogs(count):
    """So many processes that never rest, of the same priority as everything measured."""
    started = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def interleave(pairs, ours, theirs):
    """A-B-B-A: values of both sides in the order of pairs."""
    values = {"ours": [], "theirs": []}
    for pair in range(pairs):
        sides = [("ours", ours), ("theirs", theirs)]
        for side, measure in sides if pair % 2 == 0 else reversed(sides):
            if measure:
                values[side].append(measure())
        report("  " + ", ".join(f"{side} {found[-1]:.4g}" for side, found in values.items() if found))
    return values["ours"], values["theirs"]


def bootstrap(ratios, rounds=10_000):
    """The middle 95 % of the medians of resampled pairs."""
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(rounds))
    return medians[int(0.025 * rounds)], medians[int(0.975 * rounds)]


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def noise(values):
    """How far a side is from itself: the median of what neighbouring measurements differ by."""
    gaps = [abs(one / other - 1) for one, other in itertools.pairwise(values)]
    return statistics.median(gaps) if gaps else 0.0


def verdict(ours, theirs, more_is_better=True):
    """Both sides, and by what factor ours is better."""
    result = {"theirs": spread(theirs)}
    if not ours:
        return result
    ratios = [a / b if more_is_better else b / a for a, b in zip(ours, theirs)]
    gap = max(noise(ours), noise(theirs))
    return {
        **result, "ours": spread(ours), "ratio": statistics.median(ratios), "ratio_95": bootstrap(ratios),
        "noise": gap, "trusted": gap <= NOISE_MAX,
    }


def throughput(run, work, ours, figure, ubatches):
    """A scenario in tokens a second. `ours`: arguments of dsk bench, whose `figure` counts."""
    setting, tried = run.best_setting(work, ubatches)
    report(f"  llama.cpp's best: {name_of(setting)}")
    request, arguments, context = work
    arguments = {**arguments, "repetitions": run.options.repetitions}

    def measure_ours():
        return run.ours(*ours, "-r", run.options.repetitions)[figure]

    def measure_theirs():
        return statistics.median(run.theirs((request, arguments, context), setting))

    values = interleave(run.options.pairs, None if run.dsk is None else measure_ours, measure_theirs)
    return {"unit": "tok/s", "setting": setting, "tried": tried, **verdict(*values)}


def prefill(run):
    tokens = run.options.prompt
    work = "prefill", {"tokens": tokens}, {"room": tokens}
    return throughput(run, work, ["-p", tokens, "-n", 0], "prefill_tps", UBATCHES)


def decode(run, depth=0, sequences=1, tokens=None):
    tokens = tokens or run.options.tokens
    work = "decode", {"tokens": tokens, "depth": depth, "sequences": sequences}, {"room": depth + tokens + 1, "sequences": sequences}
    ours = ["-p", 0, "-n", tokens, "-d", depth, "-b", sequences]
    return throughput(run, work, ours, "decode_tps", [512])


def busy(run):
    """Decode beside hogs, and our own without, in turn."""
    tokens = min(run.options.tokens, 16)
    idle = [run.ours("-p", 0, "-n", tokens, "-r", 2)["decode_tps"] for _ in range(3)] if run.dsk else []
    with hogs(len(os.sched_getaffinity(0))):
        result = decode(run, tokens=tokens)
    if idle:
        result["share_of_our_idle_speed"] = result["ours"]["median"] / statistics.median(idle)
    return result


def second(measure):
    """Of two in a row the second: it takes the memory that the first gave back. A virtual machine's host
    may first have to supply what is new, and that, several times slower than loading, is by chance."""
    measure()
    return measure()


def load(run):
    """Seconds from a start, with the file in the page cache and free memory at hand, to the first token."""
    run.close()
    with open(run.path, "rb") as file:
        while file.read(1 << 24):
            pass

    def ours():
        found = run.ours("-p", LOAD_PROMPT, "-n", 1, "-r", 1)
        return found["load_s"] + found["cold_ttft_s"]

    def theirs(extra):
        with run.fresh_peer(extra) as session:
            seconds = session.loaded["seconds"]
            # dsk bench makes a context no longer than it needs.
            seconds += session.ask("context", threads=run.options.threads, room=LOAD_PROMPT)["seconds"]
            return seconds + LOAD_PROMPT / session.ask("prefill", tokens=LOAD_PROMPT, repetitions=1)["tps"][0]

    plain = [second(lambda: theirs(False)) for _ in range(3)]
    values = interleave(
        run.options.pairs,
        (lambda: second(ours)) if run.dsk else None,
        lambda: second(lambda: theirs(True)),
    )
    return {"unit": "s", "setting": "default", "without_repacking": spread(plain), **verdict(*values, more_is_better=False)}


def memory(run):
    """Resident bytes after a prompt of 512 tokens and one answer token."""
    run.close()
    tokens = 512

    def theirs(extra):
        with run.fresh_peer(extra) as session:
            session.ask("context", threads=run.options.threads, room=tokens)
            session.ask("prefill", tokens=tokens, repetitions=1)
            # What Python itself takes is not llama.cpp's.
            return session.ask("memory")["resident_bytes"] - session.loaded["before"]["resident_bytes"]

    result = {"unit": "bytes", "setting": "default", "file_bytes": run.path.stat().st_size, "without_repacking": theirs(False)}
    ours = []
    if run.dsk:
        found = run.ours("-p", tokens, "-n", 1, "-r", 1)
        ours = [found["resident_bytes"]]
        result["beyond_file_and_kv"] = found["resident_bytes"] - result["file_bytes"] - found["kv_bytes"]
    return {**result, **verdict(ours, [theirs(True)], more_is_better=False)}


def measure(run, name):
    report(f"{name}:")
    options = run.options
    work = {
        "prefill": prefill, "decode": decode, "busy": busy, "load": load, "memory": memory,
        "depth": lambda run: decode(run, depth=options.depth, tokens=min(options.tokens, 32)),
        "batch": lambda run: decode(run, sequences=options.sequences),
    }[name]
    steal, started = machine.steal_ticks(), time.monotonic()
    result = work(run)
    seconds = time.monotonic() - started
    stolen = (machine.steal_ticks() - steal) / 100 / seconds / os.cpu_count()
    about = {"load_average": os.getloadavg()[0], "stolen_share": stolen, "nice": os.nice(0), "seconds": seconds}
    return {**result, **about}


def figure(values, unit):
    """Median and range, in numbers a reader can take in."""
    scale, unit = (2**20, "MiB") if unit == "bytes" else (1, unit)
    middle, least, most = (values[key] / scale for key in ("median", "min", "max"))
    return f"{middle:.4g} {unit}" + (f" ({least:.4g} to {most:.4g})" if least != most else "")


def table(results):
    """The scenarios as rows."""
    lines = ["| scenario | dsk | llama.cpp | times as good (95 %) | noise | llama.cpp's setting |", "|---|---|---|---|---|---|"]
    notes = []
    for name, found in results.items():
        unit = found["unit"]
        ours = figure(found["ours"], unit) if "ours" in found else "-"
        ratio = f"{found['ratio']:.2f} ({found['ratio_95'][0]:.2f} to {found['ratio_95'][1]:.2f})" if "ours" in found else "-"
        gap = f"{found['noise']:.1%}" + ("" if found["trusted"] else ", too much") if "ours" in found else "-"
        setting = found["setting"] if isinstance(found["setting"], str) else name_of(found["setting"])
        lines.append(f"| {name} | {ours} | {figure(found['theirs'], unit)} | {ratio} | {gap} | {setting} |")
        if "share_of_our_idle_speed" in found:
            notes.append(f"Beside hogs, dsk keeps {found['share_of_our_idle_speed']:.0%} of its own speed.")
        if "beyond_file_and_kv" in found:
            notes.append(f"dsk holds {found['beyond_file_and_kv'] / 2**20:.0f} MiB beyond the file's size and keys and values.")
        if "without_repacking" in found:
            other = found["without_repacking"]
            other = other if isinstance(other, dict) else spread([other])
            notes.append(f"{name}: llama.cpp without repacked weights takes {figure(other, unit)}.")
        notes.append(f"{name}: load average {found['load_average']:.1f}, {found['stolen_share']:.1%} stolen, niceness {found['nice']}.")
    return [*lines, "", *notes, ""]


def main():
    options = parse()
    run = Run(options)
    about = {"machine": machine.description(), "model": run.path.name, "file_bytes": run.path.stat().st_size}
    about["sha256"] = machine.sha256(run.path)
    try:
        results = {name: measure(run, name) for name in options.scenarios}
    finally:
        run.close()
    if run.dsk:
        run.versions["dsk"] = machine.output(run.dsk, "--version").removeprefix("dsk ")
    # Where things lie on this machine is nobody's business.
    kept = {name: value for name, value in vars(options).items() if name not in ("model", "dsk", "python", "no_record")}
    about.update(versions=run.versions, options=kept, waiting=os.environ.get("OMP_WAIT_POLICY", "default"))
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items() if len(version) < 40)
    text = machine.heading(f"{run.path.name} with {options.threads} threads", about["machine"], versions)
    text += [f"sha256 {about['sha256']}, {options.pairs} pairs.", ""] + table(results)
    print("\n".join(text))
    if not options.no_record:
        name = f"{run.path.stem}-t{options.threads}-{'-'.join(options.scenarios) if len(options.scenarios) < 4 else 'all'}"
        print(machine.keep(name.lower(), {**about, "results": results}, "\n".join(text)))


if __name__ == "__main__":
    main()
