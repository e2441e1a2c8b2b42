package bnb

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/lowrank"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// factorsOf are the adapters of a run by module: A and B.
type factorsOf map[string][2][]float32

// loftQ quantizes a source with adapters and returns both.
func loftQ(t *testing.T, src tensor.Source, o Options, opts ...pipeline.Option) (tensor.Source, factorsOf, *Account) {
	t.Helper()
	made := make(factorsOf)
	var mu sync.Mutex
	o.LoftQ.Store = func(module string, a, b []float32) error {
		mu.Lock()
		defer mu.Unlock()
		made[module] = [2][]float32{a, b}
		return nil
	}
	p, a, err := Plan(src, codecs, o)
	require.NoError(t, err)
	return run(t, p, src, opts...), made, a
}

// twoLinears is a model of two linear layers, the second of BF16.
func twoLinears(t *testing.T) (tensor.Source, Options) {
	second := tensortest.Normal("k.weight", tensor.Shape{70, 96}, 0.05, 2)
	convert(t, &second, tensor.BF16)
	src := tensortest.NewSource(t, nil, second, tensortest.Normal("norm.weight", tensor.Shape{96}, 1, 3), tensortest.Normal("q.weight", tensor.Shape{130, 96}, 0.02, 1))
	return src, Options{Type: tensor.NF4, BlockSize: 64, DoubleQuant: true, Linear: []string{"q.weight", "k.weight"}}
}

// relative returns the root of the sum of the squares of x over those of w.
func relative(x, w []float32) float64 {
	return math.Sqrt(kernel.SumSquares(x) / kernel.SumSquares(w))
}

// less returns x - y.
func less(x, y []float32) []float32 {
	z := make([]float32, len(x))
	for i := range x {
		z[i] = x[i] - y[i]
	}
	return z
}

// product returns B·A.
func product(t *testing.T, f [2][]float32, rank int) []float32 {
	rows, cols := len(f[1])/rank, len(f[0])/rank
	x := make([]float32, rows*cols)
	require.NoError(t, kernel.Mul(x, f[1], rows, kernel.Dense{Data: f[0], Rows: rank, Cols: cols}, false))
	return x
}

// With one iteration the checkpoint is that without LoftQ, and the adapters are the
// decomposed differences. The errors of the account are what is on disk.
func TestLoftQOnce(t *testing.T) {
	src, o := twoLinears(t)
	p, _, err := Plan(src, codecs, o)
	require.NoError(t, err)
	plain := run(t, p, src)
	o.LoftQ = &LoftQ{Rank: 8, Iterations: 1}
	got, made, account := loftQ(t, src, o)
	require.Equal(t, names(plain), names(got))
	for _, name := range names(plain) {
		require.Equal(t, tensortest.Bytes(t, plain, name), tensortest.Bytes(t, got, name), name)
	}
	view, err := View(got, tensor.Invalid)
	require.NoError(t, err)
	list := o.LoftQ.Corrections()
	require.Len(t, list, 2)
	for _, c := range list {
		info, w, err := codecs.ReadAll(src, c.Module+".weight")
		require.NoError(t, err)
		_, q, err := codecs.ReadAll(view, c.Module+".weight")
		require.NoError(t, err)
		rest := less(w, q)
		want, err := lowrank.Truncate(kernel.Dense{Data: rest, Rows: int(info.Shape.Rows()), Cols: int(info.Shape.Cols())}, 8, 1)
		require.NoError(t, err)
		require.Equal(t, [2][]float32{want.A, want.B}, made[c.Module])
		require.InEpsilon(t, relative(rest, w), c.Before, 1e-4)
		require.InEpsilon(t, relative(rest, w), c.Base, 1e-6)
		require.InEpsilon(t, relative(less(rest, product(t, made[c.Module], 8)), w), c.After, 1e-5)
		require.Less(t, c.After, 0.9*c.Before)
	}
	for _, r := range account.Results() {
		if r.Action != "copy" {
			require.Greater(t, r.RelRMS, 0.05)
		}
	}
}

