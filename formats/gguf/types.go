package gguf

import (
	"fmt"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// dtypes holds the DType of each ggml type id (ggml.h, enum ggml_type). An id
// without one has been removed from the format.
var dtypes = [...]tensor.DType{
	0:  tensor.F32,
	1:  tensor.F16,
	2:  tensor.Q4_0,
	3:  tensor.Q4_1,
	6:  tensor.Q5_0,
	7:  tensor.Q5_1,
	8:  tensor.Q8_0,
	9:  tensor.Q8_1,
	10: tensor.Q2_K,
	11: tensor.Q3_K,
	12: tensor.Q4_K,
	13: tensor.Q5_K,
	14: tensor.Q6_K,
	15: tensor.Q8_K,
	16: tensor.IQ2_XXS,
	17: tensor.IQ2_XS,
	18: tensor.IQ3_XXS,
	19: tensor.IQ1_S,
	20: tensor.IQ4_NL,
	21: tensor.IQ3_S,
	22: tensor.IQ2_S,
	23: tensor.IQ4_XS,
	24: tensor.I8,
	25: tensor.I16,
	26: tensor.I32,
	27: tensor.I64,
	28: tensor.F64,
	29: tensor.IQ1_M,
	30: tensor.BF16,
	34: tensor.TQ1_0,
	35: tensor.TQ2_0,
	39: tensor.MXFP4,
	40: tensor.NVFP4,
	41: tensor.Q1_0,
	42: tensor.Q2_0,
}

// TypeID returns the ggml type id of a DType and whether GGUF can hold it.
func TypeID(d tensor.DType) (id uint32, ok bool) {
	if d == tensor.Invalid {
		return 0, false
	}
	i := slices.Index(dtypes[:], d)
	return uint32(max(i, 0)), i >= 0
}

// dtypeOf returns the DType of a ggml type id.
func dtypeOf(id uint32) (tensor.DType, error) {
	if int64(id) >= int64(len(dtypes)) {
		return tensor.Invalid, hint.Add(fmt.Errorf("%w: unknown ggml type %d", tensor.ErrUnsupported, id),
			"the file is damaged, or its type is newer than this version of nibble")
	}
	if dtypes[id] == tensor.Invalid {
		return tensor.Invalid, hint.Add(fmt.Errorf("%w: ggml type %d has been removed from GGUF", tensor.ErrUnsupported, id),
			"convert the original model again; llama.cpp reads this file no more either")
	}
	return dtypes[id], nil
}

// FileType says what most matrices of a file are stored as: the value of
// KeyFileType (llama.h, enum llama_ftype). It informs; readers go by the type
// of each tensor.
type FileType uint32

// fileTypes holds the names as llama-quantize takes them (tools/quantize). A
// number without one has been removed.
var fileTypes = [...]string{
	0:  "F32",
	1:  "F16",
	2:  "Q4_0",
	3:  "Q4_1",
	7:  "Q8_0",
	8:  "Q5_0",
	9:  "Q5_1",
	10: "Q2_K",
	11: "Q3_K_S",
	12: "Q3_K_M",
	13: "Q3_K_L",
	14: "Q4_K_S",
	15: "Q4_K_M",
	16: "Q5_K_S",
	17: "Q5_K_M",
	18: "Q6_K",
	19: "IQ2_XXS",
	20: "IQ2_XS",
	21: "Q2_K_S",
	22: "IQ3_XS",
	23: "IQ3_XXS",
	24: "IQ1_S",
	25: "IQ4_NL",
	26: "IQ3_S",
	27: "IQ3_M",
	28: "IQ2_S",
	29: "IQ2_M",
	30: "IQ4_XS",
	31: "IQ1_M",
	32: "BF16",
	36: "TQ1_0",
	37: "TQ2_0",
	38: "MXFP4_MOE",
	39: "NVFP4",
	40: "Q1_0",
	41: "Q2_0",
}

// FileTypeOf returns the FileType of a file whose matrices are stored as d, and
// whether there is one. The K types have none: their FileTypes mix several.
func FileTypeOf(d tensor.DType) (FileType, bool) {
	i := slices.Index(fileTypes[:], d.String())
	return FileType(max(i, 0)), i >= 0
}

// String returns the name llama-quantize has for it, as "Q4_K_M".
func (t FileType) String() string {
	if int64(t) < int64(len(fileTypes)) && fileTypes[t] != "" {
		return fileTypes[t]
	}
	return fmt.Sprintf("FileType(%d)", uint32(t))
}
