package hub

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
)

const repoPrefix = "models--"

// repoDir is where the cache has a repository.
func (c *Client) repoDir(repo string) string {
	return filepath.Join(c.Cache, repoPrefix+strings.ReplaceAll(repo, "/", "--"))
}

func (c *Client) snapshotDir(repo, commit string) string {
	return filepath.Join(c.repoDir(repo), "snapshots", commit)
}

func (c *Client) blobPath(repo string, f *File) string {
	return filepath.Join(c.repoDir(repo), "blobs", f.etag())
}

// Origin returns the repository and the commit that a path in a cache was fetched from.
func Origin(path string) (repo, commit string, ok bool) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", "", false
	}
	list := strings.Split(filepath.ToSlash(abs), "/")
	for i := 0; i+2 < len(list); i++ {
		if name, found := strings.CutPrefix(list[i], repoPrefix); found && list[i+1] == "snapshots" && isHash(list[i+2], 40) {
			return strings.Replace(name, "--", "/", 1), list[i+2], true
		}
	}
	return "", "", false
}

// cached returns the snapshot of a revision that the cache has.
func (c *Client) cached(r Ref) (dir, commit string, err error) {
	commit = r.Revision
	if !isHash(commit, 40) {
		text, err := os.ReadFile(filepath.Join(c.repoDir(r.Repo), "refs", filepath.FromSlash(r.Revision)))
		if err != nil {
			return "", "", fmt.Errorf("%s: %w in the cache, %s", r, fs.ErrNotExist, c.Cache)
		}
		if commit = strings.TrimSpace(string(text)); !isHash(commit, 40) {
			return "", "", fmt.Errorf("%s: the cache, %s, has %q for a commit", r, c.Cache, commit)
		}
	}
	dir = c.snapshotDir(r.Repo, commit)
	if _, err := os.Stat(dir); err != nil {
		return "", "", fmt.Errorf("%s: %w in the cache, %s", r, fs.ErrNotExist, c.Cache)
	}
	return dir, commit, nil
}

// cachedFiles lists what a snapshot in the cache has.
func cachedFiles(dir string) (files []File, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := os.Stat(path) // a link whose blob was removed is an error
		if err != nil {
			return hint.Add(err, "the cache is damaged: remove %s and fetch it again", filepath.Dir(filepath.Dir(dir)))
		}
		rel, err := filepath.Rel(dir, path)
		files = append(files, File{Path: filepath.ToSlash(rel), Size: st.Size()})
		return err
	})
	return files, err
}

// link puts a blob into a snapshot.
func (c *Client) link(repo, commit string, f *File) error {
	at := filepath.Join(c.snapshotDir(repo, commit), filepath.FromSlash(f.Path))
	blob := c.blobPath(repo, f)
	if st, err := os.Stat(at); err == nil && st.Size() == f.Size && (fsx.Same(at, blob) || !isLink(at)) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(at), blob)
	if err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.nibble-%x", at, rand.Uint64())
	err = os.Symlink(target, temp)
	if err != nil && runtime.GOOS == "windows" { // which wants a privilege for it
		err = os.Link(blob, temp)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	if err := os.Rename(temp, at); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

func isLink(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&fs.ModeSymlink != 0
}

// setRef notes which commit a revision is.
func (c *Client) setRef(r Ref, commit string) error {
	if r.Revision == commit {
		return nil
	}
	at := filepath.Join(c.repoDir(r.Repo), "refs", filepath.FromSlash(r.Revision))
	if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
		return err
	}
	return fsx.WriteFile(at, []byte(commit), true)
}
