package bnb

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// int8Options are those of TestPlanInt8's goldens.
func int8Options(src tensor.Source) Options {
	o := Options{Type: tensor.INT8, Head: "lm_head"}
	for info := range src.All() {
		if strings.HasSuffix(info.Name, "weight") && len(info.Shape) == 2 && !strings.Contains(info.Name, "embed") {
			o.Linear = append(o.Linear, info.Name)
		}
	}
	return o
}

// What transformers saved is what we make of the original: every tensor and the
// configuration.
func TestPlanInt8(t *testing.T) {
	original, want := open(t, "original", "model.safetensors"), open(t, "int8", "model.safetensors")
	o := int8Options(original)
	o.DType, o.SkipModules = tensor.BF16, []string{"lm_head", "mlp.down_proj"}
	p, account, err := Plan(original, codecs, o)
	require.NoError(t, err)
	got := run(t, p, original)
	require.Equal(t, names(want), names(got))
	require.Equal(t, want.Meta(), got.Meta())
	eights := 0
	for info := range want.All() {
		ours, err := got.Info(info.Name)
		require.NoError(t, err)
		a, b := tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, got, info.Name)
		switch {
		case info.Name == query: // the script cleared row 3
			clear(b[3*32 : 4*32])
		case info.Name == strings.TrimSuffix(query, ".weight")+scbSuffix:
			clear(b[3*4 : 4*4])
		case info.DType == tensor.BF16: // copies are not rounded
			require.Equal(t, tensor.F32, ours.DType)
			continue
		}
		require.Equal(t, info, ours)
		require.Equal(t, a, b, info.Name)
		eights++
	}
	require.Equal(t, 3*6, eights)
	text, err := os.ReadFile(filepath.Join("testdata", "int8", "config.json"))
	require.NoError(t, err)
	require.Contains(t, string(text), `"quantization_config": `+strings.ReplaceAll(string(account.QuantizationConfig()), "\n", "\n  "))
	for _, r := range account.Results() {
		if r.Action == "int8" {
			require.InDelta(t, 0.006, r.RelRMS, 0.003, r.Name)
			require.Equal(t, r.Shape.Elems()+4*r.Shape[0]+1, r.After)
		}
	}
}

// Rows of zeros, ties, the largest and the smallest F16: bit for bit as
// bitsandbytes quantizes them.
func TestPlanInt8Rows(t *testing.T) {
	golden := open(t, "int8_rows.safetensors")
	for _, d := range []string{"F32", "F16", "BF16"} {
		m := tensors(t, golden)
		input := *m[d+".input"]
		input.Info.Name = "l.weight"
		src, o := one(t, input)
		o = Options{Type: tensor.INT8, Linear: o.Linear}
		p, account, err := Plan(src, codecs, o)
		require.NoError(t, err)
		got := run(t, p, src)
		require.Equal(t, m[d+".SCB"].Data, tensortest.Bytes(t, got, "l.SCB"), d)
		require.Equal(t, m[d+".weight"].Data, tensortest.Bytes(t, got, "l.weight"), d)
		require.Equal(t, []byte{0}, tensortest.Bytes(t, got, "l.weight_format"))

		view, err := View(got, tensor.F32)
		require.NoError(t, err)
		_, decoded, err := codecs.ReadAll(view, "l.weight")
		require.NoError(t, err)
		var sum, errSum float64
		_, x, err := codecs.ReadAll(src, "l.weight")
		require.NoError(t, err)
		for i, v := range x {
			e := float64(v) - float64(decoded[i])
			sum, errSum = sum+float64(v)*float64(v), errSum+e*e
		}
		require.InEpsilon(t, math.Sqrt(errSum/sum), account.Results()[0].RelRMS, 1e-3)
	}
}

// Rows that come in several panels, and rows longer than one. The bound is half a
// step, and what rounding to F16 moves.
func TestPlanInt8Panels(t *testing.T) {
	for _, shape := range []tensor.Shape{{700, 900}, {3, 300000}, {1, 1}} {
		x := tensortest.Normal("l.weight", shape, 0.02, 1)
		src, _ := one(t, x)
		p, _, err := Plan(src, codecs, Options{Type: tensor.INT8, Linear: []string{"l.weight"}})
		require.NoError(t, err)
		got := run(t, p, src, pipeline.WithMemory(p.Steps[0].Scratch))
		w, scb := tensortest.Bytes(t, got, "l.weight"), tensortest.Floats(t, got, "l.SCB")
		values := tensortest.Floats(t, src, "l.weight")
		cols := int(shape[1])
		for i := range values {
			require.LessOrEqual(t, math.Abs(float64(values[i])-float64(int8(w[i]))*float64(scb[i/cols])/127), float64(scb[i/cols])/254*1.13, "element %d", i)
		}
	}
}

func TestPlanInt8Errors(t *testing.T) {
	for value, text := range map[float32]string{
		float32(math.Inf(1)): "element 130 is +Inf",
		7e4:                  "element 130 is beyond the range of F16",
	} {
		x := make([]float32, 3*100)
		x[130] = value
		src, _ := one(t, tensortest.Float32("m.l.weight", tensor.Shape{3, 100}, x))
		p, _, err := Plan(src, codecs, Options{Type: tensor.INT8, Linear: []string{"m.l.weight"}})
		require.NoError(t, err)
		err = p.Steps[0].Run(t.Context(), src, []io.WriterAt{discard{}, discard{}, discard{}})
		require.ErrorContains(t, err, text)
		if value > 1e5 {
			require.Contains(t, hint.Of(err), "--nan-as-zero")
		}
	}
	src, _ := one(t, tensortest.Normal("l.weight", tensor.Shape{4, 4}, 1, 1))
	for _, o := range []Options{
		{Type: tensor.INT8, BlockSize: 64}, {Type: tensor.INT8, DoubleQuant: true}, {Type: tensor.INT8, Storage: tensor.BF16},
		{Type: tensor.INT8, Compute: tensor.BF16}, {Type: tensor.NF4, BlockSize: 64, Storage: tensor.I32}, {Type: tensor.NF4, BlockSize: 64, Compute: tensor.I8},
	} {
		o.Linear = []string{"l.weight"}
		_, _, err := Plan(src, codecs, o)
		require.ErrorIs(t, err, tensor.ErrUnsupported)
	}
}
