package receipt_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/receipt"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/tensor/scaled"
)

var codecs = tensor.NewCodecs(slices.Concat(floats.Codecs(), nf4.Codecs(), scaled.Codecs())...)

// as returns a tensor's values stored as another type.
func as(t testing.TB, d tensor.DType, w tensortest.Tensor) tensortest.Tensor {
	t.Helper()
	src := tensortest.NewSource(t, nil, w)
	name := w.Info.Name
	enc, err := codecs.Encoder(d)
	require.NoError(t, err)
	info := tensor.Info{Name: name, DType: d, Shape: w.Info.Shape}
	b := make([]byte, info.Size())
	enc.Encode(b, tensortest.Floats(t, src, name))
	return tensortest.Tensor{Info: info, Data: b}
}

// weights are those of a model with matrices of several panels, of odd sizes, and
// what no adapter changes.
func weights(t testing.TB, d tensor.DType) []tensortest.Tensor {
	return []tensortest.Tensor{
		as(t, d, tensortest.Normal("a.q.weight", tensor.Shape{512, 640}, 0.02, 1)),
		as(t, d, tensortest.Normal("a.k.weight", tensor.Shape{37, 129}, 0.02, 2)),
		as(t, d, tensortest.Normal("a.norm.weight", tensor.Shape{640}, 1, 3)),
		as(t, d, tensortest.Normal("b.q.weight", tensor.Shape{129, 64}, 0.02, 4)),
		tensortest.Float32("a.empty", tensor.Shape{0, 4}, nil),
	}
}

// adapter changes two of the weights, by deltas of about that standard deviation.
func adapter(t testing.TB, sigma float64, seed uint64) tensor.Source {
	s := math.Sqrt(sigma)
	return tensortest.NewSource(t, nil,
		tensortest.Normal("a.q.lora_A.weight", tensor.Shape{4, 640}, s/2, seed), tensortest.Normal("a.q.lora_B.weight", tensor.Shape{512, 4}, s, seed+1),
		tensortest.Normal("a.k.lora_A.weight", tensor.Shape{4, 129}, s/2, seed+2), tensortest.Normal("a.k.lora_B.weight", tensor.Shape{37, 4}, s, seed+3))
}

// changes returns what adapters do to a base, each half as much as the one before.
func changes(t testing.TB, base tensor.Source, adapters ...tensor.Source) []merge.Change {
	t.Helper()
	var all [][]merge.Change
	for i, a := range adapters {
		e, err := merge.LoRA{}.Match(base, a, codecs, merge.Config{Rank: 4, Alpha: 4})
		require.NoError(t, err)
		own, err := e.Weighted(1 / float64(i+1))
		require.NoError(t, err)
		all = append(all, own)
	}
	joined, err := merge.Join(base, codecs, merge.Once, all...)
	require.NoError(t, err)
	return joined
}

const config = `{"model_type": "none"}`

