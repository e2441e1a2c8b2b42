"""Makes nf4/bnb/testdata/int8: what transformers and bitsandbytes save and decode of LLM.int8.

    python testdata/gen/bnb_int8.py --out nf4/bnb/testdata

The model is nf4/bnb/testdata/original, which bnb_files.py makes. dequant.safetensors has what int8_vectorwise_dequant
gives for each quantized weight; the script checks that it is what transformers' model.dequantize() gives, too.
"""

import argparse
import os
import shutil
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"
from common import torch, versions, write_json
import bitsandbytes
import bitsandbytes.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True)
    out = p.parse_args().out
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path = out / "int8"
    shutil.rmtree(path, ignore_errors=True)
    q = AutoModelForCausalLM.from_pretrained(
        out / "original", dtype=torch.bfloat16, device_map="cpu",
        quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head", "mlp.down_proj"]))
    # A row of zeros has an absmax of 0.
    linear = {n: m for n, m in q.named_modules() if isinstance(m, bitsandbytes.nn.Linear8bitLt)}
    first = next(iter(linear.values())).weight
    first.data[3] = 0
    first.SCB[3] = 0
    q.save_pretrained(path)
    (path / "generation_config.json").unlink()

    stored = load_file(path / "model.safetensors")
    decoded = {}
    for n in linear:
        w, scb = stored[n + ".weight"], stored[n + ".SCB"]
        assert w.dtype == torch.int8 and scb.dtype == torch.float32 and stored[n + ".weight_format"].item() == 0
        decoded[n + ".weight"] = F.int8_vectorwise_dequant(w, scb)
    plain = AutoModelForCausalLM.from_pretrained(path, device_map="cpu").dequantize().state_dict()
    for name, want in decoded.items():
        assert want.dtype == torch.float32
        got = plain[name]
        assert torch.equal(got, want.to(got.dtype)), name
        print(name, "transformers decodes it to", got.dtype)
    save_file(decoded, path / "dequant.safetensors")
    write_json(path / "versions.json", versions("torch", "transformers", "bitsandbytes", "safetensors"))


if __name__ == "__main__":
    main()
