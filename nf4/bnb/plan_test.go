package bnb

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// linears returns the weights that are quantized in another checkpoint.
func linears(src tensor.Source) (list []string) {
	for info := range src.All() {
		if weight, ok := strings.CutSuffix(info.Name, quantMapSuffix); ok {
			list = append(list, weight)
		}
	}
	return list
}

func ulps(a, b float32) int {
	d := int(int32(math.Float32bits(a))) - int(int32(math.Float32bits(b)))
	return max(d, -d)
}

// requireSame checks that a quantized checkpoint of ours is theirs. Where
// torch's mean, which depends on the machine, is not ours, the scales are
// quantized again around theirs; sameMap tells that theirs has today's 8-bit
// map. It returns how many offsets were equal.
func requireSame(t *testing.T, want, got, original tensor.Source, kind tensor.DType, sameMap bool) (equal int) {
	t.Helper()
	offset := func(src tensor.Source, weight string) float32 {
		h, err := View(src, tensor.Invalid)
		require.NoError(t, err)
		d, err := nf4.Describe(h, weight)
		require.NoError(t, err)
		return d.Offset
	}
	for _, weight := range linears(want) {
		theirs, ours := offset(want, weight), offset(got, weight)
		same := theirs == ours
		if same {
			equal++
		}
		require.LessOrEqual(t, ulps(theirs, ours), 2, "%s: offset", weight)
		for info := range want.All() {
			if info.Name != weight && !strings.HasPrefix(info.Name, weight+".") {
				continue
			}
			g, err := got.Info(info.Name)
			require.NoError(t, err)
			switch {
			case strings.HasSuffix(info.Name, nestedMapSuffix) && !sameMap:
				a, b := tensortest.Floats(t, want, info.Name), tensortest.Floats(t, got, info.Name)
				for i := range a {
					require.LessOrEqual(t, ulps(a[i], b[i]), 2)
				}
			case !same && strings.HasSuffix(info.Name, absmaxSuffix):
				_, w, err := codecs.ReadAll(original, weight)
				require.NoError(t, err)
				h, err := View(want, tensor.Invalid)
				require.NoError(t, err)
				d, err := nf4.Describe(h, weight)
				require.NoError(t, err)
				enc, err := nf4.NewEncoder(kind, int(d.BlockSize), int64(len(w)))
				require.NoError(t, err)
				codes, err := enc.Append(nil, w)
				require.NoError(t, err)
				_, err = enc.Finish(codes)
				require.NoError(t, err)
				dq := nf4.Double(enc.Absmax(), theirs)
				require.Equal(t, tensortest.Bytes(t, want, weight+absmaxSuffix), dq.Absmax)
				require.Equal(t, tensortest.Floats(t, want, weight+nestedAbsmaxSuffix), dq.NestedAbsmax)
			case !same && (strings.HasSuffix(info.Name, nestedAbsmaxSuffix) || strings.Contains(info.Name, stateInfix)):
			default:
				require.Equal(t, info, g)
				require.Equal(t, tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, got, info.Name), info.Name)
			}
		}
	}
	return equal
}

// A whole checkpoint, tensor by tensor.
func TestPlanTinyLlama(t *testing.T) {
	original := archive(t, "tiny_llama_bnb4/original_bf16.safetensors")
	for kind, double := range map[string]bool{"dq": true, "plain": false} {
		want := archive(t, "tiny_llama_bnb4/model_nf4_"+kind+".safetensors")
		p, account, err := Plan(original, codecs, Options{
			Type: tensor.NF4, BlockSize: 64, DoubleQuant: double, Linear: append(linears(want), "lm_head.weight"), Head: "lm_head",
		})
		require.NoError(t, err)
		got := run(t, p, original)
		require.Equal(t, names(want), names(got))
		require.Equal(t, want.Meta(), got.Meta())
		equal := requireSame(t, want, got, original, tensor.NF4, false)
		require.Positive(t, equal)
		for info := range original.All() {
			if !tensor.Has(got, info.Name+absmaxSuffix) {
				require.Equal(t, tensortest.Bytes(t, original, info.Name), tensortest.Bytes(t, got, info.Name))
			}
		}
		for _, r := range account.Results() {
			if !tensor.Has(want, r.Name+absmaxSuffix) {
				require.Equal(t, "copy", r.Action)
				continue
			}
			require.Equal(t, "nf4", r.Action)
			require.InDelta(t, 0.09, r.RelRMS, 0.01, r.Name)
			var after int64
			for info := range got.All() {
				if info.Name == r.Name || strings.HasPrefix(info.Name, r.Name+".") {
					after += info.Size()
				}
			}
			require.Equal(t, after, r.After)
			require.Equal(t, 2*r.Shape.Elems(), r.Before)
		}
	}
}

