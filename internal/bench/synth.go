package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/speed"
	"google.golang.org/protobuf/encoding/protowire"
)

// shape is a Llama of real proportions, as deep as it takes to be as large as wanted.
type shape struct {
	hidden, ff, kv, vocab, layers int64

	// head says that the output head is not the embeddings.
	head bool
}

// The proportions of Llama 3.2 3B and of Llama 2 7B.
var (
	llama3B = shape{hidden: 3072, ff: 8192, kv: 1024, vocab: 128256}
	llama7B = shape{hidden: 4096, ff: 11008, kv: 4096, vocab: 32000, head: true}
)

type tensorInfo struct {
	name  string
	shape []int64
}

func (t tensorInfo) elems() int64 {
	n := int64(1)
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// size returns the bytes of the tensor in BF16.
func (t tensorInfo) size() int64 { return 2 * t.elems() }

// sized returns the shape with as many layers as make a checkpoint of about that size
// in BF16.
func (s shape) sized(gb float64) shape {
	layer := 2 * (2*s.hidden*s.hidden + 2*s.kv*s.hidden + 3*s.hidden*s.ff + 2*s.hidden)
	ends := 2 * s.vocab * s.hidden
	if s.head {
		ends *= 2
	}
	s.layers = max(1, (int64(gb*1e9)-ends)/layer)
	return s
}

// make makes the checkpoint in dir, in shards of 2 GB, unless one is there.
func (s shape) make(dir, tokenizer string) error {
	if _, err := os.Stat(filepath.Join(dir, indexName)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	var size int64
	for _, t := range s.tensors() {
		size += t.size()
	}
	if err := room(dir, float64(size)/1e9); err != nil {
		return err
	}
	fmt.Printf("making %s: %d layers\n", dir, s.layers)
	return s.write(dir, tokenizer, 2e9)
}

// indexName is the file of a checkpoint that is written last.
const indexName = "model.safetensors.index.json"

func (s shape) tensors() []tensorInfo {
	out := []tensorInfo{{"model.embed_tokens.weight", []int64{s.vocab, s.hidden}}}
	for l := range s.layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		out = append(out,
			tensorInfo{p + "input_layernorm.weight", []int64{s.hidden}},
			tensorInfo{p + "mlp.down_proj.weight", []int64{s.hidden, s.ff}},
			tensorInfo{p + "mlp.gate_proj.weight", []int64{s.ff, s.hidden}},
			tensorInfo{p + "mlp.up_proj.weight", []int64{s.ff, s.hidden}},
			tensorInfo{p + "post_attention_layernorm.weight", []int64{s.hidden}},
			tensorInfo{p + "self_attn.k_proj.weight", []int64{s.kv, s.hidden}},
			tensorInfo{p + "self_attn.o_proj.weight", []int64{s.hidden, s.hidden}},
			tensorInfo{p + "self_attn.q_proj.weight", []int64{s.hidden, s.hidden}},
			tensorInfo{p + "self_attn.v_proj.weight", []int64{s.kv, s.hidden}})
	}
	out = append(out, tensorInfo{"model.norm.weight", []int64{s.hidden}})
	if s.head {
		out = append(out, tensorInfo{"lm_head.weight", []int64{s.vocab, s.hidden}})
	}
	return out
}

// write makes the checkpoint, with the tokenizer of another model directory and as
// many more tokens as the vocabulary has room for.
func (s shape) write(dir, tokenizer string, shardBytes int64) error {
	config := map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_size": s.hidden, "intermediate_size": s.ff,
		"num_hidden_layers": s.layers, "num_attention_heads": s.hidden / 128, "num_key_value_heads": s.kv / 128, "head_dim": 128,
		"vocab_size": s.vocab, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
		"tie_word_embeddings": !s.head, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
	}
	if err := writeJSON(filepath.Join(dir, "config.json"), config); err != nil {
		return err
	}
	files, err := tokenizerFiles(tokenizer, s.vocab)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o666); err != nil {
			return err
		}
	}
	var shards [][]tensorInfo
	used := shardBytes
	var total int64
	for _, t := range s.tensors() {
		if used+t.size() > shardBytes {
			shards, used = append(shards, nil), 0
		}
		shards[len(shards)-1] = append(shards[len(shards)-1], t)
		used += t.size()
		total += t.size()
	}
	weightMap := make(map[string]string)
	for i, shard := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		for _, t := range shard {
			weightMap[t.name] = name
		}
		if err := writeShard(filepath.Join(dir, name), shard, uint64(i)); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, indexName), map[string]any{
		"metadata": map[string]any{"total_size": total}, "weight_map": weightMap,
	})
}

// fillVocabulary adds tokens to a SentencePiece model until it has so many. Fields of
// a protocol buffer that repeat may be appended (sentencepiece_model.proto:
// ModelProto.pieces is 1, SentencePiece.piece 1 and .score 2).
func fillVocabulary(model []byte, size int64) []byte {
	n := int64(0)
	for rest := model; len(rest) > 0; {
		number, wire, tag := protowire.ConsumeTag(rest)
		value := protowire.ConsumeFieldValue(number, wire, rest[max(tag, 0):])
		if tag < 0 || value < 0 {
			break
		}
		if number == 1 {
			n++
		}
		rest = rest[tag+value:]
	}
	for ; n < size; n++ {
		piece := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), fmt.Sprintf("word%d", n))
		piece = protowire.AppendFixed32(protowire.AppendTag(piece, 2, protowire.Fixed32Type), math.Float32bits(float32(-n)))
		model = protowire.AppendBytes(protowire.AppendTag(model, 1, protowire.BytesType), piece)
	}
	return model
}

// tokenizerFiles returns the tokenizer of a model directory, with as many tokens as the
// vocabulary has.
func tokenizerFiles(dir string, vocabulary int64) ([]hf.SideFile, error) {
	var files []hf.SideFile
	for _, name := range []string{"tokenizer.model", "tokenizer_config.json"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if name == "tokenizer.model" {
			b = fillVocabulary(b, vocabulary)
		}
		files = append(files, hf.SideFile{Name: name, Data: b})
	}
	return files, nil
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o666)
}

// weightsChunk is how many bytes of weights are made at a time.
const weightsChunk = 1 << 20

// writeShard writes random weights of about 0.01.
func writeShard(path string, list []tensorInfo, seed uint64) error {
	return writeTensors(path, "BF16", 2, list, func(w io.Writer, size int64) error {
		for n := int64(0); n < size; n += weightsChunk {
			if _, err := w.Write(speed.NewBuffer(min(weightsChunk, size-n), seed<<32+uint64(n)+1).Bytes); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeTensors writes a file of tensors of one type, whose elements have that many bytes.
// body writes all of them.
func writeTensors(path, dtype string, width int64, list []tensorInfo, body func(w io.Writer, size int64) error) error {
	var header strings.Builder
	header.WriteString(`{"__metadata__":{"format":"pt"}`)
	var at int64
	for _, t := range list {
		dims := strings.ReplaceAll(strings.Trim(fmt.Sprint(t.shape), "[]"), " ", ",")
		end := at + width*t.elems()
		fmt.Fprintf(&header, `,"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}`, t.name, dtype, dims, at, end)
		at = end
	}
	header.WriteString("}")
	for header.Len()%8 != 0 {
		header.WriteByte(' ')
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	w.Write(binary.LittleEndian.AppendUint64(nil, uint64(header.Len())))
	w.WriteString(header.String())
	if err := body(w, at); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Sync()
}
