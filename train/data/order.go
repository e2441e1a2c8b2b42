package data

import (
	"math/bits"
	"math/rand/v2"
)

// Permutation returns the numbers 0 to n-1 in the random order that belongs to
// a seed and an epoch, by Fisher and Yates' shuffle on the generator PCG-DXSM.
// It is the same on every machine and depends on nothing else, so that a resumed
// run finds its place again. n must fit an int32.
func Permutation(seed uint64, epoch int64, n int) []int32 {
	g := rand.NewPCG(seed, uint64(epoch))
	p := make([]int32, n)
	for i := range p {
		j := below(g, uint64(i)+1)
		p[i] = p[j]
		p[j] = int32(i)
	}
	return p
}

// below returns a number below n, all equally likely (Lemire, Fast Random
// Integer Generation in an Interval, 2019). The methods of rand.Rand do the same,
// but are free to do it in another way in another version of Go.
func below(g *rand.PCG, n uint64) uint64 {
	hi, lo := bits.Mul64(g.Uint64(), n)
	for lo < n && lo < -n%n {
		hi, lo = bits.Mul64(g.Uint64(), n)
	}
	return hi
}
