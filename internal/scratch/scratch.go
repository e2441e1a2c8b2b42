package scratch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
)

// Page is what offsets and lengths of transfers are multiples of, and where their
// buffers begin.
const Page = 4096

// Pages returns the bytes of the pages that n bytes take.
func Pages(n int64) int64 { return (n + Page - 1) / Page * Page }

// Buffer returns a buffer of the pages that n bytes take.
func Buffer(n int64) []byte {
	size := Pages(n)
	b := make([]byte, size+Page)
	skip := int64(-uintptr(unsafe.Pointer(&b[0])) % Page)
	return b[skip : skip+size : skip+size]
}

// Stats counts what went to files and back, and how long it was waited for.
type Stats struct {
	Written, Read int64
	Waited        time.Duration
}

// Add returns the sum of both.
func (s Stats) Add(o Stats) Stats {
	return Stats{s.Written + o.Written, s.Read + o.Read, s.Waited + o.Waited}
}

// File is a file of a given size. Its methods are safe for concurrent use.
type File struct {
	file  *os.File
	dir   string
	size  int64
	queue chan *Transfer
	done  sync.WaitGroup
	close sync.Once
	gone  string // what to remove at the end, where an open file keeps its name

	mu    sync.Mutex
	stats Stats
}

// queued is how many transfers may stand in line before their callers must.
const queued = 64

// Create makes a file of size bytes in dir, its space set aside. Close removes it.
func Create(dir string, size int64) (*File, error) {
	f, named, err := open(dir)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("scratch directory %s: %w", dir, underlying(err)), "name a directory that exists and that you may write to")
	}
	x := New(f, dir, size)
	if named && os.Remove(f.Name()) != nil { // as on Windows, while it is open
		x.gone = f.Name()
	}
	if err := fsx.Reserve(f, size); err != nil {
		x.Close()
		return nil, x.full("setting aside "+memory.FormatSize(size), err)
	}
	return x, nil
}

// New returns a File that is f, which errors say to be in dir. It belongs to the File
// from now on and must have room for size bytes.
func New(f *os.File, dir string, size int64) *File {
	x := &File{file: f, dir: dir, size: size, queue: make(chan *Transfer, queued)}
	x.done.Go(x.work)
	return x
}

func (f *File) full(doing string, err error) error { return full(f.dir, doing, err) }

// full says what was being done in dir and, if it is the disk's size, what helps.
func full(dir, doing string, err error) error {
	err = fmt.Errorf("scratch file in %s: %s: %w", dir, doing, underlying(err))
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EFBIG) || errors.Is(err, syscall.EDQUOT) {
		return hint.Add(err, "free space there, name a directory on another disk, or give more --memory so that less is on disk")
	}
	return err
}

func underlying(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// Size returns the size that was asked for.
func (f *File) Size() int64 { return f.size }

// Stats returns the counts so far.
func (f *File) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// Close finishes what is under way and removes the file. A second Close does nothing.
func (f *File) Close() {
	f.close.Do(func() {
		close(f.queue)
		f.done.Wait()
		f.file.Close()
		if f.gone != "" {
			os.Remove(f.gone)
		}
	})
}

// A Transfer is something being written or read.
type Transfer struct {
	f     *File
	b     []byte
	off   int64
	write bool
	ready chan struct{}
	err   error
}

// Write begins to write b, which must not change until that is waited for.
func (f *File) Write(b []byte, off int64) *Transfer { return f.begin(b, off, true) }

// Read begins to read b, which must be left alone until that is waited for. What is
// read is what was written by transfers begun before.
func (f *File) Read(b []byte, off int64) *Transfer { return f.begin(b, off, false) }

func (f *File) begin(b []byte, off int64, write bool) *Transfer {
	if off%Page != 0 || len(b)%Page != 0 || off < 0 || int64(len(b)) > f.size-off {
		panic(fmt.Sprintf("scratch: %d bytes at %d of %d", len(b), off, f.size))
	}
	t := &Transfer{f: f, b: b, off: off, write: write, ready: make(chan struct{})}
	f.queue <- t
	return t
}

// Wait returns when the transfer is over. The time it takes counts as waited.
func (t *Transfer) Wait() error {
	select {
	case <-t.ready:
		return t.err
	default:
	}
	start := time.Now()
	<-t.ready
	t.f.mu.Lock()
	t.f.stats.Waited += time.Since(start)
	t.f.mu.Unlock()
	return t.err
}

// work does the transfers in the order in which they were begun.
func (f *File) work() {
	for t := range f.queue {
		n, err := t.do()
		if refused(err) && buffered(f.file) {
			n, err = t.do() // the file system takes only what goes through the page cache
		}
		f.mu.Lock()
		if t.write {
			f.stats.Written += int64(n)
		} else {
			f.stats.Read += int64(n)
		}
		f.mu.Unlock()
		if err != nil {
			doing := "reading "
			if t.write {
				doing = "writing "
			}
			t.err = f.full(doing+memory.FormatSize(int64(len(t.b))), err)
		}
		t.b = nil
		close(t.ready)
	}
}

func (t *Transfer) do() (int, error) {
	if t.write {
		return t.f.file.WriteAt(t.b, t.off)
	}
	return t.f.file.ReadAt(t.b, t.off)
}
