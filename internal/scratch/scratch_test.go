package scratch

import (
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
)

func random(n int64, seed uint64) []byte {
	b, rng := Buffer(n), rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestBuffer(t *testing.T) {
	for _, n := range []int64{0, 1, Page - 1, Page, Page + 1, 12345} {
		b := Buffer(n)
		require.Equal(t, Pages(n), int64(len(b)))
		require.Zero(t, Pages(n)%Page)
		if n > 0 {
			require.Zero(t, uintptr(unsafe.Pointer(&b[0]))%Page)
		}
	}
	b := Buffer(8)
	kernel.Floats(b)[1] = 1
	require.Equal(t, []byte{0, 0, 0x80, 0x3f}, b[4:8])
	require.Len(t, kernel.Floats(b), Page/4)
}

// Transfers are done in their order, and what comes back is what went.
func TestFile(t *testing.T) {
	for _, direct := range []bool{true, false} {
		dir := t.TempDir()
		const parts, size = 9, 5 * Page
		f, err := Create(dir, parts*size)
		require.NoError(t, err)
		if !direct {
			buffered(f.file)
		}
		names, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, names, "the file has no name")
		var list []*Transfer
		got := make([][]byte, parts)
		for round := range uint64(2) {
			for i := range parts {
				list = append(list, f.Write(random(size, round*100+uint64(i)), int64(i)*size))
			}
			for i := range parts {
				got[i] = Buffer(size)
				list = append(list, f.Read(got[i], int64(i)*size))
			}
		}
		for _, x := range list {
			require.NoError(t, x.Wait())
			require.NoError(t, x.Wait(), "a second time")
		}
		for i := range parts {
			require.Equal(t, random(size, 100+uint64(i)), got[i])
		}
		s := f.Stats()
		require.Equal(t, int64(2*parts*size), s.Written)
		require.Equal(t, int64(2*parts*size), s.Read)
		require.Equal(t, Stats{2 * s.Written, 2 * s.Read, 2 * s.Waited}, s.Add(s))
		require.Equal(t, int64(parts*size), f.Size())
		require.Panics(t, func() { f.Write(Buffer(size), parts*size) })
		require.Panics(t, func() { f.Write(make([]byte, 3), 0) })
		f.Close()
		f.Close()
		names, err = os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, names)
	}
}

func TestNoRoom(t *testing.T) {
	_, err := Create(t.TempDir(), 1<<60)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "setting aside")
	require.Contains(t, hint.Of(err), "another disk")
	_, err = Create("/no/such/dir", Page)
	require.ErrorContains(t, err, "/no/such/dir")
	require.NotEmpty(t, hint.Of(err))
}

// What is not ready is waited for, and counted once.
func TestWaited(t *testing.T) {
	f, err := Create(t.TempDir(), Page)
	require.NoError(t, err)
	defer f.Close()
	const slow = 20 * time.Millisecond
	x := &Transfer{f: f, ready: make(chan struct{})}
	time.AfterFunc(slow, func() { close(x.ready) })
	require.NoError(t, x.Wait())
	waited := f.Stats().Waited
	require.Greater(t, waited, slow/2)
	require.NoError(t, x.Wait())
	require.Equal(t, waited, f.Stats().Waited)
}

// A file that ends before it should is told of.
func TestShortFile(t *testing.T) {
	f, err := Create(t.TempDir(), 4*Page)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.file.Truncate(Page))
	require.ErrorContains(t, f.Read(Buffer(2*Page), 0).Wait(), "reading 8.00 KiB")
}
