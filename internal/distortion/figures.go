package distortion

import "math"

// Figures are what a Meter measured. Values that are not finite, before or after, have
// no part in the sums nor in Values.
type Figures struct {
	// Values is how many pairs were compared.
	Values int64

	// Square and Error are the sums of the squares of the originals and of the
	// differences.
	Square, Error float64

	// MaxAbs is the largest difference.
	MaxAbs float64

	// Block is how many values are a block, Blocks how many blocks there are.
	Block  int
	Blocks int64

	// WorstBlock is the number of the first block whose relative RMS error is the
	// largest, WorstRelRMS; -1 if no block has an error.
	WorstBlock  int64
	WorstRelRMS float64

	// Clipped counts values beyond what their block reaches, ZeroBlocks the blocks
	// that were lost, EmptyBlocks those that were zero to begin with. The package
	// comment defines them.
	Clipped     int64
	ZeroBlocks  int64
	EmptyBlocks int64

	// NonFinite counts the originals that are NaN or infinite, MadeNonFinite the
	// finite ones that became so.
	NonFinite     int64
	MadeNonFinite int64
}

// RelRMS returns the root of the mean squared error, relative to that of the
// originals; 0 if there is no error, +Inf if all originals are zero and not all of
// what they became.
func (f *Figures) RelRMS() float64 {
	if f.Error == 0 {
		return 0
	}
	return math.Sqrt(f.Error / f.Square)
}

// SNR returns the ratio of signal to noise in decibels, +Inf if there is no error.
func (f *Figures) SNR() float64 {
	if f.Error == 0 {
		return math.Inf(1)
	}
	return 10 * math.Log10(f.Square/f.Error)
}

// Add makes f the figures of its values and those of o together. Block sizes may
// differ; WorstBlock then says nothing and becomes -1, WorstRelRMS is the larger one.
func (f *Figures) Add(o *Figures) {
	f.Values += o.Values
	f.Square += o.Square
	f.Error += o.Error
	f.MaxAbs = max(f.MaxAbs, o.MaxAbs)
	f.Block, f.WorstBlock = 0, -1
	f.Blocks += o.Blocks
	f.WorstRelRMS = max(f.WorstRelRMS, o.WorstRelRMS)
	f.Clipped += o.Clipped
	f.ZeroBlocks += o.ZeroBlocks
	f.EmptyBlocks += o.EmptyBlocks
	f.NonFinite += o.NonFinite
	f.MadeNonFinite += o.MadeNonFinite
}
