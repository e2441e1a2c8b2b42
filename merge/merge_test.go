package merge

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

var codecs = tensor.NewCodecs(floats.Codecs()...)

func keep(i tensor.Info) tensor.DType { return i.DType }

func to(d tensor.DType) func(tensor.Info) tensor.DType {
	return func(tensor.Info) tensor.DType { return d }
}

func base(t *testing.T) tensor.Source {
	return tensortest.NewSource(t, tensor.Meta{{Key: "format", Value: "pt"}},
		tensortest.Normal("a.q.weight", tensor.Shape{9, 7}, 1, 1),
		tensortest.Normal("a.q.bias", tensor.Shape{9}, 1, 2),
		tensortest.Normal("a.k.weight", tensor.Shape{4, 7}, 1, 3),
		tensortest.Normal("norm.weight", tensor.Shape{7}, 1, 4))
}

func lowRankPair(module string, out, in, rank int64, seed uint64) []tensortest.Tensor {
	return []tensortest.Tensor{
		tensortest.Normal(module+suffixA, tensor.Shape{rank, in}, 1, seed),
		tensortest.Normal(module+suffixB, tensor.Shape{out, rank}, 1, seed+1),
	}
}

// deltas returns all that an adapter adds.
func deltas(t *testing.T, b tensor.Source, e *Effect) []Delta {
	var out []Delta
	for _, c := range e.Changes {
		ds, err := Deltas(b, codecs, c)
		require.NoError(t, err)
		out = append(out, ds...)
	}
	return out
}

func scaled(t *testing.T, b tensor.Source, e *Effect, factor float32) []Change {
	var out []Delta
	for _, d := range deltas(t, b, e) {
		out = append(out, Scaled(d, factor))
	}
	return Sums(out)
}

// merged is W + scale*B·A in float64.
func merged(t *testing.T, b, a tensor.Source, module string, scale float64) []float64 {
	w := tensortest.Floats(t, b, module+".weight")
	info, err := a.Info(module + suffixA)
	require.NoError(t, err)
	la, lb := tensortest.Floats(t, a, module+suffixA), tensortest.Floats(t, a, module+suffixB)
	rank, in := int(info.Shape[0]), int(info.Shape[1])
	out := make([]float64, len(w))
	for i := range w {
		out[i] = float64(w[i])
		for r := range rank {
			out[i] += scale * float64(lb[i/in*rank+r]) * float64(la[r*in+i%in])
		}
	}
	return out
}

// TestFanInFanOut merges into a weight that is stored transposed: the same sum,
// transposed.
func TestFanInFanOut(t *testing.T) {
	w := tensortest.Normal("c.weight", tensor.Shape{9, 7}, 1, 1)
	plain := tensortest.NewSource(t, nil, w)
	stored := tensortest.NewSource(t, nil, tensortest.Float32("c.weight", tensor.Shape{7, 9}, kernel.Transposed(tensortest.Floats(t, plain, "c.weight"), 9, 7)))
	a := tensortest.NewSource(t, nil, lowRankPair("c", 9, 7, 3, 10)...)
	want := merged(t, plain, a, "c", 2)
	ds, err := LoRA{}.Match(stored, a, codecs, Config{Rank: 3, Alpha: 6, FanInFanOut: true})
	require.NoError(t, err)
	v, err := View(stored, codecs, ds.Changes, keep)
	require.NoError(t, err)
	tensortest.TestSource(t, v)
	for i, got := range tensortest.Floats(t, v, "c.weight") {
		require.InDelta(t, want[i%9*7+i/9], got, 1e-5)
	}
	_, err = LoRA{}.Match(stored, a, codecs, Config{Rank: 3, Alpha: 6})
	require.ErrorContains(t, err, "[9, 7], the base's c.weight has shape [7, 9]")
}

