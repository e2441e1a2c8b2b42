package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/gguf/ftype"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/train"
)

// exportFlags adds the flags of what is made of the result of a run.
func (o *trainOptions) exportFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.exports, "export", nil, "what to make of the result at the end, may be repeated: "+strings.Join(exportNames(), ", ")+
		"; with a type as in gguf:q4_k_m")
	f.StringVar(&o.exportDir, "export-dir", "", "where that goes (default: "+exportName+" in --output-dir)")
}

// exportName is where exports go in an output directory.
const exportName = "export"

// An export is a form in which the result of a run is wanted. It is made by the command
// that makes it of any adapter, or after full fine-tuning of any model.
type export struct {
	Spec string `json:"export"`
	Out  string `json:"out"`

	// Command is the line that makes it, without the name of the program.
	Command []string `json:"-"`

	// Bytes is how large it will be.
	Bytes int64    `json:"bytes"`
	Notes []string `json:"notes,omitempty"`

	kind *exportKind
	typ  string
}

// An exportKind is what stands before the colon of an export.
type exportKind struct {
	name  string
	end   string              // of the name of what is made: .gguf, or none for a directory
	types func() []string     // what may stand behind the colon
	usual string              // if nothing does
	plan  func(p *exportPlan) // finds out what it takes
	full  bool                // there is such a thing of full fine-tuning

	// command returns what makes it of an adapter, and after full fine-tuning of the
	// model that is the result.
	command func(e *export, o *trainOptions) []string
}

func exportKinds() []exportKind {
	plain := func() []string { return []string{"auto", "f32", "f16", "bf16"} }
	file := func() []string {
		return append(plain(), append(slices.Sorted(maps.Keys(ftype.Types())), keepTypes)...)
	}
	list := []exportKind{{name: "merged", types: plain, usual: "auto", plan: (*exportPlan).directory, command: mergeLine}}
	for _, name := range slices.Sorted(maps.Keys(bnbTypes)) {
		list = append(list, exportKind{name: "merged-" + name, usual: name, plan: (*exportPlan).bnb, command: mergeLine, full: true})
	}
	return append(list,
		exportKind{name: "gguf", end: ".gguf", types: file, usual: "auto", plan: (*exportPlan).file, command: mergeLine, full: true},
		exportKind{name: "adapter-gguf", end: ".gguf", types: plain, usual: "f32", plan: (*exportPlan).adapter, command: func(e *export, o *trainOptions) []string {
			return []string{"convert", o.out, e.Out, "--outtype", e.typ, "--base", o.model}
		}})
}

func exportNames() (names []string) {
	for _, k := range exportKinds() {
		names = append(names, k.name)
	}
	return names
}

// quantized returns the type of an export that is quantized, "" for plain numbers.
func (e *export) quantized() string {
	if slices.Contains([]string{"auto", "f32", "f16", "bf16"}, e.typ) {
		return ""
	}
	return e.typ
}

// mergeLine merges the adapter; a model that is the result already is converted or
// quantized.
func mergeLine(e *export, o *trainOptions) []string {
	q := e.quantized()
	switch {
	case o.Full() && q != "":
		return []string{"quantize", o.out, e.Out, "--type", q}
	case o.Full():
		return []string{"convert", o.out, e.Out, "--outtype", e.typ}
	}
	line := []string{"merge", "--base", o.model, "--adapter", o.adapterOut(), "--out", e.Out}
	switch {
	case q != "":
		line = append(line, "--quantize", q)
	case e.typ != "auto":
		line = append(line, "--dtype", e.typ)
	}
	if o.template != "" {
		line = append(line, "--chat-template", filepath.Join(o.out, templateName))
	}
	return line
}

// adapterOut is where the adapter is that a run makes.
func (o *trainOptions) adapterOut() string {
	if o.adapterFormat == "gguf" {
		return filepath.Join(o.out, ggufName)
	}
	return o.out
}

