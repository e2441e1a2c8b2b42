"""Makes testdata/bnb_modules.json: which modules of every family in testdata/families transformers quantizes to 4 bits.

    python testdata/gen/bnb_modules.py testdata/families testdata/bnb_modules.json

Each model is made of its config.json without weights. "skipped" is the automatic list of modules, "quantized" what
replace_with_bnb_linear makes a Linear4bit, "shapes" what bitsandbytes then stores as the shape of each: a Conv1D, which
holds its weight as [in, out], becomes a linear layer. Numbers of layers are a *.
"""

import re
import sys
from pathlib import Path

from common import torch, versions, write_json
import bitsandbytes
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, BitsAndBytesConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.quantizers.base import HfQuantizer


def star(name):
    return re.sub(r"\.\d+\.", ".*.", name)


def modules(path):
    config = AutoConfig.from_pretrained(path)
    auto = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    skipped = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replace_with_bnb_linear(model, skipped, BitsAndBytesConfig(load_in_4bit=True), pre_quantized=True)
    found = {n: m for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    return {
        "skipped": sorted(skipped),
        "quantized": sorted({star(n) for n in found}),
        "shapes": {star(n): [m.out_features, m.in_features] for n, m in sorted(found.items())},
        "experts": sorted({star(n) for n, p in model.named_parameters() if p.ndim == 3}),
    }


def main():
    families = {p.parent.name: modules(p.parent) for p in sorted(Path(sys.argv[1]).glob("*/config.json"))}
    write_json(sys.argv[2], {"versions": versions("torch", "transformers", "bitsandbytes"), "families": families})


if __name__ == "__main__":
    main()
