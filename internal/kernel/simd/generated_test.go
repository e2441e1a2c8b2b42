package simd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGenerated fails if the assembly is not what the generator writes.
func TestGenerated(t *testing.T) {
	names := run(t, "-list")
	files, err := filepath.Glob("*.s")
	require.NoError(t, err)
	require.Len(t, files, len(strings.Fields(names)), "assembly that no group writes, or a group that was not written: make asm")
	for _, group := range strings.Fields(names) {
		t.Run(group, func(t *testing.T) {
			dir := t.TempDir()
			name := group + "_amd64"
			run(t, "-group", group, "-pkg", "simd", "-out", filepath.Join(dir, name+".s"), "-stubs", filepath.Join(dir, name+".go"))
			for _, ext := range []string{".s", ".go"} {
				want, got := body(t, filepath.Join(dir, name+ext)), body(t, name+ext)
				require.True(t, bytes.Equal(want, got), "%s%s is not what internal/kernel/_asm writes: make asm", name, ext)
			}
		})
	}
}

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "asm")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "asm")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = "../_asm"
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

// body returns a file without its first line, which has the command.
func body(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	_, rest, _ := bytes.Cut(text, []byte("\n"))
	return rest
}
