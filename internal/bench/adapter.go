package main

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// adapterConfig is the file of an adapter that is written last.
const adapterConfig = "adapter_config.json"

// targets are the linear layers of a block, which PEFT's all-linear adapts.
var targets = []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

// makeAdapter makes a LoRA adapter of PEFT for the shape in dir, unless one is there: of
// all linear layers of the blocks, in F32, whose deltas have a standard deviation of
// about sigma.
func (s shape) makeAdapter(dir string, rank int64, sigma float64) error {
	config := filepath.Join(dir, adapterConfig)
	if _, err := os.Stat(config); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	const alpha = 2 // times the rank
	var list []tensorInfo
	for _, t := range s.tensors() {
		module, ok := strings.CutSuffix(t.name, ".weight")
		if !ok || !slices.Contains(targets, module[strings.LastIndexByte(module, '.')+1:]) {
			continue
		}
		module = "base_model.model." + module
		list = append(list,
			tensorInfo{module + ".lora_A.weight", []int64{rank, t.shape[1]}},
			tensorInfo{module + ".lora_B.weight", []int64{t.shape[0], rank}})
	}
	// The elements of B·A have rank times the variance of a product.
	each := math.Sqrt(sigma / alpha / math.Sqrt(float64(rank)))
	err := writeTensors(filepath.Join(dir, "adapter_model.safetensors"), "F32", 4, list, func(w io.Writer, size int64) error {
		rng := rand.New(rand.NewPCG(7, uint64(rank)))
		buf := make([]byte, weightsChunk)
		for ; size > 0; size -= int64(len(buf)) {
			buf = buf[:min(size, weightsChunk)]
			for i := 0; i < len(buf); i += 4 {
				binary.LittleEndian.PutUint32(buf[i:], math.Float32bits(float32(rng.NormFloat64()*each)))
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return writeJSON(config, map[string]any{
		"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "model", "r": rank, "lora_alpha": alpha * rank,
		"lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false, "inference_mode": true, "target_modules": targets,
	})
}
