package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// eachVariant runs a test with every variant that the machine has.
func eachVariant(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			with(t, v)
			f(t)
		})
	}
}

// with has a test run with a variant.
func with(t testing.TB, v *variant) {
	old := use
	use = v
	t.Cleanup(func() { use = old })
}

func TestChoose(t *testing.T) {
	for _, v := range variants() {
		got, err := choose(v.name)
		require.NoError(t, err)
		require.Same(t, v, got)
	}
	got, err := choose("mmx")
	require.ErrorContains(t, err, `NIBBLE_KERNEL is "mmx"; this machine has `)
	require.Same(t, variants()[0], got)
	require.Equal(t, "go", Variants()[len(Variants())-1])
}

// lengths straddle every step that a loop may have.
func lengths() []int {
	var list []int
	for n := range 70 {
		list = append(list, n)
	}
	for _, step := range []int{96, 128, 192, 256, 512, 1024} {
		list = append(list, step-1, step, step+1)
	}
	return list
}

// guarded calls f with slices that end where memory ends, so that a loop that goes
// on too far dies; and then with some that begin where it begins.
func guarded(t testing.TB, sizes []int, f func(b [][]byte)) {
	t.Helper()
	for _, atEnd := range []bool{true, false} {
		var list [][]byte
		for _, n := range sizes {
			b, free := guard(t, n, atEnd)
			defer free()
			list = append(list, b)
		}
		f(list)
	}
}

func ExampleVariant() {
	_, err := Variant()
	fmt.Println(err)
	// Output: <nil>
}

func bitsOf(x float32) uint32 { return math.Float32bits(x) }
