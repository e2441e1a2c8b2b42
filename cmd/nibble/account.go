package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// writeResult is what a command that writes a model ends with: the account of
// what became of every tensor.
type writeResult struct {
	In  string `json:"in"`
	Out string `json:"out"`

	// Files are the files that hold the tensors, if there are several.
	Files []string `json:"files,omitempty"`

	// Actions counts the tensors by what was done to them.
	Actions map[string]int  `json:"actions"`
	Tensors []tensorAccount `json:"tensors"`
	Dropped []dropAccount   `json:"dropped"`
	Bytes   int64           `json:"bytes"`
	Notes   []string        `json:"notes,omitempty"`

	PeakRSS int64 `json:"peak_rss"`

	kinds []kindAccount
}

// tensorAccount is what became of a tensor.
type tensorAccount struct {
	Name   string   `json:"name"`
	From   []string `json:"from"`
	Action string   `json:"action"`
	Was    string   `json:"was"`
	DType  string   `json:"dtype"`
}

// dropAccount is a tensor of the input that is not in the output.
type dropAccount struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// kindAccount counts tensors that had the same done to them.
type kindAccount struct {
	action, types string
	n             int
}

// job is a plan with what it is run on and what its account is made of.
type job struct {
	path string // of the input
	plan *pipeline.Plan
	src  tensor.Source // that the plan is run on

	// original has the tensors of the input under their own names. origin says
	// which of them those are made of that the plan names; nil is that it is they.
	original tensor.Source
	origin   func(string) convert.Origin
}

// newWriteResult returns the account of a job that is done.
func newWriteResult(j job, out string) *writeResult {
	p := j.plan
	r := &writeResult{
		In: j.path, Out: out, Bytes: p.Size(), PeakRSS: memory.PeakRSS(),
		Actions: make(map[string]int), Tensors: []tensorAccount{}, Dropped: []dropAccount{},
	}
	for _, s := range p.Steps {
		from := s.From
		if from == nil {
			from = s.In
		}
		names := []string{}
		for _, name := range from {
			if j.origin == nil {
				names = append(names, name)
			} else {
				names = append(names, j.origin(name).From...)
			}
		}
		t := tensorAccount{Name: s.Out[0].Name, From: names, Action: s.Action, Was: kindsOf(j.original, names), DType: s.Out[0].DType.String()}
		r.Tensors = append(r.Tensors, t)
		r.count(t)
	}
	for _, d := range p.Drop {
		r.Actions["drop"]++
		r.Dropped = append(r.Dropped, dropAccount{d.Name, d.Reason})
	}
	return r
}

// kindsOf names the types of tensors.
func kindsOf(src tensor.Source, names []string) string {
	var kinds []string
	for _, name := range names {
		if info, err := src.Info(name); err == nil {
			if k := describe(src, info); !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	return strings.Join(kinds, ", ")
}

func (r *writeResult) count(t tensorAccount) {
	r.Actions[t.Action]++
	types := t.DType
	if t.Was != "" && t.Was != t.DType {
		types = t.Was + " to " + t.DType
	}
	for i, k := range r.kinds {
		if k.action == t.Action && k.types == types {
			r.kinds[i].n++
			return
		}
	}
	r.kinds = append(r.kinds, kindAccount{t.Action, types, 1})
}

// rename gives an action another name.
func (r *writeResult) rename(from, to string) {
	change := func(action string) string {
		parts := strings.Split(action, "+")
		for i, part := range parts {
			if part == from {
				parts[i] = to
			}
		}
		return strings.Join(parts, "+")
	}
	for i, t := range r.Tensors {
		r.Tensors[i].Action = change(t.Action)
	}
	for i, k := range r.kinds {
		r.kinds[i].action = change(k.action)
	}
	actions := make(map[string]int)
	for action, n := range r.Actions {
		actions[change(action)] += n
	}
	r.Actions = actions
}

func (r *writeResult) text(w io.Writer) {
	files := ""
	if len(r.Files) > 0 {
		files = fmt.Sprintf(", %d files from %s", len(r.Files), r.Files[0])
	}
	fmt.Fprintf(w, "%s: %s in %s%s; peak memory %s\n", r.Out, memory.FormatSize(r.Bytes), plural(len(r.Tensors), "tensor"), files, memory.FormatSize(r.PeakRSS))
	for _, k := range r.kinds {
		line := fmt.Sprintf("  %5d %-16s %s", k.n, k.action, k.types)
		if why := explain(k.action); why != "" {
			line += ": " + why
		}
		fmt.Fprintln(w, line)
	}
	for _, d := range r.drops() {
		fmt.Fprintf(w, "  %5d %-16s %s: %s\n", len(d.names), "drop", d.reason, listed(d.names))
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
}

// explain says what the parts of an action are that are not plain.
func explain(action string) string {
	var out []string
	for _, part := range strings.Split(action, "+") {
		if why := convert.Changes()[part]; why != "" {
			out = append(out, why)
		}
	}
	return strings.Join(out, "; ")
}

type dropped struct {
	reason string
	names  []string
}

// drops groups what was dropped by reason.
func (r *writeResult) drops() []dropped {
	by := make(map[string][]string)
	for _, d := range r.Dropped {
		by[d.Reason] = append(by[d.Reason], d.Name)
	}
	var out []dropped
	for _, reason := range slices.SortedFunc(maps.Keys(by), cmp.Compare[string]) {
		out = append(out, dropped{reason, by[reason]})
	}
	return out
}
