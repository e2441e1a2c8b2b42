"""Makes cmd/nibble/testdata/mlx: an adapter of mlx_lm for testdata/families/qwen2, and what mlx_lm fuses with it.

    python testdata/gen/mlx_adapter.py testdata/families/qwen2 cmd/nibble/testdata/mlx

Versions: mlx-lm 0.32.2, mlx 0.32.4 (mlx[cpu]). The adapter has the layers that mlx_lm.lora makes, filled with
random numbers, in the last block alone. fused.safetensors has the float32 weights of that block.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

base, out = Path(sys.argv[1]), Path(sys.argv[2])
parameters = {"rank": 3, "scale": 1.75, "dropout": 0.05, "keys": ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"]}
model, _ = load_model(base)
model.set_dtype(mx.float32)
model.freeze()
linear_to_lora_layers(model, 1, parameters)
mx.random.seed(5)
adapter = {name: mx.random.normal(x.shape) * 0.1 for name, x in sorted(tree_flatten(model.trainable_parameters()))}
model.load_weights(list(adapter.items()), strict=False)
out.mkdir(parents=True, exist_ok=True)
mx.save_safetensors(str(out / "adapters.safetensors"), adapter)
config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters, "model": "nibble-tests/qwen2", "seed": 5, "iters": 100}
(out / "adapter_config.json").write_text(json.dumps(dict(sorted(config.items())), indent=4))
fused = {}
for name, module in model.named_modules():
    if hasattr(module, "fuse"):
        fused[name + ".weight"] = module.fuse().weight
mx.save_safetensors(str(out / "fused.safetensors"), fused)
