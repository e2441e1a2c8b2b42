// Package distortion measures what values lost on their way through an encoding: it
// compares originals with what is decoded.
//
// A Meter is fed a tensor panel by panel, in order, and sums up in float64 by blocks:
// those of the encoding, or of 64 values where it has none. What it finds does not
// depend on how the tensor was cut into panels, nor on the machine.
//
// # Clipped values
//
// An encoding that chooses the scale of a block for the many may leave the few out of
// its reach. The meter knows no encoding, so it takes the reach from the block itself:
// it is the largest magnitude that any of its values decodes to. A value is clipped if
// its magnitude is larger than that by more than
//
//   - 5/4 of the largest error of any value of the block within the reach, so that it is
//     not rounding, as of a value between two levels, that put it there (the largest
//     value of a block need not decode to the last level); and
//   - 1/128 of the reach, so that it is not the rounding of a scale or of a bfloat16,
//     which moves the ends by 1/256 at most.
//
// What is not counted: values that a scale of their own cut off inside a larger block
// (the sub-blocks of Q4_K and its kind) and that other values of the block exceed, and
// those on the shorter side of an encoding that reaches further down than up (Q4_0). The
// meter would have to know what it measures.
//
// # Zero blocks
//
// A block of which everything decodes to zero though something in it was not zero is
// lost. It has no range and none of its values count as clipped. A block that was all
// zeros is empty. Both are left out where the worst block is looked for: the first has
// the relative error 1, the second none that is defined.
package distortion
