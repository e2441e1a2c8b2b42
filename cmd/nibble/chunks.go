package main

import (
	"fmt"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/data/tokenizer"
)

// chunks is a text cut as llama.cpp's tools cut it (tools/perplexity,
// tools/imatrix): the whole of it with bos in front, into chunks of size tokens,
// of which what is left over makes none. The first token of each is bos.
type chunks struct {
	tokens []int32
	size   int
	bos    int32 // vocab.None for none
}

// readChunks reads a text file in chunks.
func readChunks(path string, v *vocab.Vocab, tok *tokenizer.Tokenizer, size int) (*chunks, error) {
	c := &chunks{size: size, bos: vocab.None}
	var err error
	if c.tokens, err = data.ReadText(path, tok); err != nil {
		return nil, err
	}
	if v.AddBOS {
		c.bos = v.BOS
		c.tokens = append([]int32{v.BOS}, c.tokens...)
	}
	return c, nil
}

// shortest is the length of the shortest chunk that has a token to be scored.
const shortest = 3

// enough returns an error unless there are two chunks, with something to score:
// with less the tools say nothing.
func (c *chunks) enough(path string) error {
	switch {
	case c.size < shortest:
		return fmt.Errorf("%w: chunks of %d tokens have none to be scored", tensor.ErrUnsupported, c.size)
	case c.len() >= 2:
		return nil
	}
	return hint.Add(fmt.Errorf("%s: %w: %d tokens are not two chunks of %d", path, tensor.ErrMalformed, len(c.tokens), c.size),
		"give more text, or lower --max-seq-length to %d", max(shortest, len(c.tokens)/2))
}

func (c *chunks) len() int { return len(c.tokens) / c.size }

// chunk returns the tokens of a chunk. Of its predictions those of the tokens from
// scored on count.
func (c *chunks) chunk(i int) []int32 {
	out := append([]int32(nil), c.tokens[i*c.size:(i+1)*c.size]...)
	if c.bos != vocab.None {
		out[0] = c.bos
	}
	return out
}

func (c *chunks) scored() int { return c.size/2 + 1 }
