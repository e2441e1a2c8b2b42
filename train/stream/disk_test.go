package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// wide is a model whose matrices are large enough to be read straight.
func wide(t *testing.T, family string, layers int64, change func(c *arch.Config)) (*arch.Model, tensor.Source) {
	m := tensortest.TinyModel(t, family, func(c *arch.Config) {
		c.NumHiddenLayers, c.HiddenSize, c.IntermediateSize = layers, 128, 200
		c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim = 8, 4, 16
		if change != nil {
			change(c)
		}
	})
	return m, tensortest.NewModel(t, m, 3)
}

// onDisk is a Source whose tensors are stored in files, in all the ways in which a
// Source's can be.
type onDisk struct {
	tensor.Source
	paths []string
	files []*os.File
	bad   atomic.Pointer[string] // a tensor whose reader fails
	stuck chan struct{}          // that readers wait for, if not nil
}

// store writes the tensors of src to two files, where they begin at any byte.
func store(t *testing.T, src tensor.Source, dir string) *onDisk {
	t.Helper()
	rng := rand.New(rand.NewPCG(4, 4))
	d := &onDisk{}
	bodies := make([][]byte, 2)
	type place struct {
		info tensor.Info
		file int
		off  int64
		how  int
	}
	var places []place
	how := 0
	for info := range src.All() {
		f := rng.IntN(2)
		gap := rng.IntN(9000)
		if rng.IntN(3) == 0 {
			gap = -len(bodies[f]) & (page - 1) // begin with a page
		}
		bodies[f] = append(bodies[f], make([]byte, gap)...)
		places = append(places, place{info, f, int64(len(bodies[f])), how % 4})
		data := tensortest.Bytes(t, src, info.Name)
		if how%4 == 2 {
			data = swapHalves(data, info)
		}
		bodies[f] = append(bodies[f], data...)
		how++
	}
	for i, b := range bodies {
		path := filepath.Join(dir, string(rune('a'+i))+".bin")
		require.NoError(t, os.WriteFile(path, b, 0o600))
		f, err := os.Open(path)
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		d.paths, d.files = append(d.paths, path), append(d.files, f)
	}
	var entries []tensor.Entry
	for _, p := range places {
		n := p.info.Size()
		all := io.NewSectionReader(d.files[p.file], p.off, n)
		entries = append(entries, tensor.Entry{Info: p.info, Open: func() (io.ReaderAt, error) {
			switch p.how {
			case 1: // its first bytes are in memory, and the rest is in two runs
				head := bytes.Clone(bodies[p.file][p.off:][:17])
				return tensor.Concat(
					tensor.Part{Size: 17, Open: func() (io.ReaderAt, error) { return bytes.NewReader(head), nil }},
					tensor.Part{Size: 14, Open: func() (io.ReaderAt, error) { return io.NewSectionReader(all, 17, 14), nil }},
					tensor.Part{Size: n - 31, Open: func() (io.ReaderAt, error) { return io.NewSectionReader(all, 31, n-31), nil }},
				)()
			case 2:
				return swapped{all, rowSize(p.info)}, nil
			case 3:
				return &opaque{d, p.info.Name, all}, nil
			}
			return all, nil
		}})
	}
	var err error
	d.Source, err = tensor.NewTable(nil, entries)
	require.NoError(t, err)
	return d
}

func rowSize(info tensor.Info) int64 {
	if len(info.Shape) == 1 {
		return 4
	}
	return info.RowSize()
}

// swapHalves exchanges neighbouring rows, as swapped reads them.
func swapHalves(data []byte, info tensor.Info) []byte {
	out, size := bytes.Clone(data), int(rowSize(info))
	for r := 0; (r+2)*size <= len(data); r += 2 {
		copy(out[r*size:], data[(r+1)*size:][:size])
		copy(out[(r+1)*size:], data[r*size:][:size])
	}
	return out
}

// swapped reads rows in pairs, the second one first.
type swapped struct {
	*io.SectionReader
	size int64
}

func (s swapped) row(r int64) int64 {
	if r^1 < s.Size()/s.size {
		return r ^ 1
	}
	return r
}

func (s swapped) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		row, at := (off+int64(n))/s.size, (off+int64(n))%s.size
		k := min(s.size-at, int64(len(p)-n))
		if _, err := s.SectionReader.ReadAt(p[n:int64(n)+k], s.row(row)*s.size+at); err != nil && err != io.EOF {
			return n, err
		}
		n += int(k)
	}
	return len(p), nil
}

func (s swapped) Places(off, n int64) (list []tensor.Extent, ok bool) {
	for row := off / s.size; row < (off+n)/s.size; row++ {
		one, ok := tensor.Extents(s.SectionReader, s.row(row)*s.size, s.size)
		if !ok {
			return nil, false
		}
		list = append(list, one...)
	}
	return list, off%s.size == 0 && n%s.size == 0
}

