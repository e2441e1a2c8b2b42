package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

const (
	embedding = "model.embed_tokens.weight"
	head      = "lm_head.weight"
)

// plus returns a + scale*(b - a).
func plus(a, b []float32, scale float32) []float32 {
	out := make([]float32, len(a))
	for i := range a {
		out[i] = a[i] + scale*(b[i]-a[i])
	}
	return out
}

// TestMergeDiffersFromPEFT is about what is right and not what PEFT does, unless
// its arithmetic is asked for.
func TestMergeDiffersFromPEFT(t *testing.T) {
	// An adapter that is that of embedding and head is added once to what is both.
	c := mergeCase(t, "tied-ensured")
	o := c.options(t)
	base := openCaseBase(t, o, c.DType)
	x, v := mergeView(t, base, o)
	peft, err := safetensors.Open(c.path("merged.safetensors"))
	require.NoError(t, err)
	defer peft.Close()
	was := floatsOf(t, base.view, embedding)
	requireNear(t, plus(was, floatsOf(t, peft, embedding), 0.5), floatsOf(t, v, embedding), 4e-7, embedding)
	require.Contains(t, strings.Join(x.notes, "\n"), "twice")

	// What two adapters add is added, one of them being DoRA: PEFT scales what the
	// first has added by the second's magnitude.
	c = mergeCase(t, "two-dora")
	o = c.options(t)
	base = openCaseBase(t, o, c.DType)
	_, both := mergeView(t, base, o)
	sum := make(map[string][]float32)
	for _, a := range o.adapters {
		one := *o
		one.adapters = []string{a}
		_, v := mergeView(t, base, &one)
		for info := range v.All() {
			w := floatsOf(t, v, info.Name)
			if s := sum[info.Name]; s != nil {
				for i, b := range floatsOf(t, base.view, info.Name) {
					w[i] += s[i] - b
				}
			}
			sum[info.Name] = w
		}
	}
	for name, w := range sum {
		requireNear(t, w, floatsOf(t, both, name), 4e-7, name)
	}
}

// TestUntie merges adapters of a model whose head is its embedding as they were
// trained: with the head a tensor of its own.
func TestUntie(t *testing.T) {
	for _, c := range []struct {
		name             string
		embedded, headed bool // what changes
	}{
		{"tied-head", false, true}, {"tied-embedding", true, false}, {"tied-both", true, true}, {"tied-ensured", true, true},
		{"tied-tokens", true, true}, {"bias-all", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mergeCase(t, c.name)
			o := p.options(t)
			o.untie = true
			base := openCaseBase(t, o, "float32")
			x, v := mergeView(t, base, o)
			was := floatsOf(t, base.view, embedding)
			require.Equal(t, c.embedded, !equalFloats(was, floatsOf(t, v, embedding)))
			require.Equal(t, c.headed, !equalFloats(was, floatsOf(t, v, head)))
			require.False(t, x.model.arch.TieWordEmbeddings)
			require.Equal(t, "tie_word_embeddings", x.config[0].Name)
			require.Equal(t, "false", string(x.config[0].Value))
			if c.name == "tied-ensured" || c.name == "tied-tokens" {
				require.Equal(t, floatsOf(t, v, embedding), floatsOf(t, v, head))
			}
		})
	}
	// Where both are trained, each has its own.
	p := mergeCase(t, "tied-both")
	o := p.options(t)
	base := openCaseBase(t, o, "float32")
	_, shared := mergeView(t, base, o)
	o.untie = true
	_, apart := mergeView(t, base, o)
	was := floatsOf(t, base.view, embedding)
	e, h := floatsOf(t, apart, embedding), floatsOf(t, apart, head)
	for i := range e {
		e[i] += h[i] - was[i]
	}
	requireNear(t, e, floatsOf(t, shared, embedding), 4e-7, embedding)
}