// writeModel writes a directory, of files of at most that many bytes of tensors.
func writeModel(t testing.TB, path string, max int64, list ...tensortest.Tensor) *hf.Dir {
	t.Helper()
	side := hf.SideFile{Name: "tokenizer.json", Data: bytes.Repeat([]byte(`{"a": 1} `), 300)}
	w, err := hf.Create(path, hf.Options{MaxShardSize: max, Files: []hf.SideFile{{Name: hf.ConfigName, Data: []byte(config)}, side}})
	require.NoError(t, err)
	tensortest.Copy(t, tensortest.NewSource(t, tensor.Meta{{Key: "format", Value: "pt"}, {Key: "who", Value: "nobody"}}, list...), w)
	d, err := hf.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

// files lists the files of a directory, of which tokenizer.json is kept.
func files(t testing.TB, dir string) []receipt.File {
	t.Helper()
	var list []receipt.File
	for _, name := range tensortest.Files(t, dir) {
		list = append(list, receipt.File{Name: name, Path: filepath.Join(dir, name), Kept: name == "tokenizer.json"})
	}
	return list
}

// job is a merge with a receipt.
type job struct {
	base         tensor.Source
	dir          string
	changes      []merge.Change
	merged       tensor.DType // Invalid for that of each tensor
	out, receipt string
	workers      int
	ctx          context.Context
}

func (j job) run(t testing.TB) error {
	t.Helper()
	if j.ctx == nil {
		j.ctx = context.Background()
	}
	v, err := merge.View(j.base, codecs, j.changes, func(i tensor.Info) tensor.DType {
		if j.merged == tensor.Invalid {
			return i.DType
		}
		return j.merged
	})
	require.NoError(t, err)
	w, err := receipt.Create(j.receipt, receipt.Options{Base: j.base, Files: files(t, j.dir), Codecs: codecs, Changes: j.changes, Merge: []byte(`{"a":1}`)})
	require.NoError(t, err)
	require.NoError(t, w.Merged(v))
	p := &pipeline.Plan{Meta: v.Meta()}
	for info := range v.All() {
		p.Steps = append(p.Steps, pipeline.Copy(info, info.Name))
	}
	w.Follow(p)
	tokens, err := os.ReadFile(filepath.Join(j.dir, "tokenizer.json"))
	require.NoError(t, err)
	sink, err := hf.Create(j.out, hf.Options{Files: []hf.SideFile{{Name: hf.ConfigName, Data: []byte("{}")}, {Name: "tokenizer.json", Data: tokens}}})
	require.NoError(t, err)
	return pipeline.Run(j.ctx, p, v, w.Sink(j.ctx, sink), pipeline.WithWorkers(max(1, j.workers)))
}

// unmerge restores what a job merged.
func unmerge(t testing.TB, path, merged, out string) error {
	t.Helper()
	m, err := hf.Open(merged)
	require.NoError(t, err)
	defer m.Close()
	return unmergeFrom(t, path, m, merged, out)
}

func unmergeFrom(t testing.TB, path string, m tensor.Source, dir, out string) error {
	r, err := receipt.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := r.Check(context.Background(), m, dir); err != nil {
		return err
	}
	_, err = r.Restore(context.Background(), m, codecs, receipt.RestoreOptions{Out: out, Dir: dir, Progress: func(int64) {}})
	return err
}

// sameFiles checks that two directories hold the same files.
func sameFiles(t testing.TB, want, got string) {
	t.Helper()
	names := tensortest.Files(t, want)
	require.Equal(t, names, tensortest.Files(t, got))
	for _, name := range names {
		a, err := os.ReadFile(filepath.Join(want, name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(got, name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(a, b), "%s differs", name)
	}
}

func size(t testing.TB, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	return st.Size()
}

// TestThereAndBack merges and restores models of every type to every type, in one
// file and in several, with one adapter and with two.
func TestThereAndBack(t *testing.T) {
	for _, base := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.F64} {
		for _, merged := range []tensor.DType{tensor.Invalid, tensor.F32, tensor.F16, tensor.BF16} {
			t.Run(fmt.Sprintf("%v to %v", base, merged), func(t *testing.T) {
				at := func(name string) string { return filepath.Join(t.TempDir(), name) }
				dir, out, path, back := at("base"), at("merged"), at("receipt"), at("back")
				max := int64(0)
				if merged == base || base == tensor.F16 {
					max = 500_000
				}
				d := writeModel(t, dir, max, weights(t, base)...)
				adapters := []tensor.Source{adapter(t, 1e-3, 10)}
				if merged == tensor.BF16 {
					adapters = append(adapters, adapter(t, 1e-2, 20))
				}
				require.NoError(t, job{base: d, dir: dir, changes: changes(t, d, adapters...), merged: merged, out: out, receipt: path}.run(t))
				m, err := hf.Open(out)
				require.NoError(t, err)
				require.NotEqual(t, tensortest.Bytes(t, d, "a.q.weight"), tensortest.Bytes(t, m, "a.q.weight"))
				require.NoError(t, m.Close())
				require.NoError(t, unmerge(t, path, out, back))
				sameFiles(t, dir, back)
			})
		}
	}
}

// TestSize holds a receipt to what rounding has destroyed and the factors.
func TestSize(t *testing.T) {
	const rows, cols, rank = 1024, 1024, 4
	for _, c := range []struct {
		base, merged tensor.DType
		sigma, most  float64 // of the base's bytes, without the factors
	}{
		{tensor.BF16, tensor.BF16, 1e-4, 0.004},
		{tensor.BF16, tensor.BF16, 1e-3, 0.011},
		{tensor.BF16, tensor.BF16, 1e-2, 0.048},
		{tensor.F16, tensor.F16, 1e-3, 0.011},
		{tensor.F32, tensor.F32, 1e-3, 0.017},
		{tensor.F32, tensor.BF16, 1e-3, 0.52},
		{tensor.BF16, tensor.F32, 1e-2, 0.001},
	} {
		t.Run(fmt.Sprintf("%v to %v, %g", c.base, c.merged, c.sigma), func(t *testing.T) {
			dir, out, path := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "receipt")
			d := writeModel(t, dir, 0, as(t, c.base, tensortest.Normal("a.q.weight", tensor.Shape{rows, cols}, 0.02, 1)))
			s := math.Sqrt(c.sigma)
			a := tensortest.NewSource(t, nil,
				tensortest.Normal("a.q.lora_A.weight", tensor.Shape{rank, cols}, s/2, 2), tensortest.Normal("a.q.lora_B.weight", tensor.Shape{rows, rank}, s, 3))
			require.NoError(t, job{base: d, dir: dir, changes: changes(t, d, a), merged: c.merged, out: out, receipt: path}.run(t))
			all := float64(size(t, filepath.Join(dir, hf.WeightsName)))
			factors := float64(4 * rank * (rows + cols))
			share := (float64(size(t, path)) - factors) / all
			t.Logf("receipt %.3f %% of the base, factors %.3f %%", 100*float64(size(t, path))/all, 100*factors/all)
			require.Less(t, share, c.most)
		})
	}
}

// TestQuantizedBases restores 4-bit and 8-bit weights from what they were decoded to
// and merged with: all but their scales are told from values.
func TestQuantizedBases(t *testing.T) {
	plain := tensortest.NewSource(t, nil, tensortest.Normal("a.q.weight", tensor.Shape{512, 640}, 0.02, 1), tensortest.Normal("a.k.weight", tensor.Shape{37, 129}, 0.02, 2),
		tensortest.Normal("a.norm.weight", tensor.Shape{640}, 1, 3))
	linear := []string{"a.q.weight", "a.k.weight"}
	for _, c := range []struct {
		name string
		o    bnb.Options
		most float64
	}{
		{"nf4", bnb.Options{Type: tensor.NF4, BlockSize: 64, Linear: linear}, 0.14},
		{"nf4 double", bnb.Options{Type: tensor.NF4, BlockSize: 64, DoubleQuant: true, Linear: linear}, 0.06},
		{"fp4", bnb.Options{Type: tensor.FP4, BlockSize: 128, Linear: linear}, 0.08},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, out, path, back := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "receipt"), filepath.Join(t.TempDir(), "back")
			quantizedModel(t, dir, plain, c.o)
			d, err := hf.Open(dir)
			require.NoError(t, err)
			defer d.Close()
			v, err := bnb.View(d, tensor.BF16)
			require.NoError(t, err)
			require.NoError(t, job{base: v, dir: dir, changes: changes(t, v, adapter(t, 1e-3, 10)), merged: tensor.BF16, out: out, receipt: path}.run(t))
			require.NoError(t, unmerge(t, path, out, back))
			sameFiles(t, dir, back)
			factors := float64(4 * 4 * (512 + 640 + 37 + 129))
			share := (float64(size(t, path)) - factors) / float64(size(t, filepath.Join(dir, hf.WeightsName)))
			t.Logf("receipt without factors %.2f %% of the base", 100*share)
			require.Less(t, share, c.most)
		})
	}
}

