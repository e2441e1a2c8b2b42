package main

import (
	"bufio"
	"bytes"
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
	"github.com/seed18967229/nibble/internal/chart"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
)

// The names of files in an output directory and its checkpoints, as
// transformers and LLaMA-Factory have them.
const (
	logName        = "trainer_log.jsonl"
	plotName       = "loss.png"
	stateName      = "trainer_state.json"
	optimizerName  = "optimizer.safetensors"
	checkpointName = "checkpoint-"
)

// trainOutput is the directory of a run.
type trainOutput struct {
	dir   string
	lora  *peft.Config  // nil for full fine-tuning
	files []hf.SideFile // config.json and the rest, of full fine-tuning

	log     *os.File
	records []train.Record
	onLog   func(train.Record)

	// aside is the directory that this one replaces, until something of the new
	// run is safe.
	aside string
}

var _ train.Output = (*trainOutput)(nil)

// newTrainOutput makes the directory, or takes one that is there if force or
// resume say so. A run that is resumed keeps the log up to its step.
func newTrainOutput(dir string, force bool, resumed *train.State) (*trainOutput, error) {
	o := &trainOutput{dir: dir}
	entries, err := os.ReadDir(dir)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, hint.Add(err, "choose another --output-dir")
	case len(entries) > 0 && resumed == nil && !force:
		return nil, hint.Add(fmt.Errorf("%s: %w", dir, fsx.ErrExists), "choose another --output-dir, give --force to replace it, or --resume to go on")
	case len(entries) > 0 && resumed == nil:
		if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == logName || e.Name() == peft.ConfigName }) {
			return nil, hint.Add(fmt.Errorf("%s: %w and is not the output of a run, so --force does not replace it", dir, fsx.ErrExists),
				"choose another --output-dir, or remove the directory yourself")
		}
		o.aside = filepath.Join(filepath.Dir(filepath.Clean(dir)), "."+filepath.Base(dir)+".nibble-old")
		if err := os.RemoveAll(o.aside); err != nil {
			return nil, err
		}
		if err := os.Rename(dir, o.aside); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, hint.Add(fmt.Errorf("%s: cannot be written: %w", dir, err), "choose an --output-dir that you may write to")
	}
	if resumed != nil {
		if err := o.cutLog(resumed.Step); err != nil {
			return nil, err
		}
	}
	o.log, err = os.OpenFile(filepath.Join(dir, logName), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	return o, err
}

// cutLog drops the records after a step, so that the log of a resumed run is
// that of one that was never stopped.
func (o *trainOutput) cutLog(step int) error {
	path := filepath.Join(o.dir, logName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var kept bytes.Buffer
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		var r train.Record
		if err := json.Unmarshal(s.Bytes(), &r); err != nil || r.Step > step {
			break
		}
		o.records = append(o.records, r)
		kept.Write(s.Bytes())
		kept.WriteByte('\n')
	}
	return fsx.WriteFile(path, kept.Bytes(), true)
}

// Log implements train.Output.
func (o *trainOutput) Log(r train.Record) error {
	o.records = append(o.records, r)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := o.log.Write(append(line, '\n')); err != nil {
		return err
	}
	o.onLog(r)
	return nil
}

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
	if o.aside != "" {
		// The new run has something to show; the old one may go.
		err := os.RemoveAll(o.aside)
		o.aside = ""
		return err
	}
	return o.plot()
}

func (o *trainOutput) fill(d *fsx.Dir, c train.Checkpoint) error {
	if o.lora != nil {
		if err := peft.Write(context.Background(), d.Temp(), o.lora, c.Trained, false); err != nil {
			return err
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
	return d.WriteFile(stateName, append(state, '\n'))
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

// plot draws the losses so far.
func (o *trainOutput) plot() error {
	var raw, eval []chart.Point
	for _, r := range o.records {
		if r.Step > 0 {
			raw = append(raw, chart.Point{X: float64(r.Step), Y: r.Loss})
		}
		if r.EvalLoss != nil {
			eval = append(eval, chart.Point{X: float64(r.Step), Y: *r.EvalLoss})
		}
	}
	png, err := chart.Lines("Loss", "step", "cross-entropy, nats per token",
		chart.Series{Name: "training", Style: chart.Faint, Points: raw},
		chart.Series{Name: "training, smoothed", Style: chart.Strong, Points: chart.Smooth(raw, 0.8)},
		chart.Series{Name: "validation", Style: chart.Dotted, Points: eval})
	if err != nil {
		return err
	}
	return fsx.WriteFile(filepath.Join(o.dir, plotName), png, true)
}

// close ends the log. A run that failed before anything of it was safe leaves
// the directory that it was to replace.
func (o *trainOutput) close() error {
	err := o.log.Close()
	if o.aside != "" {
		err = errors.Join(err, os.RemoveAll(o.dir), os.Rename(o.aside, o.dir))
	}
	return err
}

// empty removes the directory if nothing is in it but an empty log: a run that
// failed at the start leaves nothing behind.
func (o *trainOutput) empty() {
	if len(o.records) == 0 {
		os.Remove(filepath.Join(o.dir, logName))
		os.Remove(o.dir) // fails if there is more in it
	}
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

type closers []io.Closer

// Close implements io.Closer.
func (c closers) Close() error {
	var errs []error
	for _, x := range c {
		errs = append(errs, x.Close())
	}
	return errors.Join(errs...)
}

// lastCheckpoint returns the checkpoint of an output directory with the highest
// number.
func lastCheckpoint(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", hint.Add(err, "--resume wants a checkpoint directory, or the output directory of the run")
	}
	best, path := -1, ""
	for _, e := range entries {
		if s, ok := strings.CutPrefix(e.Name(), checkpointName); ok {
			if n, err := strconv.Atoi(s); err == nil && n > best {
				best, path = n, filepath.Join(dir, e.Name())
			}
		}
	}
	if best < 0 {
		return "", hint.Add(fmt.Errorf("%s: %w: no %s and no %sN in it", dir, tensor.ErrMalformed, stateName, checkpointName),
			"--resume wants a checkpoint directory, or the output directory of the run")
	}
	return path, nil
}
