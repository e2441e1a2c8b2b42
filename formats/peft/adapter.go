package peft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/formats/safetensors"
	"github.com/seed18967229/nibble/formats/torch"
	"github.com/seed18967229/nibble/internal/fsx"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/tensor/floats"
)

// The names of files in an adapter's directory, as PEFT has them
// (utils/constants.py).
const (
	ConfigName  = "adapter_config.json"
	WeightsName = "adapter_model.safetensors"
)

const (
	pickleName = "adapter_model.bin"

	// maxConfig is the largest adapter_config.json in bytes that is read.
	maxConfig = 16 << 20

	// prefix begins the names in the file: PeftModel holds LoraModel as
	// base_model, and that the model itself as model.
	prefix = "base_model.model."
)

// An Adapter is an open adapter directory. Its tensors have the names of the
// base model's modules, without PEFT's prefix:
//
//	MODULE.lora_A.weight            [r, in]
//	MODULE.lora_B.weight            [out, r]
//	MODULE.lora_embedding_A, _B     [r, vocabulary], [dim, r]
//	MODULE.lora_magnitude_vector    [out], of DoRA
//	anything else                   stored whole, in place of the base's
//
// They can be read until it is closed.
type Adapter struct {
	*tensor.Table
	Config *Config
	path   string
	file   io.Closer
}

var _ tensor.Source = (*Adapter)(nil)

// Open opens an adapter directory, with adapter_model.safetensors or, as before
// there was that, adapter_model.bin; or that of an MLX adapter, whose tensors and
// configuration are given as PEFT would have them. Errors begin with the path and wrap
// tensor.ErrMalformed, or tensor.ErrUnsupported for another kind of adapter or
// weights in another format. An adapter without tensors, or with an empty A or
// B, is malformed: merging it would change nothing, or not be possible.
func Open(dir string) (*Adapter, error) {
	text, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	if isMLX(text) {
		return openMLX(dir, text)
	}
	config, err := ParseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, ConfigName), err)
	}
	a := &Adapter{Config: config, path: filepath.Join(dir, WeightsName)}
	var stored tensor.Source
	f, err := safetensors.Open(a.path)
	stored, a.file = f, f
	if errors.Is(err, fs.ErrNotExist) {
		pickled := filepath.Join(dir, pickleName)
		p, perr := torch.Open(pickled)
		if !errors.Is(perr, fs.ErrNotExist) {
			stored, a.file, a.path, err = p, p, pickled, perr
		}
	}
	if err != nil {
		return nil, noWeights(dir, err)
	}
	if a.Table, err = canonical(stored); err != nil {
		a.file.Close()
		return nil, fmt.Errorf("%s: %w", a.path, err)
	}
	return a, nil
}

// Path returns the path of the file that the tensors are in.
func (a *Adapter) Path() string { return a.path }

// Close closes the adapter's file.
func (a *Adapter) Close() error { return a.file.Close() }

func readConfig(dir string) ([]byte, error) {
	if st, err := os.Stat(dir); err != nil {
		return nil, safeio.WithPath(dir, err)
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s: %w: not a directory", dir, tensor.ErrMalformed)
	}
	path := filepath.Join(dir, ConfigName)
	text, err := safeio.ReadFile(path, maxConfig)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%s: %w: no %s; an adapter's directory has %s and %s", dir, tensor.ErrMalformed, ConfigName, ConfigName, WeightsName)
		if below, _ := filepath.Glob(filepath.Join(dir, "*", ConfigName)); len(below) > 0 {
			// PEFT saves an adapter whose name is not "default" one level down.
			return nil, hint.Add(err, "give the adapter itself: %s", filepath.Dir(below[0]))
		}
		return nil, hint.Add(err, "give the directory that PEFT's save_pretrained made")
	case errors.Is(err, safeio.ErrRefused):
		return nil, fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	case err != nil:
		return nil, err
	}
	return text, nil
}

