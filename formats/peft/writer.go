package peft

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/tensor"
)

// A Writer writes an adapter directory whose tensors come one by one, in any order. The
// directory has its name, with everything in it, only once Commit has succeeded.
type Writer struct {
	dir     *fsx.Dir
	weights *safetensors.Writer
	bodies  map[string]int
}

// Create starts writing the directory dir: the configuration as that of an adapter to be
// loaded (inference_mode is true), and room for tensors of F32 with those names, as in
// Adapter, and shapes. Unless force is set dir must not exist; with it, another adapter
// is replaced.
func Create(dir string, c *Config, layout []tensor.Info, force bool) (*Writer, error) {
	stored := *c
	stored.InferenceMode = true
	text, err := stored.Encode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, ConfigName), err)
	}
	d, err := fsx.CreateDir(dir, force, func(names []string) bool { return slices.Contains(names, ConfigName) })
	if err != nil {
		return nil, err
	}
	w := &Writer{dir: d, bodies: make(map[string]int)}
	if err := w.begin(text, layout); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

func (w *Writer) begin(config []byte, layout []tensor.Info) (err error) {
	if err := w.dir.WriteFile(ConfigName, config); err != nil {
		return err
	}
	if w.weights, err = safetensors.Create(filepath.Join(w.dir.Temp(), WeightsName), false); err != nil {
		return err
	}
	var stored []tensor.Info
	for i, info := range sorted(layout) {
		w.bodies[info.Name] = i
		stored = append(stored, tensor.Info{Name: prefix + info.Name, DType: tensor.F32, Shape: info.Shape})
	}
	return w.weights.Begin(meta(), stored)
}

// Put stores the elements of one of the tensors. Different tensors may be stored
// concurrently.
func (w *Writer) Put(name string, x []float32) error {
	i, ok := w.bodies[name]
	if !ok {
		return fmt.Errorf("tensor %q: %w in the adapter's layout", name, tensor.ErrNotFound)
	}
	body, err := w.weights.Body(i)
	if err != nil {
		return err
	}
	b := make([]byte, 0, putBytes)
	encoder, err := codecs().Encoder(tensor.F32)
	if err != nil {
		return err
	}
	for at := int64(0); len(x) > 0; at += int64(len(b)) {
		n := min(len(x), putBytes/4)
		b = b[:4*n]
		encoder.Encode(b, x[:n])
		if _, err := body.WriteAt(b, at); err != nil {
			return err
		}
		x = x[n:]
	}
	return nil
}

// putBytes is how much is encoded at a time.
const putBytes = 1 << 18

// Finish completes the files. It returns an error if a tensor is missing.
func (w *Writer) Finish() error { return w.weights.Finish() }

// Commit gives the directory its name, after Finish.
func (w *Writer) Commit() error { return w.dir.Commit() }

// Abort removes what was written. After Commit it does nothing.
func (w *Writer) Abort() error {
	var err error
	if w.weights != nil {
		err = w.weights.Abort()
	}
	return errors.Join(err, w.dir.Abort())
}
