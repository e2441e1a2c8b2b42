package merge

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// TestCache loads once for any number of users, and again only what was put out.
func TestCache(t *testing.T) {
	c := &cache{}
	var loads atomic.Int32
	get := func(key string, size int64) (string, error) {
		return fetch(c, key, size, func() (string, error) {
			loads.Add(1)
			if key == "bad" {
				return "", errors.New("unreadable")
			}
			return "of " + key, nil
		})
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			v, err := get("a", 1)
			require.NoError(t, err)
			require.Equal(t, "of a", v)
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, loads.Load())
	_, err := get("bad", 1)
	require.ErrorContains(t, err, "unreadable")
	_, err = get("bad", 1)
	require.Error(t, err)
	require.EqualValues(t, 3, loads.Load(), "what failed is tried again")
	for i := range 4 {
		_, err := get(fmt.Sprint(i), cacheBytes/2)
		require.NoError(t, err)
	}
	require.LessOrEqual(t, c.used, int64(cacheBytes))
	_, err = get("3", cacheBytes/2)
	require.NoError(t, err)
	require.EqualValues(t, 7, loads.Load(), "kept")
	_, err = get("a", 1)
	require.NoError(t, err)
	require.EqualValues(t, 8, loads.Load(), "put out")
	_, err = get("huge", 3*cacheBytes)
	require.NoError(t, err)
	require.Len(t, c.list, 1, "what is larger than all is kept alone")
}

// TestStackThatIsOneTensor adds to experts that lie in one tensor what it adds to
// those that lie apart.
func TestStackThatIsOneTensor(t *testing.T) {
	const experts, d1, d2, rank = 3, 4, 5, 2
	w := tensortest.Normal("m.experts.down_proj", tensor.Shape{experts, d1, d2}, 1, 1)
	whole := tensortest.NewSource(t, nil, w)
	values := tensortest.Floats(t, whole, "m.experts.down_proj")
	var list []tensortest.Tensor
	var names []string
	for e := range experts {
		names = append(names, fmt.Sprintf("m.experts.%d.down_proj.weight", e))
		list = append(list, tensortest.Float32(names[e], tensor.Shape{d1, d2}, values[e*d1*d2:][:d1*d2]))
	}
	apart := tensortest.NewSource(t, nil, list...)
	swapped := true
	for _, arithmetic := range []Arithmetic{Once, PEFT, PEFTSafe} {
		for _, sides := range [][2]int64{{d2, d1}, {d1, d2}} {
			a := tensortest.NewSource(t, nil,
				tensortest.Normal("m.experts.lora_A.weight", tensor.Shape{experts * rank, sides[0]}, 1, 2),
				tensortest.Normal("m.experts.lora_B.weight", tensor.Shape{sides[1], experts * rank}, 1, 3))
			cfg := Config{Rank: rank, Alpha: 3, Parameters: []string{"experts.down_proj"}, SwappedExperts: &swapped, Arithmetic: arithmetic,
				Stacked: func(name string) [][]string {
					if name != "m.experts.down_proj" {
						return nil
					}
					return [][]string{names}
				}}
			one, err := LoRA{}.Match(whole, a, codecs, cfg)
			require.NoError(t, err)
			require.Len(t, one.Changes, 1)
			require.False(t, deltasIn(one.Changes[0])[0].Zero())
			v, err := View(whole, codecs, one.Changes, keep)
			require.NoError(t, err)
			tensortest.TestSource(t, v)
			each, err := LoRA{}.Match(apart, a, codecs, cfg)
			require.NoError(t, err)
			require.Len(t, each.Changes, experts)
			u, err := View(apart, codecs, each.Changes, keep)
			require.NoError(t, err)
			got := tensortest.Floats(t, v, "m.experts.down_proj")
			for e, name := range names {
				require.Equal(t, tensortest.Floats(t, u, name), got[e*d1*d2:][:d1*d2])
			}
		}
	}
}

// TestParameterThatIsAMatrix has a pair for a tensor that is no layer's weight.
func TestParameterThatIsAMatrix(t *testing.T) {
	b := tensortest.NewSource(t, nil, tensortest.Normal("m.router", tensor.Shape{9, 7}, 1, 1))
	a := tensortest.NewSource(t, nil, lowRankPair("m", 9, 7, 2, 5)...)
	e, err := LoRA{}.Match(b, a, codecs, Config{Rank: 2, Alpha: 3, Parameters: []string{"m.router"}})
	require.NoError(t, err)
	v, err := View(b, codecs, e.Changes, keep)
	require.NoError(t, err)
	w := tensortest.Floats(t, b, "m.router")
	fb, fa, rank, scale, err := deltas(t, b, e)[0].(LowRank).Factors()
	require.NoError(t, err)
	for i, got := range tensortest.Floats(t, v, "m.router") {
		want := float64(w[i])
		for r := range rank {
			want += float64(scale) * float64(fb[i/7*rank+r]) * float64(fa[r*7+i%7])
		}
		require.InDelta(t, want, got, 1e-5)
	}
}

