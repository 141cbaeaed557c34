#!/usr/bin/env python3
"""Greedy answers of llama.cpp, to compare our engine with.

    python3 tests/golden/greedy.py smollm2 qwen2.5-coder

Needs `llama-cpp-python`. Writes greedy-MODEL.json beside this file: for each prompt its text, its
token ids, the 64 most likely tokens one after another, and at each step the gap between the two
largest logits.

llama.cpp runs the model's weights unpacked to f32, and keys and values in f32. With packed weights
it rounds activations to 8 bits as well, and then its logits depend on how a prompt is cut into
batches: on these prompts SmolLM2's logits move by up to 0.8 between batches of 512 and of 1, and as
far from those of f32. No second implementation can be compared with that to 0.01.
"""

import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy

HERE = pathlib.Path(__file__).resolve().parent
TOKENS = 64
GGML_TYPE_F32 = 0
LLAMA_FTYPE_ALL_F32 = 0
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a village by the sea,",
    "<|im_start|>user\nWrite a haiku about rain.<|im_end|>\n<|im_start|>assistant\n",
]


def model_path(name):
    command = [sys.executable, HERE.parent / "models.py", name]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def unpack(source, target):
    """Writes `source` with every tensor as f32."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = LLAMA_FTYPE_ALL_F32
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        sys.exit(f"cannot unpack {source}")


def greedy(llm, prompt):
    """The prompt's ids, the likeliest next tokens, and how certain each of them was."""
    ids = llm.tokenize(prompt.encode(), add_bos=False, special=True)
    llm.reset()
    llm.eval(ids)
    tokens, gaps = [], []
    for _ in range(TOKENS):
        logits = numpy.ctypeslib.as_array(llm._ctx.get_logits(), shape=(llm.n_vocab(),))
        second, first = numpy.partition(logits, -2)[-2:]
        token = int(logits.argmax())
        tokens.append(token)
        gaps.append(round(float(first - second), 6))
        llm.eval([token])
    return {"prompt": prompt, "ids": ids, "tokens": tokens, "gaps": gaps}


def record(name):
    with tempfile.TemporaryDirectory() as folder:
        unpacked = str(pathlib.Path(folder, "f32.gguf"))
        unpack(model_path(name), unpacked)
        llm = llama_cpp.Llama(
            unpacked, n_ctx=1024, n_threads=2, n_threads_batch=2, verbose=False,
            logits_all=False, flash_attn=False, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32,
        )
        cases = [greedy(llm, prompt) for prompt in PROMPTS]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / f"greedy-{name}.json").write_text(f"[\n{lines}\n]\n")
    print(name, "least gap", min(min(case["gaps"]) for case in cases))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record(name)
