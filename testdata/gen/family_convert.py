"""Runs llama.cpp's converter many times in one process, for models whose pre-tokenizer it cannot know.

    python family_convert.py SCRIPT PRE < JOBS.json

JOBS.json is a list of command lines for SCRIPT, convert_hf_to_gguf.py or convert_lora_to_gguf.py. The converter finds
the pre-tokenizer by the hash of what the vocabulary makes of a text; a small vocabulary has another hash. Where PRE is
not "-", that one function returns it. Nothing else is changed.
"""

import json
import runpy
import sys
from pathlib import Path


def main():
    script, pre = Path(sys.argv[1]), sys.argv[2]
    jobs = json.load(sys.stdin)
    sys.path.insert(0, str(script.parent))
    from conversion.base import TextModel
    if pre != "-":
        TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    for job in jobs:
        sys.argv = [str(script), *job]
        runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
