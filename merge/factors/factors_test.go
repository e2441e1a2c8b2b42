package factors

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(floats.Codecs()...)

func noise(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

func pair(rng *rand.Rand, out, in, rank int, scale float64) *Pair {
	return &Pair{Out: out, In: in, Rank: rank, Scale: scale, B: noise(rng, out*rank), A: noise(rng, rank*in)}
}

// delta is scale·B·A in float64.
func delta(p *Pair) []float64 {
	d := make([]float64, p.Out*p.In)
	for i := range p.Out {
		for k := range p.Rank {
			b := p.Scale * float64(p.B[i*p.Rank+k])
			for j, v := range p.A[k*p.In:][:p.In] {
				d[i*p.In+j] += b * float64(v)
			}
		}
	}
	return d
}

func norm(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum)
}

// apart returns the norm of the difference over that of want.
func apart(want, got []float64) float64 {
	diff := make([]float64, len(want))
	for i := range want {
		diff[i] = want[i] - got[i]
	}
	return norm(diff) / max(norm(want), math.SmallestNonzeroFloat64)
}

func TestInventory(t *testing.T) {
	src := tensortest.NewSource(t, nil,
		tensortest.Normal("l.10.q.lora_A.weight", tensor.Shape{3, 7}, 1, 1), tensortest.Normal("l.10.q.lora_B.weight", tensor.Shape{5, 3}, 1, 2),
		tensortest.Normal("l.2.q.lora_B.weight", tensor.Shape{5, 2}, 1, 3), tensortest.Normal("l.2.q.lora_A.weight", tensor.Shape{2, 7}, 1, 4),
		tensortest.Normal("l.2.q.lora_magnitude_vector", tensor.Shape{5}, 1, 4),
		tensortest.Normal("conv.lora_A.weight", tensor.Shape{4, 6, 3, 3}, 1, 5), tensortest.Normal("conv.lora_B.weight", tensor.Shape{8, 4, 1, 1}, 1, 6),
		tensortest.Normal("e.lora_embedding_A", tensor.Shape{2, 30}, 1, 7), tensortest.Normal("e.lora_embedding_B", tensor.Shape{6, 2}, 1, 8),
		tensortest.Normal("norm.weight", tensor.Shape{6}, 1, 9))
	a, err := Inventory(src, func(m string, r int) (float64, error) { return float64(r) / 2, nil })
	require.NoError(t, err)
	var got []string
	for _, m := range a.Modules {
		got = append(got, fmt.Sprint(m.Name, " ", m.Out, " ", m.In, " ", m.Rank, " ", m.Scale, " ", m.Embedding, m.DoRA))
	}
	require.Equal(t, []string{"conv 8 54 4 2 false false", "e 6 30 2 1 true false", "l.2.q 5 7 2 1 false true", "l.10.q 5 7 3 1.5 false false"}, got)
	require.Len(t, a.Rest, 2)
	p, err := a.Read(codecs, &a.Modules[3])
	require.NoError(t, err)
	require.Equal(t, tensortest.Floats(t, src, "l.10.q.lora_A.weight"), p.A)
	require.Equal(t, tensortest.Floats(t, src, "l.10.q.lora_B.weight"), p.B)
}

func TestInventoryRefuses(t *testing.T) {
	one := func(string, int) (float64, error) { return 1, nil }
	normal := func(name string, shape ...int64) tensortest.Tensor { return tensortest.Normal(name, shape, 1, 1) }
	for name, c := range map[string]struct {
		list []tensortest.Tensor
		says string
	}{
		"empty":              {nil, "no low-rank matrices"},
		"no factors":         {[]tensortest.Tensor{normal("norm.weight", 3)}, "no low-rank matrices"},
		"no B":               {[]tensortest.Tensor{normal("q.lora_A.weight", 2, 3)}, "there is no q.lora_B.weight"},
		"no A":               {[]tensortest.Tensor{normal("q.lora_B.weight", 3, 2)}, "there is no q.lora_A.weight"},
		"half an embedding":  {[]tensortest.Tensor{normal("q.lora_embedding_B", 3, 2)}, "there is no q.lora_embedding_A"},
		"ranks differ":       {[]tensortest.Tensor{normal("q.lora_A.weight", 2, 3), normal("q.lora_B.weight", 3, 3)}, "want [rank, in]"},
		"a vector":           {[]tensortest.Tensor{normal("q.lora_A.weight", 2), normal("q.lora_B.weight", 3, 2)}, "want [rank, in]"},
		"a scalar":           {[]tensortest.Tensor{normal("q.lora_A.weight"), normal("q.lora_B.weight", 3, 2)}, "want [rank, in]"},
		"rank 0":             {[]tensortest.Tensor{normal("q.lora_A.weight", 0, 3), normal("q.lora_B.weight", 3, 0)}, "want [rank, in]"},
		"no inputs":          {[]tensortest.Tensor{normal("q.lora_A.weight", 2, 0), normal("q.lora_B.weight", 3, 2)}, "want [rank, in]"},
		"a kernel on B":      {[]tensortest.Tensor{normal("q.lora_A.weight", 2, 3, 1, 1), normal("q.lora_B.weight", 3, 2, 3, 1)}, "want [rank, in]"},
		"too many sides":     {[]tensortest.Tensor{normal("q.lora_A.weight", 2, 1, 1, 1, 1, 1), normal("q.lora_B.weight", 3, 2)}, "want [rank, in]"},
		"another method's A": {[]tensortest.Tensor{normal("q.lora_A.weight", 2, 3), normal("q.lora_embedding_B", 3, 2)}, "there is no"},
	} {
		_, err := Inventory(tensortest.NewSource(t, nil, c.list...), one)
		require.ErrorIs(t, err, tensor.ErrMalformed, name)
		require.ErrorContains(t, err, c.says, name)
	}
	full := tensortest.NewSource(t, nil, normal("q.lora_A.weight", 2, 3), normal("q.lora_B.weight", 3, 2))
	_, err := Inventory(full, func(string, int) (float64, error) { return math.NaN(), nil })
	require.ErrorContains(t, err, "its scale is NaN")
	bad := tensortest.NewSource(t, nil, tensortest.Float32("q.lora_A.weight", tensor.Shape{1, 2}, []float32{1, float32(math.Inf(1))}), normal("q.lora_B.weight", 3, 1))
	a, err := Inventory(bad, one)
	require.NoError(t, err)
	_, err = a.Read(codecs, &a.Modules[0])
	require.ErrorContains(t, err, "element 1 is +Inf")
	require.NotEmpty(t, hint.Of(err))
}

