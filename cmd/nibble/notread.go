package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/pipeline"
)

// notRead lists what lies in the input and was left alone: weight files of a
// directory, what a PyTorch checkpoint has beside its tensors.
func notRead(in *formats.Input) []string {
	switch {
	case in.HF != nil:
		return in.HF.Ignored()
	case in.Torch != nil:
		return in.Torch.Ignored()
	}
	return nil
}

// nested is where in a PyTorch checkpoint the tensors are.
func nested(in *formats.Input) string {
	if in.Torch == nil {
		return ""
	}
	return in.Torch.Nested()
}

// readNotes says in the result of a command what became of its input.
func readNotes(in *formats.Input) []string {
	var notes []string
	if n := nested(in); n != "" {
		notes = append(notes, fmt.Sprintf("the tensors are those in %s", plain(n)))
	}
	if list := notRead(in); len(list) > 0 {
		notes = append(notes, "not read: "+listed(list))
	}
	return notes
}

// listed writes names in a line, of many the first few.
func listed(names []string) string {
	const most = 6
	var out []string
	for _, n := range names[:min(len(names), most)] {
		out = append(out, plain(n))
	}
	if more := len(names) - most; more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}

// plain returns a name from a file as a terminal can show it.
func plain(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// shardsOf returns the shards that the output of a plan has in common with the
// directory it is made of: all if it has the same tensors, else none.
func shardsOf(d *hf.Dir, p *pipeline.Plan) map[string]string {
	if d == nil {
		return nil
	}
	shards := d.Shards()
	layout := p.Layout()
	if len(layout) != len(shards) {
		return nil
	}
	for _, info := range layout {
		if shards[info.Name] == "" {
			return nil
		}
	}
	return shards
}