// TestDoRAAfterOthers scales by the norm of the base alone, whatever has been
// added to the weight by then.
func TestDoRAAfterOthers(t *testing.T) {
	b := base(t)
	plain := tensortest.NewSource(t, nil, lowRankPair("a.q", 9, 7, 2, 10)...)
	decomposed := tensortest.NewSource(t, nil, append(lowRankPair("a.q", 9, 7, 2, 20), tensortest.Normal("a.q.lora_magnitude_vector", tensor.Shape{9}, 1, 30))...)
	cfg := Config{Rank: 2, Alpha: 3, Arithmetic: PEFT}
	one, err := LoRA{}.Match(b, plain, codecs, cfg)
	require.NoError(t, err)
	cfg.DoRA = true
	two, err := LoRA{}.Match(b, decomposed, codecs, cfg)
	require.NoError(t, err)
	changes, err := Join(b, codecs, PEFT, one.Changes, two.Changes)
	require.NoError(t, err)
	require.Len(t, changes, 1)
	v, err := View(b, codecs, changes, keep)
	require.NoError(t, err)
	alone, err := View(b, codecs, two.Changes, keep)
	require.NoError(t, err)
	sum, err := View(b, codecs, Sums(deltasIn(one.Changes[0])), keep)
	require.NoError(t, err)
	direction, err := View(b, codecs, Sums(deltasIn(two.Changes[0])), keep)
	require.NoError(t, err)
	// alone = f * (W + D2), so what is after both is f * (W + D1 + D2).
	w, s, d, only := tensortest.Floats(t, b, "a.q.weight"), tensortest.Floats(t, sum, "a.q.weight"), tensortest.Floats(t, direction, "a.q.weight"), tensortest.Floats(t, alone, "a.q.weight")
	for i, got := range tensortest.Floats(t, v, "a.q.weight") {
		factor := float64(only[i]) / float64(d[i])
		require.InDelta(t, factor*(float64(d[i])+float64(s[i])-float64(w[i])), got, 1e-4)
	}
}

// TestDoRAOfNothing cannot divide by a norm of 0.
func TestDoRAOfNothing(t *testing.T) {
	b := tensortest.NewSource(t, nil, tensortest.Float32("a.weight", tensor.Shape{2, 3}, make([]float32, 6)))
	a := tensortest.NewSource(t, nil,
		tensortest.Normal("a.lora_A.weight", tensor.Shape{1, 3}, 1, 1), tensortest.Float32("a.lora_B.weight", tensor.Shape{2, 1}, make([]float32, 2)),
		tensortest.Normal("a.lora_magnitude_vector", tensor.Shape{2}, 1, 2))
	e, err := LoRA{}.Match(b, a, codecs, Config{Rank: 1, Alpha: 1, DoRA: true})
	require.NoError(t, err)
	v, err := View(b, codecs, e.Changes, keep)
	require.NoError(t, err)
	_, _, err = codecs.ReadAll(v, "a.weight")
	require.ErrorContains(t, err, "the norm of output 0")
}

// TestTwoThatReplace cannot both be done.
func TestTwoThatReplace(t *testing.T) {
	b := base(t)
	bias := tensortest.NewSource(t, nil, tensortest.Normal("a.q.bias", tensor.Shape{9}, 1, 7))
	rows := tensortest.NewSource(t, nil, tensortest.Normal("a.q.token_adapter.trainable_tokens_delta", tensor.Shape{2, 7}, 1, 7))
	match := func(a tensor.Source, tokens ...int64) []Change {
		e, err := LoRA{}.Match(b, a, codecs, Config{Rank: 1, Alpha: 1, Bias: "all", Tokens: []Tokens{{"q", tokens}}[:min(1, len(tokens))]})
		require.NoError(t, err)
		return e.Changes
	}
	_, err := Join(b, codecs, Once, match(bias), match(bias))
	require.ErrorIs(t, err, tensor.ErrUnsupported)
	_, err = Join(b, codecs, Once, match(rows, 1, 2), match(rows, 2, 3))
	require.ErrorContains(t, err, "row 2")
	for _, a := range []Arithmetic{Once, PEFT} {
		changes, err := Join(b, codecs, a, match(rows, 1, 2), match(rows, 0, 3))
		require.NoError(t, err)
		v, err := View(b, codecs, changes, keep)
		require.NoError(t, err)
		got, want := tensortest.Floats(t, v, "a.q.weight"), tensortest.Floats(t, rows, "a.q.token_adapter.trainable_tokens_delta")
		for i, row := range []int{1, 2, 0, 3} {
			for j, x := range want[i%2*7:][:7] {
				require.InDelta(t, x, got[row*7+j], 1e-6)
			}
		}
	}
}

