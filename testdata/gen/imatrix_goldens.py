"""Goldens of formats/gguf/imatrix: files of both forms, the GGUF one written by ggml as llama.cpp's tool does.

    python imatrix_goldens.py LIBGGML_BASE OUT

LIBGGML_BASE is libggml-base.so of llama.cpp v0.5.0 (npm @node-llama-cpp/linux-x64 3.22.1 has it), OUT is
formats/gguf/imatrix/testdata. The calls are those of IMatrixCollector::save_imatrix and save_imatrix_legacy
(tools/imatrix/imatrix.cpp): the keys, entries in order of name, sums [columns, mats] and counts [1, mats].
"""

import ctypes as C
import struct
import sys
from pathlib import Path

import numpy as np

lib = C.CDLL(sys.argv[1])
out = Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)


def fn(name, restype, *argtypes):
    f = getattr(lib, name)
    f.restype, f.argtypes = restype, argtypes
    return f


class InitParams(C.Structure):
    _fields_ = [("mem_size", C.c_size_t), ("mem_buffer", C.c_void_p), ("no_alloc", C.c_bool)]


ggml_init = fn("ggml_init", C.c_void_p, InitParams)
new_tensor_2d = fn("ggml_new_tensor_2d", C.c_void_p, C.c_void_p, C.c_int, C.c_int64, C.c_int64)
set_name = fn("ggml_set_name", C.c_void_p, C.c_void_p, C.c_char_p)
get_data = fn("ggml_get_data", C.c_void_p, C.c_void_p)
empty = fn("gguf_init_empty", C.c_void_p)
add_tensor = fn("gguf_add_tensor", None, C.c_void_p, C.c_void_p)
set_str = fn("gguf_set_val_str", None, C.c_void_p, C.c_char_p, C.c_char_p)
set_u32 = fn("gguf_set_val_u32", None, C.c_void_p, C.c_char_p, C.c_uint32)
set_arr_str = fn("gguf_set_arr_str", None, C.c_void_p, C.c_char_p, C.POINTER(C.c_char_p), C.c_size_t)
write = fn("gguf_write_to_file", C.c_bool, C.c_void_p, C.c_char_p, C.c_bool)

# What imatrix_test.go makes again: sums are (i % 13) * 0.25 + 0.1 in float32, times the count of the matrix.
ENTRIES = {
    "blk.0.ffn_down_exps.weight": (12, [7, 0, 3]),
    "blk.10.attn_q.weight": (8, [512]),
    "blk.2.attn_q.weight": (8, [512]),
}


def sums(cols, counts):
    i = np.arange(cols * len(counts), dtype=np.float32)
    return (np.mod(i, 13) * np.float32(0.25) + np.float32(0.1)) * np.repeat(np.float32(counts), cols)


def gguf(path, datasets, chunks, size):
    ctx, g = ggml_init(InitParams(1 << 20, None, False)), empty()
    set_str(g, b"general.type", b"imatrix")
    set_arr_str(g, b"imatrix.datasets", (C.c_char_p * len(datasets))(*datasets), len(datasets))
    set_u32(g, b"imatrix.chunk_count", chunks)
    set_u32(g, b"imatrix.chunk_size", size)
    for name in sorted(ENTRIES):
        cols, counts = ENTRIES[name]
        for suffix, values, dims in ((".in_sum2", sums(cols, counts), (cols, len(counts))), (".counts", np.float32(counts), (1, len(counts)))):
            t = new_tensor_2d(ctx, 0, *dims)
            set_name(t, (name + suffix).encode())
            C.memmove(get_data(t), values.ctypes.data, values.nbytes)
            add_tensor(g, t)
    assert write(g, str(path).encode(), False)


def legacy(path, dataset, chunks, size):
    b = struct.pack("<i", len(ENTRIES))
    for name in sorted(ENTRIES):
        cols, counts = ENTRIES[name]
        calls = (max(counts) + size - 1) // size
        count = np.repeat(np.float32(counts), cols)
        values = np.where(count == 0, np.float32(1), sums(cols, counts) / np.where(count == 0, 1, count)) * np.float32(calls)
        b += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values)) + values.astype("<f4").tobytes()
    b += struct.pack("<ii", chunks, len(dataset)) + dataset
    path.write_bytes(b)


gguf(out / "imatrix.gguf", [b"a.txt", b"b.txt"], 4, 128)
gguf(out / "none.gguf", [], 0, 512)
legacy(out / "imatrix.dat", b"a.txt", 4, 128)