// TestDeterministic writes the same receipt with any number of workers.
func TestDeterministic(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "base")
	d := writeModel(t, dir, 300_000, weights(t, tensor.BF16)...)
	var first []byte
	for _, workers := range []int{1, 2, 7} {
		path := filepath.Join(t.TempDir(), "receipt")
		require.NoError(t, job{base: d, dir: dir, changes: changes(t, d, adapter(t, 1e-3, 10)), out: filepath.Join(t.TempDir(), "out"), receipt: path, workers: workers}.run(t))
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		if first == nil {
			first = b
		}
		require.True(t, bytes.Equal(first, b))
	}
}

// replaced is a change that is no sum: other values.
type replaced struct{ target string }

func (r replaced) Target() string { return r.target }

func (r replaced) Apply(w []float32, row int64) error {
	for i := range w {
		w[i] = float32(i%7) + float32(row)
	}
	return nil
}

// TestReplaced restores what was replaced, rows beside which others were put, and a
// tensor that is not in the merged model at all.
func TestReplaced(t *testing.T) {
	dir, out, path, back := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "receipt"), filepath.Join(t.TempDir(), "back")
	d := writeModel(t, dir, 0, weights(t, tensor.BF16)...)
	require.NoError(t, job{base: d, dir: dir, changes: append(changes(t, d, adapter(t, 1e-3, 10)), replaced{"b.q.weight"}, replaced{"a.norm.weight"}), out: out, receipt: path}.run(t))
	require.NoError(t, unmerge(t, path, out, back))
	sameFiles(t, dir, back)

	v, err := merge.View(d, codecs, changes(t, d, adapter(t, 1e-3, 10)), func(i tensor.Info) tensor.DType { return i.DType })
	require.NoError(t, err)
	var list []tensortest.Tensor
	for info := range v.All() {
		w := tensortest.Tensor{Info: info, Data: tensortest.Bytes(t, v, info.Name)}
		switch info.Name {
		case "a.k.weight": // a row more
			w.Info.Shape = tensor.Shape{38, 129}
			w.Data = append(w.Data, make([]byte, 2*129)...)
		case "a.norm.weight":
			w.Info.Name = "c.norm.weight"
		}
		list = append(list, w)
	}
	merged := tensortest.NewSource(t, nil, list...)
	path, back = filepath.Join(t.TempDir(), "receipt"), filepath.Join(t.TempDir(), "back")
	w, err := receipt.Create(path, receipt.Options{Base: d, Files: files(t, dir), Codecs: codecs, Changes: changes(t, d, adapter(t, 1e-3, 10))})
	require.NoError(t, err)
	require.NoError(t, w.Merged(merged))
	require.NoError(t, w.Finish(context.Background()))
	require.Equal(t, size(t, path), w.Size())
	require.NoError(t, unmergeFrom(t, path, merged, out, back))
	sameFiles(t, dir, back)
}

