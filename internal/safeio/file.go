package safeio

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrRefused is returned for a file that must not be read: one that is not a
// regular file, or one that is larger than its kind can be, or a link that leads
// back to itself.
var ErrRefused = errors.New("not read")

// OpenFile opens a regular file and returns its size. Anything else (a
// directory, a device, a named pipe, on which opening would wait) is refused.
// Symbolic links are followed. Errors begin with the path.
func OpenFile(path string) (*os.File, int64, error) {
	st, err := os.Stat(path)
	if errors.Is(err, syscall.ELOOP) {
		return nil, 0, fmt.Errorf("%s: %w: a link that leads back to itself, or too many in a row", path, ErrRefused)
	}
	if err != nil {
		return nil, 0, WithPath(path, err)
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %w: it is not a regular file", path, ErrRefused)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, WithPath(path, err)
	}
	return f, st.Size(), nil
}

// ReadFile reads a regular file of at most limit bytes whole.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, size, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s: %w: it has %d bytes, over the limit of %d", path, ErrRefused, size, limit)
	}
	data, err := ReadN(f, uint64(size))
	if err != nil {
		return nil, WithPath(path, err)
	}
	return data, nil
}

// WithPath puts the path first, where it is in every other error, and drops the
// name of the system call.
func WithPath(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// SHA256 returns the checksum of a file, in hexadecimal digits. read is told of the bytes
// as they are read. It stops when ctx is done.
func SHA256(ctx context.Context, path string, read func(int64)) (string, error) {
	f, _, err := OpenFile(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		read(int64(n))
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", WithPath(path, err)
		}
	}
}
