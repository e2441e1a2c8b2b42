"""Goldens of `nibble quantize` to GGUF: what the real llama-quantize makes of whole files.

    PYTHONPATH=LLAMA.CPP/gguf-py python gguf_quantized.py LIBS NIBBLE TESTDATA STORIES_HF

LIBS is the folder that llamaquant.py names, NIBBLE the built program, TESTDATA this repository's testdata folder,
STORIES_HF stories260K as a directory (cmd/nibble/demo/stories260K). Writes TESTDATA/ggufquant/golden.json: the first 64
bits of the SHA-256 of each file.

What is quantized is the F32 file of a directory, which `nibble convert` makes to the byte as llama.cpp's converter does
(TestFamiliesToGGUF), and a model with rows of 256 and 512 and experts, which the Go test makes again from the same
integers: so that every block type is met in a whole file. The importance matrix is made by a formula too; no file is
written of it here, as the quantizer takes means. It lacks what an importance matrix lacks (embeddings) and one more.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import llamaquant
import numpy as np

llama, binary, testdata, stories = llamaquant.Llama(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]

FAMILIES = ["llama", "llama3", "mistral", "gemma", "gemma2", "gemma3", "gemma3-vision", "gpt2", "mixtral", "phi3", "qwen2", "qwen2moe", "qwen3", "qwen3moe"]
ALL = list(llamaquant.FTYPES)
SOME = ["q4_0", "q5_0", "q4_k_m", "mxfp4"]

FLAGS = [
    {"pure": True},
    {"output": "Q4_0", "embedding": "BF16"},
    {"leave_output": True},
    {"overrides": [["attn_(q|k)\\.weight", "Q8_0"], ["ffn_down", "F16"], ["blk\\.1\\.", "Q5_K"]]},
]


def wide(path):
    """A model of 3 layers with experts, and with matrices that no llama has."""
    w = gguf.GGUFWriter(path, "llama")
    w.add_name("wide")
    for key, value in (("block_count", 3), ("context_length", 128), ("embedding_length", 512), ("feed_forward_length", 256),
                       ("attention.head_count", 8), ("attention.head_count_kv", 2), ("expert_count", 4), ("expert_used_count", 2)):  # fmt: skip
        w.add_uint32("llama." + key, value)
    w.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    w.add_file_type(0)
    w.add_quantization_version(2)
    shapes = [("token_embd.weight", [24, 512]), ("output_norm.weight", [512]), ("output.weight", [24, 512])]
    for i in (2, 0, 1):  # not in order: the quantizer puts them so
        shapes += [(f"blk.{i}.{n}", s) for n, s in (
            ("attn_norm.weight", [512]), ("attn_q.weight", [64, 512]), ("attn_k.weight", [16, 512]), ("attn_v.weight", [16, 512]),
            ("attn_output.weight", [32, 512]), ("ffn_norm.weight", [512]), ("ffn_gate_inp.weight", [4, 512]),
            ("ffn_gate_inp_shexp.weight", [1, 512]), ("ffn_gate_exps.weight", [4, 9, 512]), ("ffn_up_exps.weight", [4, 9, 512]),
            ("ffn_down_exps.weight", [4, 33, 256]), ("attn_rot.weight", [7, 320]))]  # fmt: skip
    for name, shape in shapes:
        n = int(np.prod(shape))
        i = np.arange(n, dtype=np.uint64) + np.uint64(sum(name.encode())) * np.uint64(1000003)
        x = i * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(32)
        # Twelve bits of one, four of another: small numbers, and some sixteen times as large.
        v = (x & np.uint64(4095)).astype(np.float32) / np.float32(2048) - np.float32(1)
        v *= np.where((x >> np.uint64(40)) & np.uint64(31) == 0, np.float32(16), np.float32(1)) / np.float32(32)
        w.add_tensor(name, v.reshape(shape))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def imatrix(path, name):
    """Mean squares of all matrices but embeddings and one, which is none that must have them."""
    lacks = "blk.0.attn_rot.weight" if name == "wide" else "blk.0.attn_output.weight"
    out = {}
    for t in gguf.GGUFReader(path).tensors:
        shape = [int(n) for n in t.shape]
        if len(shape) < 2 or shape[1] == 1 or t.name in ("token_embd.weight", "output.weight", lacks):
            continue
        i = np.arange(shape[0] * (shape[2] if len(shape) > 2 else 1), dtype=np.int64)
        out[t.name] = ((i * i * 31 + i * 7 + sum(t.name.encode())) % 509 + 1).astype(np.float32) / np.float32(64)
    return out


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def main():
    golden = {}
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)

        def quantize(source, ftype, with_imatrix, flags):
            kw = dict(flags)
            if with_imatrix:
                kw |= {"imatrix": means, "imatrix_file": "imatrix.gguf", "datasets": ["a.txt"], "chunks": 4}
            out = tmp / "out.gguf"
            llama.quantize(source, out, ftype, **kw)
            return digest(out)

        for name in ["wide", "stories260K", *FAMILIES]:
            source = tmp / "in.gguf"
            if name == "wide":
                wide(source)
            else:
                model = stories if name == "stories260K" else testdata / "families" / name
                subprocess.run([binary, "convert", model, source, "--outtype", "f32", "--force", "--quiet"], check=True, stdout=subprocess.DEVNULL)
            means = imatrix(source, name)
            case = {"source": digest(source), "plain": {}, "imatrix": {}, "flags": []}
            for ftype in ALL if name in ("wide", "stories260K") else SOME:
                if ftype != "q2_k_s" or name != "wide":  # which llama.cpp makes with an importance matrix only
                    case["plain"][ftype] = quantize(source, ftype, False, {})
                case["imatrix"][ftype] = quantize(source, ftype, True, {})
            if name in ("wide", "llama", "gemma2"):
                for flags in FLAGS:
                    if name != "wide" and flags.get("overrides"):
                        flags = {"overrides": flags["overrides"][:2]}
                    run = {"type": "q4_k_m"} | flags | {"file": quantize(source, "q4_k_m", False, flags)}
                    if name != "wide":
                        # A directory's BF16 matrix that is left stays BF16, as when it was converted to that.
                        bf16 = tmp / "bf16.gguf"
                        subprocess.run([binary, "convert", model, bf16, "--outtype", "bf16", "--force", "--quiet"], check=True, stdout=subprocess.DEVNULL)
                        run["file_bf16"] = quantize(bf16, "q4_k_m", False, flags)
                    case["flags"].append(run)
            golden[name] = case
            print(name, file=sys.stderr)
    (testdata / "ggufquant" / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


main()
