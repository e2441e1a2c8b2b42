package records_test

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/train/data/records"
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
				r, err := records.Open(path, records.Options{})
				require.NoError(b, err)
				if r.Text() {
					_, err = io.Copy(io.Discard, struct{ io.Reader }{r})
					require.NoError(b, err)
				}
				for err == nil && !r.Text() {
					_, err = r.Next()
				}
				require.NoError(b, r.Close())
			}
		})
	}
}
