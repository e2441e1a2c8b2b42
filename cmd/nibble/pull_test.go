package main

import (
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// hubOf serves directories as repositories, by name, and makes the program use it with an
// empty cache.
func hubOf(t *testing.T, repos map[string]string) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for repo, dir := range repos {
			if r.URL.Path == "/api/models/"+repo+"/revision/main" {
				var list []map[string]any
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Error(err)
				}
				for _, e := range entries {
					if e.IsDir() {
						continue
					}
					text, err := os.ReadFile(filepath.Join(dir, e.Name()))
					if err != nil {
						t.Error(err)
					}
					list = append(list, map[string]any{"rfilename": e.Name(), "size": len(text), "blobId": fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(text), text)))})
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": list})
				return
			}
			if name, ok := strings.CutPrefix(r.URL.Path, "/"+repo+"/resolve/"+commit+"/"); ok {
				http.ServeFile(w, r, filepath.Join(dir, name))
				return
			}
		}
		w.Header().Set("X-Error-Code", "RepoNotFound")
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(s.Close)
	t.Setenv("HF_ENDPOINT", s.URL)
	t.Setenv("HF_HOME", t.TempDir())
	for _, name := range []string{"HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		t.Setenv(name, "")
	}
}

// A model and an adapter on the hub do wherever a path does.
func TestPull(t *testing.T) {
	dir := workspace(t)
	stories, lora := filepath.Join(dir, "stories260K"), filepath.Join(dir, "lora")
	ok(t, "train", "--model", stories, "--data", filepath.Join(dir, "shakespeare"), "--output-dir", lora, "--iters", "1", "--max-seq-length", "16", "--val-batches", "1")
	hubOf(t, map[string]string{"karpathy/stories260K": stories, "org/lora": lora})

	var pulled, again pullResult
	okJSON(t, &pulled, "pull", "karpathy/stories260K")
	require.Equal(t, ok(t, "inspect", stories, "--json"), strings.ReplaceAll(ok(t, "inspect", pulled.Path, "--json"), pulled.Path, stories))
	require.Positive(t, pulled.Fetched)
	okJSON(t, &again, "pull", "hf://karpathy/stories260K")
	require.Zero(t, again.Fetched)

	plain := filepath.Join(dir, "plain")
	ok(t, "pull", "karpathy/stories260K", "--local-dir", plain)
	ok(t, "verify", plain)
	st, err := os.Lstat(filepath.Join(plain, "model.safetensors"))
	require.NoError(t, err)
	require.True(t, st.Mode().IsRegular())

	merged, want := filepath.Join(dir, "hub", "merged"), filepath.Join(dir, "disk", "merged")
	ok(t, "merge", "--base", "hf://karpathy/stories260K", "--adapter", "hf://org/lora:0.5", "--out", merged)
	ok(t, "merge", "--base", stories, "--adapter", lora+":0.5", "--out", want)
	require.Equal(t, readFile(t, filepath.Join(want, "model.safetensors")), readFile(t, filepath.Join(merged, "model.safetensors")))
	require.Contains(t, readFile(t, filepath.Join(merged, "model.safetensors"))[:4096], `\"base\":{\"name\":\"stories260K\"`)
	ok(t, "convert", "hf://karpathy/stories260K", filepath.Join(dir, "m.gguf"))

	// The adapter names the repository, not the place in this cache.
	settings := settingsFile(t, "model: hf://karpathy/stories260K\ndata: "+filepath.Join(dir, "shakespeare")+"\noutput_dir: "+filepath.Join(dir, "lora2")+"\niters: 1\nmax_seq_length: 16\nval_batches: 1\n")
	ok(t, "train", "--config", settings)
	require.Contains(t, readFile(t, filepath.Join(dir, "lora2", "adapter_config.json")), `"base_model_name_or_path": "karpathy/stories260K"`)

	o := nibble(t, "inspect", "hf://org/none")
	require.NotZero(t, o.code)
	require.Contains(t, o.stderr, "org/none: not found: RepoNotFound")
	o = nibble(t, "inspect", "hf://org")
	require.NotZero(t, o.code)
	o = nibble(t, "pull", "a/b/../c")
	require.Equal(t, exitUsage, o.code)
}
