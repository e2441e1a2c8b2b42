"""Makes testdata/recipes: whole models that mergekit merged by configurations of its own.

    python testdata/gen/merge_recipes.py --out testdata/recipes
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from common import torch, versions, write_json
import yaml
from mergekit.architecture.base import ConfiguredModelArchitecture, ConfiguredModuleArchitecture
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

# With transformers 5 pydantic lacks a name that the annotations of its configurations have.
for c in (ConfiguredModuleArchitecture, ConfiguredModelArchitecture):
    c.model_rebuild(force=True)

RECIPES = {
    # A gradient over the layers; filters; a value for all that one model overrules.
    "ties": """\
merge_method: ties
base_model: base
models:
  - model: base
  - model: one
    parameters:
      density: [0.2, 0.5, 1]
      weight: 0.7
  - model: two
    parameters:
      weight:
        - filter: mlp
          value: [0.1, 0.9]
        - filter: self_attn
          value: -0.3
        - value: 1
parameters:
  density: 0.6
  normalize: true
  int8_mask: true
dtype: float32
""",
    # The recipe that half of the merged models on the hub were made by.
    "slerp": """\
slices:
  - sources:
      - model: base
        layer_range: [0, 3]
      - model: one
        layer_range: [0, 3]
merge_method: slerp
base_model: base
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: float32
""",
    "linear": """\
models:
  - model: one
    parameters:
      weight: [1, 0.25]
  - model: two
    parameters:
      weight: 0.5
  - model: base
    parameters:
      weight:
        - filter: norm
          value: 2.0
        - filter: "*"
          value: 1e-1
merge_method: linear
dtype: float32
""",
    "slices": """\
slices:
  - sources:
      - model: one
        layer_range: [0, 2]
        parameters:
          weight: [0.1, 0.9]
      - model: base
        layer_range: [0, 2]
      - model: two
        layer_range: [0, 2]
    parameters:
      weight: 0.3
  - sources:
      - model: one
        layer_range: [2, 3]
      - model: base
        layer_range: [2, 3]
      - model: two
        layer_range: [2, 3]
        parameters:
          weight: [0.1, 0.8]
merge_method: task_arithmetic
base_model: base
parameters:
  weight: 0.6
  lambda: 1.2
dtype: float32
""",
    "stock": """\
merge_method: model_stock
base_model: base
models:
  - model: one
  - model: two
parameters:
  filter_wise: true
dtype: float32
out_dtype: bfloat16
tokenizer_source: base
""",
    "breadcrumbs": """\
merge_method: breadcrumbs_ties
base_model: base
models:
  - model: one
    parameters: {weight: 0.5, density: 0.7, gamma: 0.2}
  - model: two
    parameters: {weight: 0.8, density: 0.9, gamma: 0.2}
parameters: {normalize: false, lambda: 0.9}
dtype: float32
""",
}


def stable(x, dim=-1, descending=False, sort=torch.sort):
    return sort(x, dim=dim, descending=descending, stable=True)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", type=Path, required=True)
    out = args.parse_args().out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    os.chdir(out)
    # Among equal magnitudes torch takes any; here the first.
    torch.sort, torch.argsort = stable, lambda x, dim=-1, descending=False: stable(x, dim, descending).indices
    torch.manual_seed(21)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=18, hidden_size=8, intermediate_size=12, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, initializer_range=0.3))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for name, sigma in {"base": 0, "one": 0.1, "two": 0.2}.items():
        model.load_state_dict({k: v + sigma * torch.randn(v.shape) for k, v in before.items()})
        model.save_pretrained(name)
    for name, text in RECIPES.items():
        Path(f"{name}.yaml").write_text(text)
        config = yaml.safe_load(text)
        config.pop("tokenizer_source", None)  # the models have none
        with tempfile.TemporaryDirectory() as tmp:
            run_merge(MergeConfiguration.model_validate(config), tmp, MergeOptions(copy_tokenizer=False, trust_remote_code=False, write_model_card=False))
            (shard,) = Path(tmp).glob("*.safetensors")
            save_file(load_file(shard), f"{name}.safetensors")
    write_json("versions.json", versions("mergekit", "transformers", "torch"))
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


main()
