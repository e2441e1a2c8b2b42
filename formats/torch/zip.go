package torch

import (
	"archive/zip"
	"errors"
	"io"
	"math"
	"strings"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
)

const (
	// maxDirectory is how much of the archive is read for its directory, in
	// bytes: that of some 400,000 storages.
	maxDirectory = 32 << 20

	pickleName    = "data.pkl"
	byteOrderName = "byteorder"
	scriptName    = "constants.pkl"
)

// section is where an entry's bytes lie in the file.
type section struct{ at, size int64 }

// archive is the entries of a checkpoint, by their names without the directory
// that all are in. Entries are looked at when they are needed.
type archive struct {
	r       io.ReaderAt
	size    int64
	entries map[string]*zip.File
}

func readZip(r io.ReaderAt, size int64) (content, error) {
	a, err := openArchive(r, size)
	if err != nil {
		return content{}, err
	}
	swap, err := a.bigEndian()
	if err != nil {
		return content{}, err
	}
	p, err := a.section(pickleName)
	if err != nil {
		return content{}, err
	}
	in := newInput(r, p.at, p.size)
	root, err := unpickle(in, a.storage)
	if err == nil && in.left > 0 {
		err = malformed("%s: %d bytes behind the end of the pickle", pickleName, in.left)
	}
	return content{root, swap}, err
}

// openArchive reads the directory of the zip archive.
func openArchive(r io.ReaderAt, size int64) (*archive, error) {
	limited := &limitedReader{r, maxDirectory}
	z, err := zip.NewReader(limited, size)
	switch {
	case errors.Is(err, errDirectory):
		return nil, unsupported("a zip directory of more than %d bytes", maxDirectory)
	case errors.Is(err, zip.ErrFormat), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, hint.Add(malformed("truncated, or not a zip archive: %v", err), "download or copy the file again")
	case err != nil:
		return nil, err
	}
	limited.left = math.MaxInt64
	a := &archive{r: r, size: size, entries: make(map[string]*zip.File, len(z.File))}
	var dir string
	var total uint64
	for i, f := range z.File {
		in, name, _ := strings.Cut(f.Name, "/")
		if i == 0 {
			dir = in
		}
		// Entries that share bytes are how a small archive holds a large one.
		if total += f.CompressedSize64; total > uint64(size) || f.CompressedSize64 > uint64(size) {
			return nil, malformed("the entries of the zip archive take more bytes than the file has: %d", size)
		}
		if in != dir || a.entries[name] != nil {
			return nil, malformed("zip entry %q: every name must be there once, and in one directory, %q", short(f.Name), short(dir))
		}
		a.entries[name] = f
	}
	switch {
	case a.entries[scriptName] != nil:
		return nil, hint.Add(unsupported("a TorchScript archive, which is a program"), "in PyTorch, load it with torch.jit.load and save its state_dict()")
	case a.entries[pickleName] == nil:
		return nil, malformed("a zip archive without %s: not a PyTorch checkpoint", pickleName)
	}
	return a, nil
}

// section returns where an entry's bytes are.
func (a *archive) section(name string) (section, error) {
	f := a.entries[name]
	if f == nil {
		return section{}, malformed("the zip archive has no entry %q", short(name))
	}
	if f.Method != zip.Store || f.Flags&1 != 0 || f.CompressedSize64 != f.UncompressedSize64 {
		return section{}, hint.Add(unsupported("zip entry %q is compressed or encrypted; torch.save stores entries as they are", short(f.Name)),
			"unpack the archive and pack it again without compression (zip -0)")
	}
	at, err := f.DataOffset()
	if err != nil {
		if errors.Is(err, zip.ErrFormat) || errors.Is(err, io.EOF) {
			err = malformed("zip entry %q: %v", short(f.Name), err)
		}
		return section{}, err
	}
	s := section{at, int64(f.CompressedSize64)}
	if end, ok := safeio.Add(s.at, s.size); !ok || s.at < 0 || end > a.size {
		return section{}, hint.Add(malformed("truncated: zip entry %q ends at byte %d, the file at %d", short(f.Name), uint64(s.at+s.size), a.size),
			"download or copy the file again")
	}
	return s, nil
}

// bigEndian reports whether the storages are.
func (a *archive) bigEndian() (bool, error) {
	if a.entries[byteOrderName] == nil {
		return false, nil
	}
	s, err := a.section(byteOrderName)
	if err != nil {
		return false, err
	}
	text := make([]byte, min(s.size, 16))
	if n, err := a.r.ReadAt(text, s.at); n < len(text) {
		return false, unexpected(err)
	}
	switch string(text) {
	case "little":
		return false, nil
	case "big":
		return true, nil
	}
	return false, malformed("%s is %q, not little or big", byteOrderName, text)
}

// storage returns the storage of a persistent id: "storage", class, key,
// device, number of elements.
func (a *archive) storage(id []any) (any, error) {
	s, err := parseStorage(id, 5)
	if err != nil {
		return nil, err
	}
	at, err := a.section("data/" + s.key)
	if err != nil {
		return nil, err
	}
	if s.bytes > at.size {
		return nil, malformed("storage %q has %d bytes, the pickle says %d", short(s.key), at.size, s.bytes)
	}
	s.at = at.at
	return s, nil
}

// parseStorage reads what all persistent ids begin with.
func parseStorage(id []any, length int) (*storage, error) {
	if len(id) != length || id[0] != "storage" {
		if len(id) > 0 && id[0] == "module" {
			return nil, unsupported("a whole module, not tensors; nothing of it is executed")
		}
		return nil, malformed("a persistent id that is not a storage's")
	}
	class, ok := id[1].(*global)
	key, also := id[2].(string)
	if !ok || !class.storage || !also {
		return nil, malformed("a storage of %s, key %s", describe(id[1]), describe(id[2]))
	}
	n, err := natural(id[4], "a storage's size")
	if err != nil {
		return nil, err
	}
	bytes, ok := safeio.Mul(n, class.dtype.size)
	if !ok {
		return nil, malformed("storage %q of %d elements", short(key), n)
	}
	return &storage{key: key, dtype: class.dtype, bytes: bytes}, nil
}

var errDirectory = errors.New("over the limit")

// limitedReader reads left bytes and no more.
type limitedReader struct {
	r    io.ReaderAt
	left int64
}

func (l *limitedReader) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case off < 0:
		return 0, io.EOF // the archive says so, it is not the file that fails
	case int64(len(p)) > l.left:
		return 0, errDirectory
	}
	n, err := l.r.ReadAt(p, off)
	l.left -= int64(n)
	return n, err
}
