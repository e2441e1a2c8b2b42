package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// requireSameFiles checks that two directories, or files, have the same bytes.
func requireSameFiles(t *testing.T, want, got string) {
	t.Helper()
	if st, err := os.Stat(want); err == nil && !st.IsDir() {
		require.True(t, readFile(t, want) == readFile(t, got), "%s", want)
		return
	}
	files := func(dir string) map[string]string {
		m := make(map[string]string)
		for _, path := range every(t, dir) {
			name, err := filepath.Rel(dir, path)
			require.NoError(t, err)
			m[name] = ""
			if st, err := os.Stat(path); err == nil && !st.IsDir() {
				m[name] = fmt.Sprintf("%x", sha256.Sum256([]byte(readFile(t, path))))
			}
		}
		return m
	}
	require.Equal(t, files(want), files(got))
}

// writeAdapter writes an adapter for some layers of stories260K, or of a model of
// its shape.
func writeAdapter(t *testing.T, dir, base string, sigma float64, seed uint64) {
	t.Helper()
	m, err := openModel(base)
	require.NoError(t, err)
	defer m.Close()
	var list []tensortest.Tensor
	for _, module := range []string{"self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"} {
		for _, layer := range []string{"0", "3"} {
			name := "model.layers." + layer + "." + module
			info, err := m.view.Info(name + ".weight")
			require.NoError(t, err)
			list = append(list,
				tensortest.Normal("base_model.model."+name+".lora_A.weight", tensor.Shape{4, info.Shape[1]}, sigma, seed),
				tensortest.Normal("base_model.model."+name+".lora_B.weight", tensor.Shape{info.Shape[0], 4}, sigma, seed+1))
			seed += 2
		}
	}
	require.NoError(t, os.Mkdir(dir, 0o777))
	put(t, filepath.Join(dir, "adapter_config.json"), `{"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], "layers_to_transform": [0, 3], "base_model_name_or_path": "someone/stories"}`)
	w, err := safetensors.Create(filepath.Join(dir, "adapter_model.safetensors"), false)
	require.NoError(t, err)
	tensortest.Copy(t, tensortest.NewSource(t, nil, list...), w)
}

// TestUnmergeGivesTheBaseBack merges bases of every kind into outputs of every kind
// and takes that back, file by file.
func TestUnmergeGivesTheBaseBack(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	f32 := at("stories260K")
	writeAdapter(t, at("one"), f32, 0.05, 1)
	writeAdapter(t, at("two"), f32, 0.1, 20)
	ok(t, "convert", f32, at("bf16"), "--outtype", "bf16")
	ok(t, "convert", f32, at("sharded"), "--outtype", "f16", "--max-shard-size", "200KB")
	ok(t, "quantize", f32, at("nf4"), "--type", "nf4")
	ok(t, "convert", f32, at("b.gguf"), "--outtype", "bf16")
	ok(t, "convert", f32, at("q.gguf"), "--outtype", "q8_0")
	ok(t, "convert", at("b.gguf"), at("split.gguf"), "--split-max-tensors", "20")
	for _, c := range []struct {
		base, out string
		more      []string
	}{
		{"stories260K", "m", nil},
		{"stories260K", "m", []string{"--dtype", "f16"}},
		{"bf16", "m", []string{"--adapter", at("two") + ":-0.5"}},
		{"bf16", "m", []string{"--arithmetic", "peft-safe", "--max-shard-size", "100KB"}},
		{"bf16", "m.gguf", nil},
		{"sharded", "m", nil},
		{"nf4", "m", []string{"--dtype", "bf16"}},
		{"b.gguf", "m", nil},
		{"b.gguf", "m.gguf", nil},
		{"q.gguf", "m", nil},
		{"q.gguf", "m.gguf", []string{"--dtype", "q8_0"}},
		{"split-00001-of-00003.gguf", "m", nil},
	} {
		t.Run(c.base+" to "+c.out, func(t *testing.T) {
			work := t.TempDir()
			in := func(name string) string { return filepath.Join(work, name) }
			ok(t, append([]string{"merge", "--base", at(c.base), "--adapter", at("one"), "--out", in(c.out), "--receipt", in("receipt")}, c.more...)...)
			ok(t, "verify", in(c.out))
			var r restoredResult
			okJSON(t, &r, "unmerge", in(c.out), "--receipt", in("receipt"), "--out", in("back"))
			require.NotZero(t, r.Tensors)
			if c.base == "split-00001-of-00003.gguf" {
				for _, name := range r.Files {
					requireSameFiles(t, at(name), in("back/"+name))
				}
				require.Len(t, r.Files, 3)
				return
			}
			requireSameFiles(t, at(c.base), in("back"))
			var p provenance
			require.NoError(t, json.Unmarshal(r.Merge, &p))
			require.Equal(t, "someone/stories", p.Adapters[0].TrainedOn)
		})
	}
}

