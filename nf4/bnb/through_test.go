package bnb

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// TestThroughIsQuantizedAndRead compares with what is stored and opened again.
func TestThroughIsQuantizedAndRead(t *testing.T) {
	original := archive(t, "tiny_llama_bnb4/original_bf16.safetensors")
	linear := append(linears(archive(t, "tiny_llama_bnb4/model_nf4_dq.safetensors")), "lm_head.weight")
	for name, o := range map[string]Options{
		"nf4":      {Type: tensor.NF4, BlockSize: 64, DoubleQuant: true},
		"nf4:32":   {Type: tensor.NF4, BlockSize: 32},
		"storage":  {Type: tensor.NF4, BlockSize: 64, Storage: tensor.BF16, DoubleQuant: true},
		"fp4, f16": {Type: tensor.FP4, BlockSize: 128, DoubleQuant: true, DType: tensor.F16},
		"int8":     {Type: tensor.INT8},
		"chosen":   {Type: tensor.NF4, BlockSize: 64, BlockSizes: map[string]int{linear[0]: 256, linear[1]: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			o.Linear, o.Head = linear, "lm_head"
			p, account, err := Plan(original, codecs, o)
			require.NoError(t, err)
			dtype := tensor.BF16
			if o.DType != tensor.Invalid {
				dtype = o.DType
			}
			want, err := View(run(t, p, original), dtype)
			require.NoError(t, err)
			got, of, err := Through(original, codecs, o)
			require.NoError(t, err)
			tensortest.TestSource(t, got)
			for info := range want.All() {
				is, err := got.Info(info.Name)
				require.NoError(t, err)
				require.Equal(t, info.DType, is.DType, info.Name)
				require.Equal(t, info.Shape, is.Shape, info.Name)
				require.Equal(t, tensortest.Bytes(t, want, info.Name), tensortest.Bytes(t, got, info.Name), info.Name)
			}
			require.Len(t, names(got), len(names(want)))
			for i, r := range account.Results() {
				require.Equal(t, r.RelRMS, of.Results()[i].RelRMS)
			}
		})
	}
	quantized, err := View(archive(t, "tiny_llama_bnb4/model_nf4_dq.safetensors"), tensor.BF16)
	require.NoError(t, err)
	_, _, err = Through(quantized, codecs, Options{Type: tensor.NF4, BlockSize: 64, Linear: linear[:1]})
	require.ErrorIs(t, err, tensor.ErrUnsupported)
}
