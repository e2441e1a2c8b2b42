package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/seed18967229/nibble/internal/fsx"
)

// errHash says that a file is not what the hub says it is.
var errHash = errors.New("the content is not what the hub says")

// partFile is a file that is fetched in parts of one size, in any order. Beside it lies
// a list of the parts that are there and synced.
type partFile struct {
	path string
	size int64
	each int64
	f    *os.File

	mu   sync.Mutex
	have []bool
}

// partList is the file beside it.
type partList struct {
	Size int64  `json:"size"`
	Each int64  `json:"part_size"`
	Have string `json:"parts"` // a digit for each, 1 if it is there
}

func openParts(path string, size, each int64) (*partFile, error) {
	p := &partFile{path: path, size: size, each: each, have: make([]bool, (size+each-1)/each)}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	p.f = f
	var l partList
	text, err := os.ReadFile(p.listPath())
	st, serr := f.Stat()
	if err == nil && serr == nil && json.Unmarshal(text, &l) == nil && l.Size == size && l.Each == each && len(l.Have) == len(p.have) && st.Size() == size {
		for i := range p.have {
			p.have[i] = l.Have[i] == '1'
		}
		return p, nil
	}
	if err := errors.Join(f.Truncate(0), fsx.Reserve(f, size), f.Truncate(size)); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return p, nil
}

func (p *partFile) listPath() string { return p.path + ".parts" }

// bounds returns where a part is.
func (p *partFile) bounds(i int) (from, to int64) {
	return int64(i) * p.each, min(p.size, int64(i+1)*p.each)
}

// done returns how many bytes are there.
func (p *partFile) done() (n int64) {
	for i, have := range p.have {
		if have {
			from, to := p.bounds(i)
			n += to - from
		}
	}
	return n
}

// complete notes that a part is there.
func (p *partFile) complete(i int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have[i] = true
	if len(p.have) == 1 {
		return nil // a small file is fetched again
	}
	if err := p.f.Sync(); err != nil {
		return err
	}
	l := partList{Size: p.size, Each: p.each}
	var b strings.Builder
	for _, have := range p.have {
		if have {
			b.WriteByte('1')
		} else {
			b.WriteByte('0')
		}
	}
	l.Have = b.String()
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return fsx.WriteFile(p.listPath(), text, true)
}

// check compares size and hash with what the hub says, and syncs the file.
func (p *partFile) check(ctx context.Context, f *File) error {
	var h hash.Hash
	if f.SHA256 != "" {
		h = sha256.New()
	} else {
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", f.Size)
	}
	if _, err := io.Copy(h, &stopping{ctx, io.NewSectionReader(p.f, 0, p.size)}); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != f.etag() {
		return fmt.Errorf("%w: its hash is %s, want %s", errHash, got, f.etag())
	}
	return p.f.Sync()
}

func (p *partFile) close() error { return p.f.Close() }

// remove removes what was fetched.
func (p *partFile) remove() error { return errors.Join(os.Remove(p.path), p.forget()) }

// forget removes the list of parts.
func (p *partFile) forget() error {
	if err := os.Remove(p.listPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// stopping is a reader that ends with the context.
type stopping struct {
	ctx context.Context
	r   io.Reader
}

func (s *stopping) Read(b []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(b)
}

// fetchParts fetches the parts that are missing. The first shows whether the server gives
// parts at all; if it does not, it is the whole file.
func (c *Client) fetchParts(ctx context.Context, u string, p *partFile, requests chan struct{}) error {
	if len(p.have) == 0 {
		return nil // an empty file
	}
	next := 0
	for next < len(p.have) && p.have[next] {
		next++
	}
	if next == len(p.have) {
		return nil
	}
	if err := c.fetchPart(ctx, u, p, next, requests); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for i := range p.have {
		p.mu.Lock()
		have := p.have[i]
		p.mu.Unlock()
		if have || ctx.Err() != nil {
			continue
		}
		requests <- struct{}{}
		all.Go(func() {
			err := c.part(ctx, u, p, i)
			<-requests
			if err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (c *Client) fetchPart(ctx context.Context, u string, p *partFile, i int, requests chan struct{}) error {
	requests <- struct{}{}
	defer func() { <-requests }()
	return c.part(ctx, u, p, i)
}

// part fetches one part, going on where a connection broke off.
func (c *Client) part(ctx context.Context, u string, p *partFile, i int) error {
	from, to := p.bounds(i)
	at := from
	err := c.retry(ctx, func(ctx context.Context) (bool, error) {
		began := at
		whole, err := c.request(ctx, u, p, &at, to)
		if err == nil && whole {
			i = -1
		}
		return at > began, err
	})
	switch {
	case err != nil:
		return err
	case i < 0:
		return p.completeAll()
	}
	return p.complete(i)
}

// completeAll notes that everything is there.
func (p *partFile) completeAll() error {
	p.mu.Lock()
	for i := range p.have {
		p.have[i] = true
	}
	p.mu.Unlock()
	return p.f.Sync()
}

// request asks for the bytes from *at to to, and moves *at on as they come. If the server
// sends the file from its beginning, all of it is taken: whole.
func (c *Client) request(ctx context.Context, u string, p *partFile, at *int64, to int64) (whole bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := fmt.Errorf("the server sent nothing for %v", c.Stall)
	watch := time.AfterFunc(c.Stall, func() { cancel(stalled) })
	defer watch.Stop()
	defer func() {
		if errors.Is(context.Cause(ctx), stalled) {
			err = stalled
		}
	}()
	resp, err := c.get(ctx, u, fmt.Sprintf("bytes=%d-%d", *at, to-1))
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	end := to
	if resp.StatusCode == http.StatusOK {
		whole, end = true, p.size
		if n := resp.ContentLength; n >= 0 && n != p.size {
			return false, &lasting{fmt.Errorf("the server has %d bytes, and the hub says %d", n, p.size)}
		}
	} else if err := checkRange(resp.Header.Get("Content-Range"), *at, to, p.size); err != nil {
		return false, &lasting{err}
	}
	pos := *at
	if whole {
		pos = 0
	}
	buf := make([]byte, 256<<10)
	for pos < end {
		n, err := resp.Body.Read(buf[:min(int64(len(buf)), end-pos)])
		if n > 0 {
			watch.Reset(c.Stall)
			if _, werr := p.f.WriteAt(buf[:n], pos); werr != nil {
				return false, &lasting{werr}
			}
			pos += int64(n)
			if pos > *at {
				c.progress(pos - *at)
				*at = pos
			}
		}
		switch {
		case pos == end:
		case errors.Is(err, io.EOF):
			return false, fmt.Errorf("the server stopped %d bytes early", end-pos)
		case err != nil:
			return false, err
		}
	}
	return whole, nil
}

// checkRange returns an error if an answer is not for the bytes that were asked for.
func checkRange(text string, from, to, size int64) error {
	var a, b, n int64
	if _, err := fmt.Sscanf(text, "bytes %d-%d/%d", &a, &b, &n); err != nil || a != from || b != to-1 || n != size {
		return fmt.Errorf("asked for bytes %d to %d of %d, the server answered %q", from, to-1, size, text)
	}
	return nil
}
