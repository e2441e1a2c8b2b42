package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/tensortest"
)

// story is what the model itself writes, so that its loss on it is its own.
const story = `Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she said, "I'm sorry, Mom. I didn't know what to do." Her mom said, "Don't worry, Lily. We can play together."
`

// The adapter of --init-adapter makes the quantized model better, the more with more
// iterations, and with one the model is what it is without.
func TestInitAdapter(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("story.txt"), story)
	base := at("stories260K")
	loss := func(args ...string) float64 {
		var r evalResult
		okJSON(t, &r, append([]string{"eval", "--data", at("story.txt"), "--model"}, args...)...)
		return r.Loss
	}
	ok(t, "quantize", base, at("plain"))

	var r quantizeResult
	okJSON(t, &r, "quantize", base, at("q"), "--init-adapter", "loftq", "--rank", "16")
	require.Equal(t, tensors(t, at("plain")), tensors(t, at("q")))
	require.Equal(t, readFile(t, at("plain/config.json")), readFile(t, at("q/config.json")))
	require.NotNil(t, r.Adapter)
	require.Equal(t, at("q-loftq"), r.Adapter.Out)
	require.Len(t, r.Adapter.Modules, 35)
	require.InDelta(t, r.RelRMS, r.Adapter.Before, 1e-6)
	require.Less(t, r.Adapter.After, 0.6*r.Adapter.Before)
	for _, m := range r.Adapter.Modules {
		require.Less(t, m.After, m.Before, m.Module)
	}
	quantized, corrected, original := loss(at("q")), loss(at("q"), "--adapter", at("q-loftq")), loss(base)
	require.Less(t, original, corrected)
	require.Less(t, corrected-original, 0.7*(quantized-original), "%v %v %v", original, corrected, quantized)

	// A scale other than 1 is taken into the factors.
	ok(t, "quantize", base, at("scaled"), "--init-adapter", "loftq:1", "--rank", "16", "--alpha", "40", "--adapter-out", at("ad"))
	require.InDelta(t, corrected, loss(at("scaled"), "--adapter", at("ad")), 1e-4)
	a, err := peft.Open(at("ad"))
	require.NoError(t, err)
	defer a.Close()
	require.Equal(t, 40.0, a.Config.LoraAlpha)
	require.Equal(t, at("scaled"), a.Config.BaseModel)
	require.Equal(t, []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}, a.Config.TargetModules.Names)

	// More iterations change the codes.
	var many quantizeResult
	okJSON(t, &many, "quantize", base, at("many"), "--init-adapter", "loftq:4", "--rank", "16")
	require.Less(t, many.Adapter.After, r.Adapter.After)
	require.NotEqual(t, tensors(t, at("plain")), tensors(t, at("many")))
	require.Less(t, loss(at("many"), "--adapter", at("many-loftq")), corrected)

	// Some modules only. Where a short name would take in others, PEFT is told whole ones.
	text := ok(t, "quantize", base, at("some"), "--init-adapter", "loftq", "--rank", "4", "--target-modules", "q_proj,model.layers.2.mlp.up_proj")
	require.Contains(t, text, "rank 4 for 6 modules")
	some, err := peft.Open(at("some-loftq"))
	require.NoError(t, err)
	defer some.Close()
	require.ElementsMatch(t, []string{"q_proj", "model.layers.2.mlp.up_proj"}, some.Config.TargetModules.Names)

	// What is there is not replaced unless that is asked for, and neither is the model
	// without the adapter.
	o := nibble(t, "quantize", base, at("q2"), "--init-adapter", "loftq", "--adapter-out", at("ad"))
	require.Equal(t, exitFailed, o.code)
	require.Contains(t, o.stderr, "ad: output exists")
	require.NoDirExists(t, at("q2"))
	ok(t, "quantize", base, at("q2"), "--init-adapter", "loftq", "--adapter-out", at("ad"), "--rank", "2", "--force")
	for _, f := range tensortest.Files(t, dir) {
		require.False(t, strings.HasPrefix(f, "."), "%s is left", f)
	}
}

func TestInitAdapterBadUsage(t *testing.T) {
	quantize := []string{"quantize", "stories260K", "out"}
	for name, c := range map[string]badCase{
		"no such way":         {nil, append(quantize, "--init-adapter", "pissa"), exitUsage, []string{"pissa"}, "loftq"},
		"iterations":          {nil, append(quantize, "--init-adapter", "loftq:0"), exitUsage, []string{"loftq:0"}, "loftq:5"},
		"iterations in words": {nil, append(quantize, "--init-adapter", "loftq:five"), exitUsage, []string{"loftq:five"}, "loftq:5"},
		"rank alone":          {nil, append(quantize, "--rank", "8"), exitUsage, []string{"--rank without --init-adapter"}, "--init-adapter loftq"},
		"rank 0":              {nil, append(quantize, "--init-adapter", "loftq", "--rank", "0"), exitUsage, []string{"--rank is 0"}, ""},
		"rank too high":       {nil, append(quantize, "--init-adapter", "loftq", "--rank", "33"), exitInput, []string{"self_attn.k_proj", "rank 33", "32"}, "1 to 32"},
		"alpha":               {nil, append(quantize, "--init-adapter", "loftq", "--alpha", "-1"), exitUsage, []string{"--alpha is -1"}, ""},
		"no such module":      {nil, append(quantize, "--init-adapter", "loftq", "--target-modules", "query"), exitUsage, []string{"query"}, "q_proj"},
		"all skipped":         {nil, append(quantize, "--init-adapter", "loftq", "--target-modules", "q_proj", "--skip-modules", "q_proj"), exitInput, []string{"no weight"}, "--skip-modules"},
		"out twice":           {nil, append(quantize, "--init-adapter", "loftq", "--adapter-out", "./out"), exitUsage, []string{"out", "--adapter-out is OUT"}, ""},
		"inside out":          {nil, append(quantize, "--init-adapter", "loftq", "--adapter-out", "out/adapter"), exitUsage, []string{"out/adapter"}, ""},
		"GGUF":                {nil, []string{"quantize", "stories260K", "out.gguf", "--type", "q8_0", "--init-adapter", "loftq"}, exitUsage, []string{"--init-adapter", "bitsandbytes"}, ""},
		"int8":                {nil, append(quantize, "--init-adapter", "loftq", "--type", "int8"), exitUsage, []string{"int8"}, ""},
	} {
		t.Run(name, func(t *testing.T) { c.run(t) })
	}
}
