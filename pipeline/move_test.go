package pipeline

import (
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// movingSink is a memorySink whose bodies take bytes from files, as long as the
// system can move what lies before cannot.
type movingSink struct {
	memorySink
	cannot int64
	moved  atomic.Int64
}

func (s *movingSink) Body(i int) (io.WriterAt, error) {
	return movingBody{body{&s.memorySink, i}, s}, nil
}

type movingBody struct {
	body
	sink *movingSink
}

func (b movingBody) MoveFrom(off int64, src *os.File, at, n int64) (int64, error) {
	if at >= b.sink.cannot {
		return 0, fsx.ErrCannotMove
	}
	n = min(n, 1000, b.sink.cannot-at) // less than asked for
	p := make([]byte, n)
	if _, err := src.ReadAt(p, at); err != nil {
		return 0, err
	}
	b.sink.moved.Add(n)
	got, err := b.WriteAt(p, off)
	return int64(got), err
}

// Stored bytes go from file to file through the system, or as far as it can, or
// through the program: the output is the same.
func TestCopyMoves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	want := tensortest.Bytes(t, source(t), "a")
	require.NoError(t, os.WriteFile(path, append([]byte("head"), want...), 0o666))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	half := int64(len(want)/2) / 4 * 4
	section := func(off, n int64) tensor.Part {
		return tensor.Part{Size: n, Open: func() (io.ReaderAt, error) { return io.NewSectionReader(f, 4+off, n), nil }}
	}
	info := tensor.Info{Name: "a", DType: tensor.F32, Shape: tensor.Shape{700, 500}}
	// The tensor in two pieces of the file.
	src, err := tensor.NewTable(nil, []tensor.Entry{{Info: info, Open: tensor.Concat(section(0, half), section(half, int64(len(want))-half))}})
	require.NoError(t, err)
	plan := &Plan{Steps: []Step{Copy(info, "x")}}
	for name, cannot := range map[string]int64{"all": 1 << 40, "none": 0, "some": half / 2, "the first piece": 4 + half} {
		var progress atomic.Int64
		sink := &movingSink{cannot: cannot}
		require.NoError(t, Run(t.Context(), plan, src, sink, WithProgress(func(n int64) { progress.Add(n) })), name)
		require.Equal(t, want, sink.bodies[0], name)
		require.Equal(t, int64(len(want)), progress.Load(), name)
		require.Equal(t, name != "none", sink.moved.Load() > 0, name)
	}

	// A file that ends early is an error, whoever notices.
	short, err := tensor.NewTable(nil, []tensor.Entry{{Info: info, Open: section(4, int64(len(want))).Open}})
	require.NoError(t, err)
	for _, cannot := range []int64{0, 1 << 40} {
		require.Error(t, Run(t.Context(), plan, short, &movingSink{cannot: cannot}))
	}
}
