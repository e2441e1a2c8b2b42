package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/seed18967229/nibble/internal/hint"
)

// Client fetches from one hub into one cache.
type Client struct {
	Endpoint string // without a slash at the end
	Token    string // "" for none
	Cache    string // directory
	Offline  bool   // the cache is all there is

	// Parallel is how many requests there are at a time, PartSize how many bytes one of
	// them is for.
	Parallel int
	PartSize int64

	// Stall is how long a server may send nothing, Tries how often a request is made
	// that gets nothing, Wait the pause after the first of them, which doubles.
	Stall time.Duration
	Tries int
	Wait  time.Duration

	// Progress is told of bytes as they come; Plan before that of how many files and bytes
	// are to be fetched. Both may be nil; Progress may be called by several at a time.
	Progress func(n int64)
	Plan     func(files int, bytes int64)

	HTTP *http.Client
}

// FromEnv returns a client as huggingface_hub's variables ask for: HF_ENDPOINT, HF_TOKEN
// (or what `hf auth login` has stored), HF_HUB_CACHE, HF_HOME, HF_HUB_OFFLINE.
func FromEnv() (*Client, error) {
	home, err := cacheHome()
	if err != nil {
		return nil, err
	}
	c := &Client{
		Endpoint: strings.TrimRight(first(os.Getenv("HF_ENDPOINT"), "https://huggingface.co"), "/"),
		Token:    first(os.Getenv("HF_TOKEN"), os.Getenv("HUGGING_FACE_HUB_TOKEN")),
		Cache:    first(os.Getenv("HF_HUB_CACHE"), os.Getenv("HUGGINGFACE_HUB_CACHE"), filepath.Join(home, "hub")),
		Offline:  isTrue(first(os.Getenv("HF_HUB_OFFLINE"), os.Getenv("TRANSFORMERS_OFFLINE"))),
		Parallel: 8, PartSize: 32 << 20,
		Stall: 30 * time.Second, Tries: 6, Wait: time.Second,
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, hint.Add(fmt.Errorf("HF_ENDPOINT is %q, want the address of a hub", c.Endpoint), "write https://host")
	}
	if c.Token == "" && !isTrue(os.Getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		if text, err := os.ReadFile(first(os.Getenv("HF_TOKEN_PATH"), filepath.Join(home, "token"))); err == nil {
			c.Token = string(text)
		}
	}
	if c.Token = strings.TrimSpace(c.Token); strings.ContainsAny(c.Token, "\r\n") {
		return nil, errors.New("the token of the hub has a line break in it")
	}
	c.HTTP = &http.Client{CheckRedirect: checkRedirect, Transport: transport(c.Stall)}
	return c, nil
}

func transport(stall time.Duration) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = stall
	t.DisableCompression = true // lengths are those of the files
	t.MaxIdleConnsPerHost = 16
	return t
}

// checkRedirect follows a hub to where its files lie. net/http leaves the token behind when
// the host changes.
func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return errors.New("redirected ten times")
	case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
		return fmt.Errorf("redirected from https to %s", r.URL.Scheme)
	}
	return nil
}

func cacheHome() (string, error) {
	if h := os.Getenv("HF_HOME"); h != "" {
		return h, nil
	}
	if h := os.Getenv("XDG_CACHE_HOME"); h != "" {
		return filepath.Join(h, "huggingface"), nil
	}
	h, err := os.UserHomeDir()
	if err != nil {
		return "", hint.Add(err, "say where the cache is by HF_HOME")
	}
	return filepath.Join(h, ".cache", "huggingface"), nil
}

