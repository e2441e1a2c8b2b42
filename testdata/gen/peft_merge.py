"""Makes testdata/merge: tiny models, adapters of every kind that PEFT's LoRA has, and what PEFT merges them to.

    PYTHONHASHSEED=0 python testdata/gen/peft_merge.py --out testdata/merge

PEFT's product of the two matrices is torch's, and that is MKL's. What it adds in which order depends on the processor;
with AVX-512 it is a chain of fused multiply-adds in the order of the rank, which is asserted here, so that the bits of
the goldens do not depend on the machine that made them.
"""

import argparse
import copy
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import common  # first: it sets up torch

# The chain, not the order that MKL_CBWR=AVX2 gives.
del os.environ["MKL_CBWR"], os.environ["ATEN_CPU_CAPABILITY"]

import numpy
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM)

SMALL = dict(vocab_size=13, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
             max_position_embeddings=32)
# Torch multiplies stacks of matrices with fewer than 400 products without MKL, and in another order: nobody's experts are so small.
MOE = dict(SMALL, num_hidden_layers=1, hidden_size=16)
BASES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=False)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=True)),  # tied; biases of q, k, v
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=13, n_embd=8, n_layer=1, n_head=2, n_positions=16)),  # tied; Conv1D
    "qwen3moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**MOE, head_dim=4, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=10,
                                                           tie_word_embeddings=False)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**dict(MOE, intermediate_size=8), num_local_experts=3, num_experts_per_tok=2,
                                                        tie_word_embeddings=False)),
}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
PLAIN = dict(r=3, lora_alpha=5, target_modules=["q_proj", "k_proj", "down_proj"])