func equalFloats(a, b []float32) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestUntiedIsWritten checks that what is written is what a reader takes: with a
// head that belongs to the model.
func TestUntiedIsWritten(t *testing.T) {
	dir := t.TempDir()
	c := mergeCase(t, "tied-head")
	o := c.options(t)
	out := filepath.Join(dir, "out")
	var r mergeResult
	okJSON(t, &r, "merge", "--base", o.base, "--adapter", o.adapters[0], "--untie", "--out", out)
	require.Contains(t, strings.Join(r.Notes, "\n"), "a tensor of its own")
	require.Equal(t, 3, r.Changed)
	m, err := openModel(out)
	require.NoError(t, err)
	defer m.Close()
	require.False(t, m.arch.TieWordEmbeddings)
	require.True(t, tensor.Has(m.view, head))

	// Merging the same again finds a head.
	again := filepath.Join(dir, "again")
	okJSON(t, &r, "merge", "--base", out, "--adapter", o.adapters[0], "--untie", "--out", again)
	require.Contains(t, strings.Join(r.Notes, "\n"), "nothing to untie")
	tied, err := os.ReadFile(filepath.Join(again, "config.json"))
	require.NoError(t, err)
	require.Contains(t, string(tied), `"tie_word_embeddings": false`)
}

// TestTiedHeadThatIsStored leaves out a head that no reader takes.
func TestTiedHeadThatIsStored(t *testing.T) {
	c := mergeCase(t, "tied-head")
	o := c.options(t)
	dir := filepath.Join(t.TempDir(), "base")
	require.NoError(t, os.CopyFS(dir, os.DirFS(o.base)))
	src, err := safetensors.Open(filepath.Join(o.base, "model.safetensors"))
	require.NoError(t, err)
	defer src.Close()
	w, err := safetensors.Create(filepath.Join(dir, "model.safetensors"), true)
	require.NoError(t, err)
	p := &pipeline.Plan{Meta: src.Meta()}
	for info := range src.All() {
		p.Steps = append(p.Steps, pipeline.Copy(info, info.Name))
	}
	e, err := src.Info(embedding)
	require.NoError(t, err)
	p.Steps = append(p.Steps, pipeline.Copy(e, head))
	require.NoError(t, pipeline.Run(t.Context(), p, src, w))

	_, want := mergeView(t, openCaseBase(t, o, "float32"), o)
	o.base = dir
	x, got := mergeView(t, openCaseBase(t, o, "float32"), o)
	require.False(t, tensor.Has(got, head))
	require.Equal(t, floatsOf(t, want, embedding), floatsOf(t, got, embedding))
	require.Contains(t, x.model.view.Dropped, pipeline.Drop{Name: head, Reason: tiedHead})
}

// TestWeights takes a part of the way, or several.
func TestWeights(t *testing.T) {
	for _, name := range []string{"plain", "dora", "saved", "tokens", "embedding-dora", "conv1d", "experts-one", "resized-target", "replication"} {
		c := mergeCase(t, name)
		o := c.options(t)
		base := openCaseBase(t, o, "float32")
		_, whole := mergeView(t, base, o)
		one := *o
		for _, weight := range []string{"0.5", "-1", "0", "2.25"} {
			one.adapters = []string{o.adapters[0] + ":" + weight}
			var f float32
			require.NoError(t, json.Unmarshal([]byte(weight), &f))
			x, part := mergeView(t, base, &one)
			for info := range part.All() {
				was := floatsOf(t, x.model.view, info.Name)
				requireNear(t, plus(was, floatsOf(t, whole, info.Name), f), floatsOf(t, part, info.Name), 1e-6, name+" "+info.Name)
			}
		}
		if name == "resized-target" {
			continue // two that both make the vocabulary another
		}
		// Twice an adapter with half its weight is the adapter, unless it replaces.
		one.adapters = []string{o.adapters[0] + ":0.5", o.adapters[0] + ":0.5"}
		if name == "saved" || name == "tokens" || name == "conv1d" || name == "replication" {
			continue
		}
		_, twice := mergeView(t, base, &one)
		for info := range twice.All() {
			requireNear(t, floatsOf(t, whole, info.Name), floatsOf(t, twice, info.Name), 1e-6, name+" "+info.Name)
		}
	}
}

// TestPEFTWeights multiplies scales, as PEFT's set_scale does.
func TestPEFTWeights(t *testing.T) {
	c := mergeCase(t, "dora")
	o := c.options(t)
	o.arithmetic = "peft"
	o.adapters[0] += ":0.5"
	base := openCaseBase(t, o, "float32")
	_, weighted := mergeView(t, base, o)
	config := editAdapter(t, c.path("adapter"), map[string]any{"lora_alpha": 2.5})
	o.adapters = []string{config}
	_, half := mergeView(t, base, o)
	for info := range half.All() {
		require.Equal(t, floatsOf(t, half, info.Name), floatsOf(t, weighted, info.Name), "%s", info.Name)
	}
}