// parseExports reads --export.
func (o *trainOptions) parseExports(m *model) ([]*export, error) {
	dir := cmp.Or(o.exportDir, filepath.Join(o.out, exportName))
	kinds := exportKinds()
	var out []*export
	for _, spec := range o.exports {
		name, typ, typed := strings.Cut(strings.ToLower(spec), ":")
		at := slices.IndexFunc(kinds, func(k exportKind) bool { return k.name == name })
		if at < 0 {
			return nil, badUsage(hint.Add(fmt.Errorf("--export %s: no such export", spec), "there are: %s", strings.Join(exportNames(), ", ")))
		}
		e := &export{Spec: spec, kind: &kinds[at], typ: kinds[at].usual}
		switch {
		case typed && e.kind.types == nil:
			return nil, badUsage(fmt.Errorf("--export %s: %s has no type of its own", spec, name))
		case typed && !slices.Contains(e.kind.types(), typ):
			return nil, badUsage(hint.Add(fmt.Errorf("--export %s: no type %q", spec, typ), "there are: %s", strings.Join(e.kind.types(), ", ")))
		case typed:
			e.typ = typ
		}
		switch {
		case o.Full() && !e.kind.full && name == "merged":
			return nil, badUsage(fmt.Errorf("--export %s with --fine-tune-type full: the result is a whole model already", spec))
		case o.Full() && !e.kind.full:
			return nil, badUsage(fmt.Errorf("--export %s with --fine-tune-type full, which makes no adapter", spec))
		case o.Full() && e.typ == keepTypes, e.typ == keepTypes && m.GGUF == nil:
			return nil, badUsage(hint.Add(fmt.Errorf("--export %s: there is no GGUF base whose types could be kept", spec), "name a type, as in gguf:q4_k_m"))
		case name == "adapter-gguf" && o.adapterFormat == "gguf":
			return nil, badUsage(fmt.Errorf("--export %s with --adapter-format gguf: the result is that already", spec))
		}
		stem := m.name() + "-" + lastOf(o.out)
		switch {
		case name == "adapter-gguf":
			stem += "-adapter-" + e.typ
		case e.kind.end == "":
			stem += "-" + name
			if e.typ != e.kind.usual {
				stem += "-" + e.typ
			}
		case e.typ != "auto":
			stem += "-" + e.typ
		}
		e.Out = filepath.Join(dir, stem+e.kind.end)
		if slices.ContainsFunc(out, func(x *export) bool { return x.Out == e.Out }) {
			return nil, badUsage(fmt.Errorf("--export %s is asked for twice", spec))
		}
		e.Command = e.kind.command(e, o)
		out = append(out, e)
	}
	if len(out) == 0 && o.exportDir != "" {
		return nil, badUsage(hint.Add(errors.New("--export-dir says where to put what --export makes, which is not given"), "give --export gguf:q4_k_m, say"))
	}
	return out, nil
}

// checkExports finds out, before anything is trained, that what is to be made of the
// result can be: the whole of it is planned on the base.
func (a *app) checkExports(m *model, plan *train.Plan, o *trainOptions) ([]*export, error) {
	list, err := o.parseExports(m)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	dir := filepath.Dir(list[0].Out)
	if st, err := os.Stat(fsx.Existing(dir)); err == nil && !st.IsDir() {
		return nil, badUsage(hint.Add(fmt.Errorf("--export-dir %s: %s is a file", dir, fsx.Existing(dir)), "choose another --export-dir"))
	}
	var total int64
	for _, e := range list {
		p := &exportPlan{model: m, o: o, e: e, trainable: plan.Trainable}
		if e.kind.plan(p); p.err != nil {
			return nil, hint.Add(fmt.Errorf("--export %s will not work: %w", e.Spec, p.err), "%s",
				cmp.Or(hint.Of(p.err), "leave it out, or choose another one of: "+strings.Join(exportNames(), ", ")))
		}
		e.Bytes, e.Notes = p.size, p.notes
		total += e.Bytes
		// In --output-dir all is new, or --force has been asked about.
		if _, err := os.Lstat(e.Out); o.exportDir != "" && !a.force && o.resume == "" && !errors.Is(err, fs.ErrNotExist) {
			return nil, hint.Add(fmt.Errorf("--export %s: %s: %w", e.Spec, e.Out, fsx.ErrExists), "choose another --export-dir, or give --force to replace it")
		}
	}
	if free := fsx.Free(dir); free > 0 && total > free {
		return nil, hint.Add(fmt.Errorf("--export needs %s in %s, where %s are free", memory.FormatSize(total), dir, memory.FormatSize(free)),
			"free some, or choose another --export-dir")
	}
	return list, nil
}

// exportResult is what became of an export.
type exportResult struct {
	export
	Files     []string `json:"files,omitempty"`
	Modelfile string   `json:"modelfile,omitempty"`
	Seconds   float64  `json:"seconds"`

	// Error and Later say why there is none, and the command that makes it.
	Error string `json:"error,omitempty"`
	Later string `json:"command,omitempty"`
}