// TestUnmergeOfPEFTsCases takes back every merge that PEFT can make: DoRA, saved
// modules, tokens, repeated layers, heads that were tied, vocabularies that grew.
func TestUnmergeOfPEFTsCases(t *testing.T) {
	for _, c := range mergeCases(t) {
		t.Run(c.name, func(t *testing.T) {
			work := t.TempDir()
			in := func(name string) string { return filepath.Join(work, name) }
			o := c.options(t)
			base := o.base
			if short := map[string]string{"bfloat16": "bf16", "float16": "f16"}[c.DType]; short != "" {
				base = in("base")
				ok(t, "convert", o.base, base, "--outtype", short)
			}
			args := []string{"merge", "--base", base, "--out", in("m"), "--receipt", in("receipt")}
			for _, a := range o.adapters {
				args = append(args, "--adapter", a)
			}
			for _, a := range o.initial {
				args = append(args, "--initial-adapter", a)
			}
			ok(t, args...)
			ok(t, "unmerge", in("m"), "--receipt", in("receipt"), "--out", in("back"))
			requireSameFiles(t, base, in("back"))
		})
	}
}

// TestUnmergeSubtracts subtracts, and compares what is said to be lost with what is.
func TestUnmergeSubtracts(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "convert", at("stories260K"), at("base"), "--outtype", "bf16")
	writeAdapter(t, at("one"), at("base"), 0.2, 1)
	writeAdapter(t, at("two"), at("base"), 0.1, 20)
	ok(t, "merge", "--base", at("base"), "--adapter", at("one"), "--adapter", at("two")+":0.5", "--out", at("m"))
	require.Contains(t, readFile(t, at("m/model.safetensors")), provenanceKey)

	require.Contains(t, ok(t, "unmerge", at("m"), "--adapter", at("one"), "--adapter", at("two")+":0.5", "--out", at("blind")), "lost to rounding")
	var r unmergedResult
	okJSON(t, &r, "unmerge", at("m"), "--adapter", at("one"), "--adapter", at("two")+":0.5", "--base", at("base"), "--out", at("back"))
	require.Equal(t, tensors(t, at("blind")), tensors(t, at("back")))
	require.NotContains(t, readFile(t, at("back/model.safetensors")), provenanceKey)
	require.Equal(t, 6, r.Subtracted)
	require.InEpsilon(t, r.Expected, float64(*r.Differ), 0.1)
	a, err := formats.Open(at("base"))
	require.NoError(t, err)
	defer a.Close()
	b, err := formats.Open(at("back"))
	require.NoError(t, err)
	defer b.Close()
	differ := int64(0)
	for info := range a.All() {
		x, y := floatsOf(t, a, info.Name), floatsOf(t, b, info.Name)
		for i := range x {
			if x[i] != y[i] {
				differ++
				require.InDelta(t, x[i], y[i], 0.05)
			}
		}
	}
	require.Equal(t, *r.Differ, differ)
	require.Less(t, differ, r.Weights/2)
	require.Equal(t, 6, r.Actions["subtract"])

	// In f32 it is as with other types: what had a smaller exponent than the sum loses
	// bits.
	ok(t, "merge", "--base", at("stories260K"), "--adapter", at("one"), "--out", at("m32"))
	okJSON(t, &r, "unmerge", at("m32"), "--adapter", at("one"), "--base", at("stories260K"), "--out", at("back32"))
	require.InEpsilon(t, r.Expected, float64(*r.Differ), 0.2)
}

