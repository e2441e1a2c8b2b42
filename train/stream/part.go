package stream

import (
	"cmp"
	"io"
	"slices"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// A part is a tensor, or some rows of one, on its way into memory. What is above the
// line is set when it is made; what is below belongs to the readers until ready is
// closed.
type part struct {
	name   string
	first  int64 // byte of the tensor that it begins with
	size   int64
	room   []byte // roomOf(size) bytes
	info   tensor.Info
	vector []float32 // to decode a vector to
	open   bool      // open it once it is there
	slot   *slot     // that it is in, nil if it is of the head
	ready  chan struct{}

	// ----

	data   []byte // the part of room that holds the bytes
	matrix kernel.Matrix
	err    error

	state state // of the work on it, guarded by Stream.mu
	jobs  int   // in all,
	taken int   // begun,
	done  int   // and ended

	// What has to be read: straight to where it stays, in whole pages unless the file
	// is buffered; by way of a window; and from readers of what is computed.
	straight run
	rest     []run
	computed []piece
	disks    []*disk // that it is read from
}

type state uint8

const (
	idle     state = iota // nobody has asked for it
	queued                // waits for a reader
	planning              // a reader finds out where its bytes are
	reading               // its jobs can be taken
	closed                // ready is
)

// run is bytes of a file, and where in a part's data they belong.
type run struct {
	disk       *disk
	off, n, at int64
}

func (r run) end() int64 { return r.off + r.n }

// from returns the run without its first n bytes.
func (r run) from(n int64) run { return run{r.disk, r.off + n, r.n - n, r.at + n} }

// piece is bytes that a reader computes.
type piece struct {
	r          io.ReaderAt
	off, n, at int64
}

const (
	// straightBytes is how much is read straight at a time: enough for the disk to be
	// busy and a goroutine to be rarely woken, and soon over when it is not wanted.
	straightBytes = 8 << 20

	// windowBytes is the memory that a reader has for what it cannot read straight.
	windowBytes = 1 << 20

	// windowGap is how many bytes that are not wanted a window reads rather than begin
	// anew.
	windowGap = 64 << 10
)

// plan finds out where the bytes of a part are, and cuts the work into jobs.
func (s *Stream) plan(p *part) error {
	raw, err := s.src.Raw(p.name)
	if err != nil {
		return err
	}
	pieces := tensor.Pieces(raw, p.first, p.size)
	p.rest, p.computed, p.disks = p.rest[:0], p.computed[:0], p.disks[:0]
	at := int64(0)
	for _, x := range pieces {
		if x.Size == 0 {
			continue
		}
		if x.File == nil {
			p.computed = append(p.computed, piece{x.R, x.Off, x.Size, at})
		} else {
			d, err := s.disk(x.File)
			if err != nil {
				return named(p, err)
			}
			if !slices.Contains(p.disks, d) {
				p.disks = append(p.disks, d)
			}
			p.rest = append(p.rest, run{d, x.Off, x.Size, at})
		}
		at += x.Size
	}
	lead := p.alignRoom()
	p.data = p.room[lead : lead+p.size : lead+p.size]
	slices.SortFunc(p.rest, func(a, b run) int { return cmp.Compare(a.off, b.off) })
	p.jobs = 1 + int((p.straight.n+straightBytes-1)/straightBytes)
	return nil
}

// alignRoom takes the longest run out of the rest to be read straight, if it is long
// enough, and returns where in the room the data must begin for that.
func (p *part) alignRoom() int64 {
	p.straight = run{}
	longest := -1
	for i, r := range p.rest {
		if r.n >= straightLeast && (longest < 0 || r.n > p.rest[longest].n) {
			longest = i
		}
	}
	if longest < 0 {
		return 0
	}
	whole := p.rest[longest]
	p.rest = slices.Delete(p.rest, longest, longest+1)
	p.straight = whole
	if whole.disk.buffered.Load() {
		return 0
	}
	start, end := roundUp(whole.off, page), whole.end()&^(page-1)
	if n := start - whole.off; n > 0 {
		p.rest = append(p.rest, run{whole.disk, whole.off, n, whole.at})
	}
	if n := whole.end() - end; n > 0 {
		p.rest = append(p.rest, whole.from(end-whole.off))
	}
	p.straight = whole.from(start - whole.off)
	p.straight.n = end - start
	return (whole.off - whole.at) & (page - 1)
}

// do does job number i of a part that has been planned. buf is of windowBytes.
func (s *Stream) do(p *part, i int, buf []byte) error {
	if i > 0 {
		r := p.straight.from(int64(i-1) * straightBytes)
		r.n = min(r.n, straightBytes)
		return s.read(r.disk, p.data[r.at:r.at+r.n], r.off, int(r.n))
	}
	for _, c := range p.computed {
		if n, err := c.r.ReadAt(p.data[c.at:c.at+c.n], c.off); int64(n) < c.n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return cmp.Or(s.changed(), err)
		}
	}
	for rest := p.rest; len(rest) > 0; {
		var err error
		if rest, err = s.gather(p.data, rest, buf); err != nil {
			return err
		}
	}
	return nil
}

// read reads the len(dst) bytes of a file at off. Where that can be done without the
// page cache all numbers are whole pages, and need bytes are there.
func (s *Stream) read(d *disk, dst []byte, off int64, need int) error {
	if !d.buffered.Load() {
		if err := d.readStraight(dst, off, need); err != errNotDirect {
			s.direct.Add(1)
			return err
		}
	}
	s.buffered.Add(1)
	return d.readBuffered(dst[:need], off, s.resident)
}

// gather reads as many of the runs as a window holds that begins with the first one,
// and returns the others. The runs are changed.
func (s *Stream) gather(data []byte, runs []run, buf []byte) ([]run, error) {
	d, start := runs[0].disk, runs[0].off&^(page-1)
	limit, end := start+int64(len(buf)), start
	for _, r := range runs {
		if r.disk != d || r.off < start || r.off >= limit || r.off > end+windowGap {
			break
		}
		end = max(end, min(r.end(), limit))
	}
	window := buf[:roundUp(end-start, page)]
	if err := s.read(d, window, start, int(end-start)); err != nil {
		return nil, err
	}
	for len(runs) > 0 && runs[0].disk == d && start <= runs[0].off && runs[0].off < end {
		r := runs[0]
		n := min(r.n, end-r.off)
		copy(data[r.at:r.at+n], window[r.off-start:])
		if n < r.n {
			runs[0] = r.from(n)
			break
		}
		runs = runs[1:]
	}
	return runs, nil
}

// finish opens a part all of whose bytes are there.
func (s *Stream) finish(p *part) error {
	for _, d := range p.disks {
		if err := d.check(); err != nil {
			return named(p, err)
		}
	}
	if !p.open {
		return nil
	}
	rows, err := s.codecs.Open(p.info, tensor.Memory(p.data))
	if err != nil {
		return err
	}
	if len(p.info.Shape) == 1 {
		return named(p, rows.ReadRows(p.vector, 0))
	}
	p.matrix = MatrixOf(rows, p.info.Shape)
	return nil
}
