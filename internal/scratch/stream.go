package scratch

import (
	"fmt"
	"os"

	"github.com/seed18967229/nibble/internal/hint"
)

// Stream is a file without a name that grows as it is written, through the page
// cache, and is read anywhere. Reading is safe for concurrent use, also while it is
// written; writing is not.
type Stream struct {
	file *os.File
	dir  string
	size int64
	gone string // what to remove at the end, where an open file keeps its name
}

// NewStream makes an empty Stream in dir. Close removes it.
func NewStream(dir string) (*Stream, error) {
	f, named, err := open(dir)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("scratch directory %s: %w", dir, underlying(err)), "name a directory that exists and that you may write to")
	}
	s := &Stream{file: f, dir: dir}
	if named && os.Remove(f.Name()) != nil { // as on Windows, while it is open
		s.gone = f.Name()
	}
	_ = buffered(f)
	return s, nil
}

// Write appends p. A disk that is full is an error that says so.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.file.WriteAt(p, s.size)
	s.size += int64(n)
	if err != nil {
		err = full(s.dir, "writing", err)
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (s *Stream) ReadAt(p []byte, off int64) (int, error) { return s.file.ReadAt(p, off) }

// Size returns how much has been written.
func (s *Stream) Size() int64 { return s.size }

// Close removes the file. A second Close does nothing.
func (s *Stream) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	if s.gone != "" {
		os.Remove(s.gone)
	}
	return err
}
