#!/usr/bin/env python3
"""How near dsk and llama.cpp come to a model's own answers.

    python3 kernels/benches/quality.py --model qwen2.5-coder [--tokens 8192]

The model's own answers are those of its weights unpacked to f32, run by llama.cpp with keys and values
in f32 and without flash attention. For dsk, and for llama.cpp as it is shipped, this gives the
perplexity of a text and the mean divergence KL(reference || side) of the next token's distribution.

Perplexity is as llama.cpp's tool has it: the text is cut into chunks of --ctx tokens, each is run
alone (with the first token replaced by the model's begin-of-sequence token if it wants one), and the
tokens of a chunk's second half are scored. The text is from Python's own documentation as its module
`pydoc_data.topics` carries it (PSF licence), unless --text names another; the record has its sha256.

dsk is asked for `bench --perplexity TEXT --ctx N --chunks N --save-logits FILE --json`: the rows of
the scored positions N/2 .. N-2 of each chunk, as little-endian singles. That its own figure agrees
with what these rows give for llama.cpp's tokens is checked, and so is that the texts' tokens agree.

Rows of the reference and of llama.cpp are kept in target/quality, a few GB for a large vocabulary, so
that a second run only runs dsk.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import pydoc_data.topics
import subprocess
import sys

import machine
import peer

WORK = machine.ROOT / "target" / "quality"
# Bytes of text a token takes at the least, so that enough of it is given.
BYTES_PER_TOKEN = 6
# What the project asks for: perplexity against llama.cpp's, and divergence against llama.cpp's.
PERPLEXITY_GAP_MAX, DIVERGENCE_RATIO_MAX = 0.003, 1.02


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="a GGUF file, or a name of tests/models.py")
    parser.add_argument("--tokens", type=int, default=8192, help="of text, scored by halves")
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--isa", help="the instruction set dsk is to use")
    parser.add_argument("--kv", help="the type of keys and values dsk is to use")
    parser.add_argument("--dsk", help="the binary; else a release build of this tree")
    parser.add_argument("--python", help=f"a Python with llama_cpp and numpy; else ${peer.VARIABLE}, or one is made")
    parser.add_argument("--peer-only", action="store_true")
    parser.add_argument("--no-record", action="store_true")
    return parser.parse_args()


def standard_text(length):
    """Topics of Python's manual, in order of their names, up to about `length` bytes."""
    topics, text = pydoc_data.topics.topics, ""
    for name in sorted(topics):
        if len(text) >= length:
            break
        text += topics[name].strip() + "\n\n"
    return text


class Text:
    """A text as a file, and its chunks of tokens as llama.cpp has them."""

    def __init__(self, options, python, model):
        given = options.text
        text = given.read_text() if given else standard_text(options.tokens * BYTES_PER_TOKEN)
        self.name = str(given.name) if given else f"pydoc_data.topics of Python {sys.version.split()[0]}"
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self.path = WORK / f"{self.sha256[:16]}.txt"
        self.path.write_text(text)
        with peer.Peer(python, model, vocab_only=True) as session:
            ids, bos = session.ask("tokenize", text=text)["ids"], session.ask("describe")["bos"]
            self.vocabulary, self.peer = session.loaded["vocabulary"], session.loaded["version"]
        count, ctx = options.tokens // options.ctx, options.ctx
        if len(ids) < count * ctx:
            sys.exit(f"{self.name} has {len(ids)} tokens, {count * ctx} are needed")
        self.chunks = [ids[at * ctx:(at + 1) * ctx] for at in range(count)]
        self.first = ctx // 2
        # What is predicted, before the first token of a chunk gives way.
        self.targets = [chunk[self.first + 1:] for chunk in self.chunks]
        if bos is not None:
            self.chunks = [[bos, *chunk[1:]] for chunk in self.chunks]

    def rows(self):
        """Rows of logits that each chunk gives."""
        return len(self.targets[0])


def logits_of_llama(path, python, model, text, context, extra=True):
    """Writes llama.cpp's rows for the whole text to `path`, unless they are there."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with peer.Peer(python, model, extra=extra) as session:
        session.ask("context", room=len(text.chunks[0]), **context)
        for number, chunk in enumerate(text.chunks):
            session.ask("logits", chunk=chunk, first=text.first, out=str(partial))
            print(f"\r  {number + 1} of {len(text.chunks)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    partial.rename(path)


def reference(path, python, model, text, threads):
    """Writes the rows of the model unpacked to f32."""
    if path.exists():
        return
    unpacked = WORK / f"{model.stem}.f32.gguf"
    with peer.Peer(python, None) as session:
        session.ask("unpack", source=str(model), target=str(unpacked))
    try:
        logits_of_llama(path, python, unpacked, text, {"threads": threads, "flash": 0, "kv": "f32"}, extra=False)
    finally:
        unpacked.unlink()


def logits_of_dsk(path, options, dsk, model, text):
    """Writes dsk's rows; what it reports."""
    command = [dsk, "bench", model, "--perplexity", text.path, "--ctx", options.ctx, "--chunks", len(text.chunks)]
    command += ["--save-logits", path, "--json", "-t", options.threads]
    command += ["--isa", options.isa] * bool(options.isa) + ["--kv", options.kv] * bool(options.kv)
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("dsk bench --perplexity failed")
    return json.loads(done.stdout)