// editAdapter returns a copy of an adapter with other values in its configuration.
func editAdapter(t *testing.T, dir string, set map[string]any) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "adapter")
	require.NoError(t, os.CopyFS(out, os.DirFS(dir)))
	path := filepath.Join(out, peft.ConfigName)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var c map[string]any
	require.NoError(t, json.Unmarshal(text, &c))
	for k, v := range set {
		c[k] = v
	}
	text, err = json.Marshal(c)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text, 0o666))
	return out
}

// renameAdapter returns a copy of an adapter with other names for its tensors; ""
// leaves one out.
func renameAdapter(t *testing.T, dir string, as func(string) string) string {
	t.Helper()
	out := editAdapter(t, dir, nil)
	src, err := safetensors.Open(filepath.Join(dir, peft.WeightsName))
	require.NoError(t, err)
	defer src.Close()
	w, err := safetensors.Create(filepath.Join(out, peft.WeightsName), true)
	require.NoError(t, err)
	p := &pipeline.Plan{Meta: src.Meta()}
	for info := range src.All() {
		if name := as(info.Name); name != "" {
			p.Steps = append(p.Steps, pipeline.Copy(info, name))
		} else {
			p.Drop = append(p.Drop, pipeline.Drop{Name: info.Name, Reason: "test"})
		}
	}
	require.NoError(t, pipeline.Run(t.Context(), p, src, w))
	return out
}

// TestForeignSpellings merges an adapter whose tensors are called what other tools
// call them.
func TestForeignSpellings(t *testing.T) {
	c := mergeCase(t, "plain")
	o := c.options(t)
	base := openCaseBase(t, o, c.DType)
	_, want := mergeView(t, base, o)
	for name, as := range map[string]func(string) string{
		"default":        func(s string) string { return strings.ReplaceAll(s, ".weight", ".default.weight") },
		"one model less": func(s string) string { return strings.Replace(s, "base_model.model.model.", "base_model.model.", 1) },
		"no prefix":      func(s string) string { return strings.TrimPrefix(s, "base_model.model.") },
		"bare":           func(s string) string { return strings.TrimPrefix(s, "base_model.model.model.") },
		"language model": func(s string) string {
			return strings.Replace(s, "model.model.layers", "model.model.language_model.layers", 1)
		},
		"nested": func(s string) string {
			return strings.Replace(s, "model.model.layers", "model.language_model.model.layers", 1)
		},
		"compiled": func(s string) string { return "_orig_mod." + s },
		"one more": func(s string) string { return strings.Replace(s, "model.model.layers", "model.model.model.layers", 1) },
		"wrapped":  func(s string) string { return strings.Replace(s, ".lora_", ".base_layer.lora_", 1) },
	} {
		o.adapters = []string{renameAdapter(t, c.path("adapter"), as)}
		_, got := mergeView(t, base, o)
		for info := range want.All() {
			require.Equal(t, tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, got, info.Name), "%s: %s", name, info.Name)
		}
	}
}

