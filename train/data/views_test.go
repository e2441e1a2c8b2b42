package data_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/stretchr/testify/require"
)

// numbered is n rows that are told apart by their text, of many lengths.
func numbered(n int) string {
	r := rand.New(rand.NewPCG(5, uint64(n)))
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"prompt": "%d: ", "completion": "%s"}`+"\n", i, strings.Repeat("once ", r.IntN(20)))
	}
	return b.String()
}

// Every row is in one pack, as it would be alone, and packs are as full as they can be.
func TestPacking(t *testing.T) {
	o := data.Options{Tokenizer: stories(t), MaxSeqLength: 64}
	alone, err := load(t, "x.jsonl", numbered(300), o)
	require.NoError(t, err)
	want := all(t, alone)
	o.Packing = true
	packed, err := load(t, "x.jsonl", numbered(300), o)
	require.NoError(t, err)
	require.Less(t, packed.Len(), 200)
	require.Equal(t, []int64{alone.Stats().Tokens, alone.Stats().Labels}, []int64{packed.Stats().Tokens, packed.Stats().Labels})
	var got []data.Example
	for _, e := range all(t, packed) {
		require.LessOrEqual(t, len(e.Tokens), 64)
		e.Documents(func(from, to int) {
			one := data.Example{Tokens: e.Tokens[from:to]}
			if e.Loss != nil {
				one.Loss = e.Loss[from:to]
			}
			got = append(got, one)
		})
	}
	order := func(a, b data.Example) int { return slices.Compare(a.Tokens, b.Tokens) }
	slices.SortFunc(want, order)
	slices.SortFunc(got, order)
	require.Equal(t, want, got)
}

func TestValSplit(t *testing.T) {
	o := data.Options{Tokenizer: stories(t), MaxSeqLength: 64, ValSplit: 0.1, Seed: 3}
	path := write(t, "x.jsonl", numbered(50))
	split := func(o data.Options) (train, valid []data.Example) {
		s, err := data.Open(path, o)
		require.NoError(t, err)
		defer s.Close()
		return all(t, s.Train), all(t, s.Valid)
	}
	train, valid := split(o)
	require.Len(t, train, 45)
	require.Len(t, valid, 5)
	again, _ := split(o)
	require.Equal(t, train, again)
	o.ValSplit, o.Packing = 5, true // a number; only training examples are packed
	packed, same := split(o)
	require.Equal(t, valid, same)
	require.Less(t, len(packed), 45)
	o.Packing, o.Seed = false, 4
	_, other := split(o)
	require.NotEqual(t, valid, other)

	whole, err := data.Open(path, data.Options{Tokenizer: o.Tokenizer, MaxSeqLength: 64})
	require.NoError(t, err)
	defer whole.Close()
	require.ElementsMatch(t, all(t, whole.Train), append(train, valid...))

	o.ValSplit = 50
	_, err = data.Open(path, o)
	require.ErrorIs(t, err, tensor.ErrMalformed)
	require.Contains(t, hint.Of(err), "--val-split")

	// Where there is validation data nothing is split off.
	dir := t.TempDir()
	for _, name := range []string{"train.jsonl", "valid.jsonl"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(numbered(7)), 0o644))
	}
	s, err := data.Open(dir, o)
	require.NoError(t, err)
	defer s.Close()
	require.Equal(t, []int{7, 7}, []int{s.Train.Len(), s.Valid.Len()})
}

// An epoch goes through a data set as often as its weight says, through every part of it
// in turn.
func TestWeights(t *testing.T) {
	o := data.Options{Tokenizer: stories(t), MaxSeqLength: 64, Seed: 8}
	twice, half := write(t, "a.jsonl", numbered(10)), write(t, "b.jsonl", strings.ReplaceAll(numbered(9), `: ", "c`, `; ", "c`))
	s, err := data.OpenAll([]data.Source{{Path: twice, Weight: 2}, {Path: half, Weight: 0.5}}, o)
	require.NoError(t, err)
	defer s.Close()
	require.Equal(t, 20+5, s.Train.Len())
	require.Equal(t, 19, s.Train.Stats().Examples)
	seen := map[string]int{}
	for epoch := range int64(9) {
		own := map[string]int{}
		for i := range s.Train.Len() {
			e, err := s.Train.ExampleOf(epoch, i)
			require.NoError(t, err)
			text := o.Tokenizer.Decode(e.Tokens)
			own[text]++
			seen[text]++
		}
		require.LessOrEqual(t, len(own), 10+5)
	}
	require.Len(t, seen, 19)
	for text, n := range seen {
		if strings.Contains(text, ":") {
			require.Equal(t, 18, n, text)
		} else {
			require.Equal(t, 5, n, "9 epochs of 5 are 5 times through 9")
		}
	}

	for _, weight := range []float64{0, -1, 0.01} {
		_, err := data.OpenAll([]data.Source{{Path: twice, Weight: weight}}, o)
		require.ErrorContains(t, err, "a weight of", weight)
	}
}

func TestFingerprints(t *testing.T) {
	prints := func(text string, change func(*data.Options), weight float64) []data.Fingerprint {
		o := data.Options{Tokenizer: stories(t), MaxSeqLength: 64}
		if change != nil {
			change(&o)
		}
		s, err := data.OpenAll([]data.Source{{Path: write(t, "x.jsonl", text), Weight: weight}}, o)
		require.NoError(t, err)
		defer s.Close()
		return s.Train.Fingerprints()
	}
	text := numbered(20)
	was := prints(text, nil, 1)
	require.NoError(t, data.Same(prints(text, nil, 1), was))
	require.NoError(t, data.Same(was, nil))
	for says, now := range map[string][]data.Fingerprint{
		"not those that the run began with": prints(strings.Replace(text, "3: ", "5: ", 1), nil, 1),
		"what is trained of them":           prints(text, func(o *data.Options) { o.Mask = data.NoMask }, 1),
		"19 examples of":                    prints(numbered(20)[:strings.LastIndex(text, "{")], nil, 1),
		"its weight is 2, but was 1":        prints(text, nil, 2),
		"2 files, but had 1":                append(prints(text, nil, 1), was...),
	} {
		err := data.Same(now, was)
		require.ErrorContains(t, err, says)
		require.NotEmpty(t, hint.Of(err))
	}
}
