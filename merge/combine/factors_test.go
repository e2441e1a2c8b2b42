package combine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/tensor"
)

// lora is a low-rank delta in memory.
type lora struct {
	*product
	scale  float32
	across bool
}

func (d lora) Target() string { return "w" }
func (d lora) Zero() bool     { return false }
func (d lora) Across() bool   { return d.across }
func (d lora) AddRows(w []float32, row int64, scale float32) error {
	x := make([]float32, len(w))
	if err := d.ReadRows(x, row); err != nil {
		return err
	}
	for i, v := range x {
		w[i] += scale * d.scale * v
	}
	return nil
}
func (d lora) Factors() (b, a []float32, rank int, scale float32, err error) {
	return d.B, d.A, d.Rank, d.scale, nil
}

func newLoRA(rows, cols, rank int, scale float32, seed uint64) lora {
	return lora{&product{&factors.Pair{
		Out: rows, In: cols, Rank: rank, Scale: 1,
		B: normal(tensor.Shape{int64(rows), int64(rank)}, seed, 1e9).data,
		A: normal(tensor.Shape{int64(rank), int64(cols)}, seed+1, 1e9).data,
	}}, scale, false}
}

// flipped is a delta of the transposed target.
func (d lora) flipped() lora {
	p := transposed(d.Pair)
	return lora{&product{&p}, d.scale, true}
}

func TestFactorMethods(t *testing.T) {
	shape := tensor.Shape{9, 7}
	a, b := newLoRA(9, 7, 2, 0.5, 10), newLoRA(9, 7, 2, 2, 20)
	weights := func(p *Params) { p.Each[0].Weight, p.Each[1].Weight, p.Rank = 0.75, -0.5, 4 }
	sum := run(t, "linear", shape, weights, Of(a), Of(b))
	for _, method := range []string{"cat", "svd"} {
		for i, x := range run(t, method, shape, weights, Of(a), Of(b)) {
			require.InDelta(t, sum[i], x, 1e-5, "%s: the exact sum", method)
		}
		// One that is a sum itself, and one that does nothing to the target.
		for i, x := range run(t, method, shape, func(p *Params) { p.Rank = 4 }, Of(a, b), nil) {
			require.InDelta(t, read(t, Of(a, b), shape)[i], x, 1e-5, method)
		}
	}
	cut := run(t, "svd", shape, func(p *Params) { weights(p); p.Rank = 1 }, Of(a), Of(b))
	var left, most float64
	for i, x := range cut {
		left += float64(sum[i]-x) * float64(sum[i]-x)
		most += float64(sum[i]) * float64(sum[i])
	}
	require.Greater(t, left, 0.01*most)
	require.Less(t, left, 0.9*most)
	// What is cut is at right angles to what stays.
	var along float64
	for i, x := range cut {
		along += float64(x) * float64(sum[i]-x)
	}
	require.InDelta(t, 0, along/most, 1e-5)

	for _, f := range factors.Methods() {
		if f.Name == "linear" {
			continue // combine's own is the same
		}
		set := func(p *Params) {
			weights(p)
			p.Seed, p.Each[0].Density, p.Each[1].Density = 3, 0.5, 0.5
		}
		got := run(t, f.Name, shape, set, Of(a), Of(b))
		// The target may hold its weight transposed: the same, transposed, signs and all. What
		// is dropped at random is that of the adapter's own factors.
		across := run(t, f.Name, tensor.Shape{7, 9}, set, Of(a.flipped()), Of(b.flipped()))
		for i := range got {
			require.InDelta(t, got[i], across[i%7*9+i/7], 1e-5, f.Name)
		}
		if f.Prunes {
			require.NotEqual(t, got, run(t, f.Name, shape, weights, Of(a), Of(b)), "density 1")
		}
		m, err := ByName(f.Name)
		require.NoError(t, err)
		if f.Prunes {
			p := m.Defaults(2, false)
			p.Each[1].Density = 0.5
			_, err = m.Combine("w", shape, []tensor.Rows{Of(a), Of(b)}, p)
			require.ErrorContains(t, err, "there is one for all")
		}
		for _, other := range []tensor.Rows{Of(Added("w", values{make([]float32, 63), 7})), Of(a, merge.Scaled(Added("w", nil), 2)), values{}} {
			_, err = m.Combine("w", shape, []tensor.Rows{Of(a), other}, m.Defaults(2, false))
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			require.ErrorContains(t, err, `tensor "w"`)
		}
	}
}
