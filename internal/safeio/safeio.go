package safeio

import (
	"io"
	"math"
	"math/bits"
	"slices"
)

// chunk is how much is allocated ahead of the bytes that prove it was needed.
const chunk = 10 << 20

// ReadN reads exactly n bytes. If fewer are there it returns
// io.ErrUnexpectedEOF, having allocated no more than about twice what was.
func ReadN(r io.Reader, n uint64) ([]byte, error) {
	if n > math.MaxInt64 {
		return nil, io.ErrUnexpectedEOF
	}
	buf := make([]byte, 0, min(n, chunk))
	for uint64(len(buf)) < n {
		k := int(min(n-uint64(len(buf)), chunk))
		buf = slices.Grow(buf, k)
		got, err := io.ReadFull(r, buf[len(buf):len(buf)+k])
		buf = buf[:len(buf)+got]
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}

// Add returns a+b and whether it fits an int64. Both must not be negative.
func Add(a, b int64) (int64, bool) {
	s, carry := bits.Add64(uint64(a), uint64(b), 0)
	return int64(s), carry == 0 && s <= math.MaxInt64
}

// Mul returns a*b and whether it fits an int64. Both must not be negative.
func Mul(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return int64(lo), hi == 0 && lo <= math.MaxInt64
}
