package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/convert"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/merge/factors"
	"github.com/seed18967229/nibble/tensor"
)

// adapterConvertOptions are the flags of adapter convert.
type adapterConvertOptions struct {
	to, base, outType, component string
}

// adapterTargets are the formats that adapters are written in.
func adapterTargets() []string { return []string{"peft", "gguf", "mlx", "kohya", "diffusers"} }

func (a *app) adapterConvertCommand() *cobra.Command {
	var o adapterConvertOptions
	cmd := &cobra.Command{
		Use:   "convert IN OUT",
		Short: "Convert an adapter between PEFT, GGUF, MLX, kohya and diffusers",
		Long: `Convert an adapter so that what is added to each weight stays the same.

--to is by default gguf for an OUT ending in .gguf, kohya for one ending in
.safetensors, and peft for anything else, a directory. GGUF and MLX have one alpha
or one scale for all modules; what others differ by goes into their B. MLX has one
rank: factors of a lower one are filled up with zeros. rsLoRA becomes the alpha
that has the same effect.

To and from GGUF, --base says what model the adapter is for: rows of queries and
keys lie in another order there.`,
		Example: "  nibble adapter convert adapters lora.gguf --base qwen2.5-0.5b\n  nibble adapter convert adapters mlx-adapters --to mlx",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.adapterConvert(cmd.Context(), args[0], args[1], &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.to, "to", "", strings.Join(adapterTargets(), ", "))
	f.StringVar(&o.outType, "outtype", "auto", "type of the numbers: "+strings.Join(convert.OutTypes(), ", ")+"; directories have f32")
	f.StringVar(&o.component, "component", "", "the model of a diffusion pipeline that the adapter is for: unet, transformer, text_encoder, ...")
	baseFlag(cmd, &o.base)
	return cmd
}

// format returns the format to write.
func (o *adapterConvertOptions) format(in *formats.Input, out string) (string, error) {
	to := o.to
	switch {
	case to != "" && !slices.Contains(adapterTargets(), to):
		return "", badUsage(hint.Add(fmt.Errorf("--to %s is no format of adapters", to), "there are: %s", strings.Join(adapterTargets(), ", ")))
	case to == "" && isGGUF(out):
		to = "gguf"
	case to == "" && strings.HasSuffix(out, ".safetensors"):
		to = "kohya"
	case to == "" && in.Adapter != nil && !in.Adapter.MLX():
		return "", badUsage(hint.Add(fmt.Errorf("%s is an adapter of PEFT, and it is not said what is to become of it", in.Path), "give --to, or an OUT that ends in .gguf or .safetensors"))
	case to == "":
		to = "peft"
	}
	// An extension is what readers go by.
	for format, ending := range map[string]string{"gguf": ".gguf", "kohya": ".safetensors", "diffusers": ".safetensors"} {
		if (to == format) != strings.HasSuffix(out, ending) && (to == format || ending == ".gguf") {
			return "", badUsage(hint.Add(fmt.Errorf("--to %s, but %s does not look like it", to, out), "gguf files end in .gguf, those of kohya and diffusers in .safetensors, the others are directories"))
		}
	}
	return to, nil
}

func (a *app) adapterConvert(ctx context.Context, path, out string, o *adapterConvertOptions) error {
	in, err := formats.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	to, err := o.format(in, out)
	if err != nil {
		return err
	}
	if err := fsx.CheckOutput(out, append(in.Paths(), in.Path)...); err != nil {
		return badUsage(err)
	}
	m, err := modelOf(o.base)
	if err != nil {
		return err
	}
	var ad *peft.Adapter
	var origin originOf
	if in.GGUF != nil && convert.IsAdapter(in.Meta()) && m != nil {
		ad, origin, err = fromGGUF(in, m)
	} else {
		ad, err = adapterOf(in, m)
	}
	if err != nil {
		return err
	}
	r, err := a.writeAdapter(ctx, in, ad, origin, out, to, o)
	if err != nil {
		return err
	}
	return a.print(r)
}

// carried are the keys of a configuration that PEFT's format can carry on.
var carried = []string{
	"rank_pattern", "alpha_pattern", "bias", "modules_to_save", "lora_bias", "use_dora", "trainable_token_indices", "ensure_weight_tying",
	"init_lora_weights", "layer_replication",
}

// writeAdapter writes an adapter, which in is, in a format.
func (a *app) writeAdapter(ctx context.Context, in *formats.Input, ad *peft.Adapter, origin originOf, out, to string, o *adapterConvertOptions) (*writeResult, error) {
	if to == "gguf" {
		return a.adapterToGGUF(ctx, in, ad, out, &convertOptions{base: o.base, outType: o.outType})
	}
	follows := map[string][]string{"peft": carried, "mlx": {"rank_pattern", "alpha_pattern", "use_dora"}}[to]
	if follows == nil {
		follows = []string{"rank_pattern", "alpha_pattern"}
	}
	if err := ad.Config.UnsupportedBut(follows...); err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	f, err := inventory(in.Path, ad)
	if err != nil {
		return nil, err
	}
	list := scalesOf(f)
	switch to {
	case "peft":
		return a.toPEFT(ctx, in, ad, f, origin, out, o)
	case "mlx":
		return a.toMLX(ctx, in, ad, list, out, o)
	}
	var table *tensor.Table
	if to == "kohya" {
		table, err = peft.ToKohya(ad, list, o.component)
	} else {
		table, err = peft.ToDiffusers(ad, list, o.component)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	d, err := parseOutType(o.outType)
	if err != nil {
		return nil, err
	}
	plan, err := castPlan(table, func(info tensor.Info) tensor.DType {
		if len(info.Shape) == 0 { // an alpha
			return info.DType
		}
		return retyped(info, d)
	}, nil)
	if err != nil {
		return nil, err
	}
	w, err := safetensors.Create(out, a.force)
	if err != nil {
		return nil, err
	}
	if err := a.runPlan(ctx, in.Path, plan, table, w); err != nil {
		return nil, err
	}
	r := newWriteResult(job{in.Path, plan, table, table, nil}, out)
	for _, m := range list {
		if to == "kohya" && !peft.Readable(m.Module) {
			r.Notes = append(r.Notes, fmt.Sprintf("the name of %s in kohya's spelling does not say where its dots are: give --base to read it", m.Module))
			break
		}
	}
	return r, nil
}

// onlyF32 refuses a type for a directory.
func (o *adapterConvertOptions) onlyF32() error {
	if o.outType != "auto" && o.outType != "f32" {
		return badUsage(hint.Add(fmt.Errorf("no output type %q for an adapter's directory", o.outType), "PEFT and MLX store adapters as f32"))
	}
	return nil
}

// toPEFT writes a directory of PEFT, of one model of a pipeline.
func (a *app) toPEFT(ctx context.Context, in *formats.Input, ad *peft.Adapter, f *factors.Adapter, origin originOf, out string, o *adapterConvertOptions) (*writeResult, error) {
	if err := o.onlyF32(); err != nil {
		return nil, err
	}
	var modules []string
	for _, m := range f.Modules {
		modules = append(modules, m.Name)
	}
	of := peft.Components(modules)
	switch {
	case len(of) > 1:
		return nil, hint.Add(fmt.Errorf("%s: %w: adapters of several models: %s; PEFT has a directory for each", in.Path, tensor.ErrUnsupported, strings.Join(of, ", ")),
			"--to kohya or diffusers keeps them in one file")
	case of[0] != "":
		var err error
		if ad, err = peft.Rename(ad, func(m string) string { return strings.TrimPrefix(m, of[0]+".") }); err != nil {
			return nil, err
		}
		for i, m := range modules {
			modules[i] = strings.TrimPrefix(m, of[0]+".")
		}
		ad.Config.TargetModules = peft.TargetsOf(modules)
		origin = nil
	}
	c := ad.Config
	if c.BaseModel == "" {
		c.BaseModel = o.base
	}
	return a.writePEFT(ctx, in, ad, origin, out)
}

// toMLX writes a directory of MLX.
func (a *app) toMLX(ctx context.Context, in *formats.Input, ad *peft.Adapter, list []peft.ModuleScale, out string, o *adapterConvertOptions) (*writeResult, error) {
	if err := o.onlyF32(); err != nil {
		return nil, err
	}
	table, config, err := peft.ToMLX(ad, list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Path, err)
	}
	plan, err := castPlan(table, func(tensor.Info) tensor.DType { return tensor.F32 }, nil)
	if err != nil {
		return nil, err
	}
	d, err := fsx.CreateDir(out, a.force, holdsAdapter)
	if err != nil {
		return nil, err
	}
	err = d.WriteFile(peft.ConfigName, config)
	if err == nil {
		var w *safetensors.Writer
		if w, err = safetensors.Create(filepath.Join(d.Temp(), peft.MLXWeightsName), false); err == nil {
			err = a.runPlan(ctx, in.Path, plan, table, w)
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Abort())
	}
	if err := d.Commit(); err != nil {
		return nil, err
	}
	return newWriteResult(job{in.Path, plan, table, table, nil}, out), nil
}
