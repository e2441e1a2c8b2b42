package data

// Example is one sequence of tokens, or several that are packed into one and do not see
// each other.
type Example struct {
	Tokens []int32

	// Loss[j] says whether predicting Tokens[j] from what stands before it in its
	// document is trained. It has the length of Tokens, or is nil: then everything is.
	// What it says of the first token of a document means nothing.
	Loss []bool

	// Ends are the ends of the documents in Tokens; nil is one.
	Ends []int
}

// Documents calls f with the bounds of each document.
func (e Example) Documents(f func(from, to int)) {
	if len(e.Ends) == 0 {
		f(0, len(e.Tokens))
		return
	}
	from := 0
	for _, to := range e.Ends {
		f(from, to)
		from = to
	}
}

// Labels returns the number of tokens that loss is taken on.
func (e Example) Labels() int {
	n := 0
	e.Documents(func(from, to int) {
		for j := from + 1; j < to; j++ {
			if e.Loss == nil || e.Loss[j] {
				n++
			}
		}
	})
	return n
}
