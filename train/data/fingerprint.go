package data

import (
	"fmt"
	"time"

	"github.com/seed18967229/nibble/internal/hint"
)

// Fingerprint tells whether a file of training data is what it was.
type Fingerprint struct {
	Path     string  `json:"path"`
	Weight   float64 `json:"weight"`
	Examples int     `json:"examples"`
	Tokens   int64   `json:"tokens"`

	// SHA256 is that of the tokens, of what is trained of them and of where examples end.
	SHA256 string `json:"sha256"`

	// Now is what a chat template was told that the time is, zero if none was used.
	Now time.Time `json:"now,omitzero"`
}

// Fingerprints are those of the files that the examples come from.
func (d *Dataset) Fingerprints() []Fingerprint {
	var out []Fingerprint
	for i, f := range d.files {
		weight := 1.0
		if d.weights != nil {
			weight = d.weights[i]
		}
		out = append(out, Fingerprint{Path: f.Path, Weight: weight, Examples: f.Stats.Examples, Tokens: f.Stats.Tokens, SHA256: f.Sum, Now: f.now})
	}
	return out
}

// Same returns an error that says which training data is not what it was. A run that did
// not say what it had may have had anything.
func Same(now, was []Fingerprint) error {
	const todo = "resume with the data and the settings of the first run, or start a new one"
	if len(was) == 0 {
		return nil
	}
	if len(now) != len(was) {
		return hint.Add(fmt.Errorf("the training data has %d files, but had %d when the run began", len(now), len(was)), todo)
	}
	for i, n := range now {
		w := was[i]
		switch {
		case n.Weight != w.Weight:
			return hint.Add(fmt.Errorf("%s: its weight is %v, but was %v when the run began", n.Path, n.Weight, w.Weight), todo)
		case n.Examples != w.Examples || n.Tokens != w.Tokens:
			return hint.Add(fmt.Errorf("%s: %d examples of %d tokens, but %d of %d when the run began", n.Path, n.Examples, n.Tokens, w.Examples, w.Tokens), todo)
		case n.SHA256 != w.SHA256:
			return hint.Add(fmt.Errorf("%s: its tokens, or what is trained of them, are not those that the run began with", n.Path), todo)
		}
	}
	return nil
}
