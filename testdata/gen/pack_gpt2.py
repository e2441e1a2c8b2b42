"""GPT-2's merges in few bytes: the real tokenizer to test with.

    python pack_gpt2.py --merges GPT2/vocab.bpe --encoder GPT2/encoder.json --out testdata/tokenizers/gpt2.merges.gz

The vocabulary is that of the 256 bytes, in GPT-2's order, then what each merge makes, then <|endoftext|>: so the ids of the two
tokens of each merge say everything. The file has the low bytes of all left ids, their high bytes, and the same of the right ids.
"""

import argparse
import gzip
import json
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("merges", "encoder", "out"):
        parser.add_argument("--" + name, type=Path, required=True)
    args = parser.parse_args()
    ids = json.loads(args.encoder.read_text())
    merges = [line.split(" ") for line in args.merges.read_text().split("\n")[1:] if line]
    assert len(merges) == 50000 and ids["<|endoftext|>"] == 50256
    assert all(ids[left + right] == 256 + i for i, (left, right) in enumerate(merges))
    planes = b"".join(bytes(ids[m[side]] >> shift & 255 for m in merges) for side in (0, 1) for shift in (0, 8))
    with gzip.GzipFile(args.out, "wb", compresslevel=9, mtime=0) as f:
        f.write(planes)


if __name__ == "__main__":
    main()