// TestMergeRefuses gives adapters that do not belong to the base, to their
// configuration, or to anything.
func TestMergeRefuses(t *testing.T) {
	without := func(part string) func(string) string {
		return func(s string) string {
			if strings.Contains(s, part) {
				return ""
			}
			return s
		}
	}
	for _, c := range []struct {
		name, of string
		set      map[string]any
		as       func(string) string
		is       error
		says     string
		hint     string
	}{
		{"a module without tensors", "plain", nil, without("layers.1.self_attn.q_proj"), tensor.ErrMalformed, `"model.layers.1.self_attn.q_proj" to have an adapter as other layers`, "incomplete"},
		{"tensors of no target", "plain", map[string]any{"target_modules": []string{"q_proj", "k_proj"}}, nil, tensor.ErrMalformed, "does not mean its module", "ignore"},
		{"tensors of no layer", "layers", map[string]any{"layers_to_transform": []int{0}}, nil, tensor.ErrMalformed, "does not mean its module", "ignore"},
		{"excluded", "plain", map[string]any{"exclude_modules": []string{"k_proj"}}, nil, tensor.ErrMalformed, "does not mean its module", "ignore"},
		{"another model", "conv1d", nil, nil, tensor.ErrMalformed, "nor has the base a tensor", "another model"},
		{"rank", "plain", map[string]any{"r": 4}, nil, tensor.ErrMalformed, "its rank is 3, the configuration says 4", "adapter_config.json"},
		{"rank pattern", "patterns", map[string]any{"rank_pattern": map[string]int{"q_proj": 2}}, nil, tensor.ErrMalformed, "the configuration says", ""},
		{"bad pattern", "patterns", map[string]any{"rank_pattern": map[string]int{"(": 2}}, nil, tensor.ErrMalformed, "rank_pattern", ""},
		{"no magnitudes", "dora", nil, without("magnitude"), tensor.ErrMalformed, "use_dora is set", ""},
		{"magnitudes", "dora", map[string]any{"use_dora": false}, nil, tensor.ErrMalformed, "use_dora is not set", ""},
		{"no bias", "lora-bias", nil, without("lora_B.bias"), tensor.ErrMalformed, "lora_bias is set", ""},
		{"bias", "lora-bias", map[string]any{"lora_bias": false}, nil, tensor.ErrMalformed, "lora_bias is not set", ""},
		{"bias of a layer without one", "lora-bias", map[string]any{"target_modules": []string{"o_proj", "k_proj"}}, func(s string) string { return strings.Replace(s, "q_proj", "o_proj", 1) },
			tensor.ErrUnsupported, "no bias to add it to", "lora_bias=False"},
		{"no saved module", "saved", nil, without("lm_head"), tensor.ErrMalformed, `modules_to_save names "lm_head"`, "incomplete"},
		{"tokens without indices", "tokens", map[string]any{"trainable_token_indices": nil}, nil, tensor.ErrMalformed, "does not say of which tokens", ""},
		{"fewer tokens", "tokens", map[string]any{"trainable_token_indices": []int{1}}, nil, tensor.ErrMalformed, "want the rows of 1 tokens", ""},
		{"token past the end", "tokens", map[string]any{"trainable_token_indices": []int{1, 13}}, nil, tensor.ErrMalformed, "has token 13", ""},
		{"a token twice", "tokens", map[string]any{"trainable_token_indices": []int{1, 1}}, nil, tensor.ErrMalformed, "twice", ""},
		{"tokens of none", "tokens-head", nil, without("embed_tokens.token_adapter"), tensor.ErrMalformed, `"embed_tokens"`, "incomplete"},
		{"experts of another rank", "experts", map[string]any{"r": 3}, nil, tensor.ErrMalformed, "of 3 experts", ""},
		{"square experts of no version", "experts-square", map[string]any{"peft_version": nil}, nil, tensor.ErrUnsupported, "peft_version", "add the peft_version"},
		{"experts, one of two", "experts-square", nil, without("base_layer"), tensor.ErrMalformed, "2 parameters", ""},
		{"experts, two of one", "experts", map[string]any{"target_parameters": []string{"mlp.experts.down_proj"}, "rank_pattern": map[string]int{}}, nil, tensor.ErrMalformed, "", ""},
		{"layers that are not there", "replication", map[string]any{"layer_replication": [][]int{{0, 3}}}, nil, tensor.ErrMalformed, "layer_replication has the layers 0 to 3", ""},
		{"layers backwards", "replication", map[string]any{"layer_replication": [][]int{{2, 0}}}, nil, tensor.ErrMalformed, "layer_replication", ""},
		{"vocabulary of one", "resized-target", nil, without("lm_head.base_layer"), tensor.ErrMalformed, `no "lm_head.weight"`, "save_embedding_layers"},
		{"a changed base", "pissa", nil, nil, tensor.ErrUnsupported, "changed the base", "--residual-base"},
		{"loftq", "plain", map[string]any{"init_lora_weights": "loftq"}, nil, tensor.ErrUnsupported, "changed the base", "--residual-base"},
		{"KaSA", "plain", map[string]any{"kasa_config": map[string]any{"beta": 1}}, nil, tensor.ErrUnsupported, "kasa_config", "merge_and_unload"},
		{"aLoRA", "plain", map[string]any{"alora_invocation_tokens": []int{1}}, nil, tensor.ErrUnsupported, "alora_invocation_tokens", ""},
		{"QALoRA", "plain", map[string]any{"use_qalora": true}, nil, tensor.ErrUnsupported, "use_qalora", ""},
		{"a key of the future", "plain", map[string]any{"use_xyz": 3}, nil, tensor.ErrUnsupported, "the unknown use_xyz = 3", "unknown key"},
		{"another method", "plain", map[string]any{"peft_type": "LOHA"}, nil, tensor.ErrUnsupported, "LOHA", ""},
		{"A alone", "plain", nil, without("layers.0.self_attn.q_proj.lora_B"), tensor.ErrMalformed, "lora_B.weight beside it", ""},
		{"two for one", "plain", nil, func(s string) string { return strings.Replace(s, "model.layers.1.", "layers.0.", 1) }, tensor.ErrMalformed, "both are for model.layers.0.", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mergeCase(t, c.of)
			o := p.options(t)
			o.initial = nil
			if c.name == "another model" {
				o.base = filepath.Join(goldens, "merge", "bases", "llama")
			}
			dir := o.adapters[0]
			if c.as != nil {
				dir = renameAdapter(t, dir, c.as)
			}
			o.adapters = []string{editAdapter(t, dir, c.set)}
			o.out = filepath.Join(t.TempDir(), "out")
			a := &app{quiet: true}
			err := a.merge(t.Context(), o)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.Contains(t, hint.Of(err), c.hint)
			require.NoFileExists(t, o.out)
			require.ErrorContains(t, err, o.adapters[0])
		})
	}
}