# name: base, its type, configurations of the adapters and their weights. Scales are never 1, ranks differ, magnitudes are not those of the start.
CASES = {
    "plain": ("llama", "float32", PLAIN),
    "plain-bf16": ("llama", "bfloat16", PLAIN),
    "plain-f16": ("llama", "float16", PLAIN),
    "patterns": ("llama", "bfloat16", dict(
        r=2, lora_alpha=3, use_rslora=True, target_modules=r".*\.(q_proj|v_proj|gate_proj|o_proj)", exclude_modules=r".*\.1\..*o_proj",
        rank_pattern={"q_proj": 3, r"^model.layers.1.mlp.gate_proj": 1, "v_proj": 4}, alpha_pattern={r"layers\.0\..*": 7, "v_proj": 0.5})),
    "layers": ("llama", "float32", dict(r=1, lora_alpha=3, target_modules=["up_proj"], layers_to_transform=[1], layers_pattern="layers")),
    "dora": ("llama", "float32", dict(PLAIN, use_dora=True)),
    "dora-bf16": ("llama", "bfloat16", dict(PLAIN, use_dora=True, use_rslora=True)),
    "two": ("llama", "bfloat16", dict(PLAIN, seed=1), dict(r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "up_proj"], seed=2)),
    "two-dora": ("llama", "float32", dict(PLAIN, seed=1), dict(r=2, lora_alpha=3, use_dora=True, target_modules=["q_proj", "up_proj"], seed=2)),
    "embedding-bf16": ("llama", "bfloat16", dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "lm_head", "v_proj"])),
    "embedding-dora": ("llama", "float32", dict(r=2, lora_alpha=3, use_dora=True, target_modules=["embed_tokens", "lm_head"])),
    "saved": ("llama", "bfloat16", dict(r=2, lora_alpha=3, target_modules=["v_proj"], modules_to_save=["lm_head", "post_attention_layernorm"])),
    "tokens": ("llama", "bfloat16", dict(r=2, lora_alpha=3, target_modules=["v_proj"], trainable_token_indices=[11, 2])),
    "tokens-head": ("llama", "float32", dict(r=2, lora_alpha=3, target_modules=["v_proj"], trainable_token_indices={"embed_tokens": [1], "lm_head": [2, 0]})),
    "replication": ("llama", "float32", dict(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], layer_replication=[(0, 2), (1, 2)])),
    "resized": ("llama", "float32", dict(r=2, lora_alpha=3, target_modules=["v_proj"], resize=15)),
    "resized-target": ("llama", "float32", dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "lm_head"], resize=15)),
    "lora-bias": ("qwen2", "bfloat16", dict(r=2, lora_alpha=3, lora_bias=True, target_modules=["q_proj", "k_proj"])),
    "bias-all": ("qwen2", "bfloat16", dict(r=2, lora_alpha=3, bias="all", target_modules=["q_proj", "down_proj"])),
    "bias-lora-only": ("qwen2", "float32", dict(r=2, lora_alpha=3, bias="lora_only", target_modules=["q_proj", "down_proj"])),
    "tied-head": ("qwen2", "bfloat16", dict(r=2, lora_alpha=3, target_modules=["lm_head", "v_proj"])),
    "tied-embedding": ("qwen2", "float32", dict(r=2, lora_alpha=3, target_modules=["embed_tokens"])),
    "tied-both": ("qwen2", "bfloat16", dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "lm_head"])),
    "tied-ensured": ("qwen2", "float32", dict(r=2, lora_alpha=3, target_modules=["embed_tokens"], ensure_weight_tying=True)),
    "tied-saved-head": ("qwen2", "float32", dict(r=2, lora_alpha=3, target_modules=["v_proj"], modules_to_save=["lm_head"])),
    "tied-saved-embedding": ("qwen2", "float32", dict(r=2, lora_alpha=3, target_modules=["v_proj"], modules_to_save=["embed_tokens"])),
    "tied-saved-ensured": ("qwen2", "float32", dict(r=2, lora_alpha=3, target_modules=["v_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
    "tied-tokens": ("qwen2", "float32", dict(r=2, lora_alpha=3, target_modules=["v_proj"], trainable_token_indices=[3])),
    "conv1d": ("gpt2", "float32", dict(r=3, lora_alpha=5, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, bias="all")),
    "conv1d-bf16": ("gpt2", "bfloat16", dict(r=2, lora_alpha=3, target_modules=["c_attn", "wte"], fan_in_fan_out=True)),
    "conv1d-dora": ("gpt2", "float32", dict(r=3, lora_alpha=5, use_dora=True, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)),
    "experts": ("qwen3moe", "bfloat16", dict(r=2, lora_alpha=3, target_modules=["q_proj"], target_parameters=EXPERTS, rank_pattern={"experts.down_proj": 3})),
    "experts-one": ("qwen3moe", "float32", dict(r=3, lora_alpha=5, use_rslora=True, target_modules=[], target_parameters=EXPERTS[1:])),
    "experts-router": ("mixtral", "float32", dict(r=4, lora_alpha=6, target_modules=[], target_parameters=["mlp.gate.weight"] + EXPERTS)),
    # Of the layout before PEFT 0.19, where a stack counts as [experts, in, out].
    "experts-old": ("qwen3moe", "float32", dict(r=4, lora_alpha=6, target_modules=[], target_parameters=EXPERTS, old=True)),
    # gate_up_proj is square here, and so only the version tells.
    "experts-square": ("mixtral", "float32", dict(r=4, lora_alpha=6, target_modules=[], target_parameters=EXPERTS)),
    "experts-square-old": ("mixtral", "float32", dict(r=4, lora_alpha=6, target_modules=[], target_parameters=EXPERTS, old=True)),
    # As transformers 4 had them: a layer for each projection of each expert.
    "experts-apart": ("mixtral", "float32", dict(r=4, lora_alpha=6, target_modules=["w1", "w2", "w3"], apart=True)),
    "pissa": ("llama", "float32", dict(r=2, lora_alpha=3, target_modules=["q_proj", "down_proj"], init_lora_weights="pissa")),
    "olora": ("llama", "float32", dict(r=2, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "down_proj"], init_lora_weights="olora")),
}


def chain(b, a):
    """What the product must be: sums of fused multiply-adds in the order of the rank."""
    b, a = b.double().numpy(), a.double().numpy()
    out = numpy.zeros((b.shape[0], a.shape[1]), numpy.float32)
    for k in range(b.shape[1]):
        out = (out.astype(numpy.float64) + numpy.outer(b[:, k], a[k])).astype(numpy.float32)
    return out


def check_products():
    gen = torch.Generator().manual_seed(0)
    for out in (2, 3, 4, 5, 8, 12, 13, 24):
        for inn in (3, 4, 8, 12, 13, 24):
            for r in (1, 2, 3, 4):
                b, a = torch.randn(out, r, generator=gen), torch.randn(r, inn, generator=gen)
                assert ((b @ a).numpy() == chain(b, a)).all(), ("this processor's MKL adds in another order", out, inn, r)


def random(model, seed):
    """Trains, in a way: everything that has a gradient gets other numbers."""
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=gen).to(p.dtype)
        if "lora_magnitude" in name:
            p.data += 0.3 * noise
        elif "lora_" in name:
            p.data.copy_(0.5 * noise)
        elif p.requires_grad:
            p.data += 0.1 * noise


def stored(model):
    """A model's tensors as they are stored, and its configuration."""
    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(tmp)
        return load_file(Path(tmp, "model.safetensors")), json.loads(Path(tmp, "config.json").read_text())


def write_base(path, model):
    model.save_pretrained(path)
    (path / "generation_config.json").unlink(missing_ok=True)


def old_experts(model, old):
    for name, module in model.named_modules():
        if old and name.endswith(".experts"):
            module.is_transposed = True


def apart(path, base, seed):
    """Renames the pairs to those of layers that transformers 5 has not any more, with other numbers."""
    gen = torch.Generator().manual_seed(seed)
    tensors = {}
    for e in range(3):
        for proj, (i, o) in {"w1": (16, 8), "w3": (16, 8), "w2": (8, 16)}.items():
            name = f"base_model.model.model.layers.0.block_sparse_moe.experts.{e}.{proj}"
            tensors[f"{name}.lora_A.weight"] = 0.5 * torch.randn(4, i, generator=gen)
            tensors[f"{name}.lora_B.weight"] = 0.5 * torch.randn(o, 4, generator=gen)
    save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})


