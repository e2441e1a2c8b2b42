package memory

import (
	"math"
	"os"
	"strconv"
	"strings"
)

// Available returns how much more memory the system has for this program, in bytes, or 0
// if it does not say: what is free or can be made so, within the limit of a container.
func Available() int64 {
	n := field("/proc/meminfo", "MemAvailable:")
	for _, limit := range [][2]string{
		{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
		{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
	} {
		most, used := number(limit[0]), number(limit[1])
		// Version 1 has a number beyond all memory for no limit.
		if most > 0 && most < math.MaxInt64/2 {
			n = min(n, max(0, most-used))
		}
	}
	return n
}

// field returns a value of a file of /proc in bytes, 0 if it has none.
func field(path, name string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// number returns the number that a file consists of, 0 if it does not.
func number(path string) int64 {
	text, _ := os.ReadFile(path)
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n
}