// What transformers saved is what we make of the original.
func TestPlanSaved(t *testing.T) {
	original := open(t, "original", "model.safetensors")
	for name, o := range map[string]Options{
		"nf4_dq":      {Type: tensor.NF4, DoubleQuant: true, DType: tensor.BF16},
		"nf4_storage": {Type: tensor.NF4, DoubleQuant: true, DType: tensor.F32, Storage: tensor.BF16},
		"fp4_skip":    {Type: tensor.FP4, DType: tensor.F16, SkipModules: []string{"lm_head", "mlp.down_proj"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := open(t, name, "model.safetensors")
			o.BlockSize, o.Head = 64, "lm_head"
			for info := range original.All() {
				if strings.Contains(info.Name, "_proj.") || strings.HasPrefix(info.Name, "lm_head") {
					o.Linear = append(o.Linear, info.Name)
				}
			}
			p, account, err := Plan(original, codecs, o)
			require.NoError(t, err)
			got := run(t, p, original)
			require.Equal(t, names(want), names(got))
			rounded := original
			if o.DType != tensor.F32 {
				m := tensors(t, original)
				for _, x := range m {
					convert(t, x, o.DType)
				}
				rounded = source(t, m)
			}
			requireSame(t, want, got, rounded, o.Type, true)

			text, err := os.ReadFile(filepath.Join("testdata", name, "config.json"))
			require.NoError(t, err)
			config := account.QuantizationConfig()
			// In config.json it is one level deeper.
			require.Contains(t, string(text), `"quantization_config": `+strings.ReplaceAll(string(config), "\n", "\n  "))
		})
	}
}

// The same bytes for any number of workers and any budget that suffices.
func TestPlanWorkers(t *testing.T) {
	original := archive(t, "tiny_llama_bnb4/original_bf16.safetensors")
	o := Options{Type: tensor.NF4, BlockSize: 64, DoubleQuant: true, Linear: linears(archive(t, "tiny_llama_bnb4/model_nf4_dq.safetensors"))}
	var want []byte
	for _, opts := range [][]pipeline.Option{
		{pipeline.WithWorkers(1)}, {pipeline.WithWorkers(8)}, {pipeline.WithWorkers(3), pipeline.WithMemory(2 << 20)},
	} {
		p, account, err := Plan(original, codecs, o)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "out.safetensors")
		sink, err := safetensors.Create(path, false)
		require.NoError(t, err)
		require.NoError(t, pipeline.Run(t.Context(), p, original, sink, opts...))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		if want == nil {
			want = got
		}
		require.True(t, bytes.Equal(want, got))
		for _, r := range account.Results() {
			require.Equal(t, r.Action == "nf4", r.RelRMS > 0)
		}
	}
}

func one(t *testing.T, x tensortest.Tensor) (tensor.Source, Options) {
	return tensortest.NewSource(t, nil, x), Options{Type: tensor.NF4, BlockSize: 64, DoubleQuant: true, Linear: []string{x.Info.Name}}
}

// Odd sizes, all block sizes, both types; what is read back is what was
// quantized, as far as the error that the account tells.
func TestPlanRoundTrip(t *testing.T) {
	for _, shape := range []tensor.Shape{{1, 1}, {3, 7}, {5, 172}, {64, 64}, {31, 129}, {2, 5000}, {700, 900}} {
		for _, d := range []tensor.DType{tensor.NF4, tensor.FP4} {
			for _, size := range []int{32, 64, 4096} {
				for _, double := range []bool{false, true} {
					src, o := one(t, tensortest.Normal("l.weight", shape, 0.02, uint64(size)))
					o.Type, o.BlockSize, o.DoubleQuant = d, size, double
					p, account, err := Plan(src, codecs, o)
					require.NoError(t, err)
					view, err := View(run(t, p, src), tensor.Invalid)
					require.NoError(t, err)
					info, got, err := codecs.ReadAll(view, "l.weight")
					require.NoError(t, err)
					require.Equal(t, shape, info.Shape)
					require.Equal(t, d, info.DType)
					var num, den float64
					for i, w := range tensortest.Floats(t, src, "l.weight") {
						e := float64(w) - float64(got[i])
						num += e * e
						den += float64(w) * float64(w)
					}
					require.InDelta(t, math.Sqrt(num/den), account.Results()[0].RelRMS, 1e-5)
					h, err := nf4.Describe(view, "l.weight")
					require.NoError(t, err)
					require.Equal(t, tensor.F32, h.Source)
					require.EqualValues(t, size, h.BlockSize)
					require.Equal(t, double, h.Double)
				}
			}
		}
	}
}

