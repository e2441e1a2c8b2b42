package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/cmd/nibble/demo"
	"github.com/seed18967229/nibble/formats/gguf"
	"github.com/seed18967229/nibble/formats/gguf/imatrix"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
)

// writeGGUFFile writes a GGUF file of F32 tensors.
func writeGGUFFile(t *testing.T, path string, meta tensor.Meta, infos []tensor.Info, values func(name string, n int) []float32) {
	t.Helper()
	w, err := gguf.Create(path, false)
	require.NoError(t, err)
	require.NoError(t, w.Begin(meta, infos))
	for i, info := range infos {
		b := make([]byte, info.Size())
		kernel.EncodeF32(b, values(info.Name, int(info.Shape.Elems())))
		dst, err := w.Body(i)
		require.NoError(t, err)
		_, err = dst.WriteAt(b, 0)
		require.NoError(t, err)
	}
	require.NoError(t, w.Finish())
}

func nameSum(name string) (n int) {
	for _, c := range []byte(name) {
		n += int(c)
	}
	return n
}

// wideValues are those of wide in testdata/gen/gguf_quantized.py.
func wideValues(name string, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		x := (uint64(i) + uint64(nameSum(name))*1000003) * 0x9E3779B97F4A7C15
		x = (x ^ x>>29) * 0xBF58476D1CE4E5B9
		x ^= x >> 32
		out[i] = (float32(x&4095)/2048 - 1) / 32
		if x>>40&31 == 0 {
			out[i] *= 16
		}
	}
	return out
}

// writeWide writes a model in which every block type fits some rows.
func writeWide(t *testing.T, path string) {
	meta := tensor.Meta{{Key: "general.architecture", Value: "llama"}, {Key: "general.name", Value: "wide"}}
	for _, kv := range []struct {
		key   string
		value uint32
	}{{"block_count", 3}, {"context_length", 128}, {"embedding_length", 512}, {"feed_forward_length", 256}, {"attention.head_count", 8},
		{"attention.head_count_kv", 2}, {"expert_count", 4}, {"expert_used_count", 2}} {
		meta = append(meta, tensor.KV{Key: "llama." + kv.key, Value: kv.value})
	}
	meta = append(meta, tensor.KV{Key: "llama.attention.layer_norm_rms_epsilon", Value: float32(1e-5)},
		tensor.KV{Key: "general.file_type", Value: uint32(0)}, tensor.KV{Key: "general.quantization_version", Value: uint32(2)})
	f32 := func(name string, shape ...int64) tensor.Info {
		return tensor.Info{Name: name, DType: tensor.F32, Shape: shape}
	}
	infos := []tensor.Info{f32("token_embd.weight", 24, 512), f32("output_norm.weight", 512), f32("output.weight", 24, 512)}
	for _, i := range []int{2, 0, 1} {
		for _, x := range []tensor.Info{
			f32("attn_norm.weight", 512), f32("attn_q.weight", 64, 512), f32("attn_k.weight", 16, 512), f32("attn_v.weight", 16, 512),
			f32("attn_output.weight", 32, 512), f32("ffn_norm.weight", 512), f32("ffn_gate_inp.weight", 4, 512),
			f32("ffn_gate_inp_shexp.weight", 1, 512), f32("ffn_gate_exps.weight", 4, 9, 512), f32("ffn_up_exps.weight", 4, 9, 512),
			f32("ffn_down_exps.weight", 4, 33, 256), f32("attn_rot.weight", 7, 320),
		} {
			x.Name = fmt.Sprintf("blk.%d.%s", i, x.Name)
			infos = append(infos, x)
		}
	}
	writeGGUFFile(t, path, meta, infos, wideValues)
}

// formulaImatrix is imatrix of testdata/gen/gguf_quantized.py for a GGUF file.
func formulaImatrix(t *testing.T, path, lacks string) *imatrix.File {
	g, err := gguf.Open(path)
	require.NoError(t, err)
	defer g.Close()
	f := &imatrix.File{Datasets: []string{"a.txt"}, Chunks: 4, ChunkSize: 128}
	for info := range g.All() {
		if info.Shape.Rows() == 1 || slices.Contains([]string{"token_embd.weight", "output.weight", lacks}, info.Name) {
			continue
		}
		m := imatrix.Matrix{Name: info.Name, Mats: 1}
		if len(info.Shape) > 2 {
			m.Mats = int(info.Shape[0])
		}
		for i := range m.Mats * int(info.Shape.Cols()) {
			// Counts of four, so that the mean is what the quantizer was given.
			m.Sums = append(m.Sums, float32((i*i*31+i*7+nameSum(info.Name))%509+1)/64*4)
		}
		m.Counts = slices.Repeat([]float32{4}, m.Mats)
		f.Entries = append(f.Entries, m)
	}
	return f
}

