package combine

import (
	"crypto/sha256"
	"encoding/binary"
)

// A uniform gives every element a number in [0, 1), always the same.
type uniform func(element int64) float64

// draw returns the numbers of one input's tensor: SplitMix64 (Steele, Lea and Flood, 2014)
// as a function of its counter, begun at a hash of what tells the tensors apart.
func draw(seed uint64, input int, target string) uniform {
	b := binary.LittleEndian.AppendUint64(nil, seed)
	b = binary.LittleEndian.AppendUint64(b, uint64(input))
	sum := sha256.Sum256(append(b, target...))
	begin := binary.LittleEndian.Uint64(sum[:])
	return func(element int64) float64 {
		z := begin + uint64(element+1)*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		return float64(z>>11) * 0x1p-53
	}
}
