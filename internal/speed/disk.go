package speed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/seed18967229/nibble/internal/fsx"
)

// Disk is how fast a disk took and gave a file, in bytes a second.
type Disk struct {
	Write Rates // with fsync
	Read  Rates

	// Direct says that reading went past the page cache (O_DIRECT). Otherwise the
	// system was asked to forget the file first, which it need not do.
	Direct bool
}

const (
	diskChunk = 4 << 20
	diskAlign = 4096
	// readers is how many reads are under way at once, as in a trainer that reads
	// ahead.
	readers = 2
)

// MeasureDisk writes a file of size bytes, a multiple of 4 MiB or less, in dir and
// reads it, so many times. The file has no name while it is measured where the system
// can do that, so that nothing is left behind whatever happens.
func MeasureDisk(ctx context.Context, dir string, size int64, rounds int, done func(n int64)) (*Disk, error) {
	d := new(Disk)
	for range rounds {
		if err := d.round(ctx, dir, size, done); err != nil {
			return nil, fmt.Errorf("disk of %s: %w", dir, err)
		}
	}
	return d, nil
}

func (d *Disk) round(ctx context.Context, dir string, size int64, done func(n int64)) (err error) {
	f, err := os.CreateTemp(dir, ".nibble-bench-*")
	if err != nil {
		return err
	}
	defer f.Close()
	in, direct, err := openDirect(f.Name())
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	defer in.Close()
	if os.Remove(f.Name()) != nil { // as on Windows, while it is open
		defer func() {
			in.Close()
			f.Close()
			err = errors.Join(err, os.Remove(f.Name()))
		}()
	}
	d.Direct = direct

	// Random bytes: some disks compress, and some do not store zeros.
	buf := aligned(diskChunk)
	fill(buf, rand.NewPCG(uint64(size), 1), ^uint64(0), 0)
	start := time.Now()
	for at := int64(0); at < size; at += diskChunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(diskChunk, size-at)
		if _, err := f.Write(buf[:n]); err != nil {
			return err
		}
		done(n)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	d.Write = append(d.Write, float64(size)/time.Since(start).Seconds())

	if !direct {
		fsx.Forget(f, 0, 0)
	}
	start = time.Now()
	if err := read(ctx, in, 0, size, time.Time{}, done); err != nil {
		return err
	}
	d.Read = append(d.Read, float64(size)/time.Since(start).Seconds())
	return nil
}

// read reads a file from one place, which begins a page, to another, readers chunks at a
// time; no chunk is begun after until, unless that is zero.
func read(ctx context.Context, f *os.File, from, to int64, until time.Time, done func(n int64)) error {
	var next atomic.Int64
	next.Store(from)
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			buf := aligned(diskChunk)
			for errs[r] == nil && (until.IsZero() || time.Now().Before(until)) {
				at := next.Add(diskChunk) - diskChunk
				if at >= to {
					return
				}
				if errs[r] = ctx.Err(); errs[r] != nil {
					return
				}
				// Whole pages are asked for; the file may end before.
				want := min(diskChunk, to-at)
				n, err := f.ReadAt(buf[:(want+diskAlign-1)&^(diskAlign-1)], at)
				if int64(n) < want {
					errs[r] = err
				}
				done(want)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// aligned returns n bytes that begin where a page does.
func aligned(n int) []byte {
	b := make([]byte, n+diskAlign)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) % diskAlign)
	return b[skip : skip+n : skip+n]
}

// openDirect opens a file for reading past the page cache, or if its file system cannot do
// that, through it.
func openDirect(path string) (f *os.File, direct bool, err error) {
	if f, err = fsx.OpenDirect(path); err == nil {
		return f, true, nil
	}
	f, err = os.Open(path)
	return f, false, err
}
