package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/gguf/ggml"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/nf4"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
	"github.com/seed18967229/nibble/tensor/scaled"
)

// app is what all commands share: the streams and the flags that every command
// has.
type app struct {
	out, err io.Writer

	json, quiet, verbose bool
	force                bool
	threads              int
	memory               sizeFlag

	// last is the result of the command that ran last, for the demo.
	last result

	// holding keeps results from being printed; held is the last of them.
	holding bool
	held    result
}

// result is what a command ends with: printed as text, or with --json as one
// JSON object.
type result interface{ text(w io.Writer) }

// codecs are the encodings this program was built with.
var codecs = tensor.NewCodecs(slices.Concat(floats.Codecs(), ggml.Codecs(), nf4.Codecs(), scaled.Codecs())...)

// exec runs one command line.
func (a *app) exec(ctx context.Context, args ...string) error {
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return root.ExecuteContext(ctx)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "nibble",
		Short: "Quantize, merge, convert and fine-tune language models in little memory",
		Long: `nibble takes a language model from the format it was published in to the format
it is used in, and fine-tunes it on a machine that could not hold it in memory.

Wherever a model is asked for, IN may be a Hugging Face directory (plain, FP8,
INT8 or bitsandbytes) or a .gguf file. Sizes take KB, MB, GB and KiB, MiB, GiB.

Exit codes: 0 done, 1 the work failed or diff found a difference, 2 the command
line was wrong, 3 the input is malformed or unsupported, 130 interrupted.`,
		SuggestionsMinimumDistance: 2,
		SilenceErrors:              true,
		SilenceUsage:               true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			advice := "nibble --help lists the commands"
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				advice = "did you mean " + strings.Join(near, " or ") + "?"
			}
			return badUsage(hint.Add(fmt.Errorf("unknown command %q", args[0]), "%s", advice))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if a.threads < 0 {
				return badUsage(fmt.Errorf("--threads is %d, want 0 (all processors) or more", a.threads))
			}
			a.limit()
			if _, err := kernel.Variant(); err != nil {
				return badUsage(err)
			}
			return a.fetchInputs(cmd, args)
		},
	}
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print results as JSON on stdout, messages on stderr")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print results only")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "print what is done to each tensor")
	f.BoolVar(&a.force, "force", false, "replace an existing output")
	f.IntVar(&a.threads, "threads", 0, "processors to use (default all)")
	f.Var(&a.memory, "memory", "limit the memory used for work, e.g. 2GiB")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) {
			if near := nearest(unknown.GetSpecifiedName(), cmd.Flags()); near != "" {
				return badUsage(hint.Add(err, "did you mean --%s?", near))
			}
		}
		return badUsage(hint.Add(err, "%s --help lists the flags", cmd.CommandPath()))
	})
	root.AddCommand(
		a.inspectCommand(), a.verifyCommand(), a.diffCommand(), a.convertCommand(), a.quantizeCommand(), a.dequantizeCommand(),
		a.imatrixCommand(), a.mergeCommand(), a.unmergeCommand(), a.adapterCommand(), a.dataCommand(), a.initCommand(), a.trainCommand(), a.evalCommand(), a.generateCommand(), a.chatCommand(),
		a.pullCommand(), a.benchCommand(), a.demoCommand(), a.manCommand(), a.versionCommand(),
	)
	return root
}

// limit keeps to --threads and --memory.
func (a *app) limit() {
	if a.threads > 0 {
		runtime.GOMAXPROCS(a.threads)
	}
	if a.memory > 0 {
		debug.SetMemoryLimit(int64(a.memory))
	}
}

// exactArgs is cobra.ExactArgs with a hint and the right exit code.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return badUsage(hint.Add(err, "usage: %s", cmd.UseLine()))
		}
		return nil
	}
}

// need marks flags that a command cannot do without.
func need(cmd *cobra.Command, names ...string) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return missing(cmd, names...) }
}

// missing returns an error naming the first of the flags that has no value.
func missing(cmd *cobra.Command, names ...string) error {
	for _, n := range names {
		if v := cmd.Flag(n).Value.String(); v == "" || v == "[]" {
			return badUsage(hint.Add(fmt.Errorf("--%s is missing", n), "%s --help has an example", cmd.CommandPath()))
		}
	}
	return nil
}

// print ends a command with its result.
func (a *app) print(r result) error {
	a.last = r
	if a.holding {
		a.held = r
		return nil
	}
	if !a.json {
		r.text(a.out)
		return nil
	}
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// note prints a message for the user, apart from the result.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.messages(), format+"\n", args...)
	}
}

// detail is note for what only --verbose asks for.
func (a *app) detail(format string, args ...any) {
	if a.verbose {
		fmt.Fprintf(a.messages(), format+"\n", args...)
	}
}

// messages is where messages go: beside the results as long as nobody parses
// them.
func (a *app) messages() io.Writer {
	if a.json {
		return a.err
	}
	return a.out
}

// room is how much memory steps may take together where nothing is said about it:
// most take a few MiB, but two at a time of the largest matrices there are would
// need more than nibble promises.
const room = 128 << 20

// runPlan carries a plan out on a source that was opened from path, with a
// progress bar.
func (a *app) runPlan(ctx context.Context, path string, p *pipeline.Plan, src tensor.Source, dst tensor.Sink) error {
	for _, s := range p.Steps {
		for _, o := range s.Out {
			if !o.Late() {
				a.detail("%-14s %v %v %s", s.Action, o.DType, o.Shape, o.Name)
			}
		}
	}
	for _, d := range p.Drop {
		a.detail("%-14s %s (%s)", "drop", d.Name, d.Reason)
	}
	bar := a.progress("write", p.Size(), bytesUnit)
	defer bar.stop()
	err := pipeline.Run(ctx, p, src, dst, pipeline.WithMemory(int64(a.memory)), pipeline.WithRoom(room), pipeline.WithProgress(bar.add))
	if errors.Is(err, tensor.ErrMalformed) || errors.Is(err, tensor.ErrUnsupported) {
		return fmt.Errorf("%s: %w", path, err) // the input is at fault
	}
	return err
}

// sizeFlag is a size in bytes as the command line writes it.
type sizeFlag int64

func (s *sizeFlag) String() string {
	if *s == 0 {
		return ""
	}
	return memory.FormatSize(int64(*s))
}

func (s *sizeFlag) Set(text string) error {
	n, err := memory.ParseSize(text)
	*s = sizeFlag(n)
	return err
}

func (s *sizeFlag) Type() string { return "size" }
