package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

func decode(t *testing.T, text string, v any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), v), text)
}

func TestVerifyManifest(t *testing.T) {
	dir := workspace(t)
	base, sums := filepath.Join(dir, "stories260K"), filepath.Join(dir, "stories260K/SHA256SUMS")
	put(t, base+"/original/notes \\ 1\n.txt", "x")
	put(t, base+"/.git/config", "x")
	require.NoError(t, os.Symlink(filepath.Join(base, "config.json"), base+"/linked.json"))
	require.Contains(t, ok(t, "verify", base, "--write-manifest", sums), "checksums of 8 files")
	text := readFile(t, sums)
	for _, name := range []string{"config.json", "linked.json", "model.safetensors"} {
		require.Contains(t, text, fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(readFile(t, filepath.Join(base, name)))), name))
	}
	require.Contains(t, text, fmt.Sprintf("\\%x  original/notes \\\\ 1\\n.txt\n", sha256.Sum256([]byte("x"))))
	require.NotContains(t, text, ".git")
	require.NotContains(t, text, "SHA256SUMS")
	if program, err := exec.LookPath("sha256sum"); err == nil {
		cmd := exec.Command(program, "-c", "SHA256SUMS")
		cmd.Dir = base
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}

	require.Contains(t, ok(t, "verify", base, "--manifest", sums), "sound: 47 tensors, 8 files as in the manifest")
	require.Equal(t, text, readFile(t, sums))
	ok(t, "verify", base, "--manifest", sums, "--write-manifest", filepath.Join(dir, "again"))
	require.Equal(t, text, readFile(t, filepath.Join(dir, "again")), "a manifest is no file of the model")

	// A file more is no fault; one that changed or is gone is.
	put(t, base+"/more.txt", "")
	o := nibble(t, "verify", base, "--manifest", sums)
	require.Equal(t, exitDone, o.code)
	require.Contains(t, o.stdout, "not in the manifest: 1 file")
	edit(t, base+"/LICENSE", "Permission", "permission")
	require.NoError(t, os.Remove(base+"/original/notes \\ 1\n.txt"))
	var r verifyResult
	o = nibble(t, "verify", base, "--manifest", sums, "--write-manifest", filepath.Join(dir, "never"), "--json")
	require.Equal(t, exitInput, o.code)
	decode(t, o.stdout, &r)
	require.Len(t, r.Problems, 2, "%q", r.Problems)
	require.Contains(t, r.Problems[0], `"LICENSE" has the SHA-256`)
	require.Contains(t, r.Problems[1], `.txt" is in the manifest and not there`)
	require.NoFileExists(t, filepath.Join(dir, "never"), "only what is sound gets a manifest")
	hidden, err := filepath.Glob(filepath.Join(dir, ".*"))
	require.NoError(t, err)
	require.Empty(t, hidden)
}

func TestVerifyManifestOfAFile(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "convert", at("stories260K"), at("a.gguf"))
	ok(t, "convert", at("stories260K"), at("b.gguf"), "--outtype", "f32")
	ok(t, "verify", at("a.gguf"), "--write-manifest", at("sums"))
	require.Equal(t, fmt.Sprintf("%x  a.gguf\n", sha256.Sum256([]byte(readFile(t, at("a.gguf"))))), readFile(t, at("sums")))
	// Of a manifest of many files its own line counts, in any of sha256sum's forms.
	put(t, at("sums"), "# comment\n\n"+strings.Repeat("0", 64)+" *gone.gguf\n"+strings.ToUpper(readFile(t, at("sums"))[:64])+" *./a.gguf\n")
	ok(t, "verify", at("a.gguf"), "--manifest", at("sums"))
	o := nibble(t, "verify", at("b.gguf"), "--manifest", at("sums"))
	require.Equal(t, exitInput, o.code)
	require.Contains(t, o.stdout, `"b.gguf" is not in the manifest`)
}

func TestModelFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "m-00001-of-00003.gguf", "n-00001-of-00002.gguf", "sub/x", ".hidden/x"} {
		put(t, filepath.Join(dir, name), "")
	}
	_, names, err := modelFiles(filepath.Join(dir, "m-00002-of-00002.gguf"))
	require.NoError(t, err)
	require.Equal(t, []string{"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}, names)
	_, names, err = modelFiles(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"m-00001-of-00002.gguf", "m-00001-of-00003.gguf", "m-00002-of-00002.gguf", "n-00001-of-00002.gguf", "sub/x"}, names)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	_, linked, err := modelFiles(link)
	require.NoError(t, err)
	require.Equal(t, names, linked, "a link to a directory is followed")
}

func FuzzManifest(f *testing.F) {
	sum := strings.Repeat("0aF", 22)[:64]
	for _, s := range []string{"", sum + "  x\n", "\\" + sum + "  a\\\\b\\nc\n", sum + " *./x/y\r\n", sum + "  ../x\n", sum + "  /x\n", "x", "#\n\n" + sum + "   \n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseManifest("m", text)
		if err != nil {
			require.ErrorIs(t, err, tensor.ErrMalformed)
			require.Empty(t, hint.Of(err))
			return
		}
		again, err := parseManifest("m", formatManifest(list))
		require.NoError(t, err)
		require.Equal(t, list, again)
	})
}