// TestModulesOfNoLayer merges an adapter whose configuration could mean more.
func TestModulesOfNoLayer(t *testing.T) {
	c := mergeCase(t, "plain")
	o := c.options(t)
	base := openCaseBase(t, o, c.DType)
	o.adapters = []string{editAdapter(t, c.path("adapter"), map[string]any{"target_modules": []string{"q_proj", "k_proj", "down_proj", "up_proj", "query_key_value"}})}
	x, _ := mergeView(t, base, o)
	require.Equal(t, []string{
		"target_modules could mean model.layers.*.mlp.up_proj too, 2 of them, of which the adapter has none",
		"the adapter has nothing of query_key_value, which target_modules names",
	}, x.notes)
}

// TestResidualBase merges an adapter into the base that its training changed,
// which whoever has it says.
func TestResidualBase(t *testing.T) {
	c := mergeCase(t, "pissa")
	o := c.options(t)
	o.initial, o.residual = nil, true
	base := openCaseBase(t, o, c.DType)
	_, got := mergeView(t, base, o)
	plain := *o
	plain.adapters, plain.residual = []string{editAdapter(t, c.path("adapter"), map[string]any{"init_lora_weights": true})}, false
	_, want := mergeView(t, base, &plain)
	for info := range want.All() {
		require.Equal(t, floatsOf(t, want, info.Name), floatsOf(t, got, info.Name))
	}
	o.initial, o.residual = []string{c.path("initial"), c.path("initial")}, false
	_, err := base.adapted([]weighted{{c.path("adapter"), 1}}, 0, o)
	require.ErrorContains(t, err, "no adapter is left")
	other := mergeCase(t, "olora")
	o.initial = []string{other.path("initial")}
	_, err = base.adapted([]weighted{{c.path("adapter"), 1}}, 0, o)
	require.ErrorContains(t, err, "are not those of")
}

// TestMergeAccount checks the norms against those of the difference of what was
// read and what was written.
func TestMergeAccount(t *testing.T) {
	for _, name := range []string{"plain-bf16", "two", "dora", "saved", "tokens", "lora-bias", "experts", "conv1d", "resized-target", "tied-both"} {
		c := mergeCase(t, name)
		o := c.options(t)
		x, v := mergeView(t, openCaseBase(t, o, "float32"), o)
		r := newMergeResult(&writeResult{}, x)
		require.Empty(t, r.Deltas, "nothing has been read yet")
		want := make(map[string][2]float64)
		for info := range v.All() {
			var norm, delta float64
			was, is := floatsOf(t, x.model.view, info.Name), floatsOf(t, v, info.Name)
			_ = tensortest.Bytes(t, v, info.Name) // read again: it counts once
			for i := range was {
				norm += float64(was[i]) * float64(was[i])
				d := float64(is[i]) - float64(was[i])
				delta += d * d
			}
			want[info.Name] = [2]float64{math.Sqrt(norm), math.Sqrt(delta)}
		}
		r = newMergeResult(&writeResult{Tensors: make([]tensorAccount, len(want))}, x)
		require.Len(t, r.Deltas, len(x.changes))
		largest := 0.0
		for _, d := range r.Deltas {
			require.InEpsilon(t, want[d.Name][0], d.Norm, 1e-6, "%s %s", name, d.Name)
			require.InDelta(t, want[d.Name][1], d.Delta, 1e-5*(want[d.Name][1]+1e-3*want[d.Name][0]), "%s %s", name, d.Name)
			require.Equal(t, want[d.Name][1] > 0, d.Changed, "%s %s", name, d.Name)
			largest = max(largest, d.Relative)
			if d.Changed {
				delete(want, d.Name)
			}
		}
		require.Equal(t, largest, r.Largest)
		require.Positive(t, r.Mean)
		for rest, w := range want {
			require.Zero(t, w[1], "%s %s is not in the account", name, rest)
		}
	}
}

