package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hub"
	"github.com/seed18967229/nibble/internal/memory"
)

func (a *app) pullCommand() *cobra.Command {
	var local string
	cmd := &cobra.Command{
		Use:   "pull ORG/NAME[@REVISION][:TYPE]",
		Short: "Fetch a model from the Hugging Face hub",
		Long: `Fetch a model, an adapter or a file from the Hugging Face hub into the cache that
huggingface_hub has, and print where it is. Only what nibble reads is fetched:
safetensors, else PyTorch's files, else a GGUF file, with the configuration and the
tokenizer. What is there is not fetched again; a fetch that broke off goes on.

:TYPE chooses one of several GGUF files (the default is Q4_K_M), ORG/NAME/PATH one
file. Wherever another command takes a model or an adapter, hf://ORG/NAME does the
same.

The environment is huggingface_hub's: HF_TOKEN for private and gated models,
HF_ENDPOINT for another hub, HF_HOME or HF_HUB_CACHE for the place of the cache,
HF_HUB_OFFLINE=1 to ask nobody.`,
		Example: `  nibble pull Qwen/Qwen2.5-0.5B-Instruct
  nibble quantize hf://Qwen/Qwen2.5-0.5B-Instruct qwen-nf4 --type nf4`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.pull(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			r := &pullResult{Path: s.Path, Commit: s.Commit, Files: len(s.Files), Fetched: s.Fetched}
			for _, f := range s.Files {
				r.Size += f.Size
			}
			if local != "" {
				if r.Path, err = a.copySnapshot(s, local); err != nil {
					return err
				}
			}
			return a.print(r)
		},
	}
	cmd.Flags().StringVar(&local, "local-dir", "", "put the files into this directory too, as files and not as links")
	return cmd
}

type pullResult struct {
	Path    string `json:"path"`
	Commit  string `json:"commit"`
	Files   int    `json:"files"`
	Size    int64  `json:"size"`
	Fetched int64  `json:"fetched"`
}

func (r *pullResult) text(w io.Writer) {
	fmt.Fprintf(w, "%s\n  %d files of commit %.12s, %s; %s fetched\n", r.Path, r.Files, r.Commit, memory.FormatSize(r.Size), memory.FormatSize(r.Fetched))
}

// pull fetches what a reference names.
func (a *app) pull(ctx context.Context, text string) (*hub.Snapshot, error) {
	r, err := hub.ParseRef(text)
	if err != nil {
		return nil, badUsage(err)
	}
	c, err := hub.FromEnv()
	if err != nil {
		return nil, badUsage(err)
	}
	var b *bar
	c.Plan = func(files int, bytes int64) {
		a.note("%s: fetching %s in %d files", r, memory.FormatSize(bytes), files)
		b = a.progress("fetch", bytes, bytesUnit)
		c.Progress = b.add
	}
	s, err := c.Fetch(ctx, r)
	if b != nil {
		b.stop()
	}
	if err == nil && s.Stale != nil {
		a.note("%s: taken from the cache, since the hub cannot be reached (%v)", r, s.Stale)
	}
	return s, err
}

// copySnapshot writes the files of a snapshot into a directory of their own.
func (a *app) copySnapshot(s *hub.Snapshot, dir string) (path string, err error) {
	d, err := fsx.CreateDir(dir, a.force, func(names []string) bool {
		for _, f := range s.Files { // a snapshot of the same model
			for _, n := range names {
				if n == f.Path {
					return true
				}
			}
		}
		return false
	})
	if err != nil {
		return "", err
	}
	copyAll := func() error {
		for _, f := range s.Files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(d.Temp(), filepath.FromSlash(f.Path))), 0o777); err != nil {
				return err
			}
			if err := (hf.SideFile{Name: filepath.FromSlash(f.Path), From: filepath.Join(s.Dir, filepath.FromSlash(f.Path))}).Write(d.Temp()); err != nil {
				return err
			}
		}
		return nil
	}
	rel, err := filepath.Rel(s.Dir, s.Path)
	if err := errors.Join(err, copyAll()); err != nil {
		return "", errors.Join(err, d.Abort())
	}
	return filepath.Join(dir, rel), d.Commit()
}

// texts are the flags whose values are text, whatever it begins with.
var texts = []string{"prompt", "system", "stop", "sample-prompt"}

// fetchInputs fetches what arguments and flags name by hf://, and puts the paths in their
// place.
func (a *app) fetchInputs(cmd *cobra.Command, args []string) error {
	if cmd.Name() == "pull" {
		return nil
	}
	ctx := cmd.Context()
	for i := range args {
		if err := a.fetchInput(ctx, &args[i]); err != nil {
			return err
		}
	}
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if err != nil || slices.Contains(texts, f.Name) || !strings.Contains(f.Value.String(), hub.Scheme) {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values := list.GetSlice()
			for i := range values {
				err = errors.Join(err, a.fetchInput(ctx, &values[i]))
			}
			err = errors.Join(err, list.Replace(values))
			return
		}
		value := f.Value.String()
		if err = a.fetchInput(ctx, &value); err == nil {
			err = f.Value.Set(value)
		}
	})
	return err
}

// fetchInput makes a path of an address: hf://..., NAME=hf://..., and of an adapter
// hf://...:WEIGHT.
func (a *app) fetchInput(ctx context.Context, value *string) error {
	at := strings.Index(*value, hub.Scheme)
	if at < 0 || at > 0 && (*value)[at-1] != '=' {
		return nil
	}
	ref, weight := (*value)[at:], ""
	if i := strings.LastIndexByte(ref, ':'); i >= len(hub.Scheme) {
		if _, err := strconv.ParseFloat(ref[i+1:], 64); err == nil {
			ref, weight = ref[:i], ref[i:]
		}
	}
	s, err := a.pull(ctx, ref)
	if err != nil {
		return err
	}
	*value = (*value)[:at] + s.Path + weight
	return nil
}

// published returns what a model is called where others can get it: its repository, if it
// was fetched from one.
func published(path string) string {
	if repo, _, ok := hub.Origin(path); ok {
		return repo
	}
	return path
}
