// Package distortion measures what values lost on their way through an encoding: it
// compares originals with what is decoded.
//
// A Meter is fed a tensor panel by panel, in order, and sums up in float64 by blocks:
// those of the encoding, or of 64 values where it has none. What it finds does not
// depend on how the tensor was cut into panels, nor on the machine.
//
// # Clipped values
//
// What a block can decode to lies in a range, and an encoding that chooses its scale
// for the many may leave the few outside. The meter knows no encoding, so it takes the
// range from the block itself: from its least to its greatest decoded value. A value is
// clipped if it lies outside that range by more than
//
//   - 5/4 of the largest error of any value of the block that lies inside, so that it is
//     not rounding, as of a value between two levels, that put it there (the greatest
//     value of a block need not decode to the last level); and
//   - 1/128 of the end of the range that it is beyond, so that it is not the rounding of
//     a scale or of a bfloat16, which moves the ends by 1/256 at most.
//
// A value that a scale of its own cut off inside a larger block (the sub-blocks of Q4_K
// and its kind), and that other values of the block exceed, is not counted: that would
// take knowing where sub-blocks are.
//
// # Zero blocks
//
// A block of which everything decodes to zero though something in it was not zero is
// lost. It has no range and none of its values count as clipped. A block that was all
// zeros is empty. Both are left out where the worst block is looked for: the first has
// the relative error 1, the second none that is defined.
package distortion
