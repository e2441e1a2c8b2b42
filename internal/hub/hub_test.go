package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// server is a hub with one repository, org/name, whose large files lie on another host.
type server struct {
	t          *testing.T
	files      map[string][]byte
	large      map[string]bool
	hub, store *httptest.Server

	// fault may answer a request for a file in its own way, and says whether it did.
	fault func(w http.ResponseWriter, r *http.Request, content []byte) bool

	mu       sync.Mutex
	requests []string // with their ranges
	sent     atomic.Int64
	token    string // that the hub wants
	leaked   atomic.Bool
}

func newServer(t *testing.T) *server {
	rng := rand.New(rand.NewPCG(1, 2))
	weights := make([]byte, 100_000)
	for i := range weights {
		weights[i] = byte(rng.Uint32())
	}
	s := &server{t: t, large: map[string]bool{"model.safetensors": true}, files: map[string][]byte{
		"model.safetensors": weights, "config.json": []byte(`{"model_type": "llama"}`), "tokenizer.json": []byte(`{}`), "empty.json": {},
		"README.md": []byte("# A model"), "original/consolidated.00.pth": []byte("x"), "pytorch_model.bin": []byte("y"), "additional_chat_templates/tool.jinja": []byte("{{ 1 }}"),
	}}
	s.store = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			s.leaked.Store(true)
		}
		s.serve(w, r, strings.TrimPrefix(r.URL.Path, "/blob/"))
	}))
	t.Cleanup(s.store.Close)
	s.hub = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.hub.Close)
	return s
}

func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		w.Header().Set("X-Error-Code", "GatedRepo")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if p, ok := strings.CutPrefix(r.URL.Path, "/api/models/org/name/revision/"); ok {
		s.note("list " + p)
		if p != "main" && p != commit && p != "refs/pr/7" {
			w.Header().Set("X-Error-Code", "RevisionNotFound")
			w.WriteHeader(http.StatusNotFound)
			return
		}
		fmt.Fprint(w, s.listing())
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/org/name/resolve/"+commit+"/")
	switch {
	case !ok || s.files[name] == nil:
		w.WriteHeader(http.StatusNotFound)
	case s.large[name]:
		// Another host: the same machine by another name.
		http.Redirect(w, r, strings.Replace(s.store.URL, "127.0.0.1", "localhost", 1)+"/blob/"+name, http.StatusFound)
	default:
		s.serve(w, r, name)
	}
}

func (s *server) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, what)
}

func (s *server) listing() string {
	type lfs struct {
		SHA256 string `json:"sha256"`
		Size   int    `json:"size"`
	}
	type sibling struct {
		Name string `json:"rfilename"`
		Size int    `json:"size"`
		Blob string `json:"blobId"`
		LFS  *lfs   `json:"lfs,omitempty"`
	}
	var list []sibling
	for name, content := range s.files {
		x := sibling{Name: name, Size: len(content), Blob: fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(content), content)))}
		if s.large[name] {
			x.LFS = &lfs{fmt.Sprintf("%x", sha256.Sum256(content)), len(content)}
		}
		list = append(list, x)
	}
	text, err := json.Marshal(map[string]any{"id": "org/name", "sha": commit, "siblings": list})
	require.NoError(s.t, err)
	return string(text)
}

func (s *server) serve(w http.ResponseWriter, r *http.Request, name string) {
	content := s.files[name]
	s.note(name + " " + strings.TrimPrefix(r.Header.Get("Range"), "bytes="))
	if s.fault != nil && s.fault(w, r, content) {
		return
	}
	http.ServeContent(&counting{w, &s.sent}, r, "", time.Time{}, bytes.NewReader(content))
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.ResponseWriter.Write(b)
}

func (s *server) client(cache string) *Client {
	return &Client{
		Endpoint: s.hub.URL, Token: s.token, Cache: cache, Parallel: 4, PartSize: 9_000, Stall: 300 * time.Millisecond, Tries: 12, Wait: time.Millisecond,
		HTTP: &http.Client{CheckRedirect: checkRedirect, Transport: transport(time.Second)},
	}
}

func ref(t *testing.T, text string) Ref {
	r, err := ParseRef(text)
	require.NoError(t, err)
	return r
}