// opaque is a reader of which nothing is known, and that can fail and hang.
type opaque struct {
	d    *onDisk
	name string
	r    io.ReaderAt
}

func (r *opaque) ReadAt(p []byte, off int64) (int, error) {
	if r.d.stuck != nil {
		<-r.d.stuck
	}
	if bad := r.d.bad.Load(); bad != nil && *bad == r.name {
		return 0, syscall.EIO
	}
	return r.r.ReadAt(p, off)
}

// computed is a tensor of a block that a reader of which nothing is known has.
func (d *onDisk) computed(t *testing.T, m *arch.Model, block int) string {
	for _, x := range m.Block(block) {
		raw, err := d.Raw(x.Name)
		require.NoError(t, err)
		if _, ok := tensor.Places(raw, 0, raw.Size()); !ok && len(tensor.Pieces(raw, 0, raw.Size())) == 1 {
			return x.Name
		}
	}
	t.Fatal("there is none")
	return ""
}

// TestWhatIsLeasedIsWhatIsStored leases blocks in any order, with any hints, any number
// of slots and pins, from several goroutines.
func TestWhatIsLeasedIsWhatIsStored(t *testing.T) {
	m, src := wide(t, "llama", 7, nil)
	for _, dir := range []string{t.TempDir(), memoryDir(t)} {
		d := store(t, src, dir)
		for slots := 2; slots <= 8; slots++ {
			rng := rand.New(rand.NewPCG(2, uint64(slots)))
			s, err := New(d, codecs, m, Options{Slots: slots, Pinned: rng.IntN(slots + 2)})
			require.NoError(t, err)
			var wg sync.WaitGroup
			for w := range min(2, slots-1) {
				rng := rand.New(rand.NewPCG(3, uint64(w)))
				wg.Go(func() {
					for range 8 {
						b := rng.IntN(7)
						l, err := s.Lease(context.Background(), b, rng.IntN(9)-1, rng.IntN(9)-1, rng.IntN(9)-1)
						if err != nil && strings.Contains(err.Error(), "slots are leased") {
							runtime.Gosched()
							continue // the ring has but two, and the other goroutine has one
						}
						if err != nil {
							t.Error(err)
							return
						}
						check(t, m, src, l, b)
						l.Release()
					}
				})
			}
			wg.Wait()
			st := s.Stats()
			s.Close()
			if slots < 7 {
				require.Positive(t, st.Direct+st.Buffered)
			} else {
				require.Zero(t, st.Direct, "what is read once is read by way of the page cache")
			}
		}
	}
}

// memoryDir is a directory in memory, where not every system has unbuffered reads.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "nibble")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestLargeTensors reads tensors that are more than one job and more than one window.
func TestLargeTensors(t *testing.T) {
	m, src := wide(t, "llama", 2, func(c *arch.Config) { c.IntermediateSize = 17_003 })
	d := store(t, src, t.TempDir())
	s, err := New(d, codecs, m, Options{})
	require.NoError(t, err)
	defer s.Close()
	for _, b := range []int{0, 1} {
		l, err := s.Lease(context.Background(), b)
		require.NoError(t, err)
		check(t, m, src, l, b)
		l.Release()
	}
}

// TestWithoutUnbufferedReads is about file systems and systems that have none.
func TestWithoutUnbufferedReads(t *testing.T) {
	m, src := wide(t, "llama", 4, nil)
	d := store(t, src, t.TempDir())
	s, err := New(d, codecs, m, Options{})
	require.NoError(t, err)
	defer s.Close()
	for i, b := range []int{0, 1, 2, 3, 2, 1, 0} {
		if i == 2 {
			for _, x := range s.disks { // it turns out in the middle
				x.buffered.Store(true)
			}
		}
		l, err := s.Lease(context.Background(), b)
		require.NoError(t, err)
		check(t, m, src, l, b)
		l.Release()
	}
	require.Positive(t, s.Stats().Buffered)
}

