package engine

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/model"
)

// Sampling says how the next token is chosen.
type Sampling struct {
	// Temperature divides the logits; at 0 the most likely token is taken, of
	// several the one with the lowest number.
	Temperature float64

	// Seed makes the choice repeatable.
	Seed uint64
}

// Generate continues a prompt, calling emit with each new token until it
// returns false or there is no position left. The keys and values of all tokens
// are kept; each token takes one pass through the blocks.
func (e *Engine) Generate(ctx context.Context, prompt []int32, o Sampling, emit func(token int32) bool) error {
	if len(prompt) == 0 {
		return fmt.Errorf("%w: nothing to continue: the prompt has no token", tensor.ErrMalformed)
	}
	c := e.model.NewCache()
	rng := rand.New(rand.NewPCG(o.Seed, 0))
	logits := make([]float32, e.model.Vocab())
	h := e.model.Hidden()
	all := slices.Clone(prompt)
	for next := prompt; len(all) <= e.model.Positions(); {
		if e.model.Restarts(c.Len(), len(next)) {
			c, next = e.model.NewCache(), all
		}
		x := make([]float32, len(next)*h)
		pos := c.Positions(len(next))
		if err := e.model.Embed(x, next, pos, e.stream); err != nil {
			return err
		}
		for l := range e.blocks {
			err := e.withBlock(ctx, l, false, e.around(l), func(b *model.Block) error { return b.Extend(x, pos, c, l) })
			if err != nil {
				return err
			}
		}
		c.Advance(len(next))
		if err := e.model.Logits(logits, x[(len(next)-1)*h:], e.stream); err != nil {
			return err
		}
		token := sample(logits, o.Temperature, rng)
		if !emit(token) {
			return nil
		}
		next = []int32{token}
		all = append(all, token)
	}
	return nil
}

// around returns the blocks that come after block l when the first follows the
// last.
func (e *Engine) around(l int) []int {
	var next []int
	for i := 1; i <= min(e.ahead, e.blocks-1); i++ {
		next = append(next, (l+i)%e.blocks)
	}
	return next
}

// sample chooses a token and leaves the logits changed.
func sample(logits []float32, temperature float64, rng *rand.Rand) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	if temperature <= 0 {
		return int32(best)
	}
	top := logits[best]
	var sum float64
	for i, v := range logits {
		logits[i] = kernel.Exp(float32(float64(v-top) / temperature))
		sum += float64(logits[i])
	}
	at := rng.Float64() * sum
	for i, p := range logits {
		if at -= float64(p); at < 0 {
			return int32(i)
		}
	}
	return int32(best) // rounding took the last crumb
}

// Perplexity returns e to the mean of n cross-entropies with that sum.
func Perplexity(sum float64, n int) float64 { return math.Exp(sum / float64(n)) }
