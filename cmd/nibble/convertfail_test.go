package main

import (
	"bytes"
	bits "encoding/binary"
	"fmt"
	"math/rand/v2"
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

// bigLlama makes a directory with a Llama of zeros that takes no room on the disk.
func bigLlama(t *testing.T, dir string, layers, hidden, mlp int) {
	require.NoError(t, os.MkdirAll(dir, 0o777))
	put(t, filepath.Join(dir, "config.json"), fmt.Sprintf(`{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": %d, "intermediate_size": %d,
		"num_hidden_layers": %d, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 64, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
		"rope_theta": 1e4, "hidden_act": "silu", "tie_word_embeddings": true}`, hidden, mlp, layers))
	var members []string
	size := 0
	add := func(name string, shape ...int) {
		n := 2
		for _, d := range shape {
			n *= d
		}
		members = append(members, fmt.Sprintf(`"%s":{"dtype":"BF16","shape":%s,"data_offsets":[%d,%d]}`, name, strings.ReplaceAll(fmt.Sprint(shape), " ", ","), size, size+n))
		size += n
	}
	add("model.embed_tokens.weight", 64, hidden)
	for l := range layers {
		layer := fmt.Sprintf("model.layers.%d.", l)
		for _, name := range []string{"q_proj", "k_proj", "v_proj", "o_proj"} {
			add(layer+"self_attn."+name+".weight", hidden, hidden)
		}
		add(layer+"mlp.gate_proj.weight", mlp, hidden)
		add(layer+"mlp.up_proj.weight", mlp, hidden)
		add(layer+"mlp.down_proj.weight", hidden, mlp)
		add(layer+"input_layernorm.weight", hidden)
		add(layer+"post_attention_layernorm.weight", hidden)
	}
	add("model.norm.weight", hidden)
	header := "{" + strings.Join(members, ",") + "}"
	b := append(bits.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	path := filepath.Join(dir, "model.safetensors")
	require.NoError(t, os.WriteFile(path, b, 0o666))
	require.NoError(t, os.Truncate(path, int64(len(b)+size)))
}

// Quantization that is interrupted, or killed, at any moment leaves the old output,
// none, or the whole new one.
func TestInterruptedQuantization(t *testing.T) {
	dir := t.TempDir()
	bigLlama(t, filepath.Join(dir, "model"), 3, 1024, 2816)
	rng := rand.New(rand.NewPCG(6, 1))
	for _, typ := range []string{"nf4", "int8"} {
		start := time.Now()
		ok(t, "quantize", filepath.Join(dir, "model"), filepath.Join(dir, "whole-"+typ), "--type", typ)
		whole := time.Since(start)
		want := tensors(t, filepath.Join(dir, "whole-"+typ))
		finished, stopped := 0, 0
		for i := range 12 {
			signal := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL}[i%3]
			put(t, filepath.Join(dir, "out/config.json"), "old")
			before := every(t, dir)
			cmd := exec.Command(binary, "quantize", "model", "out", "--type", typ, "--force")
			cmd.Dir = dir
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			require.NoError(t, cmd.Start())
			time.Sleep(time.Duration(rng.Int64N(int64(whole))))
			_ = cmd.Process.Signal(signal) // it may have ended
			_ = cmd.Wait()
			if readFile(t, filepath.Join(dir, "out/config.json")) == "old" {
				stopped++
				require.NotZero(t, cmd.ProcessState.ExitCode())
				if signal == syscall.SIGKILL {
					left, err := filepath.Glob(filepath.Join(dir, ".*.nibble-*"))
					require.NoError(t, err)
					for _, path := range left { // nobody could remove it
						require.NoError(t, os.RemoveAll(path))
					}
				} else if cmd.ProcessState.ExitCode() != -1 { // a signal before main takes them ends it at once
					require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode(), stderr.String())
				}
				require.Equal(t, before, every(t, dir), "nothing is left behind")
			} else {
				finished++
				require.Equal(t, want, tensors(t, filepath.Join(dir, "out")))
			}
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "out")))
		}
		t.Logf("%s: %d stopped, %d finished", typ, stopped, finished)
		require.Positive(t, stopped)
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
