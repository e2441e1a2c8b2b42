package imatrix

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/tensor"
)

// Write writes the GGUF form, the same bytes as llama.cpp's tool: entries are
// in order of name. The file has its name only once it is complete; unless
// force is set, none of that name may exist.
func Write(path string, f *File, force bool) error {
	if f.Chunks < 0 || int64(f.Chunks) > math.MaxUint32 || f.ChunkSize < 0 || int64(f.ChunkSize) > math.MaxUint32 {
		return fmt.Errorf("%s: %d chunks of %d tokens cannot be stored", path, f.Chunks, f.ChunkSize)
	}
	entries := slices.SortedFunc(slices.Values(f.Entries), func(a, b Matrix) int { return cmp.Compare(a.Name, b.Name) })
	var layout []tensor.Info
	var bodies [][]float32
	for _, m := range entries {
		if err := m.check(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		layout = append(layout, info(m, sumsSuffix, len(m.Sums)/m.Mats), info(m, countsSuffix, 1))
		bodies = append(bodies, m.Sums, m.Counts)
	}
	w, err := gguf.Create(path, force)
	if err != nil {
		return err
	}
	meta := tensor.Meta{
		{Key: gguf.KeyType, Value: Kind},
		{Key: keyDatasets, Value: append([]string{}, f.Datasets...)},
		{Key: keyChunks, Value: uint32(f.Chunks)},
		{Key: keyChunkSize, Value: uint32(f.ChunkSize)},
	}
	if err := w.Begin(meta, layout); err != nil {
		return err
	}
	for i, body := range bodies {
		b := make([]byte, 0, 4*len(body))
		for _, x := range body {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		dst, err := w.Body(i)
		if err == nil {
			_, err = dst.WriteAt(b, 0)
		}
		if err != nil {
			w.Abort()
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return w.Finish()
}

// info describes a tensor of one row of cols for each matrix. ggml drops
// trailing dimensions of 1, which come first here.
func info(m Matrix, suffix string, cols int) tensor.Info {
	shape := tensor.Shape{int64(cols)}
	if m.Mats > 1 {
		shape = tensor.Shape{int64(m.Mats), int64(cols)}
	}
	return tensor.Info{Name: m.Name + suffix, DType: tensor.F32, Shape: shape}
}
