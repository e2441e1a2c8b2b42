package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/tensor"
)

// convertAdapter converts an adapter of PEFT or MLX into a GGUF file, or a GGUF file into an
// adapter of PEFT.
func (a *app) convertAdapter(ctx context.Context, in *formats.Input, out string, o *convertOptions) (*writeResult, error) {
	if in.Adapter != nil {
		if !isGGUF(out) {
			return nil, badUsage(hint.Add(fmt.Errorf("%s is an adapter and can only become a .gguf file", in.Path),
				"give an OUT that ends in .gguf; nibble adapter convert knows more formats"))
		}
		return a.adapterToGGUF(ctx, in, in.Adapter, out, o)
	}
	if isGGUF(out) {
		return nil, badUsage(hint.Add(fmt.Errorf("%s is a GGUF adapter, whose types stay as they are", in.Path), "leave out --outtype"))
	}
	return a.adapterFromGGUF(ctx, in, out, o)
}

// adapterToGGUF writes an adapter, which in is, as a GGUF file.
func (a *app) adapterToGGUF(ctx context.Context, in *formats.Input, ad *peft.Adapter, out string, o *convertOptions) (*writeResult, error) {
	if err := checkGGUFType(o.outType); err != nil {
		return nil, err
	}
	if o.pre != "" {
		return nil, badUsage(fmt.Errorf("--pre is of tokenizers, and an adapter has none"))
	}
	c := ad.Config
	if err := c.UnsupportedBut("rank_pattern", "alpha_pattern"); err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	base := o.base
	if base == "" {
		base = localBase(c.BaseModel)
	}
	if base == "" {
		return nil, badUsage(hint.Add(fmt.Errorf("%s: the model that the adapter belongs to is %q, which is not here", in.Path, c.BaseModel),
			"give its directory or .gguf file with --base; config.json alone is enough"))
	}
	m, err := hyperparameters(base)
	if err != nil {
		return nil, err
	}
	card, err := modelcard.Read(in.Path)
	if err != nil {
		return nil, err
	}
	if card.Override, err = o.override(); err != nil {
		return nil, err
	}
	general := &general{
		of:    func(p modelcard.Params) (tensor.Meta, []string) { return card.GGUF((&model{Input: in}).name(), p) },
		notes: card.Notes,
	}
	ad, scale, err := oneAlpha(in.Path, ad)
	if err != nil {
		return nil, err
	}
	g, err := convert.AdapterToGGUF(ad, codecs, m, scale, convert.GGUFOptions{OutType: o.outType, General: general.meta})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	r, err := a.runToGGUF(ctx, in, out, job{in.Path, g.Plan, g.Source, in, nil}, o)
	if err != nil {
		return nil, err
	}
	r.Notes = slices.Concat(r.Notes, general.notes, g.Notes)
	return r, nil
}

// oneAlpha returns an adapter as GGUF can say its scale: all modules have one alpha, over
// which each has its own rank. What the patterns of a configuration make different goes into B.
func oneAlpha(path string, ad *peft.Adapter) (*peft.Adapter, convert.AdapterScale, error) {
	c := ad.Config
	if len(c.RankPattern)+len(c.AlphaPattern) == 0 {
		return ad, convert.AdapterScale{Rank: c.R, Alpha: c.LoraAlpha, UseRSLoRA: c.UseRSLoRA}, nil
	}
	var scale convert.AdapterScale
	f, err := inventory(path, ad)
	if err != nil {
		return nil, scale, err
	}
	even, alpha, err := peft.OneAlpha(ad, scalesOf(f))
	if err != nil {
		return nil, scale, fmt.Errorf("%s: %w", path, err)
	}
	return even, convert.AdapterScale{Alpha: alpha}, nil
}

// localBase returns the path of the model that a configuration names, "" if it
// is not on this machine.
func localBase(name string) string {
	if name == "" {
		return ""
	}
	if _, err := os.Stat(name); err != nil {
		return ""
	}
	return name
}

// maxConfig is the largest config.json that is read.
const maxConfig = 16 << 20

// hyperparameters returns what a model is, of which nothing but the configuration
// need be there.
func hyperparameters(path string) (*arch.Model, error) {
	config := filepath.Join(path, hf.ConfigName)
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		text, err := safeio.ReadFile(config, maxConfig)
		if err != nil {
			return nil, err
		}
		return parseConfig(config, text)
	}
	m, err := openModel(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return m.arch, nil
}

func (a *app) adapterFromGGUF(ctx context.Context, in *formats.Input, out string, o *convertOptions) (*writeResult, error) {
	if o.outType != "auto" && o.outType != "f32" {
		return nil, badUsage(hint.Add(fmt.Errorf("no output type %q for an adapter's directory", o.outType), "PEFT stores adapters as f32"))
	}
	if o.base == "" {
		return nil, badUsage(needsBase(in.Path))
	}
	m, err := hyperparameters(o.base)
	if err != nil {
		return nil, err
	}
	ad, origin, err := fromGGUF(in, m)
	if err != nil {
		return nil, err
	}
	ad.Config.BaseModel = baseName(in.Meta(), o.base)
	return a.writePEFT(ctx, in, ad, origin, out)
}

// originOf says what a tensor of an adapter is made of; nil is that its name and bytes are
// those of the input.
type originOf func(string) convert.Origin

// source returns what the account of a conversion names tensors of.
func (f originOf) source(in *formats.Input, ad *peft.Adapter) tensor.Source {
	if f == nil {
		return ad
	}
	return in
}

// writePEFT writes an adapter, which in is, as a directory of PEFT.
func (a *app) writePEFT(ctx context.Context, in *formats.Input, ad *peft.Adapter, origin originOf, out string) (*writeResult, error) {
	plan, err := castPlan(ad, func(tensor.Info) tensor.DType { return tensor.F32 }, origin)
	if err != nil {
		return nil, err
	}
	d, err := fsx.CreateDir(out, a.force, holdsAdapter)
	if err != nil {
		return nil, err
	}
	if err := peft.Write(ctx, d.Temp(), ad.Config, ad, false); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", in.Path, err), d.Abort())
	}
	if err := d.Commit(); err != nil {
		return nil, err
	}
	return newWriteResult(job{in.Path, plan, ad, origin.source(in, ad), origin}, out), nil
}

// holdsAdapter reports whether a directory of these files is one that --force may
// replace.
func holdsAdapter(names []string) bool { return slices.Contains(names, peft.ConfigName) }

// baseName is what the configuration of an adapter calls its base: the model's
// name on the hub if the GGUF file knows it, or else where it is here.
func baseName(meta tensor.Meta, path string) string {
	url, _ := tensor.Lookup[string](meta, "general.base_model.0.repo_url")
	if name, ok := strings.CutPrefix(url, "https://huggingface.co/"); ok {
		return name
	}
	return path
}