func (r *exportResult) text(w io.Writer) {
	if r.Error != "" {
		fmt.Fprintf(w, "%s: failed: %s\n  make it later with: %s\n", r.Out, r.Error, r.Later)
		return
	}
	fmt.Fprintf(w, "%s: %s in %.1f s\n", r.Out, memory.FormatSize(r.Bytes), r.Seconds)
	const most = 6 // a note for each tensor would hide the others
	for _, n := range r.Notes[:min(most, len(r.Notes))] {
		fmt.Fprintf(w, "  %s\n", n)
	}
	if more := len(r.Notes) - most; more > 0 {
		fmt.Fprintf(w, "  and %s, which --json has\n", plural(more, "more note"))
	}
	if r.Modelfile != "" {
		fmt.Fprintf(w, "  for Ollama    ollama create NAME -f %s\n", shellWord(r.Modelfile))
	}
}

// accounted is what a result is that writes a model.
type accounted interface{ account() *writeResult }

func (r *writeResult) account() *writeResult { return r }

// export makes what was asked for of the result of a run. What fails leaves the result as
// it is, and does not keep the others from being made.
func (a *app) export(ctx context.Context, list []*export, o *trainOptions, file *modelfile) (out []exportResult, err error) {
	if len(list) == 0 {
		return nil, nil
	}
	// What the run had for itself is free now.
	limit := int64(math.MaxInt64)
	if a.memory > 0 {
		limit = int64(a.memory)
	}
	debug.SetMemoryLimit(limit)
	debug.FreeOSMemory()
	var errs []error
	for _, e := range list {
		a.note("$ %s", shellLine(e.Command))
		start := time.Now()
		r := exportResult{export: *e}
		w, err := a.runExport(ctx, e)
		if err == nil && e.kind.end == ".gguf" {
			r.Modelfile, err = file.write(e, o)
		}
		if r.Seconds = time.Since(start).Seconds(); err != nil {
			r.Error, r.Later = err.Error(), shellLine(e.Command)
			errs = append(errs, hint.Add(fmt.Errorf("--export %s: %w", e.Spec, err), "the result of the training is whole in %s; when the cause is gone: %s", o.out, r.Later))
		} else {
			r.Bytes, r.Files = w.Bytes, w.Files
			notes := w.Notes
			if r.Modelfile != "" {
				notes = slices.Concat(file.notes, notes)
			}
			r.Notes = slices.Clone(e.Notes)
			for _, n := range notes {
				if !slices.Contains(r.Notes, n) {
					r.Notes = append(r.Notes, n)
				}
			}
		}
		out = append(out, r)
		if ctx.Err() != nil {
			break
		}
	}
	return out, errors.Join(errs...)
}

// runExport runs the command of an export, as the command line would, and returns its
// account.
func (a *app) runExport(ctx context.Context, e *export) (*writeResult, error) {
	if err := os.MkdirAll(filepath.Dir(e.Out), 0o777); err != nil {
		return nil, err
	}
	// What is there is of a run that was resumed, or --force was given.
	args := append(slices.Clone(e.Command), "--force")
	if a.memory > 0 {
		args = append(args, "--memory", fmt.Sprint(int64(a.memory)))
	}
	if a.quiet {
		args = append(args, "--quiet")
	}
	sub := &app{out: io.Discard, err: a.err, holding: true}
	if err := sub.exec(ctx, args...); err != nil {
		return nil, err
	}
	w, ok := sub.held.(accounted)
	if !ok {
		return nil, fmt.Errorf("%s gave no account", args[0])
	}
	return w.account(), nil
}

// shellLine writes a command of nibble as a shell takes it.
func shellLine(args []string) string {
	words := []string{"nibble"}
	for _, a := range args {
		words = append(words, shellWord(a))
	}
	return strings.Join(words, " ")
}

// shellWord quotes a word if a shell would take it for more than one.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:=,+@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// cannotBeGGUF returns why GGUF cannot hold the adapter of a run, nil if it can.
func cannotBeGGUF(c *peft.Config) error {
	// PiSSA's becomes one that needs no other base.
	c = c.Clone()
	c.InitLoraWeights = "true"
	if err := c.UnsupportedBut("rank_pattern", "alpha_pattern"); err != nil {
		return err
	}
	return embedsTokens(c)
}
