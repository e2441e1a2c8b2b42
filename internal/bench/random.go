package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/nf4/bnb"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

// A trainee is a model of real shape and random weights that is trained. Its weights are
// never anywhere in BF16: they are made as they are quantized.
type trainee struct {
	config map[string]any

	// nf4 says that it is quantized to NF4, as nibble quantize does.
	nf4 bool
}

// llamaConfig is the config.json of a model of the first LLaMA's shape.
func llamaConfig(layers, hidden, ff, heads, vocab int64) map[string]any {
	return map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_size": hidden, "intermediate_size": ff,
		"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocab,
		"max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
		"tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
	}
}

// qwenConfig is the config.json of a model of Qwen2.5-0.5B's shape.
func qwenConfig() map[string]any {
	return map[string]any{
		"architectures": []string{"Qwen2ForCausalLM"}, "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
		"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
		"max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu",
		"tie_word_embeddings": true, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
	}
}

// trainees are the models by the name of their directory.
var trainees = map[string]trainee{
	"llama-7b-nf4":  {llamaConfig(32, 4096, 11008, 32, 32000), true},
	"llama-65b-nf4": {llamaConfig(80, 8192, 22016, 64, 32000), true},
	"qwen-0.5b-nf4": {qwenConfig(), true},
	"qwen-0.5b":     {qwenConfig(), false},

	// To try the driver with.
	"tiny-nf4": {llamaConfig(3, 256, 704, 4, 512), true},
	"tiny":     {llamaConfig(3, 256, 704, 4, 512), false},
}

// model is what the configuration makes.
func (t trainee) model() (*arch.Model, []byte, error) {
	text, err := json.MarshalIndent(t.config, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	m, err := arch.ParseConfig(text)
	return m, append(text, '\n'), err
}

// multiplied counts the parameters that activations are multiplied with: the matrices of
// the blocks and the output head, be it the embeddings or not. Rows of embeddings that
// are looked up, norms and biases are not among them.
func multiplied(m *arch.Model) (n int64) {
	for _, x := range m.Tensors() {
		head := x.Role == arch.Head || x.Role == arch.Embedding && m.TieWordEmbeddings
		if len(x.Dims) == 2 && (x.Layer >= 0 || head) {
			n += x.Dims[0] * x.Dims[1]
		}
	}
	return n
}

// make makes the model in dir, unless it is there, with the tokenizer of another and as
// many more tokens as the vocabulary has room for.
func (t trainee) make(ctx context.Context, dir, tokenizer string) error {
	if _, err := os.Stat(filepath.Join(dir, hf.ConfigName)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m, config, err := t.model()
	if err != nil {
		return err
	}
	src, err := randomWeights(m)
	if err != nil {
		return err
	}
	plan := &pipeline.Plan{}
	if t.nf4 {
		var account *bnb.Account
		if plan, account, err = nf4Plan(src, m); err != nil {
			return err
		}
		if config, err = hf.Edit(config, []hf.Field{{Name: "quantization_config", Value: account.QuantizationConfig()}}, nil); err != nil {
			return err
		}
	} else {
		for info := range src.All() {
			plan.Steps = append(plan.Steps, pipeline.Copy(info, info.Name))
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return err
	}
	if err := room(filepath.Dir(dir), 1.05*float64(plan.Size())/1e9); err != nil {
		return err
	}
	fmt.Printf("making %s: %.1f GB\n", dir, float64(plan.Size())/1e9)
	files, err := tokenizerFiles(tokenizer, m.VocabSize)
	if err != nil {
		return err
	}
	files = append(files, hf.SideFile{Name: hf.ConfigName, Data: config})
	w, err := hf.Create(dir, hf.Options{Files: files})
	if err != nil {
		return err
	}
	return pipeline.Run(ctx, plan, src, w, pipeline.WithRoom(128<<20))
}

// nf4Plan is the plan of nibble quantize --type nf4.
func nf4Plan(src tensor.Source, m *arch.Model) (*pipeline.Plan, *bnb.Account, error) {
	o := bnb.Options{Type: tensor.NF4, BlockSize: nf4.DefaultBlock, DoubleQuant: true, Storage: tensor.U8}
	for _, x := range m.Tensors() {
		if len(x.Dims) == 2 && x.Role != arch.Embedding {
			o.Linear = append(o.Linear, x.Name)
		}
		if x.Role == arch.Head {
			o.Head = strings.TrimSuffix(x.Name, ".weight")
		}
	}
	return bnb.Plan(src, tensor.NewCodecs(append(floats.Codecs(), nf4.Codecs()...)...), o)
}

// randomWeights returns the tensors of a model in BF16: norms of 1, and all else random
// of about 0.014, as initial weights are, so that what goes through the model stays
// finite however deep it is.
func randomWeights(m *arch.Model) (tensor.Source, error) {
	var entries []tensor.Entry
	for i, x := range m.Tensors() {
		info := tensor.Info{Name: x.Name, DType: tensor.BF16, Shape: x.Dims}
		norm := len(x.Dims) == 1 && x.Part != "bias"
		entries = append(entries, tensor.Entry{Info: info, Open: func() (io.ReaderAt, error) {
			return random{size: info.Size(), seed: uint64(i) + 1, ones: norm}, nil
		}})
	}
	return tensor.NewTable(nil, entries)
}

// random is a tensor of BF16 that is made as it is read, the same each time.
type random struct {
	size int64
	seed uint64
	ones bool
}

// randomChunk is how many bytes have a generator of their own.
const randomChunk = 64 << 10

// ReadAt implements io.ReaderAt.
func (r random) ReadAt(p []byte, at int64) (n int, err error) {
	var chunk [randomChunk]byte
	for n < len(p) && at < r.size {
		first := at / randomChunk * randomChunk
		end := min(randomChunk, r.size-first)
		if at > first || int64(len(p)-n) < end {
			r.fill(chunk[:], first)
			k := copy(p[n:], chunk[at-first:end])
			n, at = n+k, at+int64(k)
			continue
		}
		r.fill(p[n:n+int(end)], first)
		n, at = n+int(end), at+end
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// fill makes the bytes from a multiple of randomChunk on.
func (r random) fill(p []byte, at int64) {
	rng := rand.NewPCG(r.seed, uint64(at/randomChunk))
	var last [8]byte
	for ; len(p) > 0; p = p[min(8, len(p)):] {
		word := uint64(0x3f803f803f803f80) // 1
		if !r.ones {
			// Any sign, the exponents of 2^-9 to 2^-6, any mantissa.
			word = rng.Uint64()&0x81ff81ff81ff81ff + 0x3b003b003b003b00
		}
		if len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, word)
		} else {
			binary.LittleEndian.PutUint64(last[:], word)
			copy(p, last[:])
		}
	}
}
