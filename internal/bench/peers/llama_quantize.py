"""Quantizes a GGUF file by llama.cpp's llama_model_quantize, for `make bench-quantize`.

    python3 llama_quantize.py LIBRARIES IN.gguf OUT.gguf FTYPE THREADS

LIBRARIES is the directory of libllama and libggml that comes with node-llama-cpp, FTYPE
the number of a llama_ftype. Prints the seconds that the call took, and those with
fsync of OUT, which llama.cpp does not do.
"""

import ctypes
import glob
import os
import sys
import time


class Parameters(ctypes.Structure):
    """llama_model_quantize_params of llama.cpp v0.5.0 (include/llama.h)."""

    _fields_ = [
        ("nthread", ctypes.c_int32),
        ("ftype", ctypes.c_int),
        ("output_tensor_type", ctypes.c_int),
        ("token_embedding_type", ctypes.c_int),
        ("allow_requantize", ctypes.c_bool),
        ("quantize_output_tensor", ctypes.c_bool),
        ("only_copy", ctypes.c_bool),
        ("pure", ctypes.c_bool),
        ("keep_split", ctypes.c_bool),
        ("dry_run", ctypes.c_bool),
        ("imatrix", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("tt_overrides", ctypes.c_void_p),
        ("prune_layers", ctypes.c_void_p),
        ("max_buf_size", ctypes.c_size_t),
    ]


def library(directory, name):
    found = glob.glob(os.path.join(directory, name + "*.so"))
    if len(found) != 1:
        sys.exit(f"llama_quantize.py: {len(found)} files {name}*.so in {directory}, want one")
    return ctypes.CDLL(found[0], mode=ctypes.RTLD_GLOBAL)


directory, source, target, ftype, threads = sys.argv[1:]
library(directory, "libggml-base")
library(directory, "libggml.")
llama = library(directory, "libllama.")
llama.llama_model_quantize_default_params.restype = Parameters
llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Parameters)]
llama.llama_model_quantize.restype = ctypes.c_uint32

log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)
llama.llama_log_set(log, None)
llama.llama_backend_init()

parameters = llama.llama_model_quantize_default_params()
parameters.ftype, parameters.nthread = int(ftype), int(threads)
start = time.perf_counter()
failed = llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
took = time.perf_counter() - start
if failed:
    sys.exit(f"llama_quantize.py: llama_model_quantize returned {failed}")
with open(target, "rb+") as f:
    os.fsync(f.fileno())
print(took, time.perf_counter() - start)
