package nf4

import (
	"fmt"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// nf4Codes are the values of the NF4 codes, bitsandbytes' get_4bit_type("nf4"):
// quantiles of the normal distribution, scaled to [-1, 1], with an exact zero.
var nf4Codes = [16]float32{
	-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
	-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
	0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
	0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
}

// nf4Order is that of the values.
var nf4Order = [16]uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// fp4Codes are the values of the FP4 codes, get_4bit_type("fp4"): a sign and
// three bits, over 12. Code 8 is +0 there, Python's integer -0 being 0; the CUDA
// kernel decodes it to -0.
var fp4Codes = [16]float32{
	0, 0.0625 / 12.0, 8.0 / 12.0, 1, 4.0 / 12.0, 6.0 / 12.0, 2.0 / 12.0, 3.0 / 12.0,
	0, -0.0625 / 12.0, -8.0 / 12.0, -1, -4.0 / 12.0, -6.0 / 12.0, -2.0 / 12.0, -3.0 / 12.0,
}

// fp4Order lists the codes by value, as torch.argsort gives them to the default
// backend. The two zeros are in the order 0, 8 there, so a value just above
// zero gets code 8 and one at or just below zero gets code 0, the opposite of
// what the CUDA kernel does; both codes mean zero.
var fp4Order = [16]uint8{11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3}

// codebook is one 4-bit encoding. A value at a threshold, the midpoint of two
// values in float32, gets the lower code, as torch.bucketize(right=False) has it.
type codebook struct {
	*kernel.Codebook
	dtype tensor.DType
}

var (
	nf4Book = codebook{kernel.NewCodebook(nf4Codes, nf4Order), tensor.NF4}
	fp4Book = codebook{kernel.NewCodebook(fp4Codes, fp4Order), tensor.FP4}
)

// bookOf returns the codebook of a DType.
func bookOf(d tensor.DType) (codebook, error) {
	switch d {
	case tensor.NF4:
		return nf4Book, nil
	case tensor.FP4:
		return fp4Book, nil
	}
	return codebook{}, fmt.Errorf("%w: %v is not a 4-bit block encoding", tensor.ErrUnsupported, d)
}

// Codebook returns the value of each code of NF4 or FP4.
func Codebook(d tensor.DType) ([16]float32, error) {
	b, err := bookOf(d)
	if err != nil {
		return [16]float32{}, err
	}
	return b.Values, nil
}
