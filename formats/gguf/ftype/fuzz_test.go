package ftype

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// FuzzChoose checks that no names, shapes and numbers of a model make it panic,
// and that what is chosen is what such rows can be stored as.
func FuzzChoose(f *testing.F) {
	f.Add("llama", "blk.0.attn_v.weight", "blk.1.ffn_down.weight", int64(96), int64(256), int64(1), 8, 32, uint32(15))
	f.Add("falcon", "output.weight", "token_embd.weight", int64(1), int64(0), int64(3), 0, 0, uint32(38))
	f.Add("x", "blk.99999999999999999999.ffn_up.weight", "weight", int64(512), int64(7), int64(0), 2, 1, uint32(10))
	f.Fuzz(func(t *testing.T, arch, a, b string, cols, rows, mats int64, experts, blocks int, typ uint32) {
		shape := tensor.Shape{mats, rows, cols}
		if shape.Validate() != nil {
			return
		}
		list := []tensor.Info{{Name: a, DType: tensor.F32, Shape: shape}, {Name: b, DType: tensor.F16, Shape: shape[1:]}}
		choices, err := Choose(list, Model{Arch: arch, Blocks: blocks, Experts: experts, Heads: blocks, KVHeads: experts}, Options{Type: Type(typ)})
		if err != nil {
			require.ErrorIs(t, err, tensor.ErrUnsupported)
			return
		}
		require.Len(t, choices, 2)
		for _, c := range choices {
			require.NoError(t, c.Out.Validate())
		}
	})
}
