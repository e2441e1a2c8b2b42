"""Makes testdata/quantized: testdata/tiny_llama3 in 8 bits, and what llama.cpp's converter and transformers make of it.

    python testdata/gen/quantized_models.py --llama-cpp LLAMA_CPP --testdata testdata

fp8_edges has blocks of 20x24, of which no matrix is a whole number: expect.json has the type and the SHA-256 of every
tensor of the GGUF files that the converter makes. fp8_whole has blocks of 16x16, which transformers takes too: expect.json
has the same of every weight as transformers decodes it, on a CPU, to BF16.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import torch, versions, write_json
import gguf
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

TYPES = ["f32", "f16", "bf16", "q8_0", "auto"]
TOKENIZER = ["tokenizer.model", "tokenizer_config.json", "generation_config.json"]


def blocks(w, rows, cols):
    """FP8 E4M3 with the largest of each block at 448, and float32 scales."""
    grid = (-(-w.shape[0] // rows), -(-w.shape[1] // cols))
    scale = torch.zeros(grid)
    q = torch.empty_like(w, dtype=torch.float8_e4m3fn)
    for i in range(grid[0]):
        for j in range(grid[1]):
            at = slice(i * rows, (i + 1) * rows), slice(j * cols, (j + 1) * cols)
            scale[i, j] = w[at].abs().max() / 448
            q[at] = (w[at] / scale[i, j]).to(torch.float8_e4m3fn)
    return q, scale


def fp8(rows, cols):
    config = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [rows, cols]}

    def quantize(name, w):
        q, scale = blocks(w, rows, cols)
        return {name: q, name + "_scale_inv": scale}
    return config, quantize


CASES = {"fp8_edges": fp8(20, 24), "fp8_whole": fp8(16, 16)}


def digest(t):
    return hashlib.sha256(t.tobytes()).hexdigest()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--llama-cpp", type=Path, required=True)
    p.add_argument("--testdata", type=Path, required=True)
    args = p.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tiny = args.testdata / "tiny_llama3"
    plain = load_file(tiny / "model.safetensors")
    config = json.loads((tiny / "config.json").read_text())
    expect = {"made_by": {"llama.cpp": "v0.5.0", **versions("torch", "transformers", "gguf", "safetensors")}}
    for name, (quantization, quantize) in CASES.items():
        out = args.testdata / "quantized" / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        tensors = {}
        for n, w in plain.items():
            if n.endswith("_proj.weight"):
                tensors.update(quantize(n, w.float()))
            else:
                tensors[n] = w
        save_file(tensors, out / "model.safetensors", {"format": "pt"})
        (out / "model.safetensors").chmod(0o644)
        (out / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}, indent=2) + "\n")
        expect[name] = {}
        with tempfile.TemporaryDirectory() as tmp:
            model = Path(tmp, name)
            shutil.copytree(out, model)
            for f in TOKENIZER:
                shutil.copyfile(tiny / f, model / f)
            for outtype in TYPES if name == "fp8_edges" else []:
                path = Path(tmp, outtype + ".gguf")
                subprocess.run([sys.executable, str(args.llama_cpp / "convert_hf_to_gguf.py"), str(model), "--outfile", str(path), "--outtype", outtype],
                               env={**os.environ, "PYTHONPATH": str(args.llama_cpp / "gguf-py")}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                expect[name][outtype] = {t.name: f"{t.tensor_type.name} {digest(t.data)}" for t in gguf.GGUFReader(path).tensors}
            if name == "fp8_whole":
                state = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, device_map="cpu").state_dict()
                assert all(t.dtype == torch.bfloat16 for t in state.values())
                expect[name]["transformers"] = {n: "BF16 " + digest(t.view(torch.int16).numpy()) for n, t in state.items()}
    write_json(args.testdata / "quantized" / "expect.json", expect)


if __name__ == "__main__":
    main()
