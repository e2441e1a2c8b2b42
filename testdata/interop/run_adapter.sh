#!/bin/sh
# Checks merges of an adapter in the real llama.cpp. Needs Node 20 and npm, on Linux
# x86-64.
#
#     run_adapter.sh NIBBLE BASE ADAPTER
#
# BASE is a Hugging Face directory, ADAPTER a PEFT adapter for it. llama.cpp puts the
# adapter that nibble converted on top of the base that nibble converted, and generates
# token by token what it makes of the GGUF file that nibble merged: from the directory,
# and from the base's GGUF file. What is merged and quantized in one pass it loads, and
# reads the prompts alike.
#
# llamacpp.sh says where llama.cpp comes from.
set -eu

if [ $# -ne 3 ]; then
	echo "usage: run_adapter.sh NIBBLE BASE ADAPTER" >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
nibble=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
base=$2
adapter=$3
cache=$("$here/llamacpp.sh")
cp "$here/interop.mjs" "$here/compare.mjs" "$cache/"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
status=0
nibble() { "$nibble" "$@" --quiet >"$work/log.txt"; }

# llamacpp OUT MODEL.gguf [ADAPTER.gguf]: what llama.cpp makes of the prompts.
llamacpp() {
	out=$1
	model=$2
	shift 2
	node "$cache/interop.mjs" "$model" "$here/prompts.json" "$@" >"$out"
}

# compare GGUF LABEL [--strict]: llama.cpp's text of a file beside that of the base with
# the adapter on top.
compare() {
	llamacpp "$work/merged.json" "$1"
	node "$cache/compare.mjs" "$work/merged.json" "$work/adapted.json" "$2" ${3:-} || status=1
}

nibble convert "$base" "$work/base.gguf" --outtype f32
nibble convert "$adapter" "$work/adapter.gguf" --base "$base" --outtype f32
llamacpp "$work/on_top.json" "$work/base.gguf" "$work/adapter.gguf"
node -e '
	const {results} = JSON.parse(fs.readFileSync(process.argv[1]));
	for (const r of results) console.log(JSON.stringify(r));
' "$work/on_top.json" >"$work/adapted.json"

# The adapter does something.
llamacpp "$work/alone.json" "$work/base.gguf"
if node "$cache/compare.mjs" "$work/alone.json" "$work/adapted.json" "base alone" --strict >"$work/log.txt"; then
	echo "the adapter changes nothing of what is generated"
	status=1
fi

nibble merge --base "$base" --adapter "$adapter" --out "$work/merged.gguf" --dtype f32
compare "$work/merged.gguf" "merged, f32" --strict
nibble merge --base "$work/base.gguf" --adapter "$adapter" --out "$work/from_gguf.gguf"
compare "$work/from_gguf.gguf" "from GGUF, f32" --strict
for type in q8_0 q4_0 q4_k_m; do
	nibble merge --base "$base" --adapter "$adapter" --out "$work/$type.gguf" --quantize "$type"
	compare "$work/$type.gguf" "merged, $type"
done
nibble quantize "$base" "$work/base_q8_0.gguf" --type q8_0
nibble merge --base "$work/base_q8_0.gguf" --adapter "$adapter" --out "$work/kept.gguf" --quantize keep
compare "$work/kept.gguf" "kept, q8_0"
nibble merge --base "$work/base_q8_0.gguf" --adapter "$adapter" --out "$work/half.gguf"
compare "$work/half.gguf" "q8_0 and f16"
[ "$status" -eq 0 ] && echo "llama.cpp generates with merged files what it does with the adapter"
exit "$status"
