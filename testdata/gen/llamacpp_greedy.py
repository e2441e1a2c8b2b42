"""What the real llama.cpp generates from GGUF files of the real converter.

    python llamacpp_greedy.py --model STORIES260K_HF_DIR --gguf STORIES260K.GGUF \
        --converter LLAMA.CPP/convert_hf_to_gguf.py --interop DIR --out testdata

DIR is a copy of testdata/interop where npm has installed package.json. Run
convert_manifests.py first: it makes tiny_llama3.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import common

from convert_manifests import convert

PROMPTS = Path(__file__).parent.parent / "interop" / "prompts.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="the Hugging Face directory of stories260K")
    parser.add_argument("--gguf", type=Path, required=True, help="stories260K.gguf as found in the wild")
    parser.add_argument("--converter", type=Path, required=True, help="convert_hf_to_gguf.py in llama.cpp's source")
    parser.add_argument("--interop", type=Path, required=True, help="folder with interop.mjs and its node_modules")
    parser.add_argument("--out", type=Path, required=True, help="the testdata folder")
    args = parser.parse_args()

    def run(gguf):
        command = ["node", str(args.interop / "interop.mjs"), str(gguf), str(PROMPTS)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    with tempfile.TemporaryDirectory() as tmp:
        for name, source in [("stories260K", args.model), ("tiny_llama3", args.out / "tiny_llama3")]:
            gguf = Path(tmp, name + ".gguf")
            convert(args.converter, source, "f32", gguf)
            runs = {"converted_f32": run(gguf)}
            if name == "stories260K":
                runs["stories260K.gguf"] = run(args.gguf)
            common.write_json(args.out / name / "llamacpp_greedy.json", runs)


if __name__ == "__main__":
    main()