def save(model, path, seed, options):
    model.save_pretrained(path)
    (path / "README.md").unlink(missing_ok=True)
    config = json.loads((path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = None
    if options["old"]:
        config["peft_version"] = "0.18.1"
    if options["apart"]:
        config["target_modules"], config["target_parameters"] = ["w1", "w2", "w3"], None
        config["rank_pattern"], config["alpha_pattern"] = {}, {}
        apart(path, model, seed)
    (path / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def make(out, name, base, dtype, *adapters):
    dtype = getattr(torch, dtype)
    load = lambda: type_of[base].from_pretrained(out / "bases" / base, dtype=dtype)
    type_of = {b: type(f()) for b, f in BASES.items()}
    paths, model_options = [], []
    for i, config in enumerate(adapters):
        config = dict(config)
        options = {k: config.pop(k, d) for k, d in dict(seed=7, resize=0, old=False, apart=False).items()}
        model_options.append(options)
        path = out / "cases" / name / (f"adapter{i}" if len(adapters) > 1 else "adapter")
        paths.append(path)
        model = load()
        old_experts(model, options["old"])
        if options["resize"]:
            model.resize_token_embeddings(options["resize"], mean_resizing=False)
            model.name_or_path = str(out / "bases" / base)  # PEFT stores embeddings of another size than the base's
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
        if isinstance(config.get("init_lora_weights"), str):
            # As PEFT's own documentation has the initial adapter saved.
            first = path.parent / "initial"
            model.peft_config["default"].init_lora_weights = True
            save(model, first, 0, options)
            model.peft_config["default"].init_lora_weights = config["init_lora_weights"]
            for p_name, p in model.named_parameters():
                if "lora_" in p_name:
                    p.data += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5))
            save(model, path, options["seed"], options)
            tensors, merged = stored(model.merge_and_unload())
            write_golden(out, name, base, "merged", tensors, merged)
            model = None
            continue
        random(model, options["seed"])
        save(model, path, options["seed"], options)
    if model is None:
        return
    for kind, safe in dict(merged=False, safe=True).items():
        if safe and dtype == torch.float32:
            continue
        model = load()
        options = model_options[0]
        old_experts(model, options["old"])
        if options["resize"]:
            model.resize_token_embeddings(options["resize"], mean_resizing=False)
        for i, path in enumerate(paths):
            if i == 0:
                model = PeftModel.from_pretrained(model, path, adapter_name="a0")
            else:
                model.load_adapter(path, adapter_name=f"a{i}")
        if len(paths) > 1:
            model.base_model.set_adapter([f"a{i}" for i in range(len(paths))])
        if "replication" in name:
            # PEFT has layers that are repeated share their weights, and would add to one what is another's.
            for module in model.modules():
                for key, p in module._parameters.items():
                    if p is not None and "lora_" not in key:
                        module._parameters[key] = torch.nn.Parameter(p.detach().clone())
        model = model.merge_and_unload(safe_merge=safe)
        write_golden(out, name, base, kind, *stored(model))


def write_golden(out, name, base, kind, tensors, config):
    """Writes the tensors that are not the base's in that type, and what the configuration has other than the base's."""
    path = out / "cases" / name
    own = load_file(out / "bases" / base / "model.safetensors")
    dtype = next(iter(tensors.values())).dtype
    changed = {n: t.contiguous() for n, t in tensors.items() if n not in own or t.shape != own[n].shape or not torch.equal(t, own[n].to(dtype))}
    save_file(changed, path / f"{kind}.safetensors", metadata={"format": "pt"})
    was = json.loads((out / "bases" / base / "config.json").read_text())
    keys = ["tie_word_embeddings", "vocab_size", "num_hidden_layers", "n_layer", "layer_types"]
    common.write_json(path / f"{kind}.json", {
        "base": base, "dtype": str(dtype).removeprefix("torch."), "tensors": sorted(tensors),
        "config": {k: config[k] for k in keys if k in config and config[k] != was.get(k)}})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="testdata/merge")
    parser.add_argument("--only", nargs="*", default=list(CASES))
    args = parser.parse_args()
    assert os.environ.get("PYTHONHASHSEED") == "0", "set PYTHONHASHSEED=0"
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    check_products()
    for i, (name, make_base) in enumerate(BASES.items()):
        torch.manual_seed(100 + i)
        path = args.out / "bases" / name
        shutil.rmtree(path, ignore_errors=True)
        model = make_base()
        for p in model.parameters():
            p.data.copy_((0.5 * torch.randn(p.shape)).bfloat16())  # the same numbers in every type
        write_base(path, model)
    for name in args.only:
        print(name)
        shutil.rmtree(args.out / "cases" / name, ignore_errors=True)
        make(args.out, name, *CASES[name])
    common.write_json(args.out / "versions.json", common.versions("peft", "transformers", "torch", "safetensors"))
    for path in args.out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


if __name__ == "__main__":
    main()
