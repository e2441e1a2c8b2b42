package data

import (
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data/records"
)

// batchBytes is about how much of a file goes through one goroutine at a time.
const batchBytes = 1 << 18

// batch is some rows with where they stand, and then their examples.
type batch struct {
	text  []byte
	lines []int64
	ends  []int // of each row in text
	err   error // that came after them, or of the first one at fault

	at   int64 // how much of the file had been read
	out  []made
	done chan struct{}
}

func (b *batch) add(r records.Row) {
	b.text = append(b.text, r.Value...)
	b.lines = append(b.lines, r.Line)
	b.ends = append(b.ends, len(b.text))
}

// reading is a file of rows that is being made examples of: read by one goroutine, split
// into tokens by as many as there are processors, and put into the store in the order of
// the file. The error is that of the first row at fault.
type reading struct {
	o      *Options
	r      *records.Reader
	layout *layout
	chats  bool // a chat template made some

	work, order chan *batch
	stop        chan struct{}
}

// readRows puts the examples of a file into a store.
func (o *Options) readRows(r *records.Reader, s *store) (Stats, *reading, error) {
	n := runtime.GOMAXPROCS(0)
	x := &reading{o: o, r: r, work: make(chan *batch, n), order: make(chan *batch, 2*n), stop: make(chan struct{})}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for b := range x.work {
				x.make(b)
				close(b.done)
			}
		})
	}
	wg.Go(x.scan)
	stats, err := x.store(s)
	close(x.stop)
	wg.Wait()
	if err != nil {
		return Stats{}, nil, err
	}
	if stats.Examples == 0 {
		return Stats{}, nil, hint.Add(fmt.Errorf("%s: %w: all %d examples have more than %d tokens", r.Path(), tensor.ErrMalformed, stats.Dropped, o.MaxSeqLength),
			"raise --max-seq-length, or give --overlong truncate")
	}
	return stats, x, nil
}

// scan reads the rows and hands them out.
func (x *reading) scan() {
	defer close(x.order)
	defer close(x.work)
	b := &batch{done: make(chan struct{})}
	for {
		row, err := x.r.Next()
		if err == nil && x.layout == nil {
			err = x.begin(row)
		}
		if err == nil {
			b.add(row)
		} else if err != io.EOF {
			b.err = err
		}
		if err != nil || len(b.text) >= batchBytes {
			b.at = x.r.Position()
			for _, to := range []chan *batch{x.order, x.work} {
				select {
				case to <- b:
				case <-x.stop:
					return
				}
			}
			b = &batch{done: make(chan struct{})}
		}
		if err != nil {
			return
		}
	}
}

// begin tells the layout by the first row.
func (x *reading) begin(row records.Row) error {
	o, err := parseObject(row.Value)
	if err == nil {
		x.layout, err = x.o.detect(o)
	}
	return x.at(row.Line, row.Value, err)
}

// at says where an error is, and shows the row.
func (x *reading) at(line int64, row jsontext.Value, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %s", x.r.Where(line), err, records.Excerpt(row))
}

// make makes the examples of a batch, up to the first row at fault.
func (x *reading) make(b *batch) {
	from := 0
	for i, to := range b.ends {
		row := jsontext.Value(b.text[from:to])
		m, err := x.example(row)
		if err != nil {
			b.err = x.at(b.lines[i], row, err)
			break
		}
		b.out = append(b.out, m)
		from = to
	}
	b.text = nil
}

func (x *reading) example(row jsontext.Value) (made, error) {
	o, err := parseObject(row)
	if err != nil {
		return made{}, err
	}
	d, err := x.layout.make(x.o, x.layout, o)
	if err != nil {
		return made{}, err
	}
	return x.o.encode(d)
}

// store takes the examples in order.
func (x *reading) store(s *store) (Stats, error) {
	var stats Stats
	for b := range x.order {
		<-b.done
		for _, m := range b.out {
			if m.drop {
				stats.Dropped++
				stats.Cut += int64(len(m.Tokens))
				continue
			}
			if err := s.append(m.Tokens, m.Loss); err != nil {
				return Stats{}, err
			}
			s.endRow()
			x.chats = x.chats || m.chat
			stats.count(m.Example, m.cut)
			stats.add(Stats{Tight: one(m.tight), Doubled: one(m.twice), Systems: one(m.system)})
		}
		if b.err != nil {
			return Stats{}, b.err
		}
		if x.o.Progress != nil {
			x.o.Progress(x.r.Path(), b.at, x.r.Size())
		}
	}
	return stats, nil
}

// one counts what is so.
func one(is bool) int {
	if is {
		return 1
	}
	return 0
}
