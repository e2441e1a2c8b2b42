package records

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

const (
	// bufferSize is how much is read at a time.
	bufferSize = 1 << 20

	// headSize is how much of the beginning tells what a file holds.
	headSize = 64 << 10

	// maxWindow is the most memory that zstd may ask for, which is what its own
	// command line allows.
	maxWindow = 128 << 20
)

// source is an open file whose content is read from in, decompressed.
type source struct {
	path   string
	f      *os.File
	size   int64 // of the file
	read   int64 // of size
	packed *compression
	in     *bufio.Reader
	close  func()
}

// compression is something a file may be packed with.
type compression struct {
	name   string
	exts   []string
	magics []string
	open   func(io.Reader) (r io.Reader, close func(), err error)
}

var compressions = []compression{
	{"gzip", []string{".gz", ".gzip"}, []string{"\x1f\x8b"}, func(r io.Reader) (io.Reader, func(), error) {
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	}},
	// A stream may begin with a skippable frame, of which there are sixteen.
	{"zstd", []string{".zst", ".zstd"}, []string{"\x28\xb5\x2f\xfd", "\x50\x2a\x4d\x18"}, func(r io.Reader) (io.Reader, func(), error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(1<<62))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}},
}

// compressedAs returns what a name says that a file is packed with, nil if
// nothing, and the name without that.
func compressedAs(name string) (*compression, string) {
	for i := range compressions {
		for _, ext := range compressions[i].exts {
			if len(name) > len(ext) && strings.EqualFold(name[len(name)-len(ext):], ext) {
				return &compressions[i], name[:len(name)-len(ext)]
			}
		}
	}
	return nil, name
}

// compressedIn returns what content is packed with, nil if with nothing.
func compressedIn(head []byte) *compression {
	for i := range compressions {
		for _, magic := range compressions[i].magics {
			if bytes.HasPrefix(head, []byte(magic)) {
				return &compressions[i]
			}
		}
	}
	return nil
}

// openSource opens a file and unpacks it if its content is packed.
func openSource(path string) (*source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, hint.Add(fmt.Errorf("%s: not a file, but a directory", path), "name one of its files")
	}
	if !info.Mode().IsRegular() {
		return nil, hint.Add(fmt.Errorf("%s: %w: not a file", path, tensor.ErrUnsupported), "write what comes of it into a file first: the data is read more than once")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	s := &source{path: path, f: f, size: info.Size(), close: func() {}}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

func (s *source) open() error {
	s.in = bufio.NewReaderSize(counter{s}, bufferSize)
	head, err := s.in.Peek(4)
	if err != nil && err != io.EOF {
		return err
	}
	s.packed = compressedIn(head)
	if said, _ := compressedAs(filepath.Base(s.path)); s.packed == nil && said != nil && len(head) > 0 {
		return hint.Add(fmt.Errorf("%s: %w: the content is not %s", s.path, tensor.ErrMalformed, said.name),
			"the download may have failed, or the file was unpacked and kept its name: name it after what it holds")
	}
	if s.packed == nil {
		return nil
	}
	plain, end, err := s.packed.open(s.in)
	if err != nil {
		return s.broken(err)
	}
	s.close = end
	s.in = bufio.NewReaderSize(&unpacked{s: s, r: plain}, bufferSize)
	return nil
}

// Close closes the file.
func (s *source) Close() error {
	s.close()
	return s.f.Close()
}

// broken says that the compressed content is not sound.
func (s *source) broken(err error) error {
	what := "cannot be decompressed: " + err.Error()
	todo := "the file is damaged: download or compress it again"
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		what = "ends in the middle"
		todo = "the file was cut off: download it again"
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		what = fmt.Sprintf("needs a window of more than %d MiB", maxWindow>>20)
		todo = "decompress the file first, with zstd -d --long=31"
	}
	return hint.Add(fmt.Errorf("%s: %w: the %s data %s, %d of %d bytes read", s.path, tensor.ErrMalformed, s.packed.name, what, s.read, s.size), "%s", todo)
}

// counter reads the file and counts.
type counter struct{ s *source }

func (c counter) Read(p []byte) (int, error) {
	n, err := c.s.f.Read(p)
	c.s.read += int64(n)
	return n, err
}

// unpacked reads what is packed and says where it is not sound.
type unpacked struct {
	s *source
	r io.Reader
}

func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if err != nil && err != io.EOF {
		err = u.s.broken(err)
	}
	return n, err
}