// TestVanishedDelta adds so little that bfloat16 does not show it.
func TestVanishedDelta(t *testing.T) {
	c := mergeCase(t, "plain-bf16")
	o := c.options(t)
	o.adapters[0] += ":1e-9"
	x, v := mergeView(t, openCaseBase(t, o, c.DType), o)
	for info := range v.All() {
		floatsOf(t, v, info.Name)
	}
	r := newMergeResult(&writeResult{}, x)
	require.Zero(t, r.Changed)
	require.Equal(t, 6, r.Vanished)
	var text strings.Builder
	r.text(&text)
	require.Contains(t, text.String(), "6 of the deltas are too small")
}

// TestMergeLeavesNothing meets numbers that are none while it writes.
func TestMergeLeavesNothing(t *testing.T) {
	c := mergeCase(t, "plain")
	o := c.options(t)
	for name, spoil := range map[string]struct {
		value  float32
		tensor string
		dtype  string
		says   string
	}{
		"NaN in a tensor that changes":     {float32(math.NaN()), "model.layers.1.mlp.down_proj.weight", "auto", "element 5 of the base is NaN"},
		"infinity in one that is cast":     {float32(math.Inf(-1)), "model.norm.weight", "bf16", "element 5 of the base is -Inf"},
		"more than the type holds":         {60000, "model.layers.1.mlp.down_proj.weight", "f16", ""},
		"more than the type holds, summed": {65530, "model.layers.1.mlp.down_proj.weight", "f16", "more than F16 holds"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "base")
			require.NoError(t, os.CopyFS(dir, os.DirFS(o.base)))
			path := filepath.Join(dir, "model.safetensors")
			src, err := safetensors.Open(path)
			require.NoError(t, err)
			raw, err := src.Raw(spoil.tensor)
			require.NoError(t, err)
			where, ok := tensor.Extents(raw, 0, raw.Size())
			require.True(t, ok)
			at := where[0].Off
			require.NoError(t, src.Close())
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			bits := math.Float32bits(spoil.value)
			for i := range 4 {
				text[at+4*5+int64(i)] = byte(bits >> (8 * i))
			}
			require.NoError(t, fsx.WriteFile(path, text, true))
			own := *o
			own.base, own.output.dtype, own.out = dir, spoil.dtype, filepath.Join(t.TempDir(), "out")
			err = (&app{quiet: true, out: new(strings.Builder)}).merge(t.Context(), &own)
			if spoil.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, spoil.says)
			require.ErrorContains(t, err, spoil.tensor)
			require.Empty(t, tensortest.Files(t, filepath.Dir(own.out)))
		})
	}
}

// TestChainedAdapters notes an adapter that is missing below another.
func TestChainedAdapters(t *testing.T) {
	c := mergeCase(t, "two")
	o := c.options(t)
	base := openCaseBase(t, o, c.DType)
	below := o.adapters[0]
	o.adapters[1] = editAdapter(t, o.adapters[1], map[string]any{"base_model_name_or_path": below})
	x, _ := mergeView(t, base, o)
	require.Empty(t, x.notes)
	o.adapters = o.adapters[1:]
	x, _ = mergeView(t, base, o)
	require.Len(t, x.notes, 1)
	require.Contains(t, x.notes[0], "was trained on top of the adapter "+below)
}

// TestAdapterTokenizer puts the tokenizer of the training into the directory.
func TestAdapterTokenizer(t *testing.T) {
	c := mergeCase(t, "plain")
	o := c.options(t)
	dir := editAdapter(t, o.adapters[0], nil)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "chat_template.jinja"), []byte("{{ messages }}"), 0o666))
	o.adapters, o.out = []string{dir}, filepath.Join(t.TempDir(), "out")
	require.NoError(t, (&app{quiet: true, out: new(strings.Builder)}).merge(t.Context(), o))
	text, err := os.ReadFile(filepath.Join(o.out, "chat_template.jinja"))
	require.NoError(t, err)
	require.Equal(t, "{{ messages }}", string(text))
}