// quantizedGolden is what the real llama-quantize makes of a file.
type quantizedGolden struct {
	Source         string
	Plain, Imatrix map[string]string
	Flags          []struct {
		Type        string
		Pure        bool
		Output      string
		Embedding   string
		LeaveOutput bool `json:"leave_output"`
		Overrides   [][2]string
		File        string
		FileBF16    string `json:"file_bf16"` // by way of a BF16 file
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	return fmt.Sprintf("%x", sha256.Sum256([]byte(readFile(t, path))))[:16]
}

// Whole files are those of llama-quantize, to the byte: with every type, with an
// importance matrix and without, from the F32 file and, in one pass, from the
// directory that it was converted from.
func TestQuantizedFilesAreLlamaQuantizes(t *testing.T) {
	var golden map[string]quantizedGolden
	readGolden(t, "ggufquant/golden.json", &golden)
	require.Len(t, golden, 16)
	for name, want := range golden {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			file, lacks, sources := at("in.gguf"), "blk.0.attn_output.weight", []string{}
			switch name {
			case "wide":
				writeWide(t, file)
				lacks = "blk.0.attn_rot.weight"
			case "stories260K":
				require.NoError(t, demo.Write(dir))
				sources = []string{at("stories260K")}
			default:
				abs, err := filepath.Abs(family(name))
				require.NoError(t, err)
				sources = []string{abs}
			}
			if len(sources) > 0 {
				ok(t, "convert", sources[0], file, "--outtype", "f32")
			}
			require.Equal(t, want.Source, digest(t, file))
			sources = append(sources, file)
			require.NoError(t, imatrix.Write(at("imatrix.gguf"), formulaImatrix(t, file, lacks), false))

			if name != "wide" && name != "llama" {
				sources = sources[:1]
			}

			check := func(sources []string, want, typ string, args ...string) {
				t.Helper()
				for _, source := range sources {
					out := at("out.gguf")
					var dry ggufDryResult
					args := append([]string{"quantize", source, out, "--type", typ, "--force"}, args...)
					cmd := exec.Command(binary, args...)
					cmd.Dir = dir // for the path that goes into the metadata
					text, err := cmd.CombinedOutput()
					require.NoError(t, err, "%s", text)
					require.Equal(t, want, digest(t, out), "%s: %v", source, args)
					if typ == "q4_k_m" {
						cmd := exec.Command(binary, append(args, "--dry-run", "--json")...)
						cmd.Dir = dir
						text, err := cmd.Output()
						require.NoError(t, err)
						require.NoError(t, json.Unmarshal(text, &dry))
						require.Equal(t, int64(len(readFile(t, out))), dry.Size)
					}
				}
			}
			for typ, hash := range want.Plain {
				check(sources, hash, typ)
			}
			for typ, hash := range want.Imatrix {
				check(sources, hash, typ, "--imatrix", "imatrix.gguf")
			}
			for _, f := range want.Flags {
				var args []string
				if f.Pure {
					args = append(args, "--pure")
				}
				if f.LeaveOutput {
					args = append(args, "--leave-output-tensor")
				}
				if f.Output != "" {
					args = append(args, "--output-tensor-type", f.Output)
				}
				if f.Embedding != "" {
					args = append(args, "--token-embedding-type", strings.ToLower(f.Embedding))
				}
				for _, v := range f.Overrides {
					args = append(args, "--tensor-type", v[0]+"="+v[1])
				}
				if f.FileBF16 == "" {
					check(sources, f.File, strings.ToUpper(f.Type), args...)
					continue
				}
				// All but a matrix that is left is the same.
				require.Equal(t, f.LeaveOutput && name == "llama", f.File != f.FileBF16)
				check(sources[:1], f.FileBF16, strings.ToUpper(f.Type), args...)
				check([]string{file}, f.File, strings.ToUpper(f.Type), args...)
			}
		})
	}
}
