package receipt_test

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/merge"
	"github.com/seed18967229/nibble/merge/receipt"
	"github.com/seed18967229/nibble/tensor"
)

// large is a merge of deltas of 1e-3 and rank 64 into a BF16 matrix.
func large(b *testing.B) (j job, bytes int64) {
	const rows, cols, rank = 4096, 3072, 64
	work := b.TempDir()
	dir := filepath.Join(work, "base")
	d := writeModel(b, dir, 0, as(b, tensor.BF16, tensortest.Normal("a.q.weight", tensor.Shape{rows, cols}, 0.02, 1)))
	s := math.Sqrt(1e-3 / 8)
	a := tensortest.NewSource(b, nil,
		tensortest.Normal("a.q.lora_A.weight", tensor.Shape{rank, cols}, s, 2), tensortest.Normal("a.q.lora_B.weight", tensor.Shape{rows, rank}, s, 3))
	e, err := merge.LoRA{}.Match(d, a, codecs, merge.Config{Rank: rank, Alpha: rank})
	require.NoError(b, err)
	return job{base: d, dir: dir, changes: e.Changes, out: filepath.Join(work, "out"), receipt: filepath.Join(work, "receipt")}, 2 * rows * cols
}

func BenchmarkWrite(b *testing.B) {
	j, n := large(b)
	v, err := merge.View(j.base, codecs, j.changes, func(i tensor.Info) tensor.DType { return i.DType })
	require.NoError(b, err)
	b.SetBytes(n)
	for b.Loop() {
		w, err := receipt.Create(j.receipt, receipt.Options{Base: j.base, Files: files(b, j.dir), Codecs: codecs, Changes: j.changes, Force: true})
		require.NoError(b, err)
		require.NoError(b, w.Merged(v))
		require.NoError(b, w.Finish(context.Background()))
	}
}

func BenchmarkRestore(b *testing.B) {
	j, n := large(b)
	require.NoError(b, j.run(b))
	m, err := hf.Open(j.out)
	require.NoError(b, err)
	defer m.Close()
	r, err := receipt.Open(j.receipt)
	require.NoError(b, err)
	defer r.Close()
	b.SetBytes(n)
	for b.Loop() {
		_, err := r.Restore(context.Background(), m, codecs, receipt.RestoreOptions{
			Out: filepath.Join(b.TempDir(), "back"), Dir: j.out, Progress: func(int64) {},
		})
		require.NoError(b, err)
	}
}
