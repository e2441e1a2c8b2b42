package python

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What repr says in CPython 3.11.
func TestAppendFloat(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0.0", 1: "1.0", -3: "-3.0", 0.1: "0.1", 1e-5: "1e-05", 1.5e-7: "1.5e-07", 1e-4: "0.0001", 9.999e-5: "9.999e-05",
		1e15: "1000000000000000.0", 1e16: "1e+16", 123456789012345680: "1.2345678901234568e+17", 1e22: "1e+22", 1e300: "1e+300",
		5e-324: "5e-324", 10000: "10000.0", 2.0 / 3: "0.6666666666666666", 1e-100: "1e-100",
	} {
		require.Equal(t, want, string(AppendFloat(nil, f)))
		require.Equal(t, "x."+want, string(AppendFloat([]byte("x."), f)))
	}
}
