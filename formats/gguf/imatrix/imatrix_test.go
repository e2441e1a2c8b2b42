package imatrix

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/tensor"
)

// sums are those of testdata/gen/imatrix_goldens.py.
func sums(cols int, counts ...float32) []float32 {
	var out []float32
	for i := range cols * len(counts) {
		out = append(out, (float32(i%13)*0.25+0.1)*counts[i/cols])
	}
	return out
}

func golden() *File {
	return &File{Datasets: []string{"a.txt", "b.txt"}, Chunks: 4, ChunkSize: 128, Entries: []Matrix{
		{"blk.2.attn_q.weight", 1, sums(8, 512), []float32{512}},
		{"blk.0.ffn_down_exps.weight", 3, sums(12, 7, 0, 3), []float32{7, 0, 3}},
		{"blk.10.attn_q.weight", 1, sums(8, 512), []float32{512}},
	}}
}

func TestWriteIsLlamaCpps(t *testing.T) {
	none := golden()
	none.Datasets, none.Chunks, none.ChunkSize = nil, 0, 512
	for name, f := range map[string]*File{"imatrix.gguf": golden(), "none.gguf": none} {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, Write(path, f, false))
		want, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, got, name)

		require.ErrorIs(t, Write(path, f, false), fsx.ErrExists)
		require.NoError(t, Write(path, f, true))
	}
}

func TestRead(t *testing.T) {
	f, err := Read("testdata/imatrix.gguf")
	require.NoError(t, err)
	want := golden()
	require.Equal(t, want.Datasets, f.Datasets)
	require.Equal(t, 4, f.Chunks)
	require.Equal(t, 128, f.ChunkSize)
	require.Len(t, f.Entries, 3)
	for _, m := range want.Entries {
		require.Equal(t, m, *f.Entry(m.Name))
	}
	values, mats, ok := f.Importance("blk.0.ffn_down_exps.weight")
	require.True(t, ok)
	require.Equal(t, 3, mats)
	for i, v := range values {
		if i/12 == 1 {
			require.Equal(t, float32(1), v, "no token chose this expert")
		} else {
			require.InDelta(t, float64(i%13)*0.25+0.1, v, 1e-6)
		}
	}
	_, _, ok = f.Importance("blk.1.attn_q.weight")
	require.False(t, ok)

	// The old form holds the same, but does not say of how many matrices.
	old, err := Read("testdata/imatrix.dat")
	require.NoError(t, err)
	require.Equal(t, []string{"a.txt"}, old.Datasets)
	require.Equal(t, 4, old.Chunks)
	for _, m := range want.Entries {
		values, _, ok := f.Importance(m.Name)
		require.True(t, ok)
		again, mats, ok := old.Importance(m.Name)
		require.True(t, ok)
		require.Equal(t, 1, mats)
		require.InDeltaSlice(t, values, again, 1e-6)
	}
}

// Counts are rounded as llama.cpp rounds them; so do sums of old files without
// calls, and files that end after the entries.
func TestLegacyVariants(t *testing.T) {
	b, err := os.ReadFile("testdata/imatrix.dat")
	require.NoError(t, err)
	for _, cut := range []int{len("a.txt") + 8, len("a.txt") + 4} {
		f, err := parse(b[:len(b)-cut])
		require.NoError(t, err)
		require.Empty(t, f.Datasets)
		require.Len(t, f.Entries, 3)
	}
	calls := bytes.Clone(b)
	copy(calls[8+len("blk.0.ffn_down_exps.weight"):], []byte{0, 0, 0, 0})
	f, err := parse(calls)
	require.NoError(t, err)
	values, _, _ := f.Importance("blk.0.ffn_down_exps.weight")
	require.Equal(t, f.Entries[0].Sums, values)

	m := Matrix{Name: "a", Mats: 1, Sums: []float32{3}, Counts: []float32{1.5}}
	require.Equal(t, []float32{1.5}, m.importance())
}

