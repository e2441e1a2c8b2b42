"""Makes formats/peft/testdata: adapters and configurations as PEFT writes them.

    PYTHONHASHSEED=0 python testdata/gen/peft_adapter.py --out formats/peft/testdata

PEFT keeps target_modules as a set, so its order in the file hangs on the hash seed.
"""

import argparse
import dataclasses
import json
import os
import shutil
from pathlib import Path

from common import torch, versions, write_json
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.config import ArrowConfig, BdLoraConfig, KasaConfig
from peft.tuners.tuners_utils import _ExcludedModule, check_target_module_exists
from peft.utils.other import get_pattern_key
from transformers import LlamaConfig, LlamaForCausalLM

ADAPTERS = {
    "golden": dict(r=4, lora_alpha=6, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    # No task_type, so PEFT fills auto_mapping; a regular expression; odd ranks and numbers.
    "golden_regex": dict(r=3, lora_alpha=2.5, lora_dropout=1e-5, use_rslora=True, init_lora_weights="gaussian",
                         target_modules=r".*layers\.1\.(self_attn|mlp)\..*_proj", revision="main"),
}

# One setting at a time that nibble's merge does not follow. The first name is the one to be refused.
REFUSED = [
    dict(rank_pattern={"q_proj": 4}), dict(alpha_pattern={"^model.layers.0": 3, "v_proj": 2}),
    dict(use_dora=True), dict(lora_bias=True), dict(bias="all"), dict(bias="lora_only"), dict(modules_to_save=["lm_head"]),
    dict(trainable_token_indices=[0, 1]), dict(trainable_token_indices={"embed_tokens": [1]}),
    dict(target_parameters=["experts.down_proj"]), dict(layer_replication=[(0, 2), (1, 2)]), dict(use_qalora=True),
    dict(use_bdlora=BdLoraConfig(target_modules_bd_a=["q_proj"], nblocks=2)), dict(kasa_config=KasaConfig()),
    dict(arrow_config=ArrowConfig()), dict(alora_invocation_tokens=[5]), dict(megatron_config={"a": 1}),
    dict(ensure_weight_tying=True), dict(init_lora_weights="pissa"), dict(init_lora_weights="pissa_niter_16"),
    dict(init_lora_weights="olora"), dict(init_lora_weights="corda"), dict(init_lora_weights="lora_ga"),
]
# Settings that leave the merged weights what the tensors say, or that are obeyed.
ACCEPTED = [
    dict(fan_in_fan_out=True), dict(lora_dropout=0.5), dict(init_lora_weights=False), dict(init_lora_weights="gaussian"), dict(init_lora_weights="eva"),
    dict(init_lora_weights="orthogonal"), dict(init_lora_weights="mica"), dict(layers_to_transform=3),
    dict(layers_to_transform=[0, 1], layers_pattern="layers"), dict(exclude_modules=["lm_head"]),
    dict(exclude_modules="lm.*"), dict(qalora_group_size=32), dict(megatron_core="x"), dict(inference_mode=True),
    dict(target_modules=[]), dict(target_modules="all-linear"),
]


def adapters(out):
    torch.manual_seed(5)
    base = LlamaForCausalLM(LlamaConfig(
        vocab_size=13, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32))
    for name, options in ADAPTERS.items():
        model = get_peft_model(base, LoraConfig(**options))
        for n, p in model.named_parameters():
            if "lora_B" in n:
                torch.nn.init.normal_(p)
        saves = {name: {}}
        if name == "golden":  # and as before there were safetensors: the same in adapter_model.bin
            saves["golden_pickled"] = {"safe_serialization": False}
        for folder, how in saves.items():
            shutil.rmtree(out / folder, ignore_errors=True)
            model.save_pretrained(out / folder, **how)
            (out / folder / "README.md").unlink()
            for path in (out / folder).iterdir():
                path.chmod(0o644)
        base = model.unload()


def case(options, default):
    """Which keys are set, and what PEFT would then write in place of its defaults."""
    d = LoraConfig(**{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **options}).to_dict()
    d = {k: sorted(v) if isinstance(v, set) else v for k, v in d.items()}
    return {"set": list(options), "written": {k: v for k, v in d.items() if v != default[k]}}


# Module names of several families, and configurations that mean some of them.
NAMES = [
    "model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.10.self_attn.q_proj",
    "model.layers.1.self_attn.k_proj", "model.layers.1.mlp.gate_proj", "model.layers.1.mlp.down_proj", "lm_head", "score",
    "model.layers.3.mlp.experts.5.down_proj", "model.layers.5.mlp.experts.3.down_proj", "model.layers.2.mlp.gate", "q_proj",
    "transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_proj", "transformer.h.1.mlp.c_proj", "h.1.attn.c_attn",
    "model.language_model.layers.1.self_attn.q_proj", "base.xq_proj", "encoder.block.1.layer.0.SelfAttention.q",
]
TARGETS = [
    dict(target_modules=["q_proj", "down_proj"]), dict(target_modules=["q_proj"], exclude_modules=["layers.1.self_attn.q_proj"]),
    dict(target_modules=["q_proj", "lm_head"], exclude_modules=r".*\.1\..*"), dict(target_modules=["q_proj"], layers_to_transform=[1, 10]),
    dict(target_modules=["q_proj", "down_proj"], layers_to_transform=3), dict(target_modules=["c_proj"], layers_to_transform=[1], layers_pattern="h"),
    dict(target_modules=["c_attn"], layers_to_transform=[1], layers_pattern=["layers", "h"]), dict(target_modules=["attn.c_proj"]),
    dict(target_modules=r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"), dict(target_modules=r".*layers\.(?!1\.).*_proj"),
    dict(target_modules=r"model.*(?<!gate)_proj"), dict(target_modules="q_proj|lm_head"), dict(target_modules=["q_proj", "lm_head"], modules_to_save=["lm_head"]),
    dict(target_modules=r".*proj", modules_to_save=["mlp", "self_attn.k_proj"]), dict(target_modules=["model.layers.1.self_attn.q_proj"]),
]
PATTERNS = [
    ["q_proj"], ["attn.q_proj", "q_proj"], ["self_attn.q_proj", "lm_head"], [r"layers\.1\..*"], [r"^model.layers.1.self_attn.q_proj"],
    [r"^layers.1.*"], [r"layers\.\d+\.self_attn\.(q|k)_proj", "k_proj"], [r"(0|1)\.self_attn\.q_proj"], ["k_proj|q_proj"], [r".*\.experts\.\d+\.down_proj", "down_proj"],
    [r"h\.[01]\.attn.*"], ["_proj"], [".*_proj"], ["proj$"], [r"(?!.*layers\.1\.).*q_proj"],
]


def matches():
    """Which of NAMES each of TARGETS means, and which key of each of PATTERNS each name has."""
    return {
        "names": NAMES,
        "targets": [{"config": {k: v for k, v in o.items()},
                     "means": [n for n in NAMES if bool(check_target_module_exists(LoraConfig(**o), n)) and
                               not isinstance(check_target_module_exists(LoraConfig(**o), n), _ExcludedModule)]} for o in TARGETS],
        "patterns": [{"keys": keys, "match": {n: get_pattern_key(keys, n) for n in NAMES if get_pattern_key(keys, n) in keys}} for keys in PATTERNS],
    }


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    out = args.parse_args().out
    assert os.environ.get("PYTHONHASHSEED") == "0", "set PYTHONHASHSEED=0"
    adapters(out)
    write_json(out / "matches.json", {"versions": versions("peft"), **matches()})
    default = LoraConfig().to_dict()
    assert default.keys() | {"runtime_config"} == {f.name for f in dataclasses.fields(LoraConfig)}
    write_json(out / "configs.json", {
        "versions": versions("peft", "transformers", "torch", "safetensors"),
        "default": default,
        "refused": [case(o, default) for o in REFUSED],
        "accepted": [case(o, default) for o in ACCEPTED],
    })


main()
