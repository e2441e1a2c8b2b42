package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/memory"
	"github.com/seed18967229/nibble/merge/receipt"
)

// unmergeOptions are the flags of unmerge.
type unmergeOptions struct {
	out, receipt string
	adapters     []string
	base, dtype  string
}

func (a *app) unmergeCommand() *cobra.Command {
	var o unmergeOptions
	cmd := &cobra.Command{
		Use:   "unmerge MERGED --out OUT (--receipt FILE | --adapter DIR[:weight] ...)",
		Short: "Take adapters out of a merged model again",
		Long: `With the receipt that nibble merge --receipt wrote, the base comes back to the same
bits: every file with its name, its header, its order and its metadata. Each tensor
and whatever lies between is proved by its SHA-256 before the output has its name.

With --adapter the deltas are subtracted, in 32 bits and rounded once. What rounding
destroyed when they were added does not come back: the account says of how many
weights that is expected, and with --base, the true one, of how many it is so.`,
		Example: "  nibble unmerge merged --receipt merged.receipt --out base\n  nibble unmerge merged --adapter lora --out almost",
		Args:    exactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.unmerge(cmd.Context(), args[0], &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.out, "out", "", "where to write the base: a directory, or a file if it was one")
	f.StringVar(&o.receipt, "receipt", "", "what nibble merge --receipt wrote")
	f.StringArrayVar(&o.adapters, "adapter", nil, "PEFT directory to subtract, with :weight if not 1; may be repeated")
	f.StringVar(&o.base, "base", "", "with --adapter: the true base, to count what does not come back")
	f.StringVar(&o.dtype, "dtype", "auto", "with --adapter: f32, f16, bf16, auto (the merged model's)")
	need(cmd, "out")
	return cmd
}

func (a *app) unmerge(ctx context.Context, merged string, o *unmergeOptions) error {
	switch {
	case o.receipt == "" && len(o.adapters) == 0:
		return badUsage(hint.Add(fmt.Errorf("neither --receipt nor --adapter"), "--receipt FILE restores the base exactly, --adapter DIR subtracts"))
	case o.receipt != "" && (len(o.adapters) > 0 || o.base != "" || o.dtype != "auto"):
		return badUsage(hint.Add(fmt.Errorf("--receipt with --adapter, --base or --dtype"), "a receipt says all there is to know: leave them out"))
	case o.receipt != "":
		return a.unmergeReceipt(ctx, merged, o)
	}
	return a.unmergeAdapters(ctx, merged, o)
}

// restoredResult is what a receipt gave back.
type restoredResult struct {
	In      string          `json:"in"`
	Out     string          `json:"out"`
	Bytes   int64           `json:"bytes"`
	Files   []string        `json:"files"`
	Kept    int             `json:"files_copied"`
	Tensors int             `json:"tensors_proved"`
	Same    int             `json:"tensors_copied"`
	Merge   json.RawMessage `json:"merge,omitempty"`
	PeakRSS int64           `json:"peak_rss"`
}

func (r *restoredResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s: %s in %s; peak memory %s\n", r.Out, memory.FormatSize(r.Bytes), plural(len(r.Files), "file"), memory.FormatSize(r.PeakRSS))
	fmt.Fprintf(w, "  every byte of every file is the base's, proved by SHA-256: %s, of them %d as they were merged, and what lies between them\n",
		plural(r.Tensors, "tensor"), r.Same)
}

func (a *app) unmergeReceipt(ctx context.Context, merged string, o *unmergeOptions) error {
	if err := fsx.CheckOutput(o.out, merged, o.receipt); err != nil {
		return badUsage(err)
	}
	r, err := receipt.Open(o.receipt)
	if err != nil {
		return err
	}
	defer r.Close()
	m, err := openModel(merged)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := r.Check(ctx, m.view, m.Path); err != nil {
		return err
	}
	bar := a.progress("write", r.Size(), bytesUnit)
	done, err := r.Restore(ctx, m.view, codecs, receipt.RestoreOptions{
		Out: o.out, Force: a.force, MayReplace: hf.HoldsModel, Dir: m.Path, Progress: bar.add,
	})
	bar.stop()
	if err != nil {
		return fmt.Errorf("%s: %w", merged, err)
	}
	return a.print(&restoredResult{
		In: merged, Out: o.out, Bytes: done.Bytes, Files: done.Files, Kept: done.Kept,
		Tensors: done.Tensors, Same: done.Same, Merge: r.Merge(), PeakRSS: memory.PeakRSS(),
	})
}