// Further iterations quantize the weight less the product of the iteration before.
func TestLoftQAlternates(t *testing.T) {
	src, o := twoLinears(t)
	const rank, iterations = 8, 4
	o.LoftQ = &LoftQ{Rank: rank, Iterations: iterations, Targets: func(module string) bool { return module == "q" }}
	got, made, _ := loftQ(t, src, o)
	require.Len(t, made, 1)
	info, w, err := codecs.ReadAll(src, "q.weight")
	require.NoError(t, err)
	target := w
	var codes []byte
	var f *lowrank.Factors
	for range iterations {
		enc, err := nf4.NewEncoder(tensor.NF4, 64, int64(len(w)))
		require.NoError(t, err)
		codes, err = enc.Append(nil, target)
		require.NoError(t, err)
		codes, err = enc.Finish(codes)
		require.NoError(t, err)
		h := nf4.Header{BlockSize: 64, Double: true, Source: tensor.F32}
		blob := make([]byte, h.Sections(int64(len(w))).Size())
		copy(blob[len(blob)-len(codes):], codes)
		h.Assemble(blob, int64(len(w)), nil, nf4.Double(enc.Absmax(), nf4.Mean(enc.Absmax())))
		rows, err := codecs.Open(h.Info("q", tensor.NF4, info.Shape), tensor.Memory(blob))
		require.NoError(t, err)
		q := make([]float32, len(w))
		require.NoError(t, rows.ReadRows(q, 0))
		f, err = lowrank.Truncate(kernel.Dense{Data: less(w, q), Rows: 130, Cols: 96}, rank, 1)
		require.NoError(t, err)
		target = less(w, product(t, [2][]float32{f.A, f.B}, rank))
	}
	require.Equal(t, codes, tensortest.Bytes(t, got, "q.weight"))
	require.Equal(t, f.A, made["q"][0])
	require.Equal(t, f.B, made["q"][1])

	once := &LoftQ{Rank: rank, Iterations: 1, Targets: o.LoftQ.Targets}
	many := o.LoftQ.Corrections()
	o.LoftQ = once
	loftQ(t, src, o)
	require.Len(t, many, 1)
	require.Less(t, many[0].After, once.Corrections()[0].After, "iterations help")
	require.Greater(t, many[0].Base, many[0].Before, "at the cost of the base by itself")
	require.Equal(t, once.Corrections()[0].Before, many[0].Before)
}

// Neither workers nor processors change a bit.
func TestLoftQIsDeterministic(t *testing.T) {
	src, o := twoLinears(t)
	o.LoftQ = &LoftQ{Rank: 4, Iterations: 2}
	want, factors, _ := loftQ(t, src, o, pipeline.WithWorkers(1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(5))
	o.LoftQ = &LoftQ{Rank: 4, Iterations: 2}
	got, again, _ := loftQ(t, src, o, pipeline.WithWorkers(3))
	require.Equal(t, factors, again)
	for _, name := range names(want) {
		require.Equal(t, tensortest.Bytes(t, want, name), tensortest.Bytes(t, got, name), name)
	}
}

// attempt carries out a plan that may fail.
func attempt(t *testing.T, ctx context.Context, p *pipeline.Plan, src tensor.Source) error {
	t.Helper()
	sink, err := safetensors.Create(filepath.Join(t.TempDir(), "out.safetensors"), false)
	require.NoError(t, err)
	return pipeline.Run(ctx, p, src, sink)
}

func TestLoftQRefuses(t *testing.T) {
	src, o := twoLinears(t)
	for want, l := range map[string]*LoftQ{
		"rank 71": {Rank: 71, Iterations: 1}, "rank 0": {Iterations: 1}, "0 iterations": {Rank: 4},
	} {
		o.LoftQ = l
		_, _, err := Plan(src, codecs, o)
		require.ErrorIs(t, err, tensor.ErrUnsupported)
		require.ErrorContains(t, err, want)
	}
	o.LoftQ = &LoftQ{Rank: 4, Iterations: 1}
	_, _, err := Plan(src, codecs, Options{Type: tensor.INT8, Linear: o.Linear, LoftQ: o.LoftQ})
	require.ErrorContains(t, err, "LoftQ with INT8")

	full := errors.New("disk full")
	p, _, err := Plan(src, codecs, o)
	require.NoError(t, err)
	o.LoftQ.Store = func(string, []float32, []float32) error { return full }
	require.ErrorIs(t, attempt(t, t.Context(), p, src), full)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, attempt(t, ctx, p, src), context.Canceled)
}

// An element that is not a number stops the run by name, or counts as 0 throughout and
// is counted once.
func TestLoftQNonFinite(t *testing.T) {
	bad := tensortest.Normal("q.weight", tensor.Shape{64, 96}, 0.02, 1)
	zero := tensortest.Tensor{Info: bad.Info, Data: append([]byte(nil), bad.Data...)}
	copy(bad.Data[4*100:], []byte{0, 0, 0xc0, 0x7f})
	copy(zero.Data[4*100:], make([]byte, 4))
	o := Options{Type: tensor.NF4, BlockSize: 64, Linear: []string{"q.weight"}}
	p, _, err := Plan(tensortest.NewSource(t, nil, bad), codecs, o)
	require.NoError(t, err)
	var nonFinite *tensor.NonFiniteError
	require.ErrorAs(t, attempt(t, t.Context(), p, tensortest.NewSource(t, nil, bad)), &nonFinite)
	require.EqualValues(t, 100, nonFinite.Index)

	o.NonFinite, o.LoftQ = &pipeline.NonFinite{AsZero: true}, &LoftQ{Rank: 4, Iterations: 3}
	got, made, _ := loftQ(t, tensortest.NewSource(t, nil, bad), o)
	require.Equal(t, 1, strings.Count(strings.Join(o.NonFinite.Notes(), ""), "1 elements"))
	o.LoftQ = &LoftQ{Rank: 4, Iterations: 3}
	want, other, _ := loftQ(t, tensortest.NewSource(t, nil, zero), o)
	require.Equal(t, other, made)
	require.Equal(t, tensortest.Bytes(t, want, "q.weight"), tensortest.Bytes(t, got, "q.weight"))
}