// Codes stored as another dtype are the same bytes.
func TestPlanStorage(t *testing.T) {
	src, o := one(t, tensortest.Normal("l.weight", tensor.Shape{6, 20}, 1, 1)) // 60 bytes
	var want []byte
	for d, shape := range map[tensor.DType]tensor.Shape{tensor.Invalid: {60, 1}, tensor.U8: {60, 1}, tensor.BF16: {30, 1}, tensor.F16: {30, 1}, tensor.F32: {15, 1}} {
		o.Storage = d
		p, account, err := Plan(src, codecs, o)
		require.NoError(t, err)
		got := run(t, p, src)
		info, err := got.Info("l.weight")
		require.NoError(t, err)
		require.Equal(t, shape, info.Shape)
		require.Equal(t, o.storage(), info.DType)
		require.Contains(t, string(account.QuantizationConfig()), `"bnb_4bit_quant_storage": "`+storageName(o.storage())+`"`)
		if want == nil {
			want = tensortest.Bytes(t, got, "l.weight")
		}
		require.Equal(t, want, tensortest.Bytes(t, got, "l.weight"))
		_, err = View(got, tensor.Invalid)
		require.NoError(t, err)
	}

	src, o = one(t, tensortest.Normal("l.weight", tensor.Shape{5, 6}, 1, 1)) // 15 bytes
	o.Storage = tensor.BF16
	_, _, err := Plan(src, codecs, o)
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, `tensor "l.weight": unsupported input: 15 bytes of 4-bit codes are no whole number of BF16`)
	require.Contains(t, hint.Of(err), "skip module l")
}

// A step takes no more memory than it says.
func TestPlanScratch(t *testing.T) {
	// The rows come from a codec that has no buffer of its own, since how often
	// the pool of the real one allocates is not ours to say.
	cs := tensor.NewCodecs(tensor.Codec(bare{}), codecs[tensor.BF16], codecs[tensor.F16])
	src, o := one(t, tensortest.Normal("l.weight", tensor.Shape{1000, 3000}, 0.02, 1))
	panel := 4 * pipeline.PanelRows(3000) * 3000
	for _, o := range []Options{
		{Type: tensor.NF4, BlockSize: 32, DoubleQuant: true, Linear: o.Linear}, {Type: tensor.NF4, BlockSize: 32, DoubleQuant: true, DType: tensor.BF16, Linear: o.Linear},
		{Type: tensor.INT8, Linear: o.Linear}, {Type: tensor.INT8, DType: tensor.BF16, Linear: o.Linear},
	} {
		p, _, err := Plan(src, cs, o)
		require.NoError(t, err)
		step := p.Steps[0]
		w := make([]io.WriterAt, len(step.Out))
		for i := range w {
			w[i] = discard{}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		require.NoError(t, step.Run(t.Context(), src, w))
		runtime.ReadMemStats(&after)
		allocated := int64(after.TotalAlloc-before.TotalAlloc) + panel
		require.LessOrEqual(t, allocated, step.Scratch+step.Scratch/20)
		require.GreaterOrEqual(t, allocated, step.Scratch*3/4, "the plan must not ask for much more than is taken")
	}
}

// bare decodes F32 to numbers it makes up.
type bare struct{}

func (bare) DType() tensor.DType                                 { return tensor.F32 }
func (bare) Open(tensor.Info, tensor.Bytes) (tensor.Rows, error) { return bare{}, nil }

func (bare) ReadRows(dst []float32, row int64) error {
	for i := range dst {
		dst[i] = float32(int64(i)*7%13 - row%5)
	}
	return nil
}

func TestPlanNonFinite(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
		x := make([]float32, 10*100)
		x[537] = float32(bad)
		src, o := one(t, tensortest.Float32("model.l.weight", tensor.Shape{10, 100}, x))
		p, _, err := Plan(src, codecs, o)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "out.safetensors")
		sink, err := safetensors.Create(path, false)
		require.NoError(t, err)
		err = pipeline.Run(t.Context(), p, src, sink)
		require.ErrorIs(t, err, tensor.ErrMalformed)
		require.ErrorContains(t, err, `tensor "model.l.weight": element 537 is `)
		require.Contains(t, hint.Of(err), "--skip-modules model.l ")
		left, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func TestPlanNonFiniteAsZero(t *testing.T) {
	x := make([]float32, 10*100)
	for i := range x {
		x[i] = float32(i%37) - 17
	}
	x[537], x[538], x[999] = float32(math.NaN()), float32(math.Inf(-1)), float32(math.Inf(1))
	zeros := slices.Clone(x)
	zeros[537], zeros[538], zeros[999] = 0, 0, 0
	var files [2][]byte
	for i, values := range [][]float32{x, zeros} {
		src, o := one(t, tensortest.Float32("model.l.weight", tensor.Shape{10, 100}, values))
		o.NonFinite = &pipeline.NonFinite{AsZero: true}
		p, _, err := Plan(src, codecs, o)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "out.safetensors")
		sink, err := safetensors.Create(path, false)
		require.NoError(t, err)
		require.NoError(t, pipeline.Run(t.Context(), p, src, sink))
		files[i], err = os.ReadFile(path)
		require.NoError(t, err)
		require.Len(t, o.NonFinite.Notes(), 1-i)
	}
	require.Equal(t, files[1], files[0])
}

