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
# A MODEL_DIR with a greedy.json like those in testdata/families is of random
# numbers, where most texts hang by a hair. Its text must agree on the prompts in
# that file, which were chosen for it, unless the file says that llama.cpp computes
# something else than transformers there; on others the prompts' tokens must.
#
# llamacpp.sh says where llama.cpp comes from.
set -eu

if [ $# -lt 2 ]; then
	echo "usage: run.sh NIBBLE MODEL_DIR..." >&2
	exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
nibble=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
cache=$("$here/llamacpp.sh")
cp "$here/interop.mjs" "$here/compare.mjs" "$cache/"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
status=0

# generate MODEL PROMPTS: what nibble makes of the prompts, into nibble.json.
generate() {
	model=$1
	prompts=$2
	max_tokens=$(node -p 'JSON.parse(fs.readFileSync(process.argv[1])).max_tokens' "$prompts")
	count=$(node -p 'JSON.parse(fs.readFileSync(process.argv[1])).prompts.length' "$prompts")
	: >"$work/nibble.json"
	i=0
	while [ "$i" -lt "$count" ]; do
		# The x keeps a trailing newline of the prompt.
		prompt=$(node -e 'process.stdout.write(JSON.parse(fs.readFileSync(process.argv[1])).prompts[process.argv[2]] + "x")' "$prompts" "$i")
		"$nibble" generate --model "$model" --prompt "${prompt%x}" --max-tokens "$max_tokens" \
			--temperature 0 --json >>"$work/nibble.json"
		i=$((i + 1))
	done
}

# compare GGUF PROMPTS LABEL [--strict]: llama.cpp beside nibble.json.
compare() {
	node "$cache/interop.mjs" "$1" "$2" >"$work/llamacpp.json"
	node "$cache/compare.mjs" "$work/llamacpp.json" "$work/nibble.json" "$3" ${4:-} || status=1
}

for dir; do
	name=$(basename "$dir")
	for type in f32 f16 bf16 q8_0; do
		"$nibble" convert "$dir" "$work/$type.gguf" --outtype "$type" --quiet >"$work/convert.txt"
	done
	strict=--strict
	if grep -qs llamacpp_agrees "$dir/greedy.json"; then
		strict=
		node -e '
			const {results} = JSON.parse(fs.readFileSync(process.argv[1]));
			const prompts = results.filter((r) => r.llamacpp_agrees).map((r) => r.prompt);
			console.log(JSON.stringify({max_tokens: 24, prompts}));
			if (prompts.length < results.length)
				console.error(`${process.argv[2]}: llama.cpp computes something else than transformers for ${results.length - prompts.length} of ${results.length} prompts`);
		' "$dir/greedy.json" "$name" >"$work/prompts.json"
		if ! grep -q '"prompts":\[\]' "$work/prompts.json"; then
			generate "$dir" "$work/prompts.json"
			compare "$work/f32.gguf" "$work/prompts.json" "$name f32" --strict
		fi
	fi
	generate "$dir" "$here/prompts.json"
	compare "$work/f32.gguf" "$here/prompts.json" "$name f32" $strict
	for type in f16 bf16 q8_0; do
		compare "$work/$type.gguf" "$here/prompts.json" "$name $type"
	done
	rm -f "$work"/*.gguf
done
[ "$status" -eq 0 ] && echo "llama.cpp and nibble agree"
exit "$status"