func TestFilesThatChange(t *testing.T) {
	m, src := wide(t, "llama", 4, nil)
	for name, c := range map[string]struct {
		do   func(t *testing.T, path string)
		text string // "" for what does no harm
	}{
		"cut": {func(t *testing.T, path string) {
			st, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, st.Size()/3))
		}, "bytes and has"},
		"emptied": {func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) }, "and has 0"},
		"written to": {func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte("x"), 77)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			later := time.Now().Add(time.Second)
			require.NoError(t, os.Chtimes(path, later, later))
		}, "it was written to at"},
		"replaced": {func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+".new", b, 0o600))
			require.NoError(t, os.Rename(path+".new", path))
		}, "another file is in its place"},
		"removed": {func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }, ""},
		"renamed": {func(t *testing.T, path string) { require.NoError(t, os.Rename(path, path+"x")) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := store(t, src, t.TempDir())
			s, err := New(d, codecs, m, Options{})
			require.NoError(t, err)
			defer s.Close()
			sweep(t, s, true, func(l *Lease, b int) { check(t, m, src, l, b) })
			settle(s)
			for _, path := range d.paths {
				c.do(t, path)
			}
			l, err := s.Lease(context.Background(), 0)
			require.NoError(t, err)
			defer l.Release()
			if c.text == "" {
				check(t, m, src, l, 0)
				_, err := s.Matrix("model.embed_tokens.weight")
				require.NoError(t, err)
				return
			}
			failed := 0
			for _, x := range m.Block(0) {
				if len(x.Dims) == 1 {
					_, err = l.Vector(x.Name)
				} else {
					_, err = l.Matrix(x.Name)
				}
				if err == nil {
					continue // a computed one, of whose files nothing is known
				}
				failed++
				require.ErrorContains(t, err, x.Name)
				require.ErrorIs(t, err, ErrChanged)
				require.ErrorContains(t, err, ".bin: ")
				require.ErrorContains(t, err, c.text)
				require.Contains(t, hint.Of(err), "--resume")
			}
			require.Positive(t, failed)
			_, err = s.Matrix("model.embed_tokens.weight")
			require.ErrorIs(t, err, ErrChanged)
		})
	}
}

func TestUnreadableTensor(t *testing.T) {
	m, src := wide(t, "llama", 3, nil)
	d := store(t, src, t.TempDir())
	name := d.computed(t, m, 1)
	d.bad.Store(&name)
	s, err := New(d, codecs, m, Options{Slots: 2})
	require.NoError(t, err)
	defer s.Close()
	l, err := s.Lease(context.Background(), 0, 1)
	require.NoError(t, err)
	check(t, m, src, l, 0)
	l.Release()
	settle(s)
	l, err = s.Lease(context.Background(), 1, 2)
	require.NoError(t, err)
	_, err = l.Matrix(name)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, name)
	l.Release()
	d.bad.Store(nil)
	settle(s)
	l, err = s.Lease(context.Background(), 1)
	require.NoError(t, err)
	check(t, m, src, l, 1) // the disk is back
	l.Release()
}

// TestReadErrorsNameTheFile has the system refuse what the file has.
func TestReadErrorsNameTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.bin")
	require.NoError(t, os.WriteFile(path, make([]byte, 3*page), 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	d, err := newDisk(f, true)
	require.NoError(t, err)
	defer d.close()
	err = d.failed(page, page, syscall.EIO)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, path+": bytes 4096 to 8192: input/output error")
	require.Contains(t, hint.Of(err), "--resume")
	require.NoError(t, f.Close())
	require.ErrorIs(t, d.check(), os.ErrClosed)
	err = d.readBuffered(make([]byte, 8), 0, true)
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorContains(t, err, path)
}

func TestCancelledLease(t *testing.T) {
	m, src := wide(t, "llama", 3, nil)
	d := store(t, src, t.TempDir())
	d.stuck = make(chan struct{})
	s, err := New(d, codecs, m, Options{Slots: 2})
	require.NoError(t, err)
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := s.Lease(ctx, 0, 1)
	require.NoError(t, err)
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = l.Matrix(d.computed(t, m, 0))
	require.ErrorIs(t, err, context.Canceled)
	l.Release()
	_, err = s.Lease(ctx, 0)
	require.ErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = s.Lease(ctx, 2)
	require.ErrorIs(t, err, context.DeadlineExceeded, "while both slots are being filled")
	close(d.stuck)
	l, err = s.Lease(context.Background(), 2)
	require.NoError(t, err)
	check(t, m, src, l, 2)
	l.Release()
}

func TestCloseWhileReading(t *testing.T) {
	before := runtime.NumGoroutine()
	m, src := wide(t, "llama", 3, nil)
	d := store(t, src, t.TempDir())
	d.stuck = make(chan struct{})
	s, err := New(d, codecs, m, Options{Slots: 2})
	require.NoError(t, err)
	l, err := s.Lease(context.Background(), 0, 1)
	require.NoError(t, err)
	failed := make(chan error)
	go func() {
		var errs []error
		for _, x := range m.Block(0) {
			if len(x.Dims) == 2 {
				_, err := l.Matrix(x.Name)
				errs = append(errs, err)
			}
		}
		failed <- errors.Join(errs...)
	}()
	time.AfterFunc(10*time.Millisecond, func() { close(d.stuck) })
	s.Close()
	if err := <-failed; err != nil { // all that had been begun may have come in time
		require.ErrorIs(t, err, errClosed)
	}
	_, err = s.Lease(context.Background(), 2)
	require.ErrorIs(t, err, errClosed)
	s.Close()
	l.Release()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("goroutines are left")
}
