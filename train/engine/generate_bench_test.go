package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/train/model"
)

// qwen is Qwen2.5-0.5B with so many of its 24 blocks.
func qwen(b *testing.B, blocks int64) *arch.Model {
	a, err := arch.New(arch.ByName("qwen2"), &arch.Config{
		HiddenSize: 896, IntermediateSize: 4864, NumHiddenLayers: blocks, NumAttentionHeads: 14, NumKeyValueHeads: 2, HeadDim: 64,
		VocabSize: 151936, MaxPositionEmbeddings: 32768, NormEps: 1e-6, HiddenAct: "silu", TieWordEmbeddings: true, Rope: arch.Rope{Theta: 1000000, Type: "default"},
	})
	require.NoError(b, err)
	return a
}

// weights returns the weights of a model in BF16, random ones, but for linear layers of
// blocks where those are to be NF4.
func weights(b *testing.B, a *arch.Model, kind string) tensor.Source {
	rng := rand.NewChaCha8([32]byte{1})
	var list []tensortest.Tensor
	for _, t := range a.Tensors() {
		if kind == "nf4" && t.Linear && t.Layer >= 0 {
			list = append(list, nf4Tensor(rng, t))
			continue
		}
		info := tensor.Info{Name: t.Name, DType: tensor.BF16, Shape: t.Dims}
		data := make([]byte, info.Size())
		_, _ = rng.Read(data)
		for i := 1; i < len(data); i += 2 {
			data[i] = 0x3c | data[i]&0x80 // 0.008 to 0.016
		}
		list = append(list, tensortest.Tensor{Info: info, Data: data})
	}
	return tensortest.NewSource(b, nil, list...)
}

// readRate returns how many bytes all processors read from memory in a second.
func readRate(buf []byte) float64 {
	start := time.Now()
	var sum atomic.Uint64
	const part = 1 << 20
	kernel.Parallel(len(buf)/part, 1<<30, func(i int) { sum.Add(kernel.SumWords(buf[i*part : (i+1)*part])) })
	return float64(len(buf)) / time.Since(start).Seconds()
}

// BenchmarkGenerate makes tokens one at a time with the shape of Qwen2.5-0.5B, after a
// prompt of so many tokens, and says what share it is of reading its weights, as they are
// stored, and its keys and values from memory. Memory is measured between tokens, so that
// what else the machine does falls on both alike; the medians are reported.
func BenchmarkGenerate(b *testing.B) {
	const together = 4 // tokens from measurement to measurement
	a := qwen(b, 24)
	all := tensor.NewCodecs(append(floats.Codecs(), nf4.Codecs()...)...)
	buf := make([]byte, 256<<20)
	for i := range buf {
		buf[i] = byte(i) // memory that was never written is no memory
	}
	for _, kind := range []string{"nf4", "bf16"} {
		src := weights(b, a, kind)
		var stored int64
		for info := range src.All() {
			stored += info.Size()
		}
		adapters := model.Trainable{Adapters: map[string]*model.Adapter{}}
		for i, t := range a.Tensors() {
			if t.Linear && t.Layer >= 0 {
				ad := model.NewAdapter(t, 16, 2, 0, uint64(i))
				require.NoError(b, ad.Fill())
				adapters.Adapters[t.Module()] = ad
			}
		}
		e, err := New(src, all, a, model.Trainable{}, Options{Choices: Choices{Slots: 24, ResidentHead: true}, Positions: 8192})
		require.NoError(b, err)
		b.Cleanup(e.Close)
		for _, with := range []string{"", "/adapter"} {
			for _, prompt := range []int{16, 1024} {
				b.Run(fmt.Sprintf("%s%s/after=%d", kind, with, prompt), func(b *testing.B) {
					e.Use(model.Trainable{})
					if with != "" {
						e.Use(adapters)
					}
					g := e.NewGenerator()
					seq := make([]int32, prompt)
					for i := range seq {
						seq[i] = int32(i * 977 % 151936)
					}
					var before, after runtime.MemStats
					var tokens, memory, shares []float64
					n, start := 0, time.Time{}
					_, err = g.Generate(context.Background(), seq, Sampling{}, func(int32) bool {
						b.StopTimer()
						defer b.StartTimer()
						switch n++; {
						case n == together:
							b.ResetTimer()
							runtime.ReadMemStats(&before)
						case n > together && n%together == 0:
							rate := together / time.Since(start).Seconds()
							read := readRate(buf)
							bytes := float64(stored) + float64(model.CacheBytes(a, prompt+n))
							tokens, memory, shares = append(tokens, rate), append(memory, read), append(shares, bytes*rate/read)
						}
						if n%together == 0 {
							start = time.Now()
						}
						return n < together*(b.N+1)
					})
					require.NoError(b, err)
					runtime.ReadMemStats(&after)
					for _, list := range [][]float64{tokens, memory, shares} {
						slices.Sort(list)
					}
					mid := len(tokens) / 2
					b.ReportMetric(tokens[mid], "tokens/s")
					b.ReportMetric(memory[mid]/1e9, "GB/s-memory")
					b.ReportMetric(100*shares[mid], "%-of-memory")
					made := float64(together * b.N)
					b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/made, "B/token")
					b.ReportMetric(float64(after.Mallocs-before.Mallocs)/made, "allocs/token")
				})
			}
		}
	}
}
