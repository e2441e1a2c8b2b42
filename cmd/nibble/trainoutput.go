package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/train"
)

// The names of files in an output directory and its checkpoints, as
// transformers and LLaMA-Factory have them.
const (
	logName        = "trainer_log.jsonl"
	stateName      = "trainer_state.json"
	optimizerName  = "optimizer.safetensors"
	checkpointName = "checkpoint-"
)

// trainOutput is the directory of a run.
type trainOutput struct {
	dir  string
	lora *peft.Config // nil for full fine-tuning

	// template is the chat template that lies beside adapters, "" for that of the base.
	template string

	files []hf.SideFile // config.json and the rest, of full fine-tuning

	log     *os.File
	records []train.Record
	onLog   func(train.Record)
	onSave  func() // after a checkpoint

	// aside is the directory that this one replaces, until something of the new
	// run is safe.
	aside string
}

var _ train.Output = (*trainOutput)(nil)

// newTrainOutput makes the directory, or takes one that is there if force or
// resume say so, and leaves what is in it as it is until begin.
func newTrainOutput(dir string, force, resume bool) (*trainOutput, error) {
	o := &trainOutput{dir: dir}
	entries, err := os.ReadDir(dir)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, hint.Add(err, "choose another --output-dir")
	case len(entries) > 0 && !resume && !force:
		return nil, hint.Add(fmt.Errorf("%s: %w", dir, fsx.ErrExists), "choose another --output-dir, give --force to replace it, or --resume to go on")
	case len(entries) > 0 && !resume:
		if err := o.setAside(entries); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, hint.Add(fmt.Errorf("%s: cannot be written: %w", dir, err), "choose an --output-dir that you may write to")
	}
	return o, nil
}

// begin begins the log, with what was logged before the checkpoint if a run is resumed,
// and removes what a run that was killed has left half done.
func (o *trainOutput) begin(before []train.Record) (err error) {
	o.records = before
	if err := errors.Join(o.sweep(), fsx.WriteFile(filepath.Join(o.dir, logName), encodeLog(before), true)); err != nil {
		return err
	}
	o.log, err = os.OpenFile(filepath.Join(o.dir, logName), os.O_APPEND|os.O_WRONLY, 0)
	return err
}

// setAside moves what is in the directory out of the way.
func (o *trainOutput) setAside(entries []fs.DirEntry) error {
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == logName || e.Name() == peft.ConfigName }) {
		return hint.Add(fmt.Errorf("%s: %w and is not the output of a run, so --force does not replace it", o.dir, fsx.ErrExists),
			"choose another --output-dir, or remove the directory yourself")
	}
	o.aside = filepath.Join(filepath.Dir(filepath.Clean(o.dir)), "."+filepath.Base(o.dir)+".nibble-old")
	if _, err := os.Stat(o.aside); err == nil && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return strings.HasPrefix(e.Name(), checkpointName) || e.Name() == peft.ConfigName || e.Name() == hf.ConfigName
	}) {
		// A run that was to replace this one was killed before anything of it was safe:
		// what it had put aside is still what is to be replaced.
		return os.RemoveAll(o.dir)
	}
	if err := os.RemoveAll(o.aside); err != nil {
		return err
	}
	return os.Rename(o.dir, o.aside)
}

// sweep removes what a run that was killed has left half done.
func (o *trainOutput) sweep() error {
	entries, err := os.ReadDir(o.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if n := e.Name(); strings.HasPrefix(n, ".") && strings.Contains(n, ".nibble") {
			errs = append(errs, os.RemoveAll(filepath.Join(o.dir, n)))
		}
	}
	return errors.Join(errs...)
}

// encodeLog returns the text of a log.
func encodeLog(records []train.Record) []byte {
	var text []byte
	for _, r := range records {
		text = append(text, encodeRecord(r)...)
	}
	return text
}

func encodeRecord(r train.Record) []byte {
	line, err := json.Marshal(r)
	if err != nil {
		panic("a record cannot be encoded: " + err.Error()) // its numbers are finite
	}
	return append(line, '\n')
}

// Log implements train.Output.
func (o *trainOutput) Log(r train.Record) error {
	o.records = append(o.records, r)
	if _, err := o.log.Write(encodeRecord(r)); err != nil {
		return err
	}
	o.onLog(r)
	return nil
}

// close ends the log. A run that failed before anything of it was safe leaves
// the directory that it was to replace.
func (o *trainOutput) close() error {
	var err error
	if o.log != nil {
		err = o.log.Close()
	}
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