func TestLoRA(t *testing.T) {
	b := base(t)
	for _, c := range []struct {
		cfg   Config
		scale float64
	}{
		{Config{Rank: 3, Alpha: 7}, 7.0 / 3},
		{Config{Rank: 3, Alpha: 7, UseRSLoRA: true}, 7 / math.Sqrt(3)},
		{Config{Rank: 1, Alpha: 2}, 2},
	} {
		t.Run(fmt.Sprintf("%+v", c.cfg), func(t *testing.T) {
			a := tensortest.NewSource(t, nil, append(lowRankPair("a.q", 9, 7, int64(c.cfg.Rank), 10), lowRankPair("a.k", 4, 7, int64(c.cfg.Rank), 20)...)...)
			ds, err := LoRA{}.Match(b, a, codecs, c.cfg)
			require.NoError(t, err)
			require.Len(t, ds.Changes, 2)
			require.False(t, deltas(t, b, ds)[0].Zero())
			v, err := View(b, codecs, ds.Changes, keep)
			require.NoError(t, err)
			tensortest.TestSource(t, v)
			require.Equal(t, b.Meta(), v.Meta())
			for _, module := range []string{"a.q", "a.k"} {
				got := tensortest.Floats(t, v, module+".weight")
				for i, want := range merged(t, b, a, module, c.scale) {
					require.InDelta(t, want, got[i], 1e-6*(1+math.Abs(want)))
				}
			}
			for _, name := range []string{"a.q.bias", "norm.weight"} {
				require.Equal(t, tensortest.Bytes(t, b, name), tensortest.Bytes(t, v, name), "untouched")
			}

			// Subtracting comes back to within rounding; other dtypes round
			// once at the end.
			back, err := View(v, codecs, scaled(t, b, ds, -1), keep)
			require.NoError(t, err)
			for i, want := range tensortest.Floats(t, b, "a.q.weight") {
				require.InDelta(t, want, tensortest.Floats(t, back, "a.q.weight")[i], 1e-5)
			}
			half, err := View(b, codecs, ds.Changes, to(tensor.BF16))
			require.NoError(t, err)
			want := tensortest.Floats(t, v, "a.q.weight")
			kernel.RoundBF16(want)
			_, got, err := codecs.ReadAll(half, "a.q.weight")
			require.NoError(t, err)
			require.Equal(t, want, got)
			info, err := half.Info("norm.weight")
			require.NoError(t, err)
			require.Equal(t, tensor.BF16, info.DType)
		})
	}
}

func TestTwoAdaptersAdd(t *testing.T) {
	b := base(t)
	one := tensortest.NewSource(t, nil, lowRankPair("a.q", 9, 7, 2, 10)...)
	two := tensortest.NewSource(t, nil, lowRankPair("a.q", 9, 7, 2, 20)...)
	d1, err := LoRA{}.Match(b, one, codecs, Config{Rank: 2, Alpha: 2})
	require.NoError(t, err)
	d2, err := LoRA{}.Match(b, two, codecs, Config{Rank: 2, Alpha: 6})
	require.NoError(t, err)
	v, err := View(b, codecs, Sums(append(deltas(t, b, d1), deltas(t, b, d2)...)), keep)
	require.NoError(t, err)
	w, m1, m2 := tensortest.Floats(t, b, "a.q.weight"), merged(t, b, one, "a.q", 1), merged(t, b, two, "a.q", 3)
	for i, got := range tensortest.Floats(t, v, "a.q.weight") {
		require.InDelta(t, m1[i]+m2[i]-float64(w[i]), got, 1e-5)
	}
}

func TestZeroDelta(t *testing.T) {
	b := base(t)
	zero := tensortest.Float32("a.q"+suffixB, tensor.Shape{9, 2}, make([]float32, 18))
	a := tensortest.NewSource(t, nil, lowRankPair("a.q", 9, 7, 2, 1)[0], zero)
	ds, err := LoRA{}.Match(b, a, codecs, Config{Rank: 2, Alpha: 2})
	require.NoError(t, err)
	require.True(t, deltas(t, b, ds)[0].Zero(), "an adapter that was never trained")
}

