"""Importance matrices that the real llama-imatrix computes: of stories260K and of every family.

    python imatrix_runs.py --tool LLAMA_IMATRIX --nibble NIBBLE --stories STORIES_HF --testdata testdata \
        --out cmd/nibble/testdata/imatrix

Each checkpoint is converted to an F32 file by nibble, which is checked to be the one that llama.cpp's converter makes,
and the tool runs over stories260K/shakespeare.txt with an F32 cache and no flash attention, so that it computes in
float32. Writes NAME.gguf and runs.json: how each was run, and the perplexity that the tool printed. Needs what is in
requirements.txt.

Three checkpoints are of what llama.cpp does not compute as transformers does. It knows no sliding window in Mistral's
and Phi-3's files, so their chunks are as short as the window; and it does not read qwen2's yarn_beta_fast, which the
command line gives it.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import write_json

FLAGS = ["-t", "1", "-ctk", "f32", "-ctv", "f32", "-fa", "off"]
TEXT = "shakespeare.txt"


def run(tool, model, ctx, chunks, output, extra, work, out):
    """Runs the tool where the text is, since the file names it as the command line does."""
    command = [str(tool), "-m", str(model), "-f", TEXT, "-o", str(out), "-c", str(ctx), "--chunks", str(chunks), *FLAGS, *extra]
    if output:
        command.append("--process-output")
    for _ in range(5):  # its logging thread may be cut off at the end
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=True)
        running = re.findall(r"\[(\d+)\]([\d.]+),", done.stdout + done.stderr)
        if running and int(running[-1][0]) == chunks:
            break
    else:
        raise ValueError(f"{out}: no perplexity in {done.stdout + done.stderr}")
    return {"ctx": ctx, "chunks": chunks, "process_output": output, "perplexity": float(running[-1][1])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, required=True, help="llama-imatrix of v0.5.0")
    parser.add_argument("--nibble", type=Path, required=True)
    parser.add_argument("--stories", type=Path, required=True, help="the Hugging Face directory of stories260K, named so")
    parser.add_argument("--testdata", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    models = [("stories260K", args.stories)]
    models += [(p.parent.name, p.parent) for p in sorted((args.testdata / "families").glob("*/convert_f32.json"))]
    runs = {}
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        shutil.copy(args.testdata / "stories260K" / TEXT, work / TEXT)
        for name, path in models:
            model = work / "model.gguf"
            subprocess.run([args.nibble, "convert", path, model, "--outtype", "f32"], check=True, capture_output=True)
            golden = args.testdata / ("" if name == "stories260K" else "families") / name / "convert_f32.json"
            assert hashlib.sha256(model.read_bytes()).hexdigest() == json.loads(golden.read_text())["file"]["sha256"], name
            config = json.loads((path / "config.json").read_text())
            scaling = config.get("rope_scaling") or {}
            extra = ["--yarn-beta-fast", str(scaling["beta_fast"])] if "beta_fast" in scaling else []
            short = name in ("mistral", "phi3")
            ctx, chunks = (8, 48) if short else (128, 19) if name == "stories260K" else (64, 6)
            assert not short or config["sliding_window"] == ctx
            # stories260K's head is its embeddings, which the tool passes over when asked for the head too.
            runs[name] = run(args.tool.resolve(), model, ctx, chunks, name != "stories260K", extra, work, (args.out / f"{name}.gguf").resolve())
            model.unlink()
    write_json(args.out / "runs.json", runs)


if __name__ == "__main__":
    main()
