package data

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

const (
	// maxLine is the greatest length of a row in bytes.
	maxLine = 64 << 20

	// batchBytes is about how much of a file is checked by one goroutine at a
	// time.
	batchBytes = 1 << 20
)

// rows are the examples of a file of rows. Only where they start is kept.
type rows struct {
	f       *os.File
	path    string
	o       Options
	offsets []int64 // of each row, and the end
}

// Close implements examples.
func (r *rows) Close() error { return r.f.Close() }

// example implements examples.
func (r *rows) example(i int) (Example, error) {
	line := make([]byte, r.offsets[i+1]-r.offsets[i])
	if n, err := r.f.ReadAt(line, r.offsets[i]); n < len(line) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Example{}, fmt.Errorf("%s: the file changed while it was used: %w", r.path, err)
	}
	e, _, err := r.make(line)
	if err != nil {
		return Example{}, fmt.Errorf("%s: the file changed while it was used: row %d: %w", r.path, i+1, err)
	}
	return e, nil
}

func (r *rows) make(line []byte) (Example, int, error) {
	row, err := parseRow(trim(line))
	if err != nil {
		return Example{}, 0, err
	}
	return r.o.example(row)
}

// trim removes the white space of JSON.
func trim(line []byte) []byte { return bytes.Trim(line, " \t\r\n") }

// openRows reads a file of rows from start on, notes where they are and checks
// every one. The checking is done by as many goroutines as there are processors;
// the error is that of the first row at fault.
func openRows(f *os.File, start int64, path string, o Options) (*rows, Stats, error) {
	r := &rows{f: f, path: path, o: o}
	c := &checker{rows: r, work: make(chan batch), line: math.MaxInt}
	for range runtime.GOMAXPROCS(0) {
		c.wg.Go(c.run)
	}
	err := r.scan(start, c)
	close(c.work)
	c.wg.Wait()
	if c.err != nil {
		return nil, Stats{}, fmt.Errorf("%s:%d: %w", path, c.line, c.err)
	}
	if err != nil {
		return nil, Stats{}, err
	}
	if len(r.offsets) == 1 {
		return nil, Stats{}, hint.Add(fmt.Errorf("%s: %w: the file has no rows", path, tensor.ErrMalformed), shapes)
	}
	return r, c.stats, nil
}

// scan finds the rows and hands them to c. Lines without anything are no rows.
func (r *rows) scan(start int64, c *checker) error {
	in := bufio.NewReaderSize(io.NewSectionReader(r.f, start, math.MaxInt64-start), batchBytes)
	var b batch
	at := start
	for number := 1; ; number++ {
		line, err := readLine(in)
		switch {
		case errors.Is(err, errLongLine):
			return hint.Add(fmt.Errorf("%s:%d: %w: a line of more than %d MiB", r.path, number, tensor.ErrMalformed, maxLine>>20), shapes)
		case err != nil && err != io.EOF:
			return err
		}
		if len(trim(line)) > 0 {
			r.offsets = append(r.offsets, at)
			b.add(number, line)
		}
		at += int64(len(line))
		if (err == io.EOF || len(b.text) >= batchBytes) && len(b.lines) > 0 {
			if c.failed.Load() {
				return nil
			}
			c.work <- b
			b = batch{}
		}
		if err == io.EOF {
			r.offsets = append(r.offsets, at)
			return nil
		}
	}
}

var errLongLine = errors.New("line too long")

// readLine returns the next line with its end, which is valid until the next
// call, and io.EOF with the last one.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return line, err
	}
	long := bytes.Clone(line)
	for err == bufio.ErrBufferFull {
		if len(long) > maxLine {
			return nil, errLongLine
		}
		line, err = in.ReadSlice('\n')
		long = append(long, line...)
	}
	return long, err
}

// batch is some rows with their line numbers.
type batch struct {
	text  []byte
	lines []int
	ends  []int // of each row in text
}

func (b *batch) add(number int, line []byte) {
	b.text = append(b.text, line...)
	b.lines = append(b.lines, number)
	b.ends = append(b.ends, len(b.text))
}

// checker makes the examples of batches and counts them.
type checker struct {
	rows   *rows
	work   chan batch
	wg     sync.WaitGroup
	failed atomic.Bool

	mu    sync.Mutex
	stats Stats
	line  int // of err
	err   error
}

func (c *checker) run() {
	for b := range c.work {
		var stats Stats
		start := 0
		for i, end := range b.ends {
			e, cut, err := c.rows.make(b.text[start:end])
			if err != nil {
				c.fail(b.lines[i], err)
				break
			}
			stats.count(e, cut)
			start = end
		}
		c.mu.Lock()
		c.stats.add(stats)
		c.mu.Unlock()
	}
}

// fail keeps the error of the first line at fault. Batches before it have been
// handed out already and are all finished.
func (c *checker) fail(line int, err error) {
	c.failed.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	if line < c.line {
		c.line, c.err = line, err
	}
}
