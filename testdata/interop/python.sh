#!/bin/sh
# Prints the path of a Python that has transformers, PEFT and bitsandbytes.
#
# INTEROP_PYTHON is one that has them already. Without it a virtual environment is made
# in INTEROP_CACHE, once (default: nibble-interop in the user's cache). pip's own settings
# choose the index; the CPU build of torch is enough.
set -eu

if [ -n "${INTEROP_PYTHON:-}" ]; then
	echo "$INTEROP_PYTHON"
	exit
fi
requirements=$(cd "$(dirname "$0")/../gen" && pwd)/requirements.txt
venv=${INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nibble-interop}/venv
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
	echo "installing transformers, peft and bitsandbytes into $venv" >&2
	python3 -m venv --clear "$venv" >&2
	"$venv/bin/python" -m pip install --quiet -r "$requirements" >&2
	cp "$requirements" "$venv/requirements.txt"
fi
echo "$venv/bin/python"
