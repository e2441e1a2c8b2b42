package merge

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// BenchmarkView reads a bf16 matrix with a delta of rank 64.
func BenchmarkView(b *testing.B) {
	const rows, cols, rank = 4096, 4096, 64
	base := tensortest.NewSource(b, nil, tensortest.Tensor{
		Info: tensor.Info{Name: "a.weight", DType: tensor.BF16, Shape: tensor.Shape{rows, cols}},
		Data: make([]byte, 2*rows*cols),
	})
	adapter := tensortest.NewSource(b, nil,
		tensortest.Normal("a.lora_A.weight", tensor.Shape{rank, cols}, 1, 1),
		tensortest.Normal("a.lora_B.weight", tensor.Shape{rows, rank}, 1, 2))
	e, err := LoRA{}.Match(base, adapter, codecs, Config{Rank: rank, Alpha: 2 * rank})
	require.NoError(b, err)
	v, err := View(base, codecs, e.Changes, keep)
	require.NoError(b, err)
	buf := make([]byte, 1<<20)
	b.SetBytes(2 * rows * cols)
	for b.Loop() {
		r, err := v.Raw("a.weight")
		require.NoError(b, err)
		for {
			if _, err := r.Read(buf); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