// TestDoRA restores what was scaled by rows after the deltas were added: a number for
// each row stands for that.
func TestDoRA(t *testing.T) {
	dir, out, path, back := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "receipt"), filepath.Join(t.TempDir(), "back")
	d := writeModel(t, dir, 0, as(t, tensor.BF16, tensortest.Normal("a.q.weight", tensor.Shape{512, 640}, 0.02, 1)))
	magnitude := tensortest.Normal("a.q.lora_magnitude_vector", tensor.Shape{512}, 0.05, 5)
	values := tensortest.Floats(t, tensortest.NewSource(t, nil, magnitude), magnitude.Info.Name)
	for i := range values {
		values[i] += 0.5 // the norm of 640 weights of 0.02
	}
	a := tensortest.NewSource(t, nil,
		tensortest.Normal("a.q.lora_A.weight", tensor.Shape{4, 640}, 0.015, 2), tensortest.Normal("a.q.lora_B.weight", tensor.Shape{512, 4}, 0.03, 3),
		tensortest.Float32(magnitude.Info.Name, magnitude.Info.Shape, values))
	e, err := merge.LoRA{}.Match(d, a, codecs, merge.Config{Rank: 4, Alpha: 4, DoRA: true})
	require.NoError(t, err)
	require.NoError(t, job{base: d, dir: dir, changes: e.Changes, out: out, receipt: path}.run(t))
	require.NoError(t, unmerge(t, path, out, back))
	sameFiles(t, dir, back)
	factors := float64(4 * 4 * (512 + 640))
	share := (float64(size(t, path)) - factors) / float64(size(t, filepath.Join(dir, hf.WeightsName)))
	t.Logf("receipt without factors %.2f %% of the base", 100*share)
	require.Less(t, share, 0.05)
}

