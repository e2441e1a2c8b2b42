"""Makes formats/quantized/testdata: checkpoints in 8 bits of many makers, and what they decode to.

    python testdata/gen/quantized_goldens.py --llama-cpp LLAMA_CPP --out formats/quantized/testdata

For each case a folder with config.json, model.safetensors and expect.json: which program decoded it, and of each tensor
that is left the shape and the SHA-256 of its values in float32. "llama.cpp" is the dequant_model of its converter
itself, run on the tensors; "torch" is its formula, float32(weight) * float32(scale), written out here for checkpoints
that it does not take. compressed-tensors and transformers decode to the dtype of the scale or of the model; the script
checks that they give what rounding the float32 values gives, and lists in expect.json which of them agreed.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

from common import torch, versions, write_json
from safetensors.torch import save_file

F8, F8E5, I8, E8 = torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.float8_e8m0fnu
BF16, F32 = torch.bfloat16, torch.float32

gen = torch.Generator().manual_seed(20)


def weight(dtype, *shape):
    """Every code but NaN and infinity, in random order."""
    codes = torch.arange(256, dtype=torch.uint8)
    if dtype == I8:
        codes = codes.view(torch.int8)
    else:
        codes = codes[torch.isfinite(codes.view(dtype).float())]
    n = 1
    for d in shape:
        n *= d
    pick = torch.randint(len(codes), (n,), generator=gen)
    return codes[pick].view(dtype).reshape(shape)


def scale(dtype, *shape):
    x = torch.exp(torch.randn(shape, generator=gen) - 5)
    if dtype == torch.uint8:
        return torch.randint(100, 140, shape, generator=gen, dtype=torch.uint8)
    return x.to(dtype)


def plain(*shape):
    return torch.randn(shape, generator=gen).to(BF16)


def ct(format, weights, **more):
    weights = {"num_bits": 8, "symmetric": True, "dynamic": False, **weights}
    return {"quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}, **more}


# name: (who decodes it, quantization_config, tensors)
CASES = {
    "fp8_block": ("llama.cpp", {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}, {
        "whole.weight": weight(F8, 128, 256), "whole.weight_scale_inv": scale(F32, 1, 2),
        "edges.weight": weight(F8, 130, 140), "edges.weight_scale_inv": scale(F32, 2, 2),
        "row.weight": weight(F8, 1, 129), "row.weight_scale_inv": scale(F32, 1, 2),
        "less.weight": weight(F8, 100, 9), "less.weight_scale_inv": scale(BF16, 1, 1),
        "e5m2.weight": weight(F8E5, 129, 7), "e5m2.weight_scale_inv": scale(BF16, 2, 1),
        "powers.weight": weight(F8, 7, 300), "powers.weight_scale_inv": scale(E8, 1, 3),
        "experts.gate_up_proj": weight(F8, 3, 5, 130), "experts.gate_up_proj_scale_inv": scale(F32, 3, 1, 2),
        "norm.weight": plain(6),
    }),
    "fp8_tensor": ("llama.cpp", {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}, {
        "a.weight": weight(F8, 9, 11), "a.weight_scale_inv": scale(BF16), "a.activation_scale": scale(BF16),
        "b.weight": weight(F8, 3, 4, 5), "b.weight_scale_inv": scale(F32, 1),
        "c_proj": weight(F8, 3, 4, 5), "c_proj_scale_inv": scale(F32, 3, 1, 1), "c_activation_scale": scale(BF16),
        "norm.weight": plain(6),
    }),
    "mistral": ("llama.cpp", {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}, {
        "wq.weight": weight(F8, 9, 11), "wq.qscale_weight": scale(F32), "wq.qscale_act": scale(F32),
    }),
    "autofp8": ("torch", {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}, {
        "q_proj.weight": weight(F8, 9, 11), "q_proj.weight_scale": scale(F32), "q_proj.input_scale": scale(F32),
        "k_proj.weight": weight(F8, 9, 11), "k_proj.weight_scale": scale(F32, 1), "k_proj.k_scale": scale(F32),
    }),
    "ct_channel": ("llama.cpp", ct("float-quantized", {"type": "float", "strategy": "channel"}), {
        "a.weight": weight(F8, 33, 12), "a.weight_scale": scale(BF16, 33, 1),
        "b.weight": weight(F8, 5, 12), "b.weight_scale": scale(F32, 5, 1),
        "lm_head.weight": plain(4, 6),
    }),
    "ct_naive": ("llama.cpp", ct("naive-quantized", {"type": "float", "strategy": "channel"}), {
        "a.weight": weight(F8, 33, 12), "a.weight_scale": scale(torch.float16, 33, 1),
    }),
    "ct_tensor": ("compressed-tensors", ct("float-quantized", {"type": "float", "strategy": "tensor"}), {
        "a.weight": weight(F8, 33, 12), "a.weight_scale": scale(BF16, 1), "a.input_scale": scale(BF16, 1),
    }),
    "ct_block": ("llama.cpp", ct("float-quantized", {"type": "float", "strategy": "block", "block_structure": [128, 128]}), {
        "a.weight": weight(F8, 130, 129), "a.weight_scale": scale(BF16, 2, 2),
    }),
    "ct_int": ("llama.cpp", ct("int-quantized", {"type": "int", "strategy": "channel"}), {
        "a.weight": weight(I8, 33, 12), "a.weight_scale": scale(BF16, 33, 1),
    }),
    "ct_group": ("compressed-tensors", ct("int-quantized", {"type": "int", "strategy": "group", "group_size": 32}), {
        "a.weight": weight(I8, 7, 96), "a.weight_scale": scale(BF16, 7, 3),
    }),
    "ct_mxfp8": ("compressed-tensors", ct("mxfp8-quantized", {"type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}), {
        "a.weight": weight(F8, 7, 96), "a.weight_scale": scale(torch.uint8, 7, 3),
    }),
    "modelopt": ("llama.cpp", {"quant_method": "modelopt", "quant_algo": "FP8", "producer": {"name": "modelopt", "version": "0.33.0"}}, {
        "q_proj.weight": weight(F8, 9, 11), "q_proj.weight_scale": scale(F32), "q_proj.input_scale": scale(F32),
        "k_proj.weight": weight(F8, 9, 11), "k_proj.weight_scale": scale(F32, 9), "k_proj.k_scale": scale(F32),
        "v_proj.weight": weight(F8, 9, 11), "v_proj.weight_scale": scale(F32, 1), "v_proj.v_scale": scale(F32),
        "experts.weight": weight(F8, 3, 4, 5), "experts.weight_scale": scale(F32, 3),
    }),
    "modelopt_blocks": ("torch", {"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}, {
        "a.weight": weight(F8, 130, 129), "a.weight_scale": scale(F32, 2, 1, 2, 1),
    }),
    "deepseek_v4": ("torch", {"quant_method": "fp8", "fmt": "e4m3", "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}, {
        "a.weight": weight(F8, 130, 129), "a.scale": scale(E8, 2, 2),
        "mx.weight": weight(F8, 5, 70), "mx.scale": scale(E8, 5, 3),
        "hc_head.scale": torch.randn(3, generator=gen),
    }),
}


def by_llama_cpp(base, config, tensors):
    model = SimpleNamespace(hparams={"quantization_config": config}, model_tensors={n: lambda t=t: t for n, t in tensors.items()},
                            _is_nvfp4=False, _fp8_as_q8=False, _fp8_dequantized=set(), lazy=False)
    base.dequant_model(model)
    return {n: f() for n, f in model.model_tensors.items()}


def by_formula(config, tensors):
    """float32(weight) * float32(scale), each scale spread over its block."""
    out = {}
    for name, w in tensors.items():
        s = next((tensors[name.removesuffix("weight") + k] for k in ("weight_scale_inv", "weight_scale", "scale")
                  if name.endswith("weight") and name.removesuffix("weight") + k in tensors), None)
        if s is None:
            out[name] = w
            continue
        s = s.reshape(s.shape[0], s.shape[2]) if s.ndim == 4 else s
        if s.dtype == torch.uint8:
            s = torch.exp2(s.float() - 127)
        s = s.float()
        if s.ndim == 2:
            for dim in (0, 1):
                block = 32 if s.shape[1] == -(-w.shape[1] // 32) and s.shape[0] == w.shape[0] and dim == 1 else \
                    1 if s.shape[dim] == w.shape[dim] else 128 if s.shape[dim] == -(-w.shape[dim] // 128) else w.shape[dim]
                s = s.repeat_interleave(block, dim)
            s = s[:w.shape[0], :w.shape[1]]
        out[name] = w.float() * s
    drop = ("weight_scale", "weight_scale_inv", "input_scale", "k_scale", "v_scale")
    return {n: t for n, t in out.items() if not n.endswith(drop) and not (n.endswith(".scale") and n.removesuffix("scale") + "weight" in tensors)}


def check_compressed_tensors(config, tensors, want):
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme
    scheme = QuantizationScheme.model_validate(config["config_groups"]["group_0"])
    compressor = BaseCompressor.get_value_from_registry(config["format"])
    for name, w in want.items():
        s = tensors.get(name + "_scale")
        if s is None:
            continue
        got = compressor.decompress({"weight": tensors[name], "weight_scale": s}, scheme)["weight"]
        assert torch.equal(got, w.to(got.dtype)), name


def check_transformers(tensors, want):
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize
    checked = 0
    for name, w in want.items():
        s = tensors.get(name + "_scale_inv")
        if s is None or s.ndim < 2 or w.shape[-2] % s.shape[-2] or w.shape[-1] % s.shape[-1] or (w.shape[-2] // s.shape[-2]) % 128:
            continue  # transformers derives the block from the shapes, and refuses parts of blocks
        got = Fp8Dequantize(None)._dequantize_one(tensors[name], s, BF16)
        assert torch.equal(got, w.to(BF16)), name
        checked += 1
    return checked


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--llama-cpp", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args()
    sys.path[:0] = [str(args.llama_cpp / "gguf-py"), str(args.llama_cpp)]
    from conversion.base import ModelBase

    for name, (who, config, tensors) in CASES.items():
        path = args.out / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        want = by_llama_cpp(ModelBase, config, tensors) if who == "llama.cpp" else by_formula(config, tensors)
        agree = []
        if config["quant_method"] == "compressed-tensors":
            check_compressed_tensors(config, tensors, want)
            agree.append("compressed-tensors")
        if check_transformers(tensors, want):
            agree.append("transformers")
        (path / "config.json").write_text(json.dumps({"dtype": "bfloat16", "quantization_config": config}, indent=2) + "\n")
        save_file(tensors, path / "model.safetensors")
        (path / "model.safetensors").chmod(0o644)
        write_json(path / "expect.json", {
            "decoded_by": "torch" if who != "llama.cpp" else who, "agree": agree,
            "tensors": {n: {"shape": list(t.shape), "sha256": hashlib.sha256(t.float().contiguous().numpy().tobytes()).hexdigest()}
                        for n, t in want.items()},
        })
    write_json(args.out / "versions.json", {"llama.cpp": "v0.5.0", **versions("torch", "transformers", "compressed-tensors", "safetensors")})


if __name__ == "__main__":
    main()