func TestPlanSkips(t *testing.T) {
	weight := func(name string, shape ...int64) tensortest.Tensor { return tensortest.Normal(name, shape, 1, 1) }
	src := tensortest.NewSource(t, nil,
		weight("model.embed_tokens.weight", 10, 64), weight("model.a.q_proj.weight", 64, 64), weight("model.a.q_proj.bias", 64),
		weight("model.a.conv.weight", 64, 64, 3), weight("model.b.q_proj.weight", 64, 64), weight("model.b.empty.weight", 0, 64),
		weight("lm_head.weight", 10, 64))
	all := []string{"model.a.q_proj.weight", "model.a.conv.weight", "model.b.q_proj.weight", "model.b.empty.weight", "lm_head.weight"}
	two := []string{"model.a.q_proj.weight", "model.b.q_proj.weight", "lm_head.weight"}
	for _, c := range []struct {
		linear    []string
		skip      []string
		quantized string
		list      string
	}{
		{two, nil, "model.a.q_proj.weight model.b.q_proj.weight", `null`},
		{all, nil, "model.a.q_proj.weight model.b.q_proj.weight", `["lm_head", "model.a.conv", "model.b.empty"]`},
		{two, []string{"lm_head", "model.b"}, "model.a.q_proj.weight", `["lm_head", "model.b"]`},
		{two, []string{"model.b"}, "model.a.q_proj.weight lm_head.weight", `["model.b"]`},
		{two[:2], []string{"model.b"}, "model.a.q_proj.weight", `["model.b", "lm_head"]`}, // tied
		{two, []string{}, "model.a.q_proj.weight model.b.q_proj.weight lm_head.weight", `[]`},
	} {
		p, account, err := Plan(src, codecs, Options{Type: tensor.FP4, BlockSize: 64, Linear: c.linear, Head: "lm_head", SkipModules: c.skip})
		require.NoError(t, err)
		require.NoError(t, p.Check(src, 0))
		var got []string
		for _, r := range account.Results() {
			if r.Action == "fp4" {
				got = append(got, r.Name)
			} else {
				require.Equal(t, strings.Contains(strings.Join(c.linear, " "), r.Name), r.Reason != "", r.Name)
			}
		}
		require.Equal(t, c.quantized, strings.Join(got, " "))
		text := account.QuantizationConfig()
		var config map[string]any
		require.NoError(t, json.Unmarshal(text, &config))
		list, err := json.Marshal(config["llm_int8_skip_modules"])
		require.NoError(t, err)
		require.JSONEq(t, c.list, string(list))
		require.Equal(t, "float32", config["bnb_4bit_compute_dtype"])
		require.Equal(t, "fp4", config["bnb_4bit_quant_type"])
	}
}

