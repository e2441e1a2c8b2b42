package ftype

import (
	"fmt"

	"github.com/seed18967229/nibble/tensor"
)

// smaller are the types that take the place of those whose blocks a row does not
// divide into: about as many bits, in blocks of 32.
var smaller = map[tensor.DType]tensor.DType{
	tensor.IQ1_S: tensor.IQ4_NL, tensor.IQ1_M: tensor.IQ4_NL,
	tensor.IQ2_XXS: tensor.IQ4_NL, tensor.IQ2_XS: tensor.IQ4_NL, tensor.IQ2_S: tensor.IQ4_NL,
	tensor.IQ3_XXS: tensor.IQ4_NL, tensor.IQ3_S: tensor.IQ4_NL, tensor.IQ4_XS: tensor.IQ4_NL,
	tensor.Q2_0: tensor.Q4_0, tensor.Q2_K: tensor.Q4_0, tensor.Q3_K: tensor.Q4_0, tensor.TQ1_0: tensor.Q4_0, tensor.TQ2_0: tensor.Q4_0,
	tensor.Q4_K: tensor.Q5_0,
	tensor.Q5_K: tensor.Q5_1,
	tensor.Q6_K: tensor.Q8_0,
}

// fit returns the type that rows of that many columns can have in place of d,
// and why it is another.
func fit(d tensor.DType, cols int64) (tensor.DType, string, error) {
	block, _ := d.Block()
	if cols%block == 0 {
		return d, "", nil
	}
	as, ok := smaller[d]
	if !ok && block > 32 {
		return d, "", fmt.Errorf("%w: rows of %d do not divide into the blocks of %d that %v has, and there is no type in its place",
			tensor.ErrUnsupported, cols, block, d)
	}
	if n, _ := as.Block(); !ok || cols%n != 0 {
		as = tensor.F16
	}
	return as, fmt.Sprintf("rows of %d are not a multiple of %d, as %v needs", cols, block, d), nil
}
