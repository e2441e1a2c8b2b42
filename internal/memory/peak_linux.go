package memory

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// PeakRSS returns the largest resident set this program has had, in bytes, or 0
// where the system does not say. (Not getrusage: its figure survives exec, so
// it may be that of the shell.)
func PeakRSS() int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}
