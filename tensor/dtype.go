package tensor

import "fmt"

// DType says how the elements of a tensor are stored. Names are those of the
// formats that define them: the safetensors dtypes, the ggml types, the
// bitsandbytes 4-bit encodings, and 8-bit numbers with scales (FP8, INT8).
type DType uint8

// The dtypes of safetensors (https://github.com/huggingface/safetensors,
// tensor.rs), of ggml (ggml.h, enum ggml_type), of bitsandbytes, and of tensors
// that are stored as 8-bit numbers and their scales apart from each other.
const (
	Invalid DType = iota

	Bool
	F4 // E2M1, two to a byte
	F6_E2M3
	F6_E3M2
	U8
	I8
	F8_E5M2
	F8_E4M3
	F8_E8M0
	F8_E4M3FNUZ
	F8_E5M2FNUZ
	I16
	U16
	F16
	BF16
	I32
	U32
	F32
	C64
	F64
	I64
	U64

	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q8_0
	Q8_1
	Q2_K
	Q3_K
	Q4_K
	Q5_K
	Q6_K
	Q8_K
	IQ2_XXS
	IQ2_XS
	IQ3_XXS
	IQ1_S
	IQ4_NL
	IQ3_S
	IQ2_S
	IQ4_XS
	IQ1_M
	TQ1_0
	TQ2_0
	MXFP4
	NVFP4
	Q1_0
	Q2_0

	NF4
	FP4

	FP8
	INT8

	numDTypes
)

// trait is the storage of one DType: block elements occupy bytes bytes, and
// blocks never straddle rows. A zero block marks an opaque encoding, whose size
// depends on more than the shape.
type trait struct {
	name  string
	block int64
	bytes int64
}

var traits = [numDTypes]trait{
	Invalid: {"invalid", 1, 0},

	Bool:        {"BOOL", 1, 1},
	F4:          {"F4", 2, 1},
	F6_E2M3:     {"F6_E2M3", 4, 3},
	F6_E3M2:     {"F6_E3M2", 4, 3},
	U8:          {"U8", 1, 1},
	I8:          {"I8", 1, 1},
	F8_E5M2:     {"F8_E5M2", 1, 1},
	F8_E4M3:     {"F8_E4M3", 1, 1},
	F8_E8M0:     {"F8_E8M0", 1, 1},
	F8_E4M3FNUZ: {"F8_E4M3FNUZ", 1, 1},
	F8_E5M2FNUZ: {"F8_E5M2FNUZ", 1, 1},
	I16:         {"I16", 1, 2},
	U16:         {"U16", 1, 2},
	F16:         {"F16", 1, 2},
	BF16:        {"BF16", 1, 2},
	I32:         {"I32", 1, 4},
	U32:         {"U32", 1, 4},
	F32:         {"F32", 1, 4},
	C64:         {"C64", 1, 8},
	F64:         {"F64", 1, 8},
	I64:         {"I64", 1, 8},
	U64:         {"U64", 1, 8},

	Q4_0:    {"Q4_0", 32, 18},
	Q4_1:    {"Q4_1", 32, 20},
	Q5_0:    {"Q5_0", 32, 22},
	Q5_1:    {"Q5_1", 32, 24},
	Q8_0:    {"Q8_0", 32, 34},
	Q8_1:    {"Q8_1", 32, 36},
	Q2_K:    {"Q2_K", 256, 84},
	Q3_K:    {"Q3_K", 256, 110},
	Q4_K:    {"Q4_K", 256, 144},
	Q5_K:    {"Q5_K", 256, 176},
	Q6_K:    {"Q6_K", 256, 210},
	Q8_K:    {"Q8_K", 256, 292},
	IQ2_XXS: {"IQ2_XXS", 256, 66},
	IQ2_XS:  {"IQ2_XS", 256, 74},
	IQ3_XXS: {"IQ3_XXS", 256, 98},
	IQ1_S:   {"IQ1_S", 256, 50},
	IQ4_NL:  {"IQ4_NL", 32, 18},
	IQ3_S:   {"IQ3_S", 256, 110},
	IQ2_S:   {"IQ2_S", 256, 82},
	IQ4_XS:  {"IQ4_XS", 256, 136},
	IQ1_M:   {"IQ1_M", 256, 56},
	TQ1_0:   {"TQ1_0", 256, 54},
	TQ2_0:   {"TQ2_0", 256, 66},
	MXFP4:   {"MXFP4", 32, 17},
	NVFP4:   {"NVFP4", 64, 36},
	Q1_0:    {"Q1_0", 128, 18},
	Q2_0:    {"Q2_0", 64, 18},

	NF4: {"NF4", 0, 0},
	FP4: {"FP4", 0, 0},

	FP8:  {"FP8", 0, 0},
	INT8: {"INT8", 0, 0},
}

// String returns the name as the defining format spells it ("BF16", "Q8_0").
func (d DType) String() string {
	if d >= numDTypes {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return traits[d].name
}

// ParseDType returns the DType of that exact name.
func ParseDType(name string) (DType, error) {
	for d := Invalid + 1; d < numDTypes; d++ {
		if traits[d].name == name {
			return d, nil
		}
	}
	return Invalid, fmt.Errorf("%w: dtype %q", ErrUnsupported, name)
}

// Block returns the number of elements that are stored together and the number
// of bytes they take. Both are 0 for an opaque encoding.
func (d DType) Block() (elems, bytes int64) {
	if d >= numDTypes {
		return 0, 0
	}
	return traits[d].block, traits[d].bytes
}

// Opaque reports whether the stored size does not follow from the shape alone,
// as for the bitsandbytes encodings and for 8-bit numbers with scales, where it
// depends on how many elements share one. The Info of such a tensor is made with
// NewOpaque.
func (d DType) Opaque() bool { return d < numDTypes && traits[d].block == 0 }

// Float reports whether the DType is one of the plain floating-point formats
// that arithmetic is done on or rounded to: F64, F32, F16, BF16.
func (d DType) Float() bool { return d == F64 || d == F32 || d == F16 || d == BF16 }