func first(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

func isTrue(s string) bool {
	switch strings.ToUpper(s) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

// File is a file of a repository.
type File struct {
	Path string
	Size int64

	// SHA256 is the hash of a file that is stored apart (LFS); of others Blob is git's
	// hash: SHA-1 of "blob <size>\0" and the content.
	SHA256, Blob string
}

// etag is what the cache calls the file's content.
func (f *File) etag() string { return first(f.SHA256, f.Blob) }

// info is what the hub says of a repository.
type info struct {
	SHA      string `json:"sha"`
	Siblings []struct {
		Name string `json:"rfilename"`
		Size *int64 `json:"size"`
		Blob string `json:"blobId"`
		LFS  *struct {
			SHA256 string `json:"sha256"`
			Size   int64  `json:"size"`
		} `json:"lfs"`
	} `json:"siblings"`
}

// maxInfo bounds what a hub may say of a repository.
const maxInfo = 64 << 20

// list returns the commit of a revision and its files.
func (c *Client) list(ctx context.Context, r Ref) (commit string, files []File, err error) {
	u := c.Endpoint + "/api/models/" + r.Repo + "/revision/" + url.PathEscape(r.Revision) + "?blobs=true"
	var text []byte
	asked := *c
	asked.Tries = min(c.Tries, 3) // a hub that is not there is known by then
	err = asked.retry(ctx, func(ctx context.Context) (bool, error) {
		resp, err := c.get(ctx, u, "")
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		if text, err = io.ReadAll(io.LimitReader(resp.Body, maxInfo+1)); len(text) > maxInfo {
			return false, &lasting{fmt.Errorf("%s: an answer of more than %d MiB", u, maxInfo>>20)}
		}
		return false, err
	})
	if err != nil {
		return "", nil, err
	}
	var in info
	if err := json.Unmarshal(text, &in); err != nil {
		return "", nil, fmt.Errorf("%s: the answer is not what a hub says: %w", u, err)
	}
	if !isHash(in.SHA, 40) {
		return "", nil, fmt.Errorf("%s: the answer names no commit", u)
	}
	for _, s := range in.Siblings {
		f := File{Path: s.Name, Blob: s.Blob}
		if s.Size != nil {
			f.Size = *s.Size
		}
		if s.LFS != nil {
			f.SHA256, f.Size = s.LFS.SHA256, s.LFS.Size
		}
		if err := validPath(f.Path); err != nil {
			return "", nil, fmt.Errorf("%s: file %q: %w", u, f.Path, err)
		}
		if f.Size < 0 || f.SHA256 != "" && !isHash(f.SHA256, 64) || f.SHA256 == "" && !isHash(f.Blob, 40) {
			return "", nil, fmt.Errorf("%s: file %q has no size or hash", u, f.Path)
		}
		files = append(files, f)
	}
	return in.SHA, files, nil
}

func isHash(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// fileURL is where a file of a commit is fetched.
func (c *Client) fileURL(repo, commit, name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return c.Endpoint + "/" + repo + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}

// statusError is an answer that is no file.
type statusError struct {
	code   int
	status string
	reason string // X-Error-Code
	after  time.Duration
}

func (e *statusError) Error() string { return first(e.reason, e.status) }

// lasting is an error that another try would not mend.
type lasting struct{ error }

func (e *lasting) Unwrap() error { return e.error }

// get makes a request. What is no answer with content is an error.
func (c *Client) get(ctx context.Context, u, ranged string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, &lasting{err}
	}
	req.Header.Set("User-Agent", "nibble")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if ranged != "" {
		req.Header.Set("Range", ranged)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	resp.Body.Close()
	e := &statusError{code: resp.StatusCode, status: resp.Status, reason: resp.Header.Get("X-Error-Code")}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.after = min(time.Duration(s)*time.Second, 5*time.Minute)
	}
	if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusRequestTimeout {
		return nil, &lasting{e}
	}
	return nil, e
}

// explain says what may be done about an answer of the hub.
func (c *Client) explain(r Ref, err error) error {
	var e *statusError
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", r, err)
	}
	at := c.Endpoint + "/" + r.Repo
	switch {
	case e.reason == "GatedRepo" && c.Token != "", e.code == http.StatusForbidden:
		return hint.Add(fmt.Errorf("%s: the hub does not give it to this token: %w", r, e), "ask for access at %s, then run the command again", at)
	case e.code == http.StatusUnauthorized:
		return hint.Add(fmt.Errorf("%s: there is no such repository, or it is private or gated: %w", r, e), "see %s; if it is there, set HF_TOKEN to a token that may read it", at)
	case e.reason == "RevisionNotFound":
		return hint.Add(fmt.Errorf("%s: there is no revision %q", r, r.Revision), "see %s/tree/main", at)
	case e.code == http.StatusNotFound:
		return hint.Add(fmt.Errorf("%s: not found: %w", r, e), "see whether %s is there", at)
	}
	return hint.Add(fmt.Errorf("%s: %w", r, e), "run the command again later: what was fetched is kept")
}

// unreachable reports whether there was no answer at all.
func unreachable(err error) bool {
	var s *statusError
	var l *lasting
	return !errors.As(err, &s) && !errors.As(err, &l)
}

// retry calls f until it succeeds, fails for good, or gets nothing Tries times in a row; f
// says whether it got something.
func (c *Client) retry(ctx context.Context, f func(ctx context.Context) (progress bool, err error)) error {
	wait := c.Wait
	for failed := 0; ; {
		progress, err := f(ctx)
		var l *lasting
		switch {
		case err == nil, errors.As(err, &l):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case progress:
			failed, wait = 0, c.Wait
		}
		if failed++; failed >= c.Tries {
			return err
		}
		pause := wait
		var s *statusError
		if errors.As(err, &s) && s.after > 0 {
			pause = s.after
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		wait = min(2*wait, 30*c.Wait)
	}
}
