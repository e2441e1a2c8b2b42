package train

import (
	"fmt"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// Base is the model to be trained.
type Base struct {
	Arch   *arch.Model
	Source tensor.Source
	Codecs tensor.Codecs

	// Fingerprint is kept with checkpoints; it may be empty.
	Fingerprint BaseFingerprint
}

// BaseFingerprint tells whether a base is what it was. Where it lies does not matter, and
// its name is for people.
type BaseFingerprint struct {
	Name    string `json:"name"`
	Tensors int    `json:"tensors"`
	Bytes   int64  `json:"bytes"`

	// Sum is of the names, types, shapes and numbers of its tensors, as they are stored.
	Sum string `json:"sum"`
}

// sameBase returns an error if a base is not what it was. A run that did not say what it
// had may have had any.
func sameBase(now, was BaseFingerprint) error {
	if now.Sum == "" || was.Sum == "" || now.Sum == was.Sum {
		return nil
	}
	err := fmt.Errorf("the base, %s, has %d tensors of %d bytes, but that of the run, %s, had %d of %d", now.Name, now.Tensors, now.Bytes, was.Name, was.Tensors, was.Bytes)
	if now.Tensors == was.Tensors && now.Bytes == was.Bytes {
		err = fmt.Errorf("the base, %s, has %d tensors as that of the run had, %s, but other numbers, names or types are in them", now.Name, now.Tensors, was.Name)
	}
	return hint.Add(err, "resume with the --model of the first run, wherever it is now, or start a new one")
}