// sound checks that a snapshot has what the server has, and nothing half done is left.
func (s *server) sound(snap *Snapshot, cache string) {
	s.t.Helper()
	for _, name := range []string{"model.safetensors", "config.json", "tokenizer.json", "empty.json", "README.md", "additional_chat_templates/tool.jinja"} {
		got, err := os.ReadFile(filepath.Join(snap.Dir, filepath.FromSlash(name)))
		require.NoError(s.t, err)
		require.True(s.t, bytes.Equal(s.files[name], got), name)
	}
	for _, name := range []string{"original", "pytorch_model.bin"} {
		require.NoFileExists(s.t, filepath.Join(snap.Dir, name))
		require.NoDirExists(s.t, filepath.Join(snap.Dir, name))
	}
	blobs, err := os.ReadDir(filepath.Join(cache, "models--org--name", "blobs"))
	require.NoError(s.t, err)
	for _, b := range blobs {
		require.NotContains(s.t, b.Name(), "nibble")
	}
}

func TestFetch(t *testing.T) {
	s := newServer(t)
	s.token = "hf_secret"
	cache := t.TempDir()
	c := s.client(cache)
	var files int
	var planned int64
	var got atomic.Int64
	c.Plan = func(n int, bytes int64) { files, planned = n, bytes }
	c.Progress = func(n int64) { got.Add(n) }
	snap, err := c.Fetch(t.Context(), ref(t, "org/name"))
	require.NoError(t, err)
	s.sound(snap, cache)
	require.False(t, s.leaked.Load(), "the token went to another host")
	require.Equal(t, 6, files)
	require.Equal(t, planned, got.Load())
	require.Equal(t, planned, s.sent.Load())
	require.Equal(t, planned, snap.Fetched)
	require.Equal(t, snap.Dir, snap.Path)

	// The layout is huggingface_hub's.
	require.Equal(t, filepath.Join(cache, "models--org--name", "snapshots", commit), snap.Dir)
	target, err := os.Readlink(filepath.Join(snap.Dir, "model.safetensors"))
	require.NoError(t, err)
	require.Equal(t, filepath.Join("..", "..", "blobs", fmt.Sprintf("%x", sha256.Sum256(s.files["model.safetensors"]))), target)
	target, err = os.Readlink(filepath.Join(snap.Dir, "additional_chat_templates", "tool.jinja"))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(target, filepath.Join("..", "..", "..", "blobs")))
	text, err := os.ReadFile(filepath.Join(cache, "models--org--name", "refs", "main"))
	require.NoError(t, err)
	require.Equal(t, commit, string(text))
	repo, at, ok := Origin(filepath.Join(snap.Dir, "config.json"))
	require.Equal(t, []any{"org/name", commit, true}, []any{repo, at, ok})

	// Again: the hub is asked what there is, and nothing is fetched.
	s.requests = nil
	snap, err = c.Fetch(t.Context(), ref(t, "org/name"))
	require.NoError(t, err)
	require.Zero(t, snap.Fetched)
	require.Equal(t, []string{"list main"}, s.requests)

	// Offline, and with no hub to be reached.
	c.Offline = true
	off, err := c.Fetch(t.Context(), ref(t, "org/name"))
	require.NoError(t, err)
	require.Equal(t, snap.Dir, off.Dir)
	_, err = c.Fetch(t.Context(), ref(t, "org/other"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.Contains(t, hint.Of(err), "HF_HUB_OFFLINE")
	c.Offline = false
	s.hub.Close()
	stale, err := c.Fetch(t.Context(), ref(t, "org/name"))
	require.NoError(t, err)
	require.Error(t, stale.Stale)
	require.Equal(t, snap.Dir, stale.Dir)
	_, err = c.Fetch(t.Context(), ref(t, "org/other"))
	require.Error(t, err)
	require.Contains(t, hint.Of(err), "HF_ENDPOINT")
}

// Whatever goes wrong on the way, the files are whole in the end.
func TestFaults(t *testing.T) {
	every := func(n int64, f func(w http.ResponseWriter, r *http.Request, content []byte)) func(http.ResponseWriter, *http.Request, []byte) bool {
		var count atomic.Int64
		return func(w http.ResponseWriter, r *http.Request, content []byte) bool {
			if count.Add(1)%n == 0 {
				return false
			}
			f(w, r, content)
			return true
		}
	}
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request, []byte) bool{
		"fails": every(3, func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusBadGateway) }),
		"asks to wait": every(2, func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}),
		"hangs up": every(2, func(http.ResponseWriter, *http.Request, []byte) { panic(http.ErrAbortHandler) }),
		"truncates": func(w http.ResponseWriter, r *http.Request, content []byte) bool {
			var from, to int
			_, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			if err != nil || to-from < 50 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content)))
			w.Header().Set("Content-Length", fmt.Sprint(to+1-from))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[from : from+(to-from)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"knows no ranges": func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
			_, _ = w.Write(content)
			return true
		},
		"stalls": every(4, func(w http.ResponseWriter, r *http.Request, content []byte) {
			var from, to int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(content)))
			w.WriteHeader(http.StatusPartialContent)
			if len(content) > 0 {
				_, _ = w.Write(content[from : from+1])
			}
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			delete(s.files, "empty.json")
			s.files["empty.json"] = []byte("{}")
			s.fault = fault
			cache := t.TempDir()
			snap, err := s.client(cache).Fetch(t.Context(), ref(t, "org/name"))
			require.NoError(t, err)
			s.sound(snap, cache)
		})
	}
}