func parse(b []byte) (*File, error) { return Parse(bytes.NewReader(b), int64(len(b))) }

func TestFaults(t *testing.T) {
	dat, err := os.ReadFile("testdata/imatrix.dat")
	require.NoError(t, err)
	file, err := os.ReadFile("testdata/imatrix.gguf")
	require.NoError(t, err)
	// Every cut of the old form is either an error or ends between its parts.
	whole := 0
	for n := range dat {
		if _, err := parse(dat[:n]); err != nil {
			require.ErrorIs(t, err, tensor.ErrMalformed)
		} else {
			whole++
		}
	}
	require.Equal(t, 2, whole)
	for n := range file[:len(file)-32] { // the padding of the last tensor may be missing
		_, err := parse(file[:n])
		require.ErrorIs(t, err, tensor.ErrMalformed)
	}
	change := func(b []byte, from, to string) []byte {
		require.Contains(t, string(b), from)
		return bytes.Replace(bytes.Clone(b), []byte(from), []byte(to), 1)
	}
	name := len("blk.0.ffn_down_exps.weight")
	patch := func(at int, to ...byte) []byte {
		b := bytes.Clone(dat)
		copy(b[at:], to)
		return b
	}
	one := "\x01\x00\x00\x00a\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"
	for what, c := range map[string]struct {
		file []byte
		is   error
		says string
	}{
		"a model":        {change(file, "imatrix\x10", "adapter\x10"), tensor.ErrUnsupported, `"adapter"`},
		"no chunk size":  {change(file, "chunk_size", "chunk_sizf"), tensor.ErrMalformed, "imatrix.chunk_size"},
		"no counts":      {change(file, "q.weight.counts", "q.weight.countz"), tensor.ErrMalformed, "counts"},
		"no sums":        {change(file, "q.weight.in_sum2", "q.weight.in_sum3"), tensor.ErrMalformed, "in_sum2"},
		"many entries":   {patch(0, 255, 255, 255, 127), tensor.ErrMalformed, "2147483647 entries"},
		"no entries":     {patch(0, 0, 0, 0, 0), tensor.ErrMalformed, "0 entries"},
		"long name":      {patch(4, 255, 255, 255, 127), tensor.ErrMalformed, "2147483647"},
		"negative name":  {patch(4, 255, 255, 255, 255), tensor.ErrMalformed, "-1"},
		"many values":    {patch(12+name, 255, 255, 255, 127), tensor.ErrMalformed, "values"},
		"few values":     {patch(12+name, 0, 0, 0, 0), tensor.ErrMalformed, "0 sums"},
		"not a number":   {patch(16+name, 0, 0, 192, 127), tensor.ErrMalformed, "NaN"},
		"negative value": {patch(16+name, 0, 0, 128, 191), tensor.ErrMalformed, "-1"},
		"twice":          {append([]byte{2, 0, 0, 0}, one+one...), tensor.ErrMalformed, "twice"},
		"nothing":        {nil, tensor.ErrMalformed, "0 bytes"},
	} {
		_, err := parse(c.file)
		require.ErrorIs(t, err, c.is, what)
		require.ErrorContains(t, err, c.says, what)
	}

	for _, m := range []Matrix{
		{"", 1, []float32{1}, []float32{1}},
		{"a", 0, []float32{1}, nil},
		{"a", 2, []float32{1, 2}, []float32{1}},
		{"a", 2, []float32{1, 2, 3}, []float32{1, 1}},
		{"a", 1, []float32{float32(math.Inf(1))}, []float32{1}},
		{"a", 1, []float32{1}, []float32{-1}},
	} {
		path := filepath.Join(t.TempDir(), "x.gguf")
		require.Error(t, Write(path, &File{Entries: []Matrix{m}}, false))
		require.NoFileExists(t, path)
	}
	_, err = Read(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
