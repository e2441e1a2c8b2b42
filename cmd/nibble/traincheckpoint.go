package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
)

// Save implements train.Output.
func (o *trainOutput) Save(c train.Checkpoint) error {
	ours := func(names []string) bool { return slices.Contains(names, stateName) }
	d, err := fsx.CreateDir(filepath.Join(o.dir, checkpointName+strconv.Itoa(c.State.Step)), true, ours)
	if err != nil {
		return err
	}
	if err := o.fill(d, c); err != nil {
		return errors.Join(err, d.Abort())
	}
	if err := d.Commit(); err != nil {
		return err
	}
	best := 0
	if c.State.Config.LoadBestModelAtEnd {
		best = c.State.BestStep
	}
	if err := o.prune(c.State.Step, c.State.Config.SaveTotalLimit, best); err != nil {
		return err
	}
	if o.aside != "" {
		// The new run has something to show; the old one may go.
		err := os.RemoveAll(o.aside)
		o.aside = ""
		if err != nil {
			return err
		}
	}
	o.onSave()
	return nil
}

func (o *trainOutput) fill(d *fsx.Dir, c train.Checkpoint) error {
	if o.lora != nil {
		if err := peft.Write(context.Background(), d.Temp(), o.lora, c.Trained, false); err != nil {
			return err
		}
		if o.template != "" {
			if err := d.WriteFile(templateName, []byte(o.template)); err != nil {
				return err
			}
		}
	} else if err := o.writeFull(d.Temp(), c.Trained); err != nil {
		return err
	}
	if err := writeTensors(filepath.Join(d.Temp(), optimizerName), c.Optimizer); err != nil {
		return err
	}
	state, err := json.MarshalIndent(c.State, "", "  ")
	if err != nil {
		return err
	}
	if err := d.WriteFile(logName, encodeLog(c.Log)); err != nil {
		return err
	}
	return d.WriteFile(stateName, append(state, '\n'))
}

// prune removes checkpoints after the one of step, which is whole: those of later steps,
// which belong to a run that this one has gone back behind, and the oldest that are more
// than limit; 0 is no limit. As in transformers the best one, 0 for none, is among those
// that stay, and so is the last one.
func (o *trainOutput) prune(step, limit, best int) error {
	list, err := savedIn(o.dir)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(list, func(c savedAt) bool { return c.step == step })
	gone := slices.Clone(list[at+1:])
	if limit > 0 {
		old := list[:at] // beside the last one
		keep := limit - 1
		if i := slices.IndexFunc(old, func(c savedAt) bool { return c.step == best }); i >= 0 {
			old = slices.Delete(slices.Clone(old), i, i+1)
			keep--
		}
		gone = append(gone, old[:max(0, len(old)-max(0, keep))]...)
	}
	for _, c := range gone {
		// Under another name first, so that there never is half a checkpoint.
		dead := filepath.Join(o.dir, "."+filepath.Base(c.path)+".nibble-removed")
		if err := errors.Join(os.RemoveAll(dead), os.Rename(c.path, dead), os.RemoveAll(dead)); err != nil {
			return err
		}
	}
	return nil
}

// writeFull writes the tensors of full fine-tuning, as F32, with everything that
// makes them a model.
func (o *trainOutput) writeFull(dir string, trained tensor.Source) error {
	if err := writeTensors(filepath.Join(dir, hf.WeightsName), trained); err != nil {
		return err
	}
	for _, f := range o.files {
		if err := f.Write(dir); err != nil {
			return err
		}
	}
	return nil
}

// writeTensors writes a source as one safetensors file.
func writeTensors(path string, src tensor.Source) error {
	w, err := safetensors.Create(path, false)
	if err != nil {
		return err
	}
	p := &pipeline.Plan{Meta: tensor.Meta{{Key: "format", Value: "pt"}}}
	for info := range src.All() {
		p.Steps = append(p.Steps, pipeline.Copy(info, info.Name))
	}
	return pipeline.Run(context.Background(), p, src, w)
}

// openCheckpoint reads a checkpoint, or the last one of an output directory.
func openCheckpoint(dir string) (train.Checkpoint, io.Closer, error) {
	var c train.Checkpoint
	path := filepath.Join(dir, stateName)
	if _, err := os.Stat(path); err != nil {
		last, err := lastCheckpoint(dir)
		if err != nil {
			return c, nil, err
		}
		dir, path = last, filepath.Join(last, stateName)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, nil, err
	}
	if err := json.Unmarshal(text, &c.State); err != nil {
		return c, nil, fmt.Errorf("%s: %w: %w", path, tensor.ErrMalformed, err)
	}
	if c.Log, err = readLog(filepath.Join(dir, logName)); err != nil {
		return c, nil, err
	}
	var files closers
	open := func(name string) (tensor.Source, error) {
		f, err := safetensors.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		return f, nil
	}
	if c.Optimizer, err = open(optimizerName); err == nil {
		if c.State.Config.FineTuneType == "full" {
			c.Trained, err = open(hf.WeightsName)
		} else {
			var ad *peft.Adapter
			if ad, err = peft.Open(dir); err == nil {
				files = append(files, ad)
				c.Trained = ad
			}
		}
	}
	if err != nil {
		files.Close()
		return c, nil, err
	}
	return c, files, nil
}

// readLog reads a log. Checkpoints of old have none.
func readLog(path string) (list []train.Record, err error) {
	text, err := safeio.ReadFile(path, maxLog)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	for n, line := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
		var r train.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("%s:%d: %w: %w", path, n+1, tensor.ErrMalformed, err)
		}
		list = append(list, r)
	}
	return list, nil
}

// maxLog is the largest log in bytes that is read: more than a million steps.
const maxLog = 1 << 30

type closers []io.Closer

// Close implements io.Closer.
func (c closers) Close() error {
	var errs []error
	for _, x := range c {
		errs = append(errs, x.Close())
	}
	return errors.Join(errs...)
}

// savedAt is a checkpoint in an output directory.
type savedAt struct {
	step int
	path string
}

// savedIn returns those of an output directory by their steps.
func savedIn(dir string) ([]savedAt, error) {
	entries, err := os.ReadDir(dir)
	var list []savedAt
	for _, e := range entries {
		if s, ok := strings.CutPrefix(e.Name(), checkpointName); ok {
			if n, err := strconv.Atoi(s); err == nil && n >= 0 {
				list = append(list, savedAt{n, filepath.Join(dir, e.Name())})
			}
		}
	}
	slices.SortFunc(list, func(a, b savedAt) int { return cmp.Compare(a.step, b.step) })
	return list, err
}

// lastCheckpoint returns the checkpoint of an output directory with the highest
// number.
func lastCheckpoint(dir string) (string, error) {
	list, err := savedIn(dir)
	switch {
	case err != nil:
		return "", hint.Add(err, "--resume wants a checkpoint directory, or the output directory of the run")
	case len(list) == 0:
		return "", hint.Add(fmt.Errorf("%s: %w: no %s and no %sN in it", dir, tensor.ErrMalformed, stateName, checkpointName),
			"--resume wants a checkpoint directory, or the output directory of the run")
	}
	return list[len(list)-1].path, nil
}
