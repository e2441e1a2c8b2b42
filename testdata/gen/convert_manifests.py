"""What llama.cpp's own converter makes of two models: every key and tensor of the GGUF files.

    python convert_manifests.py --model STORIES260K_HF_DIR --converter LLAMA.CPP/convert_hf_to_gguf.py \
        --out testdata

Writes stories260K/convert_TYPE.json, the checkpoint tiny_llama3/ with random
weights, and tiny_llama3/convert_TYPE.json. The files themselves are not kept:
a manifest has each key's value and each tensor's type, dimensions and SHA-256.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import common  # first: it sets up torch

import gguf
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

TYPES = ["f32", "f16", "bf16", "q8_0", "auto"]
TOKENIZER = ["tokenizer.model", "tokenizer_config.json"]


def make_tiny(path, stories):
    """A llama3-rope model with biases, in BF16, under the tokenizer of stories260K.

    The head and the seed are chosen so that greedy generation never hangs on a
    rounding error (see greedy.json) and ends itself for some prompts.
    """
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, num_hidden_layers=2,
        vocab_size=512, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5,
        max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=None, dtype="bfloat16",
        # Four frequencies: 1, 0.25, 0.0625, 0.0156; wavelengths 6, 25, 101, 402. Kept, blended, divided, divided.
        rope_theta=256.0,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=64),
    )
    model = LlamaForCausalLM(config).eval()
    gen = torch.Generator().manual_seed(407)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen)
            if "norm" in name:
                p.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                p.copy_(0.3 * noise)
            elif "embed_tokens" in name:
                p.copy_(noise)
            else:
                p.copy_((4.0 if "lm_head" in name else 1.4) / p.shape[1] ** 0.5 * noise)
    model.to(torch.bfloat16).save_pretrained(path)
    for name in TOKENIZER:
        shutil.copyfile(stories / name, path / name)


def value_of(field):
    """A key's type and value; of an array only element type, length and the SHA-256 of its elements as stored."""
    kind = field.types[0].name.lower()
    if kind != "array":
        return {"type": kind, "value": field.contents()}
    # parts: key length, key, "array", element type, length, then the elements.
    payload = b"".join(part.tobytes() for part in field.parts[5:])
    return {
        "type": "array", "element": field.types[-1].name.lower(), "length": int(field.parts[4][0]),
        "sha256": hashlib.sha256(payload).hexdigest(),
    }


def tensor_of(tensor, data_offset):
    entry = {
        "type": tensor.tensor_type.name, "dims": [int(d) for d in tensor.shape],
        "offset": tensor.data_offset - data_offset, "size": tensor.n_bytes,
        "sha256": hashlib.sha256(tensor.data.tobytes()).hexdigest(),
    }
    if tensor.name == "rope_freqs.weight":  # computed, not copied: its values help to find a difference
        entry["values"] = tensor.data.tolist()
    return entry


def manifest(path):
    reader = gguf.GGUFReader(path)
    data = path.read_bytes()
    header = {k: int(reader.fields[f"GGUF.{k}"].parts[0][0]) for k in ("version", "tensor_count", "kv_count")}
    return {
        "file": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **header,
                 "alignment": reader.alignment, "data_offset": reader.data_offset},
        "metadata": {k: value_of(f) for k, f in reader.fields.items() if not k.startswith("GGUF.")},
        "tensors": {t.name: tensor_of(t, reader.data_offset) for t in reader.tensors},
    }


def convert(converter, model, outtype, out):
    env = {**os.environ, "PYTHONPATH": str(converter.parent / "gguf-py")}
    subprocess.run(
        [sys.executable, str(converter), str(model), "--outfile", str(out), "--outtype", outtype],
        env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )


def converter_version(converter):
    """The version in llama.cpp's CMakeLists.txt."""
    text = (converter.parent / "CMakeLists.txt").read_text()
    return "v" + ".".join(re.search(rf"LLAMA_VERSION_{part}\s+(\d+)", text)[1] for part in ("MAJOR", "MINOR", "PATCH"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the Hugging Face directory of stories260K")
    parser.add_argument("--converter", type=Path, required=True, help="convert_hf_to_gguf.py in llama.cpp's source")
    parser.add_argument("--out", type=Path, required=True, help="the testdata folder")
    args = parser.parse_args()
    transformers.logging.disable_progress_bar()

    tiny = args.out / "tiny_llama3"
    make_tiny(tiny, args.model)
    made_by = {"llama.cpp": converter_version(args.converter), **common.versions("torch", "transformers", "gguf")}

    with tempfile.TemporaryDirectory() as tmp:
        for name, source in [("stories260K", args.model), ("tiny_llama3", tiny)]:
            # The converter makes general.name of the directory's name.
            model = Path(tmp, name)
            shutil.copytree(source, model)
            for outtype in TYPES:
                out = Path(tmp, f"{name}.{outtype}.gguf")
                convert(args.converter, model, outtype, out)
                common.write_json(args.out / name / f"convert_{outtype}.json",
                                  {"made_by": made_by, "outtype": outtype, **manifest(out)})


if __name__ == "__main__":
    main()