// What cannot be mended is an error, and leaves no snapshot.
func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		ref   string
		setup func(s *server)
		says  string
		hint  string
	}{
		"no revision":   {"org/name@v9", func(*server) {}, `no revision "v9"`, "/tree/main"},
		"no repository": {"org/other", func(*server) {}, "not found", "see whether"},
		"gated":         {"org/name", func(s *server) { s.token = "x" }, "private or gated", "HF_TOKEN"},
		"always fails": {"org/name", func(s *server) {
			s.fault = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool { w.WriteHeader(500); return true }
		}, "500", "run the command again"},
		"other content": {"org/name", func(s *server) {
			s.fault = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
				other := bytes.Clone(content)
				if len(other) > 1000 {
					other[777] ^= 1
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(other))
				return true
			}
		}, "model.safetensors: the content is not what the hub says: its hash is", "thrown away"},
		"other size": {"org/name", func(s *server) {
			s.fault = func(w http.ResponseWriter, _ *http.Request, content []byte) bool {
				_, _ = w.Write(content[:len(content)/2])
				return true
			}
		}, "bytes, and the hub says", ""},
		"other range": {"org/name", func(s *server) {
			s.fault = func(w http.ResponseWriter, r *http.Request, content []byte) bool {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 1-2/%d", len(content)))
				w.WriteHeader(http.StatusPartialContent)
				return true
			}
		}, "asked for bytes", ""},
		"a path that leads out": {"org/name", func(s *server) { s.files["../../x.json"] = []byte("{}") }, "not a path below", ""},
		"no weights":            {"org/name", func(s *server) { delete(s.files, "model.safetensors"); delete(s.files, "pytorch_model.bin") }, "no weights", "config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			delete(s.files, "empty.json")
			c.setup(s)
			cache := t.TempDir()
			client := s.client(cache)
			if name == "gated" {
				client.Token = ""
			}
			_, err := client.Fetch(t.Context(), ref(t, c.ref))
			require.ErrorContains(t, err, c.says)
			require.Contains(t, hint.Of(err), c.hint)
			require.NoDirExists(t, filepath.Join(cache, "models--org--name", "snapshots"))
			require.NoFileExists(t, filepath.Join(filepath.Dir(filepath.Dir(cache)), "x.json"))
		})
	}
}

