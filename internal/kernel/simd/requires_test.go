package simd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// extra is what each variant may use beside what all have; package kernel looks for
// it in the machine before it chooses the variant.
var extra = map[string]string{
	"AVX2":   "AVX2 FMA3 F16C",
	"AVX512": "AVX2 FMA3 F16C AVX512F AVX512BW AVX512DQ AVX512VL",
}

// wide are registers that only AVX-512 can name. The assembler encodes an
// instruction of AVX2 for it, without a word, if it is given one of them.
var wide = regexp.MustCompile(`\b(Z\d+|[XY](1[6-9]|2\d|3[01])|K[0-7])\b`)

// TestRequires fails if a loop uses what the variant it is named after may not.
func TestRequires(t *testing.T) {
	files, err := filepath.Glob("*.s")
	require.NoError(t, err)
	functions := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var requires, name, variant string
		for _, line := range strings.Split(string(text), "\n") {
			switch {
			case strings.HasPrefix(line, "// Requires: "):
				requires = strings.TrimPrefix(line, "// Requires: ")
			case strings.HasPrefix(line, "TEXT "):
				name = line[len("TEXT ·"):strings.IndexByte(line, '(')]
				variant = "AVX512"
				if strings.HasSuffix(name, "AVX2") {
					variant = "AVX2"
				}
				for _, isa := range strings.Split(requires, ", ") {
					if isa != "" && (strings.HasPrefix(isa, "AVX") && isa != "AVX" || isa == "FMA3" || isa == "F16C") {
						require.Contains(t, strings.Fields(extra[variant]), isa, "%s in %s", name, file)
					}
				}
				requires = ""
				functions++
			case name != "" && variant == "AVX2":
				require.False(t, wide.MatchString(line), "%s in %s: %s", name, file, line)
			}
		}
	}
	require.NotZero(t, functions)
}