// FuzzMatch makes up a base, an adapter and a configuration. Whatever they are, the
// answer is an error or changes that can be made.
func FuzzMatch(f *testing.F) {
	names := []string{
		"e.weight", "h.weight", "l.layers.0.q.weight", "l.layers.1.q.weight", "l.layers.0.q.bias", "l.layers.0.experts.down_proj", "l.layers.0.experts.gate_up_proj",
		"l.layers.0.q.lora_A.weight", "l.layers.0.q.lora_B.weight", "l.layers.0.q.lora_B.bias", "l.layers.0.q.lora_magnitude_vector",
		"l.layers.1.q.base_layer.lora_A.weight", "l.layers.1.q.base_layer.lora_B.weight", "e.lora_embedding_A", "e.lora_embedding_B", "e.base_layer.weight",
		"h.lora_A.weight", "h.lora_B.weight", "h.base_layer.weight", "e.token_adapter.trainable_tokens_delta",
		"l.layers.0.experts.lora_A.weight", "l.layers.0.experts.lora_B.weight", "l.layers.0.experts.base_layer.lora_A.weight", "l.layers.0.experts.base_layer.lora_B.weight",
		"model.l.layers.0.q.lora_A.weight", "x.lora_", "",
	}
	f.Add([]byte{2, 2, 4, 3}, []byte{7, 2, 1, 3, 8, 2, 4, 1}, uint16(0), uint8(1))
	f.Add([]byte{0, 2, 5, 3}, []byte{15, 2, 6, 3, 13, 2, 2, 6, 14, 2, 3, 2}, uint16(0x10), uint8(2))
	f.Add([]byte{5, 3, 2, 3, 4, 6, 3, 2, 6, 3}, []byte{20, 2, 4, 4, 21, 2, 3, 4, 22, 2, 4, 3, 23, 2, 6, 4}, uint16(0x8), uint8(2))
	f.Add([]byte{0, 2, 5, 3}, []byte{19, 2, 2, 3}, uint16(0x30), uint8(2))
	f.Add([]byte{2, 2, 4, 3, 4, 1, 4}, []byte{7, 2, 1, 3, 8, 2, 4, 1, 9, 1, 4, 10, 1, 4}, uint16(0x3), uint8(1))
	f.Add([]byte{2, 2, 4, 3, 3, 2, 4, 3}, []byte{11, 2, 1, 3, 12, 2, 4, 1}, uint16(0x40), uint8(1))
	f.Fuzz(func(t *testing.T, baseLayout, adapterLayout []byte, flags uint16, rank uint8) {
		source := func(layout []byte) tensor.Source {
			var list []tensortest.Tensor
			seen := make(map[string]bool)
			for len(layout) >= 2 && len(list) < 16 {
				name, dims := names[int(layout[0])%len(names)], int(layout[1])%4
				layout = layout[2:]
				var shape tensor.Shape
				for range min(dims, len(layout)) {
					shape = append(shape, int64(layout[0])%9)
					layout = layout[1:]
				}
				if !seen[name] {
					seen[name] = true
					list = append(list, tensortest.Normal(name, shape, 1, uint64(len(list))))
				}
			}
			return tensortest.NewSource(t, nil, list...)
		}
		on := func(bit int) bool { return flags>>bit&1 == 1 }
		b, a := source(baseLayout), source(adapterLayout)
		cfg := Config{
			Rank: int(rank), Alpha: 1, DoRA: on(0), LoRABias: on(1), FanInFanOut: on(2), UseRSLoRA: on(7), TiedAdapter: on(8), Untie: on(9),
			Arithmetic: Arithmetic(flags >> 10 % 3), SwappedExperts: map[bool]*bool{true: new(bool)}[on(12)],
		}
		if on(3) {
			cfg.Parameters = []string{"experts.down_proj", "experts.gate_up_proj", "q.weight"}
		}
		if on(4) {
			cfg.Embedding, cfg.Head = "e.weight", "h.weight"
		}
		if on(5) {
			cfg.Tokens = []Tokens{{"e", []int64{int64(rank), 1}}}
		}
		if on(6) {
			cfg.Replication = [][2]int64{{0, 1}, {0, int64(rank) % 4}}
		}
		if on(13) {
			cfg.Initial = a
		}
		e, err := LoRA{}.Match(b, a, codecs, cfg)
		if err != nil {
			return
		}
		changes, err := e.Weighted(float64(rank) / 2)
		require.NoError(t, err)
		all, err := Join(e.Base, codecs, cfg.Arithmetic, e.Changes, changes)
		if err != nil {
			all = changes
		}
		v, account, err := Measured(e.Base, codecs, all, keep)
		require.NoError(t, err)
		for info := range v.All() {
			_, _, _ = codecs.ReadAll(v, info.Name)
		}
		account.Tensors()
	})
}