class Score:
    """What a side's distributions amount to, chunk by chunk."""

    def __init__(self):
        self.losses, self.divergences, self.agreements = [], [], []

    def add(self, own, reference, targets):
        """`own`, `reference`: log probabilities, a row a position."""
        import numpy
        self.losses.extend(-own[numpy.arange(len(targets)), targets])
        self.divergences.extend((numpy.exp(reference) * (reference - own)).sum(-1))
        self.agreements.extend(own.argmax(-1) == reference.argmax(-1))

    def summary(self):
        count = len(self.losses)
        perplexity = math.exp(sum(self.losses) / count)
        return {
            "perplexity": perplexity, "perplexity_stderr": perplexity * stderr(self.losses), "scored_tokens": count,
            "divergence": sum(self.divergences) / count, "divergence_stderr": stderr(self.divergences),
            "divergence_max": max(self.divergences), "same_likeliest": sum(self.agreements) / count,
        }


def stderr(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def log_probabilities(path, text, chunk):
    """A chunk's rows, in double precision."""
    import numpy
    shape, row = (text.rows(), text.vocabulary), text.vocabulary * 4
    rows = numpy.fromfile(path, "<f4", shape[0] * shape[1], offset=chunk * shape[0] * row).reshape(shape).astype(float)
    rows -= rows.max(-1, keepdims=True)
    return rows - numpy.log(numpy.exp(rows).sum(-1, keepdims=True))


def scores(paths, text):
    """Each side's summary."""
    wanted = len(text.chunks) * text.rows() * text.vocabulary * 4
    for side, path in paths.items():
        if path.stat().st_size != wanted:
            sys.exit(f"{side} gave {path.stat().st_size} bytes of logits, expected {wanted}")
    found = {side: Score() for side in paths}
    for number, targets in enumerate(text.targets):
        truth = log_probabilities(paths["reference"], text, number)
        for side, path in paths.items():
            own = truth if side == "reference" else log_probabilities(path, text, number)
            found[side].add(own, truth, targets)
    return {side: score.summary() for side, score in found.items()}


def table(results):
    lines = ["| side | perplexity | mean divergence | largest | same likeliest token |", "|---|---|---|---|---|"]
    for side, found in results.items():
        lines.append(
            f"| {side} | {found['perplexity']:.4f} ± {found['perplexity_stderr']:.4f} | {found['divergence']:.6f} ± "
            f"{found['divergence_stderr']:.6f} | {found['divergence_max']:.4f} | {found['same_likeliest']:.2%} |")
    return lines


def verdict(results):
    """dsk against llama.cpp, in words."""
    ours, theirs = results["dsk"], results["llama.cpp"]
    gap = ours["perplexity"] / theirs["perplexity"] - 1
    ratio = ours["divergence"] / theirs["divergence"]
    return [
        f"Perplexity is {gap:+.3%} from llama.cpp's ({'met' if abs(gap) <= PERPLEXITY_GAP_MAX else 'MISSED'}: within "
        f"{PERPLEXITY_GAP_MAX:.1%}); divergence is {ratio:.3f} times llama.cpp's "
        f"({'met' if ratio <= DIVERGENCE_RATIO_MAX else 'MISSED'}: at most {DIVERGENCE_RATIO_MAX})."]


def main():
    options = parse()
    python = peer.python(options.python)
    # numpy is there and not here; the marker ends a circle of interpreters without it.
    if "DSK_QUALITY" not in os.environ and pathlib.Path(sys.executable).resolve() != pathlib.Path(python):
        os.execve(python, [python, *sys.argv], {**os.environ, "DSK_QUALITY": "1"})
    WORK.mkdir(parents=True, exist_ok=True)
    model = machine.model_path(options.model)
    dsk = None if options.peer_only else machine.dsk_path(options.dsk)
    text, digest = Text(options, python, model), machine.sha256(model)
    name = f"{model.stem}-{digest[:8]}-{text.sha256[:8]}-{options.ctx}x{len(text.chunks)}-{text.peer}"
    paths = {"reference": WORK / f"{name}.reference", "llama.cpp": WORK / f"{name}.llama"}
    print("reference:", file=sys.stderr)
    reference(paths["reference"], python, model, text, options.threads)
    print("llama.cpp:", file=sys.stderr)
    logits_of_llama(paths["llama.cpp"], python, model, text, {"threads": options.threads})
    reported = {}
    if dsk:
        paths["dsk"] = WORK / f"{name}.dsk"
        reported = logits_of_dsk(paths["dsk"], options, dsk, model, text)
    results = scores(paths, text)
    lines = [f"{len(text.chunks)} chunks of {options.ctx} tokens of {text.name}, sha256 {text.sha256}.", "", *table(results), ""]
    if dsk:
        own, ours = reported["perplexity"], results["dsk"]["perplexity"]
        assert abs(own / ours - 1) < 1e-3, f"dsk reports {own}, its logits give {ours}: other tokens, or another rule"
        lines += [*verdict(results), ""]
        reported["model"] = model.name
    about = {
        "machine": machine.description(), "model": model.name, "sha256": digest, "text": text.name,
        "text_sha256": text.sha256, "ctx": options.ctx, "chunks": len(text.chunks), "threads": options.threads,
        "llama-cpp-python": text.peer, "dsk": machine.output(dsk, "--version") if dsk else None,
    }
    versions = f"llama-cpp-python {text.peer}"
    lines = [*machine.heading(f"Quality of {model.name}", about["machine"], versions), *lines]
    print("\n".join(lines))
    if not options.no_record:
        print(machine.keep(f"quality-{model.stem}".lower(), {**about, "results": results, "reported": reported}, "\n".join(lines)))


if __name__ == "__main__":
    main()
