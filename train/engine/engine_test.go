package engine

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/train/model"
)

var codecs = tensor.NewCodecs(floats.Codecs()...)

func newEngine(t *testing.T, slots, positions int) *Engine {
	t.Helper()
	a := tensortest.TinyLlama(t, nil)
	e, err := New(tensortest.NewModel(t, a, 4), codecs, a, model.Trainable{}, Options{Choices: Choices{Slots: slots}, Positions: positions})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

func generate(t *testing.T, e *Engine, prompt []int32, o Sampling, n int) []int32 {
	t.Helper()
	var out []int32
	require.NoError(t, e.Generate(context.Background(), prompt, o, func(token int32) bool {
		out = append(out, token)
		return len(out) < n
	}))
	return out
}

func TestGenerate(t *testing.T) {
	prompt := []int32{3, 1, 4, 1, 5}
	want := generate(t, newEngine(t, 3, 64), prompt, Sampling{}, 20)
	require.Len(t, want, 20)
	require.Equal(t, want, generate(t, newEngine(t, 2, 64), prompt, Sampling{}, 20), "streamed is resident")

	// The greedy token is the one of least loss.
	e := newEngine(t, 2, 64)
	for i, token := range want[:3] {
		best, least := int32(-1), math.Inf(1)
		var batches []*model.Batch
		for candidate := range int32(37) {
			b := &model.Batch{}
			tokens := append(append(append([]int32(nil), prompt...), want[:i]...), candidate)
			b.Add(tokens, len(tokens)-1)
			batches = append(batches, b)
		}
		sums, err := e.Loss(context.Background(), batches)
		require.NoError(t, err)
		for candidate, s := range sums {
			if s < least {
				best, least = int32(candidate), s
			}
		}
		require.Equal(t, token, best, "token %d", i)
	}

	// Sampling repeats with the seed and differs without.
	hot := Sampling{Temperature: 2, Seed: 1}
	a := generate(t, e, prompt, hot, 20)
	require.Equal(t, a, generate(t, e, prompt, hot, 20))
	hot.Seed = 2
	require.NotEqual(t, a, generate(t, e, prompt, hot, 20))

	require.Len(t, generate(t, newEngine(t, 2, 8), prompt, Sampling{}, 100), 4, "8 positions hold a prompt of 5 and 3 more, the last of which is predicted only")
	require.ErrorIs(t, e.Generate(context.Background(), nil, Sampling{}, nil), tensor.ErrMalformed)
	require.ErrorIs(t, e.Generate(context.Background(), []int32{99}, Sampling{}, nil), tensor.ErrMalformed)
}

func TestEvaluateDoesNotDependOnGroups(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	var list [][]int32
	for range 7 {
		tokens := make([]int32, 2+rng.IntN(9))
		for i := range tokens {
			tokens[i] = int32(rng.IntN(37))
		}
		list = append(list, tokens)
	}
	var want float64
	for i, group := range []int{1, 3, 7, 100} {
		sum, labels, err := Evaluate(context.Background(), newEngine(t, 2, 64), len(list), group, func(b *model.Batch, i int) error {
			b.Add(list[i], 0)
			return nil
		})
		require.NoError(t, err)
		if i == 0 {
			want = sum
		}
		require.InDelta(t, want, sum, 1e-5)
		n := 0
		for _, l := range list {
			n += len(l) - 1
		}
		require.Equal(t, n, labels)
	}
}

func TestOrder(t *testing.T) {
	e := &Engine{blocks: 5, ahead: 3}
	require.Equal(t, []int{1, 2, 3}, e.order(0, 1))
	require.Equal(t, []int{4, 3, 2}, e.order(3, 1), "forward is followed by backward")
	require.Equal(t, []int{3, 2, 1}, e.order(4, 1))
	require.Equal(t, []int{0, 1, 2}, e.order(1, -1), "and backward by the next step")
	require.Equal(t, []int{4, 0, 1}, e.around(3))
	one := &Engine{blocks: 1, ahead: 2}
	require.Empty(t, one.order(0, 1))
	require.Empty(t, one.around(0))
}

func TestTheBaseIsReadOnceForAllMicroBatches(t *testing.T) {
	read := func(batches ...*model.Batch) int64 {
		e := newEngine(t, 2, 64)
		_, err := e.Grad(context.Background(), batches, nil, 1)
		require.NoError(t, err)
		e.Close() // what is being read ahead counts too
		return e.Stats().BytesRead
	}
	b := &model.Batch{}
	b.Add([]int32{1, 2, 3}, 0)
	require.Positive(t, read(b))
	require.InDelta(t, read(b), read(b, b, b, b), 1.5*float64(read(b))/6, "but for a block that is read ahead or not yet")
}
