package engine

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/seed18967229/nibble/internal/kernel"
)

// Sampling says how the next token is chosen. The zero value takes the most likely.
//
// What it does is done in the order of transformers' logits processors: the repetition
// penalty, the temperature, top-k, top-p, min-p, each on what the one before has left.
// llama.cpp's default chain has the temperature last, so that its top-p and min-p see
// the probabilities as they are without it.
type Sampling struct {
	// Temperature divides the logits; at 0 the most likely token is taken, of
	// several the one with the lowest number.
	Temperature float64

	// TopK keeps the tokens that are at least as likely as the k-th; 0 keeps all.
	// llama.cpp keeps exactly k where several are as likely as the last.
	TopK int

	// TopP keeps the most likely tokens up to the one with which their probability
	// reaches it; 0 and 1 keep all.
	TopP float64

	// MinP keeps the tokens with at least that share of the greatest probability.
	MinP float64

	// RepetitionPenalty divides the logits above 0 of tokens that the sequence has,
	// the prompt included, and multiplies those below; 0 and 1 leave them.
	RepetitionPenalty float64

	// RepetitionLastN is of how many of the last tokens that is so; 0 is all, as in
	// transformers. (llama.cpp takes 64 if not told otherwise, mlx-lm 20.)
	RepetitionLastN int

	// Seed makes the choice repeatable.
	Seed uint64
}

// Check returns an error for what no sampling can be.
func (o Sampling) Check() error {
	switch {
	case !(o.Temperature >= 0) || math.IsInf(o.Temperature, 0):
		return fmt.Errorf("temperature %v: want 0 or more", o.Temperature)
	case o.TopK < 0:
		return fmt.Errorf("top-k %d: want 0 (all tokens) or more", o.TopK)
	case !(o.TopP >= 0 && o.TopP <= 1):
		return fmt.Errorf("top-p %v: want 0 to 1", o.TopP)
	case !(o.MinP >= 0 && o.MinP <= 1):
		return fmt.Errorf("min-p %v: want 0 to 1", o.MinP)
	case !(o.RepetitionPenalty >= 0) || math.IsInf(o.RepetitionPenalty, 0):
		return fmt.Errorf("repetition penalty %v: want more than 0; 1 is none", o.RepetitionPenalty)
	case o.RepetitionLastN < 0:
		return fmt.Errorf("repetition penalty of the last %d tokens: want 0 (all) or more", o.RepetitionLastN)
	}
	return nil
}

// sampler chooses tokens by one Sampling. It keeps its memory.
type sampler struct {
	Sampling
	rng     *rand.Rand
	seen    []uint32 // by token, the turn in which it was last penalized
	turn    uint32
	largest []float32 // a heap
	order   []int32
}

func newSampler(vocab int, o Sampling) *sampler {
	s := &sampler{Sampling: o, rng: rand.New(rand.NewPCG(o.Seed, 0))}
	if s.penalizes() {
		s.seen = make([]uint32, vocab)
	}
	return s
}

func (s *sampler) penalizes() bool { return s.RepetitionPenalty != 0 && s.RepetitionPenalty != 1 }

// choose chooses the token that follows a sequence and leaves the logits changed.
func (s *sampler) choose(logits []float32, sequence []int32) int32 {
	if s.penalizes() {
		s.penalize(logits, sequence)
	}
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	if s.Temperature <= 0 {
		return int32(best)
	}
	sum := s.weigh(logits, logits[best])
	at := s.rng.Float64() * sum
	for i, p := range logits {
		if at -= float64(p); at < 0 {
			return int32(i)
		}
	}
	return int32(best) // rounding took the last crumb
}

// penalize makes the tokens of the sequence less likely, each once.
func (s *sampler) penalize(logits []float32, sequence []int32) {
	if s.RepetitionLastN > 0 {
		sequence = sequence[max(0, len(sequence)-s.RepetitionLastN):]
	}
	s.turn++
	penalty := float32(s.RepetitionPenalty)
	for _, t := range sequence {
		if s.seen[t] == s.turn {
			continue
		}
		s.seen[t] = s.turn
		if logits[t] < 0 {
			logits[t] *= penalty
		} else {
			logits[t] /= penalty
		}
	}
}

// weigh replaces the logits, the greatest of which is top, by what is proportional to the
// probabilities that tokens are drawn with, 0 for those that are not, and returns their
// sum.
func (s *sampler) weigh(logits []float32, top float32) (sum float64) {
	least := float32(math.Inf(-1))
	if s.TopK > 0 && s.TopK < len(logits) {
		least = s.kth(logits)
	}
	for i, v := range logits {
		if v < least {
			logits[i] = 0
			continue
		}
		logits[i] = kernel.Exp(float32(float64(v-top) / s.Temperature))
		sum += float64(logits[i])
	}
	if s.TopP > 0 && s.TopP < 1 {
		sum = s.topP(logits, sum)
	}
	if s.MinP > 0 {
		sum = 0
		for i, w := range logits {
			if float64(w) < s.MinP { // the greatest is 1
				logits[i] = 0
			}
			sum += float64(logits[i])
		}
	}
	return sum
}

// kth returns the TopK-th greatest logit.
func (s *sampler) kth(logits []float32) float32 {
	h := append(s.largest[:0], logits[:s.TopK]...)
	s.largest = h
	down := func(i int) {
		for {
			least := i
			for c := 2*i + 1; c <= 2*i+2 && c < len(h); c++ {
				if h[c] < h[least] {
					least = c
				}
			}
			if least == i {
				return
			}
			h[i], h[least] = h[least], h[i]
			i = least
		}
	}
	for i := len(h)/2 - 1; i >= 0; i-- {
		down(i)
	}
	for _, v := range logits[s.TopK:] {
		if v > h[0] {
			h[0] = v
			down(0)
		}
	}
	return h[0]
}

// topP keeps the weights, which add up to sum, of the most likely tokens, and returns
// their sum.
func (s *sampler) topP(weights []float32, sum float64) float64 {
	// All below this together are less than what may be left out.
	crumb := float32((1 - s.TopP) * sum / float64(len(weights)))
	s.order = s.order[:0]
	for i, w := range weights {
		if w >= crumb && w > 0 {
			s.order = append(s.order, int32(i))
		}
	}
	slices.SortFunc(s.order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(weights[b], weights[a]), cmp.Compare(a, b))
	})
	kept, n := 0.0, 0
	for n == 0 || n < len(s.order) && kept < s.TopP*sum {
		kept += float64(weights[s.order[n]])
		n++
	}
	keep := s.order[:n]
	slices.Sort(keep)
	for i := range weights {
		if len(keep) > 0 && keep[0] == int32(i) {
			keep = keep[1:]
		} else {
			weights[i] = 0
		}
	}
	return kept
}
