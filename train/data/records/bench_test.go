package records_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func BenchmarkRead(b *testing.B) {
	for name, text := range map[string]string{
		"jsonl":   strings.Repeat(`{"prompt": "Once upon a time there was a little girl.", "completion": "She liked to play \"outside\"."}`+"\n", 50_000),
		"json":    "[" + strings.Repeat(`{"prompt": "Once upon a time there was a little girl.", "completion": "She liked to play \"outside\"."},`+"\n", 50_000) + "{}]",
		"csv":     "prompt,completion\n" + strings.Repeat("Once upon a time there was a little girl.,\"She liked to play \"\"outside\"\".\"\n", 50_000),
		"txt":     strings.Repeat("Once upon a time there was a little girl. She liked to play outside.\n", 50_000),
		"parquet": "",
	} {
		b.Run(name, func(b *testing.B) {
			path := "testdata/encodings-2.parquet"
			if text != "" {
				path = write(b, "x."+name, text)
			}
			info, err := os.Stat(path)
			require.NoError(b, err)
			b.SetBytes(info.Size())
			for b.Loop() {
				require.NoError(b, readAny(b, path))
			}
		})
	}
}