// noWeights says what is there instead of weights that can be read.
func noWeights(dir string, err error) error {
	switch {
	case errors.Is(err, safeio.ErrRefused):
		return fmt.Errorf("%w: %w", tensor.ErrMalformed, err)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return hint.Add(fmt.Errorf("%s: %w: no %s", dir, tensor.ErrMalformed, WeightsName), "download or copy the weights into the directory")
}

// adapterName matches the name of the adapter, "default", where PEFT has it in
// memory and some trainers leave it in the file, as they do with what is around a
// module that is trained whole and with what other wrappers call the model.
var (
	adapterName = regexp.MustCompile(`(\.lora_\w+|\.trainable_tokens_delta)\.default(\.|$)`)
	savedModule = regexp.MustCompile(`\.modules_to_save\.default\.`)
	wrapper     = regexp.MustCompile(`^(?:module\.)?(?:_fsdp_wrapped_module\.)?(?:_orig_mod\.)?`)
)

// original is in the names of a dump of all that PEFT has in memory where the
// base's own weights are beside those that were trained.
const original = ".original_module."

// canonicalName returns the name of Adapter for one in the file.
func canonicalName(name string) string {
	if plain := wrapper.ReplaceAllString(name, ""); strings.HasPrefix(plain, prefix) {
		name = plain[len(prefix):]
	}
	return savedModule.ReplaceAllString(adapterName.ReplaceAllString(name, "$1$2"), ".")
}

// canonical returns the tensors of a file under the names of Adapter.
func canonical(f tensor.Source) (*tensor.Table, error) {
	var entries []tensor.Entry
	for info := range f.All() {
		if strings.Contains(info.Name, original) {
			continue
		}
		name := canonicalName(info.Name)
		if info.Shape.Elems() == 0 {
			return nil, notGathered(fmt.Errorf("tensor %q: %w: it is empty, its shape is %v", name, tensor.ErrMalformed, info.Shape))
		}
		entries = append(entries, tensor.Forward(f, info, name))
	}
	if len(entries) == 0 {
		return nil, notGathered(fmt.Errorf("%w: the adapter holds no tensors", tensor.ErrMalformed))
	}
	return tensor.NewTable(f.Meta(), entries)
}

// notGathered explains what PEFT warns of since 0.20
// (_validate_lora_adapter_state_dict in utils/save_and_load.py).
func notGathered(err error) error {
	return hint.Add(err, "save the adapter again from the training; under DeepSpeed ZeRO-3 or FSDP, gather the weights first")
}

// Write stores an adapter in dir, which must exist: the tensors of src, named as
// in Adapter, as F32 under PEFT's names, and the configuration as that of a
// trained adapter (inference_mode is true). Each file appears whole or not at
// all, the configuration last, so that what has one is complete; unless force is
// set, neither may exist. To have both or none, let dir be that of an fsx.Dir.
func Write(ctx context.Context, dir string, c *Config, src tensor.Source, force bool) error {
	stored := *c
	stored.InferenceMode = true
	configPath, weightsPath := filepath.Join(dir, ConfigName), filepath.Join(dir, WeightsName)
	text, err := stored.Encode()
	if err != nil {
		return fmt.Errorf("%s: %w", configPath, err)
	}
	if src, err = c.withCopy(src); err != nil {
		return fmt.Errorf("%s: %w", weightsPath, err)
	}
	plan, err := writePlan(src)
	if err != nil {
		return fmt.Errorf("%s: %w", weightsPath, err)
	}
	config, err := fsx.Create(configPath, force)
	if err != nil {
		return err
	}
	defer config.Abort()
	if _, err := config.Write(text); err != nil {
		return safeio.WithPath(configPath, err)
	}
	weights, err := safetensors.Create(weightsPath, force)
	if err != nil {
		return err
	}
	if err := pipeline.Run(ctx, plan, src, weights); err != nil {
		return err
	}
	return config.Commit()
}

// withCopy returns the tensors with what is to be stored twice.
func (c *Config) withCopy(src tensor.Source) (tensor.Source, error) {
	info, err := src.Info(c.copied)
	if c.copied == "" || err != nil || tensor.Has(src, c.as) {
		return src, nil
	}
	entries := []tensor.Entry{tensor.Forward(src, info, c.as)}
	for info := range src.All() {
		entries = append(entries, tensor.Forward(src, info, info.Name))
	}
	return tensor.NewTable(src.Meta(), entries)
}

// writePlan returns the plan of a file with the tensors of src.
func writePlan(src tensor.Source) (*pipeline.Plan, error) {
	infos := sorted(slices.Collect(src.All()))
	if len(infos) == 0 {
		return nil, fmt.Errorf("%w: no tensors to write", tensor.ErrMalformed)
	}
	plan := &pipeline.Plan{Meta: meta()}
	for _, info := range infos {
		out := tensor.Info{Name: prefix + info.Name, DType: tensor.F32, Shape: info.Shape}
		step := pipeline.Copy(info, out.Name)
		if info.DType != tensor.F32 {
			var err error
			if step, err = pipeline.Cast(codecs(), info.Name, out); err != nil {
				return nil, err
			}
		}
		plan.Steps = append(plan.Steps, step)
	}
	return plan, nil
}

// sorted sorts by name, as the reference writer of safetensors does with tensors of one
// dtype.
func sorted(infos []tensor.Info) []tensor.Info {
	return slices.SortedFunc(slices.Values(infos), func(a, b tensor.Info) int { return strings.Compare(a.Name, b.Name) })
}

func meta() tensor.Meta { return tensor.Meta{{Key: "format", Value: "pt"}} }

func codecs() tensor.Codecs { return tensor.NewCodecs(floats.Codecs()...) }
