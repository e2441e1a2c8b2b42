package kernel

import "testing"

// What is asked for may lie anywhere.
func TestPrefetch(t *testing.T) {
	b := make([]byte, 1000)
	for _, c := range [][4]int{{0, 100, 16, 64}, {0, 100, 5, 1}, {990, 100, 3, 10}, {991, 100, 3, 10}, {-1, 100, 3, 10}, {0, 0, 3, 10}, {0, 100, 3, 0}, {0, 100, 0, 5}} {
		Prefetch(b, c[0], c[1], c[2], c[3])
	}
	Prefetch(nil, 0, 1, 1, 1)
}
