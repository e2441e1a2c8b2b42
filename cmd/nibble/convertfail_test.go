package main

import (
	"bytes"
	bits "encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/tensor"
)

// sparseTensors makes a safetensors file of several matrices of zeros that take no
// room on the disk.
func sparseTensors(t *testing.T, path string, matrices, rows, cols int) {
	var members []string
	size := 4 * rows * cols
	for i := range matrices {
		members = append(members, fmt.Sprintf(`"w%d":{"dtype":"F32","shape":[%d,%d],"data_offsets":[%d,%d]}`, i, rows, cols, i*size, (i+1)*size))
	}
	header := "{" + strings.Join(members, ",") + "}"
	b := append(bits.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	require.NoError(t, os.WriteFile(path, b, 0o666))
	require.NoError(t, os.Truncate(path, int64(len(b)+matrices*size)))
}

// A conversion that is interrupted, or killed, leaves the old output or none.
func TestInterruptedConversion(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.safetensors")
	sparseTensors(t, in, 8, 8192, 4096)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "model"), 0o777))
	require.NoError(t, os.Rename(in, filepath.Join(dir, "model/model.safetensors")))
	put(t, filepath.Join(dir, "model/config.json"), `{"model_type": "any"}`)
	require.NoError(t, os.Link(filepath.Join(dir, "model/model.safetensors"), in))

	noise := tensor.Info{Name: "token_embd.weight", DType: tensor.F32, Shape: tensor.Shape{2048, 4096}}
	writeGGUFFile(t, filepath.Join(dir, "in.gguf"), tensor.Meta{{Key: "general.architecture", Value: "any"}, {Key: "any.block_count", Value: uint32(1)}},
		[]tensor.Info{noise}, wideValues)

	for _, c := range []struct {
		out, old string // of the old output: the file to look at
		args     []string
	}{
		{"out.safetensors", "out.safetensors", []string{"convert", "in.safetensors", "out.safetensors", "--outtype", "bf16"}},
		{"out", "out/config.json", []string{"convert", "model", "out", "--outtype", "bf16"}},
		{"out.gguf", "out.gguf", []string{"quantize", "in.gguf", "out.gguf", "--type", "q5_k_m"}},
	} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(c.out+" "+signal.String(), func(t *testing.T) {
				put(t, filepath.Join(dir, c.old), "old")
				before := every(t, dir)
				cmd := exec.Command(binary, append(c.args, "--force")...)
				cmd.Dir = dir
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				require.NoError(t, cmd.Start())
				temporary := func() []string {
					list, _ := filepath.Glob(filepath.Join(dir, ".*.nibble-*"))
					return list
				}
				require.Eventually(t, func() bool { return len(temporary()) > 0 }, 30*time.Second, time.Millisecond)
				require.NoError(t, cmd.Process.Signal(signal))
				_ = cmd.Wait()
				require.Equal(t, "old", readFile(t, filepath.Join(dir, c.old)))
				if signal == syscall.SIGKILL {
					for _, path := range temporary() { // nobody could remove it
						require.NoError(t, os.RemoveAll(path))
					}
				} else {
					require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode(), stderr.String())
				}
				require.Equal(t, before, every(t, dir), "nothing is left behind")
				require.NoError(t, os.RemoveAll(filepath.Join(dir, c.out)))
			})
		}
	}
}

// An output that cannot be written whole is not there at all, or the old one.
func TestFileSizeLimit(t *testing.T) {
	dir := workspace(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	ok(t, "convert", at("stories260K"), at("m.gguf"))
	for _, args := range [][]string{
		{"convert", "stories260K", "out.gguf"},
		{"convert", "stories260K", "out.gguf", "--outtype", "q8_0"},
		{"convert", "stories260K", "out.gguf", "--split-max-tensors", "30"},
		{"convert", "stories260K", "out"},
		{"convert", "m.gguf", "out"},
		{"convert", "m.gguf", "out.gguf"},
		{"quantize", "stories260K", "out"},
		{"quantize", "stories260K", "out.gguf", "--type", "q4_k_m"},
	} {
		for _, force := range []bool{false, true} {
			if force {
				if strings.HasSuffix(args[2], ".gguf") {
					put(t, at("out.gguf"), "old")
				} else {
					put(t, at("out/config.json"), "old")
				}
				args = append(args, "--force")
			}
			before := every(t, dir)
			cmd := exec.Command("sh", append([]string{"-c", `ulimit -f 200; exec "$0" "$@"`, binary}, args...)...)
			cmd.Dir = dir
			out, _ := cmd.CombinedOutput()
			require.Equal(t, exitFailed, cmd.ProcessState.ExitCode(), "%v\n%s", args, out)
			require.Regexp(t, `nibble: (out|\.out).*file too large`, string(out))
			require.NotContains(t, string(out), "goroutine")
			require.Equal(t, before, every(t, dir), "%v: nothing is left behind", args)
		}
		require.NoError(t, os.RemoveAll(at("out")))
		require.NoError(t, os.RemoveAll(at("out.gguf")))
	}
}