// TestUnmergeRefuses what cannot be, and leaves nothing.
func TestUnmergeRefuses(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	base := at("stories260K")
	writeAdapter(t, at("one"), base, 0.1, 1)
	ok(t, "merge", "--base", base, "--adapter", at("one"), "--out", at("m"), "--receipt", at("receipt"))
	ok(t, "convert", at("m"), at("half"), "--outtype", "f16")
	whole := readFile(t, at("receipt"))
	put(t, at("damaged"), whole[:2000]+"x"+whole[2001:])
	ok(t, "convert", at("m"), at("edited"))
	dora := mergeCase(t, "dora").options(t)
	before := every(t, dir)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{args: []string{"unmerge", at("m"), "--out", at("x")}, code: exitUsage, want: "neither --receipt nor --adapter"},
		{args: []string{"unmerge", at("m"), "--receipt", at("receipt"), "--adapter", at("one"), "--out", at("x")}, code: exitUsage, want: "--receipt with --adapter"},
		{args: []string{"unmerge", at("m"), "--receipt", at("receipt"), "--out", at("m")}, code: exitUsage, want: "the output is the input"},
		{args: []string{"unmerge", at("m"), "--receipt", at("none"), "--out", at("x")}, code: exitFailed, want: "no such file"},
		{args: []string{"unmerge", at("m"), "--receipt", at("m/config.json"), "--out", at("x")}, code: exitInput, want: "not a receipt"},
		{args: []string{"unmerge", at("m"), "--receipt", at("damaged"), "--out", at("x")}, code: exitInput, want: "is damaged: its CRC-32C"},
		{args: []string{"unmerge", base, "--receipt", at("receipt"), "--out", at("x")}, code: exitInput, want: "is not what was merged"},
		{args: []string{"unmerge", at("half"), "--receipt", at("receipt"), "--out", at("x")}, code: exitInput, want: "is F32 of [512, 64], this is F16"},
		{args: []string{"unmerge", at("m"), "--receipt", at("receipt"), "--out", base}, code: exitFailed, want: "output exists"},
		{args: []string{"unmerge", dora.base, "--adapter", dora.adapters[0], "--out", at("x")}, code: exitInput, want: "the adapter does more than to add to it"},
		{args: []string{"merge", "--base", base, "--adapter", at("one"), "--out", at("x"), "--receipt", at("x/receipt")}, code: exitUsage, want: "inside of the output"},
		{args: []string{"merge", "--base", base, "--adapter", at("one"), "--out", at("x"), "--receipt", at("receipt")}, code: exitFailed, want: "output exists"},
		{args: []string{"merge", "--base", base, "--adapter", at("one"), "--out", at("x"), "--receipt", filepath.Join(base, "model.safetensors"), "--force"}, code: exitUsage, want: "the output is the input"},
	} {
		t.Run(c.want, func(t *testing.T) {
			o := nibble(t, c.args...)
			require.Equal(t, c.code, o.code, o.stderr)
			require.Contains(t, o.stderr, c.want)
			require.Equal(t, before, every(t, dir))
		})
	}
}

