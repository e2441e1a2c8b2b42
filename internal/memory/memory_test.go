package memory

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "17": 17, "5GB": 5e9, "5 gb": 5e9, "4GiB": 4 << 30, "1.5KiB": 1536, "2M": 2 << 20, "3B": 3, " 7kb ": 7000,
	} {
		got, err := ParseSize(s)
		require.NoError(t, err, "%q", s)
		require.Equal(t, want, got, "%q", s)
	}
	for _, s := range []string{"", "x", "-1", "4GiBs", "1e30", "NaN", "inf GB", "GB"} {
		_, err := ParseSize(s)
		require.Error(t, err, "%q", s)
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1310720: "1.25 MiB", 5 << 30: "5.00 GiB", 1 << 50: "1024.00 TiB", -2048: "-2.00 KiB"} {
		require.Equal(t, want, FormatSize(n))
	}
}

func TestPeakRSS(t *testing.T) {
	before := PeakRSS()
	b := make([]byte, 64<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	if before > 0 { // the system tells
		require.GreaterOrEqual(t, PeakRSS(), int64(64<<20))
	}
}

func TestAtLeast(t *testing.T) {
	for n, want := range map[int64]string{0: "0KiB", 1: "1KiB", 1024: "1KiB", 1025: "2KiB", 1 << 20: "1MiB", 1<<20 + 1: "2MiB", 5 << 30: "5120MiB"} {
		require.Equal(t, want, AtLeast(n))
		back, err := ParseSize(want)
		require.NoError(t, err)
		require.GreaterOrEqual(t, back, n)
	}
}
