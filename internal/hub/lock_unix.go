//go:build unix

package hub

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lock keeps other processes from fetching the same blob: huggingface_hub takes the same
// lock on the same file.
func (c *Client) lock(repo string, f *File) (unlock func() error, err error) {
	path := filepath.Join(c.Cache, ".locks", repoPrefix+strings.ReplaceAll(repo, "/", "--"), f.etag()+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	l, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(l.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil && !errors.Is(err, unix.ENOLCK) && !errors.Is(err, unix.ENOTSUP) { // some file systems have no locks
		return nil, errors.Join(err, l.Close())
	}
	return l.Close, nil
}