func TestSpectrum(t *testing.T) {
	flat := Spectrum{2, 2, 2, 2}
	require.InDelta(t, 4, flat.EntropyRank(), 1e-12)
	require.InDelta(t, 4, flat.StableRank(), 1e-12)
	require.InDelta(t, 4, flat.Norm(), 1e-12)
	require.Equal(t, []int{1, 2, 3, 4, 4}, []int{flat.EnergyRank(0.25), flat.EnergyRank(0.5), flat.EnergyRank(0.51), flat.EnergyRank(0.99), flat.EnergyRank(1)})
	steep := Spectrum{10, 1, 0.1, 0}
	require.Equal(t, 1, steep.EnergyRank(0.9))
	require.Equal(t, 3, steep.EnergyRank(1), "zeros count for nothing")
	require.Less(t, steep.EntropyRank(), 1.6)
	require.InDelta(t, math.Sqrt(1.01/101.01), steep.Lost(1), 1e-9)
	require.Zero(t, steep.Lost(3))
	for _, zero := range []Spectrum{{0, 0}, {}} {
		require.Zero(t, zero.EntropyRank())
		require.Zero(t, zero.StableRank())
		require.Zero(t, zero.EnergyRank(0.9))
		require.Zero(t, zero.Lost(0))
	}
}

// A pair at its whole rank is what it was, whatever its scale; at another the loss is what
// the spectrum says.
func TestResizeIsIdentityAtFullRank(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []float64{1, 2.5, -0.3, 1e-4} {
		for _, s := range [][3]int{{30, 20, 6}, {7, 40, 7}, {5, 4, 9}, {1, 8, 1}} {
			p := pair(rng, s[0], s[1], s[2], scale)
			want := delta(p)
			f := p.Decompose()
			require.InEpsilon(t, norm(want), Spectrum(f.Values).Norm(), 1e-5)
			require.Less(t, apart(want, delta(Cut(f, p.Rank))), 3e-6)
			require.Less(t, apart(want, delta(Cut(f, 100))), 3e-6)
			for k := 1; k < min(s[0], s[1], s[2]); k++ {
				c := Cut(f, k)
				require.Equal(t, k, c.Rank)
				require.InDelta(t, Spectrum(f.Values).Lost(k), apart(want, delta(c)), 1e-5)
			}
		}
	}
}

func TestBudget(t *testing.T) {
	list := []Candidate{
		{Out: 10, In: 10, Spectrum: Spectrum{8, 4, 2, 1}},
		{Out: 100, In: 100, Spectrum: Spectrum{8, 4, 2, 1}},
		{Out: 10, In: 10, Spectrum: Spectrum{0, 0}},
		{Out: 10, In: 10, Spectrum: Spectrum{3, 3}, Energy: 100}, // the rest of it was not looked at
	}
	require.Equal(t, []int{4, 4, 0, 2}, Budget{}.Ranks(list))
	require.Equal(t, []int{2, 2, 0, 2}, Budget{Rank: 2}.Ranks(list))
	require.Equal(t, []int{2, 2, 0, 2}, Budget{Energy: 0.9}.Ranks(list))
	require.Equal(t, []int{1, 1, 0, 1}, Budget{Energy: 0.9, Rank: 1}.Ranks(list))
	require.Equal(t, []int{4, 4, 0, 2}, Budget{Energy: 1}.Ranks(list))
	// 20 numbers buy 64, 16, 9, 9, 4, 1 of the small modules; 200 buy 64 of the large one.
	require.Equal(t, []int{2, 0, 0, 2}, Budget{Params: 80}.Ranks(list))
	require.Equal(t, []int{4, 0, 0, 2}, Budget{Params: 279}.Ranks(list), "what does not fit makes room for what does")
	require.Equal(t, []int{2, 1, 0, 2}, Budget{Params: 299}.Ranks(list))
	require.Equal(t, []int{3, 1, 0, 2}, Budget{Params: 300}.Ranks(list))
	require.Equal(t, []int{4, 1, 0, 2}, Budget{Params: 320}.Ranks(list))
	require.Equal(t, []int{0, 0, 0, 0}, Budget{Params: 19}.Ranks(list))
	require.Equal(t, []int{4, 4, 0, 2}, Budget{Params: 1 << 40}.Ranks(list))
}
