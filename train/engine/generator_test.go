package engine

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
)

// on returns what a Generator continues a sequence with.
func on(t *testing.T, g *Generator, sequence []int32, o Sampling, n int) ([]int32, Turn) {
	t.Helper()
	var out []int32
	turn, err := g.Generate(context.Background(), sequence, o, func(token int32) bool {
		out = append(out, token)
		return len(out) < n
	})
	require.NoError(t, err)
	return out, turn
}

func random(seed uint64, n int) []int32 {
	rng := rand.New(rand.NewPCG(seed, 7))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(rng.IntN(37))
	}
	return out
}

// sliding is a model with a window of so many tokens in every other layer.
func sliding(window int64) func(c *arch.Config) {
	return func(c *arch.Config) {
		c.MaxPositionEmbeddings, c.SlidingWindow = 8192, window
		for l := range c.NumHiddenLayers {
			c.LayerTypes = append(c.LayerTypes, []string{"sliding_attention", "full_attention"}[l%2])
		}
	}
}

func engineOf(t *testing.T, slots, positions int, change func(c *arch.Config)) *Engine {
	t.Helper()
	a := tensortest.TinyLlama(t, change)
	e, err := New(tensortest.NewModel(t, a, 4), codecs, a, model.Trainable{}, Options{Choices: Choices{Slots: slots}, Positions: positions})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// A conversation costs its new tokens, and what comes of it is what comes of the same
// calls anywhere else.
func TestGeneratorGoesOn(t *testing.T) {
	o := Sampling{Temperature: 1, TopK: 20, Seed: 3}
	for name, change := range map[string]func(*arch.Config){"full": nil, "sliding": sliding(5)} {
		t.Run(name, func(t *testing.T) {
			e := engineOf(t, 3, 400, change)
			g := e.NewGenerator()
			first := random(1, 30)
			a, turn := on(t, g, first, o, 12)
			require.Equal(t, Turn{Read: 30, Made: 12}, Turn{Reused: turn.Reused, Read: turn.Read, Made: turn.Made})

			second := append(append(slices.Clone(first), a...), random(2, 9)...)
			b, turn := on(t, g, second, o, 8)
			require.Equal(t, 30+11, turn.Reused, "the last token that was made has not been read")
			require.Equal(t, 1+9, turn.Read)

			// Another engine, streamed, by other processors.
			before := runtime.GOMAXPROCS(3)
			other := engineOf(t, 2, 400, change).NewGenerator()
			a2, _ := on(t, other, first, o, 12)
			require.Equal(t, a, a2)
			b2, _ := on(t, other, second, o, 8)
			require.Equal(t, b, b2)
			runtime.GOMAXPROCS(before)

			// Again, from the prompt's end: it is all there.
			again, turn := on(t, g, second, o, 8)
			require.Equal(t, len(second), turn.Reused)
			require.Equal(t, b, again)

			// With another sequence between, nothing is left of the first.
			on(t, g, random(9, 50), o, 5)
			a3, turn := on(t, g, first, o, 12)
			require.Zero(t, turn.Reused)
			require.Equal(t, a, a3)

			// Greedy text is that of no cache.
			for range 3 {
				got, _ := on(t, g, second, Sampling{}, 10)
				require.Equal(t, got, generate(t, e, second, Sampling{}, 10))
				second = append(append(second, got...), random(uint64(len(second)), 20)...)
			}
		})
	}
}

// logitsOf returns the logits after a sequence.
func logitsOf(t *testing.T, g *Generator, sequence []int32) []float32 {
	t.Helper()
	var out []float32
	_, err := g.Generate(context.Background(), sequence, Sampling{}, func(int32) bool {
		out = slices.Clone(g.logits)
		return false
	})
	require.NoError(t, err)
	return out
}

// What is left of a sequence that goes on in another way is what it would be if it had
// never been longer, bit for bit.
func TestGeneratorRewinds(t *testing.T) {
	for name, change := range map[string]func(*arch.Config){"full": sliding(0), "sliding": sliding(40)} {
		t.Run(name, func(t *testing.T) {
			e := engineOf(t, 3, 8192, change)
			base := random(1, 700)
			for _, longer := range []int{1, 300, 3000} {
				g, fresh := e.NewGenerator(), e.NewGenerator()
				long := append(slices.Clone(base), random(2, longer)...)
				logitsOf(t, g, base)
				logitsOf(t, g, long)
				next := append(slices.Clone(base), append([]int32{36}, random(3, 20)...)...)
				if next[len(base)] == long[len(base)] {
					next[len(base)] = 35
				}
				logitsOf(t, fresh, base)
				want := logitsOf(t, fresh, next)
				if name == "sliding" && longer == 3000 {
					// What the window saw is gone.
					want = logitsOf(t, e.NewGenerator(), next)
				}
				require.Equal(t, want, logitsOf(t, g, next), "%d longer", longer)
				require.LessOrEqual(t, g.Bytes(), model.CacheBytes(e.arch, 8192))
			}
		})
	}
}

// A layer with a window keeps what it sees and no more, and the logits are those of a
// sequence that is computed whole.
func TestGeneratorWindows(t *testing.T) {
	e := engineOf(t, 3, 8192, sliding(16))
	all := engineOf(t, 3, 8192, sliding(0))
	seq := random(5, 6000)
	g := e.NewGenerator()
	var got []float32
	for at := 1500; at <= len(seq); at += 1500 {
		got = logitsOf(t, g, seq[:at])
	}
	// Three layers, two of which slide: the last token sees 15 before it there.
	batch := &model.Batch{}
	batch.Add(seq, len(seq)-1)
	sums, err := e.Loss(context.Background(), []*model.Batch{batch})
	require.NoError(t, err)
	one := logitsOf(t, e.NewGenerator(), seq[:len(seq)-1])
	require.InDelta(t, sums[0], crossEntropy(one, seq[len(seq)-1]), 1e-4)
	whole := logitsOf(t, e.NewGenerator(), seq)
	for i, v := range whole {
		require.InDelta(t, v, got[i], 1e-4)
	}
	full := all.NewGenerator()
	logitsOf(t, full, seq)
	require.Less(t, g.Bytes(), full.Bytes()*2/3)
	require.LessOrEqual(t, g.Bytes(), model.CacheBytes(e.arch, 8192))
	require.Less(t, model.CacheBytes(e.arch, 8192), model.CacheBytes(all.arch, 8192)/2)
}

func crossEntropy(logits []float32, label int32) float64 {
	s := newSampler(len(logits), Sampling{Temperature: 1})
	w := slices.Clone(logits)
	own := logits[label]
	top := slices.Max(w)
	return float64(top-own) + math.Log(s.weigh(w, top))
}

// What ends in the middle of a block leaves a cache that can be used.
func TestGeneratorInterrupted(t *testing.T) {
	for _, slots := range []int{2, 3} {
		e := engineOf(t, slots, 8192, sliding(24))
		g := e.NewGenerator()
		seq := random(8, 3000)
		want := logitsOf(t, e.NewGenerator(), seq)
		ctx, cancel := context.WithCancelCause(context.Background())
		over := errors.New("over")
		n := 0
		_, err := g.Generate(ctx, seq[:1200], Sampling{}, func(int32) bool {
			if n++; n == 3 {
				cancel(over)
			}
			return true
		})
		require.ErrorIs(t, err, over)
		require.Equal(t, 3, n)
		_, err = g.Generate(ctx, seq, Sampling{}, nil)
		require.ErrorIs(t, err, over)
		got := logitsOf(t, g, seq)
		for i, v := range want {
			require.InDelta(t, v, got[i], 1e-4)
		}
	}
}

// Switching an adapter on is having had it from the start, and reads nothing again.
func TestUse(t *testing.T) {
	a := tensortest.TinyLlama(t, nil)
	adapter := func(seed uint64) model.Trainable {
		out := model.Trainable{Adapters: map[string]*model.Adapter{}}
		for i, x := range a.Tensors() {
			if x.Linear && x.Layer >= 0 {
				ad := model.NewAdapter(x, 4, 2, 0, seed+uint64(i))
				require.NoError(t, ad.Fill())
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for j := range ad.B.Data {
					ad.B.Data[j] = float32(rng.NormFloat64())
				}
				out.Adapters[x.Module()] = ad
			}
		}
		name := a.Tensors()[len(a.Tensors())-1].Name
		for _, x := range a.Tensors() {
			if x.Name == name {
				p := &optim.Param{Name: name, Shape: x.Dims, Layer: x.Layer, Data: make([]float32, x.Dims[0])}
				if len(x.Dims) > 1 {
					p.Data = make([]float32, x.Dims[0]*x.Dims[1])
				}
				for j := range p.Data {
					p.Data[j] = float32(j%7) / 7
				}
				out.Params = map[string]*optim.Param{name: p}
			}
		}
		return out
	}
	src := tensortest.NewModel(t, a, 4)
	seq := random(4, 40)
	for _, slots := range []int{2, int(a.NumHiddenLayers)} {
		start := func(train model.Trainable) *Engine {
			e, err := New(src, codecs, a, train, Options{Choices: Choices{Slots: slots, ResidentHead: true}, Positions: 100})
			require.NoError(t, err)
			t.Cleanup(e.Close)
			return e
		}
		e := start(model.Trainable{})
		g := e.NewGenerator()
		none, _ := on(t, g, seq, Sampling{}, 20)
		read := e.Stats().BytesRead
		seen := map[string]bool{}
		for _, x := range []model.Trainable{adapter(1), adapter(2), {}, adapter(1)} {
			e.Use(x)
			got, turn := on(t, g, seq, Sampling{}, 20)
			require.Zero(t, turn.Reused, "keys and values are another model's")
			want, _ := on(t, start(x).NewGenerator(), seq, Sampling{}, 20)
			require.Equal(t, want, got)
			if x.Adapters != nil {
				require.NotEqual(t, none, got)
			} else {
				require.Equal(t, none, got)
			}
			seen[string(runes(got))] = true
		}
		require.Len(t, seen, 3)
		if slots > 2 {
			require.Equal(t, read, e.Stats().BytesRead)
		}
	}
}

func runes(ids []int32) (out []rune) {
	for _, id := range ids {
		out = append(out, id+'0')
	}
	return out
}