// TestEqualMergesAreEqual has no date and no path in what a merge writes.
func TestEqualMergesAreEqual(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	writeAdapter(t, at("one"), at("stories260K"), 0.1, 1)
	put(t, at("stories260K/README.md"), "---\nlicense: mit\ntags:\n- small\n---\n\n# Stories\n")
	for _, name := range []string{"a", "b"} {
		require.NoError(t, os.Mkdir(at(name), 0o777))
		ok(t, "merge", "--base", at("stories260K"), "--adapter", at("one"), "--out", at(name+"/m"), "--receipt", at(name+"/receipt"), "--threads", map[string]string{"a": "1", "b": "3"}[name])
		ok(t, "merge", "--base", at("stories260K"), "--adapter", at("one"), "--out", at(name+"/m.gguf"))
	}
	requireSameFiles(t, at("a"), at("b"))

	card := readFile(t, at("a/m/README.md"))
	require.Contains(t, card, "---\nlicense: mit\nbase_model:\n- someone/stories\nbase_model_relation: finetune\ntags:\n- small\n- nibble\n- merge\n---\n\n# Stories\n\n## Merged with nibble\n")
	require.NotContains(t, card, dir)
	in, err := formats.Open(at("a/m.gguf"))
	require.NoError(t, err)
	defer in.Close()
	text, found := tensor.Lookup[string](in.Meta(), provenanceKey)
	require.True(t, found)
	var p provenance
	require.NoError(t, json.Unmarshal([]byte(text), &p))
	require.Equal(t, "f32", p.Arithmetic)
	require.Equal(t, "stories260K", p.Base.Name)
	require.Len(t, p.Adapters, 1)
	require.Len(t, p.Adapters[0].SHA256, 2)
	require.Contains(t, card, p.Base.Fingerprint)
	require.Contains(t, card, p.Adapters[0].SHA256["adapter_model.safetensors"])

	// The fingerprint is of the tensors, wherever they lie; a merge of a merge says both.
	ok(t, "convert", at("stories260K"), at("c"), "--max-shard-size", "200KB")
	ok(t, "merge", "--base", at("c"), "--adapter", at("one")+":2", "--out", at("c1"))
	ok(t, "merge", "--base", at("c1"), "--adapter", at("one"), "--out", at("c2"))
	again, err := formats.Open(at("c2"))
	require.NoError(t, err)
	defer again.Close()
	text, _ = tensor.Lookup[string](again.Meta(), provenanceKey)
	var q, r provenance
	require.NoError(t, json.Unmarshal([]byte(text), &q))
	require.NoError(t, json.Unmarshal(q.Base.Merge, &r))
	require.Equal(t, p.Base.Fingerprint, r.Base.Fingerprint)
	require.NotEqual(t, p.Base.Fingerprint, q.Base.Fingerprint)
	require.Equal(t, 2.0, r.Adapters[0].Weight)
}

// TestKilledMergeLeavesOldOrNew kills merges and unmerges at any moment.
func TestKilledMergeLeavesOldOrNew(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	base := at("stories260K")
	writeAdapter(t, at("one"), base, 0.1, 1)
	writeAdapter(t, at("two"), base, 0.1, 50)
	merge := func(adapter string) []string {
		return []string{"merge", "--base", base, "--adapter", at(adapter), "--out", at("m"), "--receipt", at("receipt"), "--force"}
	}
	start := time.Now()
	ok(t, merge("one")...)
	took := time.Since(start)
	old, oldReceipt := tensors(t, at("m")), readFile(t, at("receipt"))
	ok(t, merge("two")...)
	fresh, freshReceipt := tensors(t, at("m")), readFile(t, at("receipt"))
	rng := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		ok(t, merge("one")...)
		kill(t, time.Duration(rng.Int64N(int64(took))), merge("two")...)
		is, receipt := tensors(t, at("m")), readFile(t, at("receipt"))
		switch {
		case receipt == freshReceipt:
			require.Equal(t, fresh, is)
		default:
			require.Equal(t, oldReceipt, receipt)
			// Between the two names only the model's is new.
			require.True(t, assert.ObjectsAreEqual(old, is) || assert.ObjectsAreEqual(fresh, is))
		}
	}
	ok(t, merge("one")...)
	for range 6 {
		kill(t, time.Duration(rng.Int64N(int64(took))), "unmerge", at("m"), "--receipt", at("receipt"), "--out", at("back"))
		if _, err := os.Stat(at("back")); err == nil {
			requireSameFiles(t, base, at("back"))
			require.NoError(t, os.RemoveAll(at("back")))
		}
	}
}

// kill runs a command for a time.
func kill(t *testing.T, after time.Duration, args ...string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	require.NoError(t, cmd.Start())
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
