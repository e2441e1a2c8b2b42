"""Goldens of merge/factors: what PEFT's add_weighted_adapter makes of two adapters.

    /path/to/venv/bin/python testdata/gen/peft_combine.py merge/factors/testdata

Versions: peft 0.21.2, torch 2.15.0, safetensors 0.8.0. One file, combine.safetensors: the
factors of the adapters first and second, and of each combination, by combination and module. Scales are
not 1, modules are not square, weights are not equal and one is negative.
"""

import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

A, B = dict(r=3, lora_alpha=7), dict(r=3, lora_alpha=4, use_rslora=True)
COMBINATIONS = {
    "cat": dict(combination_type="cat"),
    "svd": dict(combination_type="svd", svd_rank=2),
    "linear": dict(combination_type="linear"),
    "ties": dict(combination_type="ties", density=0.6),
    "ties_frequency": dict(combination_type="ties", density=0.8, majority_sign_method="frequency"),
    "magnitude_prune": dict(combination_type="magnitude_prune", density=0.35),
    "dare_linear_all": dict(combination_type="dare_linear", density=1.0),
    "dare_ties_all": dict(combination_type="dare_ties", density=1.0),
}
WEIGHTS = {"": [0.75, 1.5], "_negative": [0.6, -1.25]}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(5, 9, bias=False)
        self.down = torch.nn.Linear(9, 4, bias=False)


def main(out):
    torch.manual_seed(7)
    model = get_peft_model(Model(), LoraConfig(target_modules=["up", "down"], **A), adapter_name="first")
    model.add_adapter("second", LoraConfig(target_modules=["up", "down"], **B))
    tensors = {}

    def keep(name):
        for module in ["up", "down"]:
            layer = model.base_model.model.get_submodule(module)
            tensors[f"{name}.{module}.lora_A.weight"] = layer.lora_A[name].weight.detach().clone().contiguous()
            tensors[f"{name}.{module}.lora_B.weight"] = layer.lora_B[name].weight.detach().clone().contiguous()
            tensors[f"{name}.{module}.scale"] = torch.tensor(float(layer.scaling[name]))

    for name in ["first", "second"]:
        for module in ["up", "down"]:
            layer = model.base_model.model.get_submodule(module)
            torch.nn.init.normal_(layer.lora_A[name].weight)
            torch.nn.init.normal_(layer.lora_B[name].weight)
        keep(name)
    for name, arguments in COMBINATIONS.items():
        for suffix, weights in WEIGHTS.items():
            model.add_weighted_adapter(["first", "second"], weights, name + suffix, **arguments)
            keep(name + suffix)
    save_file(tensors, f"{out}/combine.safetensors")


main(sys.argv[1])
