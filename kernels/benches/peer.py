#!/usr/bin/env python3
"""llama.cpp as the one to compare with: finds or builds it, and drives it in a process of its own.

As a module, for compare.py and quality.py: `python()` and `Peer`. As a program it is that process:
it reads one request a line, as JSON, and answers each with one line. It needs nothing of the
standard library's neighbours, so that any Python with `llama_cpp` can run it.
"""

import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VENV = ROOT / "target" / "llama.cpp"
REQUIREMENTS = ["llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy>=2"]
VARIABLE = "DSK_PEER_PYTHON"


def python(given=None):
    """An interpreter that has llama.cpp: the one given, the variable's, or one made under target/.

    Making it builds llama.cpp for this machine, which takes about ten minutes on two cores."""
    chosen = given or os.environ.get(VARIABLE)
    if chosen:
        return chosen
    own = VENV / "bin" / "python"
    if not (VENV / "ready").exists():
        print(f"building llama.cpp in {VENV}; {VARIABLE} can name a Python that has it", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        command = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
        subprocess.run(command, check=True, env={**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON"})
        (VENV / "ready").touch()
    return str(own)


class Peer:
    """A llama.cpp process with a model, or None. What it is asked, `Session` below answers."""

    def __init__(self, interpreter, model, **options):
        self.process = subprocess.Popen(
            [interpreter, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.loaded = self.ask("load", model=str(model), **options) if model else None

    def ask(self, request, **arguments):
        print(json.dumps({"request": request, **arguments}), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"llama.cpp ended at {request} {arguments}, status {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def memory():
    """Bytes of this process by kind: resident, and those of no file."""
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    return {"resident_bytes": sizes["Rss"], "anonymous_bytes": sizes["Anonymous"]}


class Session:
    """One model, one context at a time. Every public method is a request."""

    def __init__(self):
        import llama_cpp
        self.llama = llama_cpp
        # Kept, or it would be freed while llama.cpp still calls it.
        self.silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.silence, ctypes.c_void_p(0))
        self.ctx = self.batch = None
        # What lies in the context: tokens of each sequence, and sequences.
        self.held = None

    def load(self, model, extra=True, vocab_only=False):
        """`extra`: whether weights are repacked for this machine."""
        before, started = memory(), time.perf_counter()
        params = self.llama.llama_model_default_params()
        params.use_extra_bufts, params.vocab_only = extra, vocab_only
        self.model = self.llama.llama_model_load_from_file(model.encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp refuses {model}")
        self.vocab = self.llama.llama_model_get_vocab(self.model)
        self.words = self.llama.llama_vocab_n_tokens(self.vocab)
        return {
            "seconds": time.perf_counter() - started, "before": before, "vocabulary": self.words,
            "version": self.llama.__version__, "system": self.llama.llama_print_system_info().decode(),
        }

    def context(self, threads, room, flash=-1, ubatch=512, sequences=1, kv=None):
        """A fresh context with room for so many tokens in each sequence. `flash` -1 leaves flash
        attention to llama.cpp; `kv` is f32 or f16."""
        started = time.perf_counter()
        if self.ctx:
            self.llama.llama_batch_free(self.batch)
            self.llama.llama_free(self.ctx)
        params = self.llama.llama_context_default_params()
        room = -(-room // 256) * 256
        params.n_ctx, params.n_seq_max = room * sequences, sequences
        params.n_batch, params.n_ubatch = max(room, ubatch), ubatch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = int(flash)
        if kv:
            params.type_k = params.type_v = {"f32": 0, "f16": 1}[kv]
        self.ctx = self.llama.llama_init_from_model(self.model, params)
        if not self.ctx:
            raise RuntimeError(f"no context of {room} tokens")
        self.batch = self.llama.llama_batch_init(room * sequences, 0, 1)
        self.held = None
        return {"seconds": time.perf_counter() - started}

    def step(self, entries, logits_from=None):
        """Runs (token, position, sequence) in one batch, with logits of each sequence's last, or of
        all from an entry on."""
        batch, lasts = self.batch, {sequence: at for at, (_, _, sequence) in enumerate(entries)}
        batch.n_tokens = len(entries)
        for at, (token, position, sequence) in enumerate(entries):
            batch.token[at], batch.pos[at] = token, position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
            batch.logits[at] = lasts[sequence] == at or (logits_from is not None and at >= logits_from)
        if self.llama.llama_decode(self.ctx, batch):
            raise RuntimeError("llama_decode failed")
        self.llama.llama_synchronize(self.ctx)

    def token(self, at):
        """Some id; the same ones every time."""
        return (at * 7919 + 13) % min(self.words, 30000)

    def forget(self, sequence, start):
        self.llama.llama_memory_seq_rm(self.llama.llama_get_memory(self.ctx), sequence, start, -1)

    def prefill(self, tokens, repetitions):
        """Seconds of each repetition."""
        entries = [(self.token(at), at, 0) for at in range(tokens)]
        self.held, seconds = None, []
        for _ in range(repetitions):
            self.forget(0, 0)
            started = time.perf_counter()
            self.step(entries)
            seconds.append(time.perf_counter() - started)
        return {"tps": [tokens / one for one in seconds]}

    def decode(self, tokens, depth, repetitions, sequences=1):
        """Tokens a second of all sequences together, after `depth` tokens in each (at least one)."""
        depth = max(1, depth)
        for sequence in range(sequences if self.held != (depth, sequences) else 0):
            self.forget(sequence, 0)
            self.step([(self.token(at + sequence), at, sequence) for at in range(depth)])
        self.held = depth, sequences
        rates = []
        for _ in range(repetitions):
            for sequence in range(sequences):
                self.forget(sequence, depth)
            started = time.perf_counter()
            for at in range(depth, depth + tokens):
                self.step([(self.token(at + sequence), at, sequence) for sequence in range(sequences)])
            rates.append(tokens * sequences / (time.perf_counter() - started))
        return {"tps": rates}

    def memory(self):
        return memory()

    def tokenize(self, text, add_special=True):
        raw = text.encode()
        room = len(raw) + 16
        ids = (self.llama.llama_token * room)()
        count = self.llama.llama_tokenize(self.vocab, raw, len(raw), ids, room, add_special, False)
        return {"ids": list(ids[:count])}

    def describe(self):
        """Whether the model wants a first token, and which."""
        bos = self.llama.llama_vocab_bos(self.vocab)
        return {"bos": bos if self.llama.llama_vocab_get_add_bos(self.vocab) else None}

    def logits(self, chunk, first, out):
        """Runs the ids of `chunk` from an empty context; appends rows from position `first` on, the
        last position's left out, to the file `out` as little-endian singles."""
        self.forget(0, 0)
        self.held = None
        self.step([(token, at, 0) for at, token in enumerate(chunk)], logits_from=first)
        with open(out, "ab") as file:
            for at in range(first, len(chunk) - 1):
                file.write(ctypes.string_at(self.llama.llama_get_logits_ith(self.ctx, at), self.words * 4))
        return {}

    def unpack(self, source, target):
        """Writes the model `source` with every tensor as f32."""
        params = self.llama.llama_model_quantize_default_params()
        params.ftype, params.allow_requantize = 0, True
        if self.llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
            raise RuntimeError(f"cannot unpack {source}")
        return {}


def main():
    answers, session = os.fdopen(os.dup(1), "w"), Session()
    # llama.cpp must not write among the answers.
    os.dup2(2, 1)
    for line in sys.stdin:
        arguments = json.loads(line)
        method = getattr(session, arguments.pop("request"))
        print(json.dumps(method(**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
