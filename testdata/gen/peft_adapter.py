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


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    out = args.parse_args().out
    assert os.environ.get("PYTHONHASHSEED") == "0", "set PYTHONHASHSEED=0"
    adapters(out)
    default = LoraConfig().to_dict()
    assert default.keys() | {"runtime_config"} == {f.name for f in dataclasses.fields(LoraConfig)}
    write_json(out / "configs.json", {
        "versions": versions("peft", "transformers", "torch", "safetensors"),
        "default": default,
        "refused": [case(o, default) for o in REFUSED],
        "accepted": [case(o, default) for o in ACCEPTED],
    })


main()