// TestNothingIsLeft ends a merge in the middle, and one that fails.
func TestNothingIsLeft(t *testing.T) {
	work := t.TempDir()
	dir := filepath.Join(work, "base")
	d := writeModel(t, dir, 0, weights(t, tensor.BF16)...)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	j := job{base: d, dir: dir, changes: changes(t, d, adapter(t, 1e-3, 10)), out: filepath.Join(work, "out"), receipt: filepath.Join(work, "receipt"), ctx: ctx}
	require.ErrorIs(t, j.run(t), context.Canceled)
	entries, err := os.ReadDir(work)
	require.NoError(t, err)
	require.Len(t, entries, 1, "the base alone")
	j.ctx = nil
	j.changes = append(j.changes, failing{})
	require.ErrorContains(t, j.run(t), "of no use")
	entries, err = os.ReadDir(work)
	require.NoError(t, err)
	require.Len(t, entries, 1, "the base alone")
}

type failing struct{}

func (failing) Target() string { return "b.q.weight" }

func (failing) Apply([]float32, int64) error { return fmt.Errorf("of no use") }

// merged is a merge and its receipt in a new folder, to be spoiled.
func merged(t testing.TB) (work string, d *hf.Dir) {
	work = t.TempDir()
	dir := filepath.Join(work, "base")
	d = writeModel(t, dir, 0, weights(t, tensor.BF16)...)
	require.NoError(t, job{base: d, dir: dir, changes: changes(t, d, adapter(t, 1e-3, 10)), out: filepath.Join(work, "out"), receipt: filepath.Join(work, "receipt")}.run(t))
	return work, d
}

