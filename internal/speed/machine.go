package speed

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// CPU returns the processor's name as the system has it, or the architecture where it
// does not say.
func CPU() string {
	if name := field("/proc/cpuinfo", "model name"); name != "" {
		return name
	}
	return runtime.GOARCH
}

// FreeMemory returns how many bytes of memory programs could have now, 0 if the
// system does not say.
func FreeMemory() int64 {
	kb, _ := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemAvailable"), " kB"), 10, 64)
	return kb << 10
}

// field returns the value of the first line "name : value" of a file, "" if there is
// none.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
