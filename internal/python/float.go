package python

import (
	"bytes"
	"math"
	"strconv"
)

// AppendFloat appends a finite number as float.__repr__ and the json module have
// it: the shortest digits that give it back, with a point or an exponent, and an
// exponent below 1e-4 and from 1e16 on.
func AppendFloat(b []byte, f float64) []byte {
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	n := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if !bytes.Contains(b[n:], []byte(".")) {
		b = append(b, ".0"...)
	}
	return b
}