// TestRefused unmerges with a wrong or damaged receipt, and a model that was changed.
func TestRefused(t *testing.T) {
	work, d := merged(t)
	at := func(name string) string { return filepath.Join(work, name) }
	whole, err := os.ReadFile(at("receipt"))
	require.NoError(t, err)
	out, err := os.ReadFile(at("out/model.safetensors"))
	require.NoError(t, err)
	q := bytes.Index(out, tensortest.Bytes(t, d, "b.q.weight"))
	require.Positive(t, q)
	header := len(out) - 2*(512*640+37*129+640+129*64)

	set := func(path string, b []byte, i int) {
		b = bytes.Clone(b)
		b[i] ^= 1
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
	other := filepath.Join(t.TempDir(), "other")
	writeModel(t, other, 0, as(t, tensor.BF16, tensortest.Normal("a.q.weight", tensor.Shape{512, 64}, 0.02, 1)))
	for name, c := range map[string]struct {
		spoil func()
		model string
		says  string
		hint  string
	}{
		"a block":           {func() { set(at("receipt"), whole, len(whole)/2) }, "out", "is damaged: its CRC-32C", "copy the receipt again"},
		"the manifest":      {func() { set(at("receipt"), whole, len(whole)-150) }, "out", "its manifest has another SHA-256", ""},
		"the beginning":     {func() { set(at("receipt"), whole, 3) }, "out", "not a receipt", "--receipt FILE"},
		"the end":           {func() { set(at("receipt"), whole, len(whole)-2) }, "out", "its end is missing", ""},
		"cut off":           {func() { require.NoError(t, os.WriteFile(at("receipt"), whole[:len(whole)-9], 0o600)) }, "out", "its end is missing", ""},
		"empty":             {func() { require.NoError(t, os.WriteFile(at("receipt"), nil, 0o600)) }, "out", "not a receipt", ""},
		"another model":     {nil, other, "whose tensor \"a.q.weight\" is BF16 of [512, 640], this is BF16 of [512, 64]", "the receipt of that merge"},
		"the base itself":   {nil, "base", "is not what was merged", "the receipt of that merge"},
		"an early weight":   {func() { set(at("out/model.safetensors"), out, header) }, "out", "is not what was merged", ""},
		"a late weight":     {func() { set(at("out/model.safetensors"), out, header+2*300*640) }, "out", `tensor "a.q.weight": malformed`, "has been changed"},
		"a copied weight":   {func() { set(at("out/model.safetensors"), out, q+9000) }, "out", `tensor "b.q.weight": malformed`, "has been changed"},
		"a kept file":       {func() { require.NoError(t, os.WriteFile(at("out/tokenizer.json"), []byte("{}"), 0o600)) }, "out", "tokenizer.json: malformed", "restore the file"},
		"a kept file, gone": {func() { require.NoError(t, os.Remove(at("out/tokenizer.json"))) }, "out", "tokenizer.json is to come from the merged model", ""},
	} {
		t.Run(name, func(t *testing.T) {
			tokens, err := os.ReadFile(at("out/tokenizer.json"))
			require.NoError(t, err)
			defer func() {
				require.NoError(t, os.WriteFile(at("receipt"), whole, 0o600))
				require.NoError(t, os.WriteFile(at("out/model.safetensors"), out, 0o600))
				require.NoError(t, os.WriteFile(at("out/tokenizer.json"), tokens, 0o600))
			}()
			if c.spoil != nil {
				c.spoil()
			}
			model := c.model
			if !filepath.IsAbs(model) {
				model = at(model)
			}
			back := filepath.Join(t.TempDir(), "back")
			err = unmerge(t, at("receipt"), model, back)
			require.ErrorContains(t, err, c.says)
			require.Contains(t, hint.Of(err), c.hint)
			entries, err := os.ReadDir(filepath.Dir(back))
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
}

// TestMemoryIsBounded restores a model of which one matrix is larger than what may be
// held.
func TestMemoryIsBounded(t *testing.T) {
	dir, out, path, back := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "receipt"), filepath.Join(t.TempDir(), "back")
	d := writeModel(t, dir, 0, as(t, tensor.BF16, tensortest.Normal("a.q.weight", tensor.Shape{9_000, 1024}, 0.02, 1)))
	a := tensortest.NewSource(t, nil,
		tensortest.Normal("a.q.lora_A.weight", tensor.Shape{2, 1024}, 0.02, 2), tensortest.Normal("a.q.lora_B.weight", tensor.Shape{9_000, 2}, 0.02, 3))
	e, err := merge.LoRA{}.Match(d, a, codecs, merge.Config{Rank: 2, Alpha: 2})
	require.NoError(t, err)
	require.NoError(t, job{base: d, dir: dir, changes: e.Changes, out: out, receipt: path}.run(t))
	m, err := hf.Open(out)
	require.NoError(t, err)
	defer m.Close()
	r, err := receipt.Open(path)
	require.NoError(t, err)
	defer r.Close()
	held := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before, most := held(), int64(0)
	_, err = r.Restore(context.Background(), m, codecs, receipt.RestoreOptions{Out: back, Dir: out, Progress: func(int64) { most = max(most, held()) }})
	require.NoError(t, err)
	require.Less(t, most-before, int64(8<<20), "the matrix has 18 MB")
	sameFiles(t, dir, back)
}

// FuzzOpen opens and restores what is not believed.
func FuzzOpen(f *testing.F) {
	work, _ := merged(f)
	whole, err := os.ReadFile(filepath.Join(work, "receipt"))
	require.NoError(f, err)
	f.Add(whole)
	f.Add(whole[:len(whole)-100])
	m, err := hf.Open(filepath.Join(work, "out"))
	require.NoError(f, err)
	f.Cleanup(func() { m.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "receipt")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		back := filepath.Join(t.TempDir(), "back")
		if err := unmergeFrom(t, path, m, filepath.Join(work, "out"), back); err == nil {
			sameFiles(t, filepath.Join(work, "base"), back)
		}
	})
}

// quantizedModel writes a directory of 4-bit weights.
func quantizedModel(t testing.TB, dir string, plain tensor.Source, o bnb.Options) {
	t.Helper()
	o.DType = tensor.BF16
	p, _, err := bnb.Plan(plain, codecs, o)
	require.NoError(t, err)
	w, err := hf.Create(dir, hf.Options{Files: []hf.SideFile{{Name: hf.ConfigName, Data: []byte(config)}, {Name: "tokenizer.json", Data: []byte("{}")}}})
	require.NoError(t, err)
	require.NoError(t, pipeline.Run(context.Background(), p, plain, w))
}
