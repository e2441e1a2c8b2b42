package train

import (
	"strings"

	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/optim"
)

// options are what the optimizer is told.
func (c *Config) options() optim.Options {
	return optim.Options{WeightDecay: c.WeightDecay, Beta1: c.AdamBeta1, Beta2: c.AdamBeta2, Eps: c.AdamEpsilon, Momentum: c.Momentum}
}

// loraPlusEmbedding is the learning rate that adapters of embeddings have in LoRA+.
const loraPlusEmbedding = 1e-6

// prepare tells parameters how they are rounded and how fast they learn. The latter is
// as PEFT's create_loraplus_optimizer has it.
func (c *Config) prepare(params []*optim.Param) {
	for _, p := range params {
		if c.BF16StochasticRound {
			p.DType = tensor.BF16
		}
		switch {
		case c.LoraPlusLRRatio == 0:
		case strings.Contains(p.Name, ".lora_embedding_") && c.LearningRate > 0:
			p.LRScale = loraPlusEmbedding / c.LearningRate
		case strings.Contains(p.Name, ".lora_B.") || len(p.Shape) == 1:
			p.LRScale = c.LoraPlusLRRatio
		}
	}
}
