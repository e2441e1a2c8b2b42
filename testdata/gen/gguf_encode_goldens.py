"""Goldens of the encoders of formats/gguf/ggml, made with ggml itself.

    python gguf_encode_goldens.py LIBGGML_BASE OUT

LIBGGML_BASE is libggml-base.so of llama.cpp v0.5.0 (npm @node-llama-cpp/linux-x64 3.22.1 has it), OUT is
formats/gguf/ggml/testdata, where gguf_goldens.py has left rows.bin.
"""

import ctypes as C
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

lib = C.CDLL(sys.argv[1])
out = Path(sys.argv[2])
lib.ggml_quantize_chunk.restype = C.c_size_t
lib.ggml_quantize_chunk.argtypes = [C.c_int, C.c_void_p, C.c_void_p, C.c_int64, C.c_int64, C.c_int64, C.c_void_p]
lib.ggml_row_size.restype = C.c_size_t
lib.ggml_row_size.argtypes = [C.c_int, C.c_int64]

PLAIN = {"Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
WEIGHTED = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "IQ4_NL": 20, "IQ4_XS": 23, **PLAIN}
ROWS, COLS = 128, 1280


def quantize(typ, x, importance):
    x = np.ascontiguousarray(x, np.float32)
    b = np.empty(x.shape[0] * lib.ggml_row_size(typ, x.shape[1]), np.uint8)
    lib.ggml_quantize_chunk(typ, x.ctypes.data, b.ctypes.data, 0, *x.shape,
                            None if importance is None else importance.ctypes.data)
    return b.tobytes()


def noise(name, n):
    return np.frombuffer(hashlib.shake_128(name).digest(8 * n), "<u2").reshape(n, 4)


def inputs():
    """Rows of every kind from noise, in arithmetic that is the same everywhere; encode_test.go makes them too."""
    f = np.float32
    x = np.empty((ROWS, COLS), f)
    u = noise(b"rows", ROWS * COLS).reshape(ROWS, COLS, 4).astype(np.int64)
    s = u.sum(2) - 2 * 65535
    normal = s.astype(f) / f(65536)
    for row in range(ROWS):
        v, first = normal[row], u[row, :, 0]
        match row % 8:
            case 1:  # heavy tails
                v = v * f(65536) / (first + 1).astype(f)
            case 2:
                v = v * f(2.0**-20)
            case 3:  # groups that are far apart
                v = v * np.ldexp(f(1), first[np.arange(COLS) // 16 * 16] // 2048 - 16).astype(f)
            case 4:  # ties
                v = (s[row] // 8192).astype(f) / f(2)
            case 5:  # zeros, and a value here and there
                v = np.where(first < 2000, v, f(0))
            case 6:
                v = v * f(1e30)
            case 7:  # any bits that are a finite number
                bits = (first | u[row, :, 1] << 16).astype(np.uint32)
                v = np.where(bits >> 23 & 255 == 255, np.uint32(0x3F800000), bits).view(f)
        x[row] = v
    return x


def importance(n):
    """Squares of noise, a quarter of them zeros."""
    u = noise(b"importance", n)[:, 0]
    v = u.astype(np.float32) / np.float32(65536)
    return np.where(u % 4 == 0, np.float32(0), v * v)


def main():
    small = np.fromfile(out / "rows.bin", np.float32).reshape(-1, 256)
    x = inputs()
    sha = lambda b: hashlib.sha256(b).hexdigest()
    hashes = {"input": sha(x.tobytes()), "importance": sha(importance(COLS).tobytes()), "plain": {}, "weighted": {}}
    for name, typ in PLAIN.items():
        hashes["plain"][name] = sha(quantize(typ, x, None))
    for name, typ in WEIGHTED.items():
        (out / f"{name.lower()}_weighted.bin").write_bytes(quantize(typ, small, importance(256)))
        hashes["weighted"][name] = sha(quantize(typ, x, importance(COLS)))
    (out / "encoded.json").write_text(json.dumps(hashes, indent=1) + "\n")


main()
