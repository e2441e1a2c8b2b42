package main

import (
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

// However it is read, a random tensor is the same.
func TestRandomReads(t *testing.T) {
	r := random{size: 3*randomChunk + 102, seed: 7}
	whole, err := io.ReadAll(io.NewSectionReader(r, 0, r.size))
	require.NoError(t, err)
	require.Len(t, whole, int(r.size))
	for _, at := range []int64{0, 1, 7, randomChunk - 1, randomChunk, 2*randomChunk + 5, r.size - 3} {
		for _, n := range []int64{1, 8, 100, randomChunk, randomChunk + 1, r.size} {
			p := make([]byte, n)
			k, err := r.ReadAt(p, at)
			require.Equal(t, min(n, r.size-at), int64(k))
			require.Equal(t, int64(k) < n, err == io.EOF)
			require.Equal(t, whole[at:at+int64(k)], p[:k])
		}
	}
}

// The real models have as many parameters as theirs are known to have.
func TestShapesOfTrainees(t *testing.T) {
	for name, want := range map[string][2]int64{
		"llama-7b-nf4":  {6738415616, 6738415616 - 32000*4096 - 65*4096},
		"llama-65b-nf4": {65285660672, 65285660672 - 32000*8192 - 161*8192},
		"qwen-0.5b":     {494032768, 494032768 - 49*896 - 24*(896+2*128)},
	} {
		m, _, err := trainees[name].model()
		require.NoError(t, err)
		require.Equal(t, want[0], m.NumParams(), name)
		require.Equal(t, want[1], multiplied(m), name)
	}
}

// What is made is what nibble quantize makes of the same weights, byte for byte.
func TestTraineeIsQuantizedModel(t *testing.T) {
	dir := t.TempDir()
	nibble := filepath.Join(dir, "nibble")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", nibble, "../../cmd/nibble").CombinedOutput()
	require.NoError(t, err, "%s", out)
	tokenizer := "../../cmd/nibble/demo/stories260K"
	for name, config := range map[string]map[string]any{"llama": llamaConfig(2, 64, 172, 4, 600), "qwen": smallQwen()} {
		plain, made, want := filepath.Join(dir, name), filepath.Join(dir, name+"-made"), filepath.Join(dir, name+"-want")
		require.NoError(t, trainee{config, false}.make(t.Context(), plain, tokenizer))
		require.NoError(t, trainee{config, true}.make(t.Context(), made, tokenizer))
		out, err := exec.CommandContext(t.Context(), nibble, "quantize", plain, want, "--type", "nf4").CombinedOutput()
		require.NoError(t, err, "%s", out)
		files, err := os.ReadDir(want)
		require.NoError(t, err)
		require.Len(t, files, 4)
		for _, f := range files {
			a, err := os.ReadFile(filepath.Join(made, f.Name()))
			require.NoError(t, err)
			b, err := os.ReadFile(filepath.Join(want, f.Name()))
			require.NoError(t, err)
			require.Equal(t, string(b), string(a), f.Name())
		}
		sameWeights(t, plain, made)
	}
}

// smallQwen is of the same family as qwenConfig.
func smallQwen() map[string]any {
	c := qwenConfig()
	for name, v := range map[string]int64{
		"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 600,
	} {
		c[name] = v
	}
	return c
}

// sameWeights checks that a quantized model is one of these weights, which are of the
// size of initial ones.
func sameWeights(t *testing.T, plain, quantized string) {
	codecs := tensor.NewCodecs(append(floats.Codecs(), nf4.Codecs()...)...)
	p, err := hf.Open(plain)
	require.NoError(t, err)
	defer p.Close()
	q, err := hf.Open(quantized)
	require.NoError(t, err)
	defer q.Close()
	v, err := bnb.View(q, tensor.BF16)
	require.NoError(t, err)
	n := 0
	for info := range p.All() {
		_, a, err := codecs.ReadAll(p, info.Name)
		require.NoError(t, err)
		_, b, err := codecs.ReadAll(v, info.Name)
		require.NoError(t, err)
		var squares, errors float64
		for i := range a {
			squares += float64(a[i]) * float64(a[i])
			errors += float64(a[i]-b[i]) * float64(a[i]-b[i])
		}
		require.Less(t, math.Sqrt(errors/squares), 0.12, info.Name)
		if x, err := v.Info(info.Name); err == nil && x.DType == tensor.NF4 {
			n++
			require.InDelta(t, 0.0138, math.Sqrt(squares/float64(len(a))), 0.002, info.Name)
		}
	}
	require.Equal(t, 2*7, n)
}
