package model

import "slices"

// Batch is one micro-batch: sequences of tokens laid end to end. They are not
// padded and do not see each other.
type Batch struct {
	// Tokens are the inputs.
	Tokens []int32

	// Labels[i] is the token to be predicted after Tokens[i], or -1 where no
	// loss is taken.
	Labels []int32

	// Pos is the position of each token in its sequence.
	Pos []int32

	// Ends are the ends of the sequences: sequence s is Tokens[Ends[s-1]:Ends[s]].
	Ends []int
}

// Add appends a sequence. Loss is taken on predicting tokens[j] for j >=
// max(1, lossFrom). The last token is only ever a label.
func (b *Batch) Add(tokens []int32, lossFrom int) {
	for j := 1; j < len(tokens); j++ {
		label := int32(-1)
		if j >= lossFrom {
			label = tokens[j]
		}
		b.Tokens = append(b.Tokens, tokens[j-1])
		b.Labels = append(b.Labels, label)
		b.Pos = append(b.Pos, int32(j-1))
	}
	if len(tokens) > 1 {
		b.Ends = append(b.Ends, len(b.Tokens))
	}
}

// AddDocuments appends the documents of one example, each as a sequence of its own: they
// do not see each other, and each begins at position 0. Document d is
// tokens[ends[d-1]:ends[d]]; without ends there is one. Loss is taken on predicting
// tokens[j] if loss[j], of all if loss is nil.
func (b *Batch) AddDocuments(tokens []int32, loss []bool, ends []int) {
	if len(ends) == 0 {
		ends = []int{len(tokens)}
	}
	from := 0
	for _, to := range ends {
		at := len(b.Labels)
		b.Add(tokens[from:to], 0)
		for i := range b.Labels[at:] {
			if loss != nil && !loss[from+i+1] {
				b.Labels[at+i] = -1
			}
		}
		from = to
	}
}

// AddWhole is Add, but the last token goes through the model too, though nothing
// is to be predicted after it.
func (b *Batch) AddWhole(tokens []int32, lossFrom int) {
	b.Add(append(slices.Clip(tokens), -1), lossFrom)
}

// NumLabels returns the number of tokens that loss is taken on.
func (b *Batch) NumLabels() int {
	n := 0
	for _, l := range b.Labels {
		if l >= 0 {
			n++
		}
	}
	return n
}

// sequences calls f with the bounds of each sequence.
func (b *Batch) sequences(f func(from, to int)) {
	from := 0
	for _, to := range b.Ends {
		f(from, to)
		from = to
	}
}
