package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
)

// Snapshot is a revision of a repository in the cache.
type Snapshot struct {
	Dir    string
	Commit string

	// Path is what is to be opened: Dir, or a file in it.
	Path string

	Files   []File
	Fetched int64 // bytes that were not there before

	// Stale says why the hub could not be asked whether there is a newer one.
	Stale error
}

// Fetch brings the files of a model into the cache. Where the hub cannot be reached, what
// the cache has will do.
func (c *Client) Fetch(ctx context.Context, r Ref) (*Snapshot, error) {
	if c.Offline {
		s, err := c.local(r)
		return s, hint.Add(err, "HF_HUB_OFFLINE is set; without it the hub is asked")
	}
	commit, all, err := c.list(ctx, r)
	if err != nil {
		if ctx.Err() != nil || !unreachable(err) {
			return nil, c.explain(r, err)
		}
		if s, lerr := c.local(r); lerr == nil {
			s.Stale = err
			return s, nil
		}
		return nil, hint.Add(fmt.Errorf("%s: %w", r, err), "see whether %s can be reached; HF_ENDPOINT names another hub", c.Endpoint)
	}
	files, open, err := pick(r, all)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Dir: c.snapshotDir(r.Repo, commit), Commit: commit, Files: files}
	s.Path = filepath.Join(s.Dir, filepath.FromSlash(open))
	if s.Fetched, err = c.fetchAll(ctx, r, commit, files); err != nil {
		return nil, err
	}
	for i := range files {
		if err := c.link(r.Repo, commit, &files[i]); err != nil {
			return nil, err
		}
	}
	return s, c.setRef(r, commit)
}

// local returns what the cache has.
func (c *Client) local(r Ref) (*Snapshot, error) {
	dir, commit, err := c.cached(r)
	if err != nil {
		return nil, err
	}
	all, err := cachedFiles(dir)
	if err != nil {
		return nil, err
	}
	files, open, err := pick(r, all)
	if err != nil {
		return nil, err
	}
	return &Snapshot{Dir: dir, Commit: commit, Path: filepath.Join(dir, filepath.FromSlash(open)), Files: files}, nil
}

// fetchAll fetches the blobs of the files that the cache lacks, and returns their size.
func (c *Client) fetchAll(ctx context.Context, r Ref, commit string, files []File) (total int64, err error) {
	var missing []*File
	have := make(map[string]bool)
	for i := range files {
		f := &files[i]
		if st, err := os.Stat(c.blobPath(r.Repo, f)); err == nil && st.Size() == f.Size || have[f.etag()] {
			continue
		}
		have[f.etag()] = true
		missing = append(missing, f)
		total += f.Size
	}
	if len(missing) == 0 {
		return 0, nil
	}
	dir := filepath.Join(c.repoDir(r.Repo), "blobs")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return 0, hint.Add(err, "choose another cache by HF_HUB_CACHE")
	}
	var begun int64
	for _, f := range missing {
		if st, err := os.Stat(c.partial(r.Repo, f)); err == nil {
			begun += st.Size()
		}
	}
	if free := fsx.Free(dir); free > 0 && free < total-begun {
		return 0, hint.Add(fmt.Errorf("%s: %s are to be fetched and %s are free in %s", r, memory.FormatSize(total-begun), memory.FormatSize(free), c.Cache),
			"make room, or choose another cache by HF_HUB_CACHE")
	}
	if c.Plan != nil {
		c.Plan(len(missing), total)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	requests := make(chan struct{}, c.Parallel)
	queue := make(chan *File)
	var all sync.WaitGroup
	for range min(c.Parallel, len(missing)) {
		all.Go(func() {
			for f := range queue {
				if err := c.fetch(ctx, r, commit, f, requests); err != nil {
					cancel(fmt.Errorf("%s: %w", f.Path, err))
				}
			}
		})
	}
	for _, f := range missing {
		select {
		case queue <- f:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(queue)
	all.Wait()
	if ctx.Err() != nil {
		return 0, c.explainFile(r, context.Cause(ctx))
	}
	return total, nil
}

func (c *Client) explainFile(r Ref, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, errHash):
		return hint.Add(fmt.Errorf("%s: %w", r, err), "what was fetched was thrown away; run the command again")
	}
	return c.explain(r, hint.Add(err, "run the command again: it goes on with what was fetched"))
}

// partial is where a blob lies until it is whole.
func (c *Client) partial(repo string, f *File) string { return c.blobPath(repo, f) + ".nibble" }

// fetch makes the blob of a file, in parts, as far as they are not there.
func (c *Client) fetch(ctx context.Context, r Ref, commit string, f *File, requests chan struct{}) (err error) {
	unlock, err := c.lock(r.Repo, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	blob := c.blobPath(r.Repo, f)
	if st, err := os.Stat(blob); err == nil && st.Size() == f.Size {
		c.progress(f.Size) // another process has fetched it meanwhile
		return nil
	}
	p, err := openParts(c.partial(r.Repo, f), f.Size, c.PartSize)
	if err != nil {
		return err
	}
	c.progress(p.done())
	if err := c.fetchParts(ctx, c.fileURL(r.Repo, commit, f.Path), p, requests); err != nil {
		return errors.Join(err, p.close())
	}
	if err := p.check(ctx, f); err != nil {
		return errors.Join(err, p.close(), p.remove())
	}
	if err := p.close(); err != nil {
		return err
	}
	if err := os.Rename(p.path, blob); err != nil {
		return err
	}
	return errors.Join(p.forget(), fsx.SyncDir(filepath.Dir(blob)))
}

func (c *Client) progress(n int64) {
	if c.Progress != nil && n > 0 {
		c.Progress(n)
	}
}