// A fetch that was interrupted goes on with the parts that are there.
func TestResume(t *testing.T) {
	s := newServer(t)
	cache := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var parts atomic.Int64
	s.fault = func(_ http.ResponseWriter, r *http.Request, content []byte) bool {
		if len(content) > 1000 && parts.Add(1) > 6 {
			cancel()
			<-r.Context().Done()
			return true
		}
		return false
	}
	_, err := s.client(cache).Fetch(ctx, ref(t, "org/name"))
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, filepath.Join(cache, "models--org--name", "snapshots"))
	s.fault = nil
	s.sent.Store(0)
	snap, err := s.client(cache).Fetch(t.Context(), ref(t, "org/name"))
	require.NoError(t, err)
	s.sound(snap, cache)
	require.LessOrEqual(t, s.sent.Load(), int64(100_000-4*9_000))

	// Parts of another size, or a list that does not fit, are not believed.
	s.sent.Store(0)
	other := t.TempDir()
	dir := filepath.Join(other, "models--org--name", "blobs")
	require.NoError(t, os.MkdirAll(dir, 0o777))
	blob := filepath.Join(dir, fmt.Sprintf("%x.nibble", sha256.Sum256(s.files["model.safetensors"])))
	require.NoError(t, os.WriteFile(blob, make([]byte, 100_000), 0o666))
	require.NoError(t, os.WriteFile(blob+".parts", []byte(`{"size": 100000, "part_size": 8000, "parts": "1111111111111"}`), 0o666))
	snap, err = s.client(other).Fetch(t.Context(), ref(t, "org/name"))
	require.NoError(t, err)
	s.sound(snap, other)
	require.GreaterOrEqual(t, s.sent.Load(), int64(100_000))
}

// Two that fetch the same at the same time fetch it once.
func TestAtTheSameTime(t *testing.T) {
	s := newServer(t)
	cache := t.TempDir()
	errs := make([]error, 3)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { _, errs[i] = s.client(cache).Fetch(t.Context(), ref(t, "org/name@"+commit)) })
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Less(t, s.sent.Load(), int64(101_000))
}

