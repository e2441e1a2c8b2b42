#!/bin/sh
# Checks nibble's GGUF files in the real llama.cpp. Needs Node 20 and npm, on Linux x86-64.
#
#     run.sh NIBBLE MODEL_DIR...
#
# Each MODEL_DIR is a Hugging Face directory that nibble reads: a model as found,
# or one that nibble merged. nibble converts it to GGUF in every type; llama.cpp
# loads each file, and its tokens and greedy text are compared with those of
# `nibble generate` on MODEL_DIR. The f32 file must agree on everything, the
# others on the prompts' tokens.
#
# INTEROP_CACHE is where node-llama-cpp gets installed, once (default: nibble-interop
# in the user's cache).
set -eu

if [ $# -lt 2 ]; then
	echo "usage: run.sh NIBBLE MODEL_DIR..." >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
nibble=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
cache=${INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nibble-interop}

mkdir -p "$cache"
cp "$here/interop.mjs" "$here/compare.mjs" "$here/package.json" "$here/package-lock.json" "$cache/"
if ! cmp -s "$here/package-lock.json" "$cache/installed-lock.json"; then
	echo "installing node-llama-cpp into $cache" >&2
	(cd "$cache" && npm install --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error)
	cp "$here/package-lock.json" "$cache/installed-lock.json"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
prompts=$here/prompts.json
max_tokens=$(node -p 'JSON.parse(fs.readFileSync(process.argv[1])).max_tokens' "$prompts")
count=$(node -p 'JSON.parse(fs.readFileSync(process.argv[1])).prompts.length' "$prompts")

status=0
for model; do
	name=$(basename "$model")
	: >"$work/nibble.json"
	i=0
	while [ "$i" -lt "$count" ]; do
		# The x keeps a trailing newline of the prompt.
		prompt=$(node -e 'process.stdout.write(JSON.parse(fs.readFileSync(process.argv[1])).prompts[process.argv[2]] + "x")' "$prompts" "$i")
		"$nibble" generate --model "$model" --prompt "${prompt%x}" --max-tokens "$max_tokens" \
			--temperature 0 --json >>"$work/nibble.json"
		i=$((i + 1))
	done
	for type in f32 f16 bf16 q8_0; do
		"$nibble" convert "$model" "$work/$type.gguf" --outtype "$type" --quiet
		node "$cache/interop.mjs" "$work/$type.gguf" "$prompts" >"$work/llamacpp.json"
		strict=
		[ "$type" = f32 ] && strict=--strict
		node "$cache/compare.mjs" "$work/llamacpp.json" "$work/nibble.json" "$name $type" $strict || status=1
		rm -f "$work/$type.gguf"
	done
done
[ "$status" -eq 0 ] && echo "llama.cpp and nibble agree"
exit "$status"
