package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed18967229/nibble/formats"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
)

// The names in an output directory of what adapters began with, and of the adapter as
// GGUF.
const (
	initialName = "initial_adapter"
	ggufName    = "adapter.gguf"
)

// goOn opens the adapter of --adapter and takes its settings.
func (o *trainOptions) goOn(m *model) (*peft.Adapter, error) {
	if o.adapter == "" {
		return nil, nil
	}
	path := o.adapter
	if st, err := os.Stat(path); err == nil && !st.IsDir() && filepath.Ext(path) == ".safetensors" {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), peft.ConfigName)); err == nil {
			path = filepath.Dir(path) // mlx-lm names the file in the directory
		}
	}
	ad, err := openAdapter(path, m.arch, computable)
	if err != nil {
		return nil, err
	}
	if err := o.take(ad, m); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", o.adapter, err), ad.Close())
	}
	return ad, nil
}

// take takes over what an adapter's configuration says. A flag that says something else
// is an error.
func (o *trainOptions) take(ad *peft.Adapter, m *model) error {
	if o.Full() {
		return badUsage(fmt.Errorf("--adapter with --fine-tune-type full, which trains no adapter"))
	}
	was := o.Config
	settings, err := settingsOf(ad)
	if err != nil {
		return err
	}
	o.FineTuneType, o.Methods = settings.FineTuneType, settings.Methods
	o.Dropout, o.LoRADType = was.Dropout, was.LoRADType // of the training, not of the adapter
	if o.setBy["dropout"] == "" {
		o.Dropout = settings.Dropout
	}
	for _, d := range o.Config.Differences(&was) {
		if by := o.setBy[d.Name]; by != "" && !strings.HasPrefix(by, "--preset") {
			return badUsage(hint.Add(fmt.Errorf("--%s is %v, and the adapter has %v", d.Name, d.Was, d.Now), "leave it out: what is gone on from stays as it is"))
		}
	}
	c, err := o.PEFT(m.arch)
	if err != nil {
		return err
	}
	if c.EnsureWeightTying && !ad.Config.EnsureWeightTying {
		return fmt.Errorf("%w: its embeddings are not those of the head, as those of the model are", tensor.ErrUnsupported)
	}
	o.Start = train.Start{Adapter: ad}
	return nil
}

// start returns what adapters begin from, and what closes it. A run with PiSSA makes it
// in its output directory, or finds it there.
func (a *app) start(ctx context.Context, m *model, o *trainOptions) (io.Closer, error) {
	if _, principal := o.PiSSA(); !principal || o.Full() {
		return closers(nil), nil
	}
	dir := filepath.Join(o.out, initialName)
	if _, err := os.Stat(filepath.Join(dir, peft.ConfigName)); err != nil {
		if err := a.makeInitial(ctx, m, o, dir); err != nil {
			return nil, err
		}
	}
	ad, err := peft.Open(dir)
	if err != nil {
		return nil, err
	}
	o.Start = train.Start{Adapter: ad, Subtract: true}
	return ad, nil
}

// makeInitial writes the adapters that PiSSA begins with.
func (a *app) makeInitial(ctx context.Context, m *model, o *trainOptions, dir string) (err error) {
	p, err := train.NewPrincipal(m.base(), &o.Config)
	if err != nil {
		return err
	}
	c, err := adapterConfig(o, m.arch)
	if err != nil {
		return err
	}
	layout := p.Layout()
	w, err := peft.Create(dir, c, layout, false)
	if err != nil {
		return err
	}
	bar := a.progress("singular values", int64(len(layout)), itemsUnit)
	defer bar.stop()
	err = p.Make(ctx, func(name string, values []float32) error {
		bar.add(1)
		return w.Put(name, values)
	})
	if err == nil {
		err = w.Finish()
	}
	if err == nil {
		err = w.Commit()
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	return nil
}

// checkAdapters returns an error if the model cannot have the adapters, or the format
// cannot hold them.
func (o *trainOptions) checkAdapters(m *model) error {
	var c *peft.Config
	if !o.Full() {
		var err error
		if c, err = adapterConfig(o, m.arch); err != nil {
			return fmt.Errorf("%s: %w", o.model, err)
		}
	}
	_, _, err := o.formats(m, c)
	return err
}

// formats says in which formats the adapter is to be written.
func (o *trainOptions) formats(m *model, c *peft.Config) (inPEFT, inGGUF bool, err error) {
	if o.Full() {
		if o.setBy["adapter-format"] != "" {
			return false, false, badUsage(fmt.Errorf("--adapter-format with --fine-tune-type full, which makes no adapter"))
		}
		return false, false, nil
	}
	switch o.adapterFormat {
	case "auto", "peft", "gguf", "both":
	default:
		return false, false, badUsage(fmt.Errorf("--adapter-format is %q, want one of: auto, peft, gguf, both", o.adapterFormat))
	}
	cannot := cannotBeGGUF(c)
	inGGUF = o.adapterFormat == "gguf" || o.adapterFormat == "both" || o.adapterFormat == "auto" && m.gguf != nil && cannot == nil
	if inGGUF && cannot != nil {
		return false, false, hint.Add(fmt.Errorf("--adapter-format %s: a GGUF adapter is a product for each layer and nothing more: %w", o.adapterFormat, cannot), "give --adapter-format peft")
	}
	return o.adapterFormat != "gguf", inGGUF, nil
}

// storeAdapter writes the adapter that a run has made, in the formats that are wanted.
func (a *app) storeAdapter(ctx context.Context, m *model, c *peft.Config, trained tensor.Source, o *trainOptions) error {
	inPEFT, inGGUF, err := o.formats(m, c)
	if err != nil {
		return err
	}
	if o.Start.Subtract {
		if c, trained, err = peft.WithoutInitial(c, trained, o.Start.Adapter); err != nil {
			return err
		}
	}
	if inPEFT {
		if err := peft.Write(ctx, o.out, c, trained, true); err != nil {
			return err
		}
	}
	if !inGGUF {
		return nil
	}
	// GGUF is made of PEFT's directory.
	temp := filepath.Join(o.out, ".adapter.nibble")
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o777); err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := peft.Write(ctx, temp, c, trained, false); err != nil {
		return err
	}
	in, err := formats.Open(temp)
	if err != nil {
		return err
	}
	defer in.Close()
	made := filepath.Join(temp, ggufName)
	if _, err := a.adapterToGGUF(ctx, in, in.Adapter, made, &convertOptions{outType: "f32", base: o.model}); err != nil {
		return err
	}
	return os.Rename(made, filepath.Join(o.out, ggufName))
}
