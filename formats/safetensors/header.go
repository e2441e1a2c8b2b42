package safetensors

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

const (
	// lengthSize is the size of the field that gives the header's length.
	lengthSize = 8

	// minFile is the size of a file without tensors: its header is "{}".
	minFile = lengthSize + 2

	// maxHeader is the longest header in bytes that the reference
	// implementation reads (MAX_HEADER_SIZE in tensor.rs).
	maxHeader = 100_000_000

	// metadataKey is the one name in the header that is not a tensor's.
	metadataKey = "__metadata__"
)

// holds reports whether the format has a name for the dtype. Those that it has
// come first among tensor's.
func holds(d tensor.DType) bool { return d >= tensor.Bool && d <= tensor.U64 }

// placed is a tensor and its place in the data that follows the header: from
// begin to just before end.
type placed struct {
	info       tensor.Info
	begin, end int64
}

// header is what a file says about itself.
type header struct {
	meta    tensor.Meta
	tensors []placed // in the order of the data
	start   int64    // where in the file the data begins
}

// readHeader reads and checks the header of a file of size bytes.
func readHeader(r io.ReaderAt, size int64) (*header, error) {
	if size < minFile {
		return nil, again(fmt.Errorf("%w: truncated: %d bytes, a safetensors file has at least %d", tensor.ErrMalformed, size, minFile))
	}
	var first [lengthSize + 1]byte
	if n, err := r.ReadAt(first[:], 0); n < len(first) {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(first[:])
	switch {
	case string(first[:]) == "version h":
		return nil, hint.Add(fmt.Errorf("%w: a Git LFS pointer, not the file that it stands for", tensor.ErrMalformed),
			"run git lfs pull in the repository that it came with")
	case n > maxHeader:
		return nil, fmt.Errorf("%w: not a safetensors file: a header of %d bytes is over the limit of %d", tensor.ErrMalformed, n, maxHeader)
	case int64(n) > size-lengthSize:
		return nil, again(fmt.Errorf("%w: truncated: the header ends at byte %d, the file at %d", tensor.ErrMalformed, lengthSize+n, size))
	case n == 0 || first[lengthSize] != '{':
		return nil, fmt.Errorf("%w: not a safetensors file: the header does not begin with {", tensor.ErrMalformed)
	}
	// The header is read as it is parsed and never held whole.
	meta, list, err := parseHeader(io.NewSectionReader(r, lengthSize, int64(n)))
	if err != nil {
		return nil, err
	}
	end, err := arrange(list)
	if err != nil {
		return nil, err
	}
	h := &header{meta: meta, tensors: list, start: lengthSize + int64(n)}
	switch have := size - h.start; {
	case have < end:
		return nil, again(fmt.Errorf("%w: truncated: the tensors take %d bytes, the file has %d for them", tensor.ErrMalformed, end, have))
	case have > end:
		return nil, fmt.Errorf("%w: the last %d bytes belong to no tensor", tensor.ErrMalformed, have-end)
	}
	return h, nil
}

func again(err error) error { return hint.Add(err, "download or copy the file again") }

// arrange sorts the tensors by their place and returns where the last one ends.
// It returns an error that names a tensor unless each follows the one before it
// without a gap and is as long as its dtype and shape say. Tensors without
// bytes keep their order.
func arrange(list []placed) (int64, error) {
	slices.SortStableFunc(list, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	var at int64
	for _, t := range list {
		if err := t.info.Validate(); err != nil {
			return 0, err
		}
		size := t.info.Size()
		switch {
		case t.begin > at:
			return 0, malformed(t.info.Name, "it begins at byte %d, bytes %d to %d belong to no tensor", t.begin, at, t.begin)
		case t.begin < at:
			return 0, malformed(t.info.Name, "it begins at byte %d, inside the tensor before it, which ends at %d", t.begin, at)
		case t.end < t.begin:
			return 0, malformed(t.info.Name, "it begins at byte %d and ends before, at %d", t.begin, t.end)
		case t.end-t.begin != size:
			return 0, malformed(t.info.Name, "%v of shape %v takes %d bytes, the offsets span %d", t.info.DType, t.info.Shape, size, t.end-t.begin)
		}
		at = t.end
	}
	return at, nil
}

// place sets the tensors, in this order, one after another from the start of
// the data and returns where the last one ends.
func place(list []placed) (int64, error) {
	var at int64
	for i := range list {
		end, ok := safeio.Add(at, list[i].info.Size())
		if !ok {
			return 0, fmt.Errorf("tensor %q: %w: with it, all tensors together have more bytes than 64 bits can count",
				list[i].info.Name, tensor.ErrUnsupported)
		}
		list[i].begin, list[i].end = at, end
		at = end
	}
	return at, nil
}

func malformed(name, format string, args ...any) error {
	return fmt.Errorf("tensor %q: %w: %s", name, tensor.ErrMalformed, fmt.Sprintf(format, args...))
}
