"""Times bitsandbytes' 4-bit quantization on the CPU, for `make bench-peers`.

    python bnb.py VALUES.f32 ROWS COLS

It reads commands from standard input and answers each with a line:

    version        the versions of bitsandbytes and torch
    digest         SHA-256 of the codes of NF4 in blocks of 64
    quantize N     seconds that N threads of torch take for that, with double quantization
    dequantize N   seconds that they take back to float32
"""

import hashlib
import sys
import time

import bitsandbytes
import numpy
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

path, rows, cols = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
values = torch.from_numpy(numpy.fromfile(path, dtype=numpy.float32)).reshape(rows, cols)


def quantize():
    return quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


codes, state = quantize()
dequantize_4bit(codes, state)
for line in sys.stdin:
    command, *argument = line.split()
    if argument:
        torch.set_num_threads(int(argument[0]))
    if command == "version":
        answer = f"bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}"
    elif command == "digest":
        answer = hashlib.sha256(codes.numpy().tobytes()).hexdigest()
    elif command == "quantize":
        answer = timed(quantize)
    elif command == "dequantize":
        answer = timed(lambda: dequantize_4bit(codes, state))
    else:
        sys.exit(f"bnb.py: no command {command!r}")
    print(answer, flush=True)