func TestRefused(t *testing.T) {
	b := base(t)
	q := lowRankPair("a.q", 9, 7, 2, 1)
	nan := tensortest.Float32("a.q"+suffixB, tensor.Shape{9, 2}, append(make([]float32, 17), float32(math.NaN())))
	for name, c := range map[string]struct {
		adapter []tensortest.Tensor
		is      error
		says    string
		hint    string
	}{
		"empty":                  {nil, tensor.ErrMalformed, "no tensors", ""},
		"another model":          {lowRankPair("b.q", 9, 7, 2, 1), tensor.ErrMalformed, `the base has no tensor "b.q.weight"`, "another model"},
		"another width":          {lowRankPair("a.q", 9, 8, 2, 1), tensor.ErrMalformed, "[9, 8], the base's a.q.weight has shape [9, 7]", "another model"},
		"another height":         {lowRankPair("a.q", 8, 7, 2, 1), tensor.ErrMalformed, "[8, 7]", "another model"},
		"rank of config":         {lowRankPair("a.q", 9, 7, 3, 1), tensor.ErrMalformed, "its rank is 3, the configuration says 2", "adapter_config.json"},
		"ranks differ":           {[]tensortest.Tensor{q[0], lowRankPair("a.q", 9, 7, 3, 1)[1]}, tensor.ErrMalformed, "[2, 7] and [9, 3]", ""},
		"A alone":                {q[:1], tensor.ErrMalformed, "there is no a.q.lora_B.weight", ""},
		"B alone":                {q[1:], tensor.ErrMalformed, "there is no a.q.lora_A.weight", ""},
		"unknown tensor":         {append(lowRankPair("a.q", 9, 7, 2, 1), tensortest.Normal("a.q.lora_diag", tensor.Shape{9}, 1, 1)), tensor.ErrUnsupported, "lora_diag", ""},
		"NaN":                    {[]tensortest.Tensor{q[0], nan}, tensor.ErrMalformed, "element 17 of the adapter is NaN", "verify"},
		"A vector, not a matrix": {[]tensortest.Tensor{tensortest.Normal("a.q"+suffixA, tensor.Shape{14}, 1, 1), q[1]}, tensor.ErrMalformed, "[rank, in]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoRA{}.Match(b, tensortest.NewSource(t, nil, c.adapter...), codecs, Config{Rank: 2, Alpha: 2})
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.Contains(t, hint.Of(err), c.hint)
		})
	}
}

func TestNaNInTheBase(t *testing.T) {
	w := make([]float32, 63)
	w[40] = float32(math.Inf(1))
	b := tensortest.NewSource(t, nil, tensortest.Float32("a.q.weight", tensor.Shape{9, 7}, w))
	ds, err := LoRA{}.Match(b, tensortest.NewSource(t, nil, lowRankPair("a.q", 9, 7, 2, 1)...), codecs, Config{Rank: 2, Alpha: 2})
	require.NoError(t, err)
	v, err := View(b, codecs, ds.Changes, keep)
	require.NoError(t, err)
	_, _, err = codecs.ReadAll(v, "a.q.weight")
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.ErrorContains(t, err, `tensor "a.q.weight"`)
	require.ErrorContains(t, err, "element 40 of the base is +Inf")
}

func TestViewRefuses(t *testing.T) {
	b := base(t)
	_, err := View(b, codecs, nil, to(tensor.Q4_K))
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	ds, err := LoRA{}.Match(b, tensortest.NewSource(t, nil, lowRankPair("a.q", 9, 7, 2, 1)...), codecs, Config{Rank: 2, Alpha: 2})
	require.NoError(t, err)
	_, err = View(tensortest.NewSource(t, nil, tensortest.Normal("norm.weight", tensor.Shape{7}, 1, 4)), codecs, ds.Changes, keep)
	require.ErrorIs(t, err, tensor.ErrNotFound)
}

func TestMethods(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Methods() {
		require.False(t, seen[m.Name()])
		seen[m.Name()] = true
	}
	require.True(t, seen["lora"])
}
