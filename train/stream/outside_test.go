package stream

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// in is what the head has while it is on disk.
type in interface {
	Section(from, n int) (kernel.Matrix, error)
}

func TestHead(t *testing.T) {
	for _, tied := range []bool{false, true} {
		m, src := wide(t, "llama", 2, func(c *arch.Config) { c.VocabSize, c.TieWordEmbeddings = 3001, tied })
		name := headOf(m)
		want := tensortest.Floats(t, src, name)
		size := int64(len(want)) * 4
		z, err := NewSizes(src, m, nil)
		require.NoError(t, err)
		require.Equal(t, size, z.Head)
		require.Equal(t, roundUp(size+page-1, page)+openedBytes, z.HeadMemory(true, 256))
		require.Equal(t, 2*(roundUp(256*512+page-1, page)+openedBytes), z.HeadMemory(false, 256))
		d := store(t, src, memoryDir(t))

		s, err := New(d, codecs, m, Options{ResidentHead: true})
		require.NoError(t, err)
		defer s.Close()
		for range 2 {
			w, err := s.Matrix(name)
			require.NoError(t, err)
			equal(t, want, w, name)
			_, ok := w.(in)
			require.False(t, ok)
		}
		require.Equal(t, size, s.Stats().HeadRead)
		if !tied {
			w, err := s.Matrix("model.embed_tokens.weight")
			require.NoError(t, err)
			_, ok := w.(in)
			require.False(t, ok)
		}

		s, err = New(d, codecs, m, Options{})
		require.NoError(t, err)
		defer s.Close()
		w, err := s.Matrix(name)
		require.NoError(t, err)
		row := make([]float32, 128)
		require.NoError(t, w.DecodeRows(row, 2999), "as embeddings are")
		require.Equal(t, want[2999*128:3000*128], row)
		head := w.(in)
		for pass := range 3 {
			for from := 0; from < 3001; from += 256 {
				n := min(256, 3001-from)
				for range 2 {
					part, err := head.Section(from, n)
					require.NoError(t, err)
					equal(t, want[from*128:(from+n)*128], part, name)
				}
			}
			read := s.Stats().HeadRead
			require.GreaterOrEqual(t, read, int64(pass+1)*size)
			require.LessOrEqual(t, read, int64(pass+1)*size+256*512, "each pass reads it once, and what comes next")
		}
		x := s.outside[name]
		require.LessOrEqual(t, int64(len(x.parts[0].mem)+len(x.parts[1].mem)), z.HeadMemory(false, 256))
		rng := rand.New(rand.NewPCG(1, 1))
		for range 50 {
			from := rng.IntN(3000)
			n := 1 + rng.IntN(3001-from)
			part, err := head.Section(from, n)
			require.NoError(t, err)
			rows, _ := part.Dims()
			require.Equal(t, n, rows)
			require.NoError(t, part.DecodeRows(row, n-1))
			require.Equal(t, want[(from+n-1)*128:(from+n)*128], row)
		}
		for _, bad := range [][2]int{{-1, 2}, {0, 0}, {3000, 2}, {0, 3002}} {
			_, err := head.Section(bad[0], bad[1])
			require.Error(t, err)
		}
	}
}

func TestHeadThatCannotBeRead(t *testing.T) {
	m, src := wide(t, "llama", 2, func(c *arch.Config) { c.VocabSize = 1000 })
	d := store(t, src, memoryDir(t))
	s, err := New(d, codecs, m, Options{})
	require.NoError(t, err)
	defer s.Close()
	w, err := s.Matrix("lm_head.weight")
	require.NoError(t, err)
	for _, path := range d.paths {
		touch(t, path)
	}
	_, err = w.(in).Section(0, 10)
	require.ErrorIs(t, err, ErrChanged)
	require.ErrorContains(t, err, "lm_head.weight")
	_, err = w.(in).Section(0, 10)
	require.ErrorIs(t, err, ErrChanged)
}

// TestExperts leases the experts that are asked for, and reads no other.
func TestExperts(t *testing.T) {
	m, src := wide(t, "mixtral", 4, nil)
	d := store(t, src, memoryDir(t))
	z, err := NewSizes(d, m, nil)
	require.NoError(t, err)
	require.Equal(t, int64(3*128*200*4), z.Experts[0])
	o := Options{Slots: 3, Pinned: 1}
	s, err := New(d, codecs, m, o)
	require.NoError(t, err)
	defer s.Close()

	use := func(l *Lease, b int, which ...int) {
		t.Helper()
		wait := l.Experts(which)
		for _, e := range which {
			require.NoError(t, wait(e))
			for _, role := range []arch.Role{arch.Gate, arch.Up, arch.Down} {
				x, ok := m.FindExpert(role, b, e)
				require.True(t, ok)
				w, err := l.Matrix(x.Name)
				require.NoError(t, err)
				equal(t, tensortest.Floats(t, src, x.Name), w, x.Name)
			}
		}
	}
	var last int64
	read := func() int64 {
		settle(s)
		n := s.Stats().BytesRead
		defer func() { last = n }()
		return n - last
	}
	l, err := s.Lease(context.Background(), 0)
	require.NoError(t, err)
	require.Equal(t, z.Blocks[0], read(), "experts are not read ahead")
	use(l, 0, 3, 1)
	require.Equal(t, 2*z.Experts[0], read())
	use(l, 0, 1, 3)
	require.Zero(t, read(), "those that are there cost nothing")
	use(l, 0, 3, 4, 4)
	require.Equal(t, z.Experts[0], read())
	require.NoError(t, l.Experts(nil)(2), "an expert that is waited for without having been asked for is read")
	require.Equal(t, z.Experts[0], read())
	l.Release()

	for pass := range 4 {
		sweep(t, s, pass%2 == 0, func(l *Lease, b int) { use(l, b, b%5, (b+2)%5) })
		n := read()
		if pass >= 2 {
			// One expert of the block at either end is not there from the pass before.
			require.Equal(t, z.PassBytes(o, 2), n)
		}
	}

	// What binds all matrices of a block gets them.
	l, err = s.Lease(context.Background(), 2)
	require.NoError(t, err)
	check(t, m, src, l, 2)
	l.Release()
}

func TestExpertsAreSkippedAndFail(t *testing.T) {
	m, src := wide(t, "mixtral", 3, nil)
	d := store(t, src, memoryDir(t))
	gate, _ := m.FindExpert(arch.Gate, 1, 0)
	s, err := New(d, codecs, m, Options{Slots: 2, Skip: func(name string) bool { return name == gate.Name }})
	require.NoError(t, err)
	defer s.Close()
	l, err := s.Lease(context.Background(), 1)
	require.NoError(t, err)
	require.NoError(t, l.Experts([]int{0})(0))
	_, err = l.Matrix(gate.Name)
	require.ErrorIs(t, err, tensor.ErrNotFound, "it is trained, and somewhere else")
	up, _ := m.FindExpert(arch.Up, 1, 2)
	for _, path := range d.paths {
		touch(t, path)
	}
	wait := l.Experts([]int{2})
	require.ErrorIs(t, wait(2), ErrChanged)
	require.NoError(t, wait(0))
	_, err = l.Matrix(up.Name)
	require.ErrorIs(t, err, ErrChanged)
	l.Release()
}