func TestParseRef(t *testing.T) {
	for text, want := range map[string]Ref{
		"org/name":                             {"org/name", "main", "", ""},
		"hf://org/name":                        {"org/name", "main", "", ""},
		"gpt2":                                 {"gpt2", "main", "", ""},
		"org/name@v1.0":                        {"org/name", "v1.0", "", ""},
		"org/name@refs/pr/7":                   {"org/name", "refs/pr/7", "", ""},
		"org/name:Q4_K_M":                      {"org/name", "main", "", "Q4_K_M"},
		"org/name@v1:q8_0":                     {"org/name", "v1", "", "q8_0"},
		"hf://org/name/sub/model-Q8_0.gguf":    {"org/name", "main", "sub/model-Q8_0.gguf", ""},
		"hf://org/name@v1/a.gguf":              {"org/name", "v1", "a.gguf", ""},
		"Qwen/Qwen2.5-0.5B-Instruct@" + commit: {"Qwen/Qwen2.5-0.5B-Instruct", commit, "", ""},
	} {
		got, err := ParseRef(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
		again, err := ParseRef(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	for _, bad := range []string{"", "/", "org/", "/name", "org/..", "../name", "org/name@", "org/name/../x", "org/name/a\\b", "datasets/org/name", "org/na me", "org/a--b", "org/name:", "org/name@../x", "org/name//x"} {
		_, err := ParseRef(bad)
		require.Error(t, err, bad)
		require.NotEmpty(t, hint.Of(err))
	}
}

func TestPick(t *testing.T) {
	for name, c := range map[string]struct {
		ref   string
		files string
		want  string
		open  string
		says  string
	}{
		"llama": {"o/n", "LICENSE README.md config.json generation_config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json original/params.json original/tokenizer.model special_tokens_map.json tokenizer.json USE_POLICY.md .gitattributes",
			"LICENSE README.md config.json generation_config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json special_tokens_map.json tokenizer.json USE_POLICY.md", "", ""},
		"mistral":      {"o/n", "consolidated.safetensors model.safetensors params.json tokenizer.model tokenizer.model.v3", "model.safetensors params.json tokenizer.model", "", ""},
		"bin":          {"o/n", "config.json pytorch_model.bin training_args.bin tf_model.h5 model.onnx flax_model.msgpack", "config.json pytorch_model.bin", "", ""},
		"both":         {"o/n", "config.json pytorch_model.bin pytorch_model.bin.index.json model.safetensors", "config.json model.safetensors", "", ""},
		"adapter":      {"o/n", "adapter_config.json adapter_model.safetensors README.md checkpoint-10/optimizer.pt", "adapter_config.json adapter_model.safetensors README.md", "", ""},
		"one gguf":     {"o/n", "README.md m-Q8_0.gguf", "README.md m-Q8_0.gguf", "m-Q8_0.gguf", ""},
		"several":      {"o/n", "m-Q4_0.gguf m-Q4_K_M.gguf mmproj-f16.gguf", "m-Q4_K_M.gguf", "m-Q4_K_M.gguf", ""},
		"by type":      {"o/n:q4_0", "m-Q4_0.gguf m-Q4_K_M.gguf m.IQ2_XXS.gguf", "m-Q4_0.gguf", "m-Q4_0.gguf", ""},
		"IQ":           {"o/n:IQ2_XXS", "m-Q4_0.gguf m.IQ2_XXS.gguf", "m.IQ2_XXS.gguf", "m.IQ2_XXS.gguf", ""},
		"split":        {"o/n:Q8_0", "Q4/m-Q4_0.gguf Q8_0/m-Q8_0-00001-of-00002.gguf Q8_0/m-Q8_0-00002-of-00002.gguf", "Q8_0/m-Q8_0-00001-of-00002.gguf Q8_0/m-Q8_0-00002-of-00002.gguf", "Q8_0/m-Q8_0-00001-of-00002.gguf", ""},
		"gguf beside":  {"o/n:Q8_0", "config.json model.safetensors m-Q8_0.gguf", "config.json m-Q8_0.gguf", "m-Q8_0.gguf", ""},
		"a file":       {"o/n/x/y.bin", "x/y.bin config.json", "x/y.bin", "x/y.bin", ""},
		"a split file": {"o/n/a-00002-of-00002.gguf", "a-00001-of-00002.gguf a-00002-of-00002.gguf b.gguf", "a-00001-of-00002.gguf a-00002-of-00002.gguf", "a-00002-of-00002.gguf", ""},
		"which":        {"o/n", "m-Q4_0.gguf m-Q8_0.gguf", "", "", "which GGUF"},
		"no such type": {"o/n:Q2_K", "m-Q4_0.gguf m-Q8_0.gguf", "", "", "which GGUF"},
		"no gguf":      {"o/n:Q2_K", "config.json model.safetensors", "", "", "no GGUF"},
		"no file":      {"o/n/z", "config.json", "", "", "no such file"},
		"nothing":      {"o/n", "README.md", "", "", "no weights"},
	} {
		t.Run(name, func(t *testing.T) {
			var files []File
			for _, n := range strings.Fields(c.files) {
				files = append(files, File{Path: n})
			}
			list, open, err := pick(ref(t, c.ref), files)
			if c.says != "" {
				require.ErrorContains(t, err, c.says)
				require.NotEmpty(t, hint.Of(err))
				return
			}
			require.NoError(t, err)
			var got []string
			for _, f := range list {
				got = append(got, f.Path)
			}
			require.Equal(t, strings.Fields(c.want), got)
			require.Equal(t, c.open, open)
		})
	}
}

func TestFromEnv(t *testing.T) {
	for _, name := range []string{"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "HF_TOKEN_PATH"} {
		t.Setenv(name, "")
	}
	home := t.TempDir()
	t.Setenv("HF_HOME", home)
	require.NoError(t, os.WriteFile(filepath.Join(home, "token"), []byte("hf_stored\n"), 0o600))
	c, err := FromEnv()
	require.NoError(t, err)
	require.Equal(t, []any{"https://huggingface.co", "hf_stored", filepath.Join(home, "hub"), false}, []any{c.Endpoint, c.Token, c.Cache, c.Offline})
	t.Setenv("HF_TOKEN", "hf_given")
	t.Setenv("HF_ENDPOINT", "http://localhost:1/")
	t.Setenv("HF_HUB_OFFLINE", "1")
	t.Setenv("HF_HUB_CACHE", "/elsewhere")
	c, err = FromEnv()
	require.NoError(t, err)
	require.Equal(t, []any{"http://localhost:1", "hf_given", "/elsewhere", true}, []any{c.Endpoint, c.Token, c.Cache, c.Offline})
	t.Setenv("HF_ENDPOINT", "huggingface.co")
	_, err = FromEnv()
	require.Error(t, err)
}

func FuzzParseRef(f *testing.F) {
	f.Add("org/name@main/x.gguf:Q4_K_M")
	f.Add("hf://a/b/../c")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRef(text)
		if err != nil {
			return
		}
		require.NotContains(t, r.Repo, "..")
		again, err := ParseRef(r.String())
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}
