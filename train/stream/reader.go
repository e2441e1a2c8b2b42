package stream

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

// readers is how many goroutines read: enough to keep a disk busy, and the one that
// does what takes a processor, out of the way of the others.
const readers = 3

// errClosed is what waits for a part when the Stream is closed gets.
var errClosed = errors.New("the stream of weights has been closed")

// ask queues parts, ahead of those that nobody waits for yet if they are urgent.
// Stream.mu is held.
func (s *Stream) ask(parts []*part, urgent bool) {
	q := &s.later
	if urgent {
		q = &s.urgent
	}
	for _, p := range parts {
		p.state, p.jobs, p.taken, p.done = queued, 0, 0, 0
		p.err, p.matrix, p.ready = nil, nil, make(chan struct{})
		if p.slot != nil {
			p.slot.busy++
		}
		if s.closing {
			s.end(p, errClosed)
			continue
		}
		*q = append(*q, p)
	}
	s.work.Broadcast()
}

// hurry puts the parts of a slot ahead of those that nobody waits for yet. Stream.mu
// is held.
func (s *Stream) hurry(x *slot) {
	s.later = slices.DeleteFunc(s.later, func(p *part) bool {
		if p.slot == x {
			s.urgent = append(s.urgent, p)
		}
		return p.slot == x
	})
}

// end says that a part is there, or that it will not be. Stream.mu is held.
func (s *Stream) end(p *part, err error) {
	p.state, p.err = closed, err
	if err == nil {
		s.count(p)
	}
	close(p.ready)
	x := p.slot
	if x == nil {
		return
	}
	if err != nil {
		x.failed = true
	}
	if x.busy--; x.busy == 0 {
		close(s.quiet)
		s.quiet = make(chan struct{})
	}
}

func (s *Stream) count(p *part) {
	if p.slot != nil {
		s.stats.BytesRead += p.size
	} else {
		s.stats.HeadRead += p.size
	}
}

// take returns what a reader is to do next: to plan a part, where job is -1, or one of
// its jobs. It waits until there is something, and returns nil when the Stream is
// closed. Stream.mu is held.
func (s *Stream) take() (p *part, job int) {
	for !s.closing {
		for _, q := range []*[]*part{&s.urgent, &s.later} {
			for i, p := range *q {
				switch p.state {
				case queued:
					p.state = planning
					return p, -1
				case reading:
					job := p.taken
					if p.taken++; p.taken == p.jobs {
						*q = slices.Delete(*q, i, i+1)
					}
					return p, job
				}
			}
		}
		s.work.Wait()
	}
	return nil, 0
}

// drop takes a part that has failed out of the queues, so that no more of its jobs are
// begun. Stream.mu is held.
func (s *Stream) drop(p *part) {
	is := func(x *part) bool { return x == p }
	s.urgent, s.later = slices.DeleteFunc(s.urgent, is), slices.DeleteFunc(s.later, is)
}

// readAhead is a background reader.
func (s *Stream) readAhead(buf []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		p, job := s.take()
		if p == nil {
			return
		}
		s.mu.Unlock()
		err := s.step(p, job, buf)
		s.mu.Lock()
		if job < 0 && err == nil {
			p.state = reading
			s.work.Broadcast()
			continue
		}
		if job >= 0 {
			p.done++
		}
		if err != nil && p.err == nil {
			p.err = err
			s.drop(p)
			p.jobs = p.taken
		}
		if p.done < p.jobs {
			continue
		}
		if p.err == nil {
			s.mu.Unlock()
			err = s.finish(p)
			s.mu.Lock()
			p.err = err
		}
		s.end(p, p.err)
	}
}

// step does one job of a part, or plans it.
func (s *Stream) step(p *part, job int, buf []byte) error {
	if job < 0 {
		return s.plan(p)
	}
	return named(p, s.do(p, job, buf))
}

// named says which tensor an error is of.
func named(p *part, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("tensor %q: %w", p.name, err)
}

// disk returns what is known of a file.
func (s *Stream) disk(f *os.File) (*disk, error) {
	s.disksMu.Lock()
	defer s.disksMu.Unlock()
	if d, ok := s.disks[f]; ok {
		return d, nil
	}
	d, err := newDisk(f, !s.resident)
	if err != nil {
		return nil, err
	}
	s.disks[f] = d
	return d, nil
}

// changed returns an error if one of the files that have been read from has changed.
func (s *Stream) changed() error {
	s.disksMu.Lock()
	defer s.disksMu.Unlock()
	for _, d := range s.disks {
		if err := d.check(); errors.Is(err, ErrChanged) {
			return err
		}
	}
	return nil
}