func TestPlanErrors(t *testing.T) {
	good := tensortest.Normal("l.weight", tensor.Shape{4, 64}, 1, 1)
	c64 := tensortest.Tensor{Info: tensor.Info{Name: "l.weight", DType: tensor.C64, Shape: tensor.Shape{4, 64}}, Data: make([]byte, 2048)}
	double := tensortest.Tensor{Info: tensor.Info{Name: "l.weight", DType: tensor.F64, Shape: tensor.Shape{4, 64}}, Data: make([]byte, 2048)}
	for name, c := range map[string]struct {
		x      tensortest.Tensor
		change func(*Options)
		want   error
		text   string
	}{
		"type":          {good, func(o *Options) { o.Type = tensor.Q4_0 }, tensor.ErrUnsupported, "Q4_0"},
		"block size":    {good, func(o *Options) { o.BlockSize = 16 }, tensor.ErrUnsupported, "block size 16"},
		"dtype":         {good, func(o *Options) { o.DType = tensor.F64 }, tensor.ErrUnsupported, "F64"},
		"missing":       {good, func(o *Options) { o.Linear = []string{"l.weight", "k.weight"} }, tensor.ErrNotFound, `"k.weight"`},
		"pattern":       {good, func(o *Options) { o.SkipModules = []string{"("} }, tensor.ErrUnsupported, `"("`},
		"nothing":       {good, func(o *Options) { o.SkipModules = []string{"l"} }, tensor.ErrUnsupported, "no weight is left"},
		"no linear":     {good, func(o *Options) { o.Linear = nil }, tensor.ErrUnsupported, "no weight is left"},
		"source dtype":  {double, func(*Options) {}, tensor.ErrUnsupported, `"l.weight": unsupported input: quantizing F64`},
		"without codec": {c64, func(o *Options) { o.DType = tensor.F32 }, tensor.ErrUnsupported, "no decoder for C64"},
	} {
		t.Run(name, func(t *testing.T) {
			src, o := one(t, c.x)
			c.change(&o)
			_, _, err := Plan(src, codecs, o)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.text)
		})
	}

	view, err := View(open(t, "nf4_dq", "model.safetensors"), tensor.Invalid)
	require.NoError(t, err)
	_, _, err = Plan(view, codecs, Options{Type: tensor.NF4, BlockSize: 64, Linear: []string{down}})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	require.ErrorContains(t, err, "it is NF4 already")
	require.NotEmpty(t, hint.Of(err))

	// A name that is taken shows before anything is written.
	src := tensortest.NewSource(t, nil, good, tensortest.Normal("l.weight.quant_map", tensor.Shape{16}, 1, 1))
	p, _, err := Plan(src, codecs, Options{Type: tensor.NF4, BlockSize: 64, Linear: []string{"l.weight"}})
	require.NoError(t, err)
	require.ErrorContains(t, p.Check(src, 0), `"l.weight.quant_map"`)
}

// A body that cannot be written to ends the step.
func TestPlanWriteErrors(t *testing.T) {
	linear := []string{"l.weight"}
	for _, o := range []Options{
		{Type: tensor.NF4, BlockSize: 64, Linear: linear}, {Type: tensor.NF4, BlockSize: 64, DoubleQuant: true, Linear: linear}, {Type: tensor.INT8, Linear: linear},
	} {
		src, _ := one(t, tensortest.Normal("l.weight", tensor.Shape{4, 64}, 1, 1))
		p, _, err := Plan(src, codecs, o)
		require.NoError(t, err)
		for i := range p.Steps[0].Out {
			w := make([]io.WriterAt, len(p.Steps[0].Out))
			for k := range w {
				w[k] = discard{}
			}
			w[i] = full{}
			require.ErrorIs(t, p.Steps[0].Run(t.Context(), src, w), errFull, p.Steps[0].Out[i].Name)
		}
	}
}

type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

var errFull = errors.New("disk full")

type full struct{}

func (full) WriteAt([]byte, int64) (int, error) { return 0, errFull }

func BenchmarkPlan(b *testing.B) {
	src := tensortest.NewSource(b, nil, tensortest.Normal("l.weight", tensor.Shape{1024, 4096}, 0.02, 1))
	p, _, err := Plan(src, codecs, Options{Type: tensor.NF4, BlockSize: 64, DoubleQuant: true, Linear: []string{"l.weight"}})
	require.NoError(b, err)
	w := make([]io.WriterAt, len(p.Steps[0].Out))
	for i := range w {
		w[i] = discard{}
	}
	b.SetBytes(4 * 1024 * 4096)
	for b.Loop() {
		require.NoError(b, p.Steps[0].Run(b.Context(), src, w))
	}
}
