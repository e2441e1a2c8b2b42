package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/internal/memory"
)

// ggufResult is what quantizing to a GGUF file ends with.
type ggufResult struct {
	writeResult
	ggufAccount
}

// ggufDryResult is what it would.
type ggufDryResult struct {
	In  string `json:"in"`
	Out string `json:"out"`
	ggufAccount

	// Size is that of the file, or of all its parts, in bytes; Sizes is that of each.
	Size  int64   `json:"file_bytes"`
	Sizes []int64 `json:"files_bytes"`

	Tensors []ggufTensor `json:"tensors"`
	Notes   []string     `json:"notes,omitempty"`
}

// ggufAccount says what a file was, or would be, quantized to.
type ggufAccount struct {
	Type      string         `json:"type"`
	Before    int64          `json:"bytes_before"`
	Bits      float64        `json:"bits_per_weight"`
	Fallbacks []ggufFallback `json:"fallbacks"`
}

// ggufTensor is a tensor of a file that would be written, and why it is what it
// is.
type ggufTensor struct {
	Name  string `json:"name"`
	Shape string `json:"shape"`
	DType string `json:"dtype"`
	Was   string `json:"was"`
	Bytes int64  `json:"bytes"`
	Why   string `json:"why,omitempty"`
}

// ggufFallback is a tensor that could not have its type.
type ggufFallback struct {
	Name   string `json:"name"`
	DType  string `json:"dtype"`
	Reason string `json:"reason"`
}

func (q *ggufQuantizer) account(typ ftype.Type) ggufAccount {
	r := ggufAccount{Type: typ.String(), Fallbacks: []ggufFallback{}}
	for info := range q.src.All() {
		r.Before += info.Size()
	}
	var bytes, weights int64
	for _, c := range q.choices {
		bytes += c.Out.Size()
		weights += c.Out.Shape.Elems()
		if c.Fallback != "" {
			r.Fallbacks = append(r.Fallbacks, ggufFallback{c.Out.Name, c.Out.DType.String(), c.Fallback})
		}
	}
	if weights > 0 {
		r.Bits = 8 * float64(bytes) / float64(weights)
	}
	return r
}

func (q *ggufQuantizer) result(typ ftype.Type, w *writeResult) *ggufResult {
	return &ggufResult{*w, q.account(typ)}
}

func (r *ggufResult) text(w io.Writer) {
	r.writeResult.text(w)
	r.ggufAccount.text(w, r.Bytes)
}

func (r *ggufAccount) text(w io.Writer, bytes int64) {
	fmt.Fprintf(w, "  %s: %s -> %s, %.2f bits per weight\n", r.Type, memory.FormatSize(r.Before), memory.FormatSize(bytes), r.Bits)
	var order []string
	by := make(map[string][]string)
	for _, f := range r.Fallbacks {
		what := f.DType + ", as " + f.Reason
		if by[what] == nil {
			order = append(order, what)
		}
		by[what] = append(by[what], f.Name)
	}
	for _, what := range order {
		fmt.Fprintf(w, "  %5d fell back to %s: %s\n", len(by[what]), what, listed(by[what]))
	}
}

func (q *ggufQuantizer) dryResult(typ ftype.Type, out string, sizes []int64) *ggufDryResult {
	r := &ggufDryResult{In: q.path, Out: out, ggufAccount: q.account(typ), Sizes: sizes, Notes: q.notes}
	for _, n := range sizes {
		r.Size += n
	}
	for _, c := range q.choices {
		r.Tensors = append(r.Tensors, ggufTensor{
			Name: c.Out.Name, Shape: c.Out.Shape.String(), DType: c.Out.DType.String(), Was: c.In.DType.String(), Bytes: c.Out.Size(), Why: c.Why,
		})
	}
	return r
}

// ofLayer is what the name of a tensor of a layer begins with.
var ofLayer = regexp.MustCompile(`^blk\.\d+\.`)

// text prints a line for tensors that differ in nothing but their layer.
func (r *ggufDryResult) text(w io.Writer) {
	parts := ""
	if len(r.Sizes) > 1 {
		parts = fmt.Sprintf(" in %d files", len(r.Sizes))
	}
	fmt.Fprintf(w, "%s would have %d bytes (%s)%s, in %s\n", r.Out, r.Size, memory.FormatSize(r.Size), parts, plural(len(r.Tensors), "tensor"))
	type line struct {
		name, shape, was string
		types            map[string]int
		order            []string
	}
	var lines []*line
	at := make(map[string]*line)
	width := 0
	for _, t := range r.Tensors {
		l := &line{name: ofLayer.ReplaceAllString(t.Name, "blk.*."), shape: t.Shape, was: t.Was, types: make(map[string]int)}
		key := l.name + l.shape + l.was
		if at[key] == nil {
			at[key] = l
			lines = append(lines, l)
			width = max(width, len(l.name))
		}
		l = at[key]
		if l.types[t.DType] == 0 {
			l.order = append(l.order, t.DType)
		}
		l.types[t.DType]++
	}
	for _, l := range lines {
		var types []string
		for _, t := range l.order {
			types = append(types, fmt.Sprintf("%d %s", l.types[t], t))
		}
		fmt.Fprintf(w, "  %-*s  %-16s %s to %s\n", width, l.name, l.shape, l.was, strings.Join(types, ", "))
	}
	var bytes int64
	for _, t := range r.Tensors {
		bytes += t.Bytes
	}
	r.ggufAccount.text(w, bytes)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
}
