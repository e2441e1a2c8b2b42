package combine

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// uniform gives every element a number of 53 bits, always the same: SplitMix64 (Steele, Lea and
// Flood, 2014) as a function of its counter.
type uniform struct {
	begin uint64

	// given, if set, are the numbers, in [0, 1).
	given []float32
}

// draw returns the numbers of one input's tensor, which begin at a hash of what tells the tensors
// apart.
func draw(seed uint64, input int, target string) uniform {
	b := binary.LittleEndian.AppendUint64(nil, seed)
	b = binary.LittleEndian.AppendUint64(b, uint64(input))
	sum := sha256.Sum256(append(b, target...))
	return uniform{begin: binary.LittleEndian.Uint64(sum[:])}
}

func (u *uniform) at(element int64) uint64 {
	if u.given != nil {
		return uint64(float64(u.given[element]) * 0x1p53)
	}
	z := u.begin + uint64(element+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) >> 11
}

// limit returns the number that those of a uniform are below with a probability.
func limit(probability float64) uint64 { return uint64(math.Ceil(probability * 0x1p53)) }

// below has all bits set if x is less than limit, and none if not. Where it is as likely as not,
// a branch would cost more.
func below(x, limit uint64) uint32 { return uint32(int64(x-limit) >> 63) }

// masked returns x if all bits of a mask are set, 0 if none is.
func masked(x float32, bits uint32) float32 {
	return math.Float32frombits(math.Float32bits(x) & bits)
}
