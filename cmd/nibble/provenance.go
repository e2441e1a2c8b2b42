package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/seed18967229/nibble/formats/hf"
	"github.com/seed18967229/nibble/formats/modelcard"
	"github.com/seed18967229/nibble/formats/peft"
	"github.com/seed18967229/nibble/internal/hub"
	"github.com/seed18967229/nibble/internal/safeio"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train"
)

// provenanceKey is where a file's metadata say what was merged.
const provenanceKey = "nibble.merge"

// provenance is what a merged model was made of and how. Names are the last parts of
// paths and there is no date: equal merges give equal bytes.
type provenance struct {
	Nibble     string          `json:"nibble"`
	Arithmetic string          `json:"arithmetic"`
	Base       baseRecord      `json:"base"`
	Adapters   []adapterRecord `json:"adapters"`
}

type baseRecord struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`

	// Merge is what the base itself was merged of.
	Merge json.RawMessage `json:"merge,omitempty"`
}

type adapterRecord struct {
	Name   string  `json:"name"`
	Weight float64 `json:"weight"`

	// TrainedOn is what the adapter says of its base.
	TrainedOn string `json:"trained_on,omitempty"`

	// SHA256 are of the adapter's files.
	SHA256 map[string]string `json:"sha256"`
}

// provenanceOf says how a model is merged with adapters.
func provenanceOf(ctx context.Context, m *model, adapters []weighted, arithmetic string) (*provenance, error) {
	p := &provenance{Nibble: version, Arithmetic: arithmetic, Base: baseRecord{Name: m.name()}, Adapters: []adapterRecord{}}
	var err error
	if p.Base.Fingerprint, err = fingerprint(ctx, m.Input); err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	if before, ok := tensor.Lookup[string](m.Input.Meta(), provenanceKey); ok && json.Valid([]byte(before)) {
		p.Base.Merge = json.RawMessage(before)
	}
	for _, w := range adapters {
		r := adapterRecord{Name: lastOf(w.path), Weight: w.weight, SHA256: make(map[string]string)}
		paths, err := adapterFiles(w.path)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if r.SHA256[filepath.Base(path)], err = safeio.SHA256(ctx, path, func(int64) {}); err != nil {
				return nil, err
			}
			if filepath.Base(path) == peft.ConfigName {
				r.TrainedOn = hubBase(path)
			}
		}
		p.Adapters = append(p.Adapters, r)
	}
	return p, nil
}

// lastOf returns the last part of a path, as the directory is called, or of the name of
// the repository that it was fetched from.
func lastOf(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	if repo, commit, ok := hub.Origin(abs); ok && filepath.Base(abs) == commit {
		abs = repo
	}
	return filepath.Base(abs)
}

// adapterFiles lists the files that an adapter's numbers are in.
func adapterFiles(path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, safeio.WithPath(path, err)
	}
	if !st.IsDir() {
		return []string{path}, nil
	}
	var list []string
	for _, pattern := range []string{"adapter_config.json", "adapter_model.*", "adapters.*"} {
		found, err := filepath.Glob(filepath.Join(escapeGlob.Replace(path), pattern))
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

var escapeGlob = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

// hubBase returns what an adapter's configuration calls its base, if that is a name
// and no path on somebody's machine.
func hubBase(path string) string {
	text, err := safeio.ReadFile(path, 16<<20)
	var c struct {
		Base string `json:"base_model_name_or_path"`
	}
	if err != nil || json.Unmarshal(text, &c) != nil || !isHubName(c.Base) {
		return ""
	}
	return c.Base
}

// isHubName reports whether a name is that of a model on a hub: ORG/NAME.
func isHubName(s string) bool {
	org, name, ok := strings.Cut(s, "/")
	plain := func(s string) bool {
		return s != "" && s[0] != '.' && len(s) <= 96 && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
	}
	return ok && plain(org) && plain(name)
}

// The pieces of a tensor that a fingerprint looks at: their size, and how many there
// are of a tensor and of all at most.
const (
	pieceSize   = 4096
	mostPieces  = 16
	allPieces   = 8192
	wholeTensor = mostPieces * pieceSize
)

// fingerprint tells a model by its tensors' names, types and shapes and by pieces of
// their bytes: up to sixteen of 4 KiB, spread evenly, of each. Reading all bytes
// would take a processor half a second for each GB and delay the header that it is
// to stand in until the end; pieces take a few milliseconds. That tells models apart,
// and one that was trained on; a fault in a single number it may miss, which is what
// nibble verify --manifest is for. How the tensors are dealt out to files, and their
// order, do not matter.
func fingerprint(ctx context.Context, src tensor.Source) (string, error) {
	infos := slices.SortedFunc(src.All(), func(a, b tensor.Info) int { return cmp.Compare(a.Name, b.Name) })
	sums := make([][sha256.Size]byte, len(infos))
	errs := make([]error, len(infos))
	pieces := max(1, min(mostPieces, allPieces/max(1, int64(len(infos)))))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(4*runtime.GOMAXPROCS(0), len(infos)) {
		wg.Go(func() {
			for i := range next {
				if errs[i] = ctx.Err(); errs[i] == nil {
					sums[i], errs[i] = pieceSum(src, infos[i], pieces)
				}
			}
		})
	}
	for i := range infos {
		next <- i
	}
	close(next)
	wg.Wait()
	all := sha256.New()
	for i, info := range infos {
		if errs[i] != nil {
			return "", fmt.Errorf("tensor %q: %w", info.Name, errs[i])
		}
		fmt.Fprintf(all, "%q %v %v %x\n", info.Name, info.DType, info.Shape, sums[i])
	}
	return "sha256-pieces-1:" + hex.EncodeToString(all.Sum(nil)), nil
}

// baseFingerprint is that of the model as one that a run trains.
func (m *model) baseFingerprint(ctx context.Context) (f train.BaseFingerprint, err error) {
	f.Name = m.name()
	for info := range m.Input.All() {
		f.Tensors++
		f.Bytes += info.Size()
	}
	f.Sum, err = fingerprint(ctx, m.Input)
	return f, err
}

// pieceSum returns the hash of pieces of a tensor, or of all of it if it is small.
func pieceSum(src tensor.Source, info tensor.Info, pieces int64) (sum [sha256.Size]byte, err error) {
	r, err := src.Raw(info.Name)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	size := info.Size()
	if size <= wholeTensor {
		_, err = io.Copy(h, r)
		return [sha256.Size]byte(h.Sum(nil)), err
	}
	var buf [pieceSize]byte
	for i := range pieces {
		at := (size - pieceSize) / 2
		if pieces > 1 {
			at = (size - pieceSize) / (pieces - 1) * i
		}
		if n, err := r.ReadAt(buf[:], at); n < pieceSize {
			return sum, err
		}
		h.Write(buf[:])
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// encode returns the record as metadata hold it.
func (p *provenance) encode() string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and finite numbers only
	}
	return string(text)
}

// addTo puts the record into the metadata of a file, in place of an earlier one.
func (p *provenance) addTo(meta tensor.Meta) tensor.Meta {
	meta = slices.DeleteFunc(slices.Clone(meta), func(kv tensor.KV) bool { return kv.Key == provenanceKey })
	if p == nil {
		return meta
	}
	return append(meta, tensor.KV{Key: provenanceKey, Value: p.encode()})
}

// describe has a directory say what it was made of, in the metadata of its files and
// in its card. nil says that what it says of that is not true any more.
func (p *provenance) describe(m *model, plan *pipeline.Plan, o *dirOptions) error {
	plan.Meta = p.addTo(plan.Meta)
	if p == nil {
		return nil
	}
	text, err := m.readme()
	if err != nil {
		return err
	}
	card, notes := p.card(text)
	o.files, o.notes = append(o.files, card), append(o.notes, notes...)
	return nil
}

// card returns the README.md of the merged model, made of the base's, nil for none.
func (p *provenance) card(base []byte) (hf.SideFile, []string) {
	bases := []string{}
	relation := "finetune"
	if len(p.Adapters) > 1 {
		relation = "merge"
	}
	for _, a := range p.Adapters {
		if a.TrainedOn != "" && !slices.Contains(bases, a.TrainedOn) {
			bases = append(bases, a.TrainedOn)
		}
	}
	if len(bases) == 0 {
		bases = append(bases, p.Base.Name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "## Merged with nibble\n\nAdapters were added to the weights of a base by nibble %s (arithmetic: %s).\n\n", p.Nibble, p.Arithmetic)
	fmt.Fprintf(&b, "| | weight | SHA-256 |\n|---|---|---|\n| base %s | | %s |\n", modelcard.Cell(p.Base.Name), p.Base.Fingerprint)
	for _, a := range p.Adapters {
		var sums []string
		for _, name := range slices.Sorted(maps.Keys(a.SHA256)) {
			sums = append(sums, modelcard.Cell(name)+" "+a.SHA256[name])
		}
		fmt.Fprintf(&b, "| adapter %s | %v | %s |\n", modelcard.Cell(a.Name), a.Weight, strings.Join(sums, "<br>"))
	}
	b.WriteString("\nThe base's hash is of its tensors' names, types, shapes and of pieces of their bytes.\n")
	text, notes := modelcard.Derive(base, modelcard.Derivation{Bases: bases, Relation: relation, Tags: []string{"nibble", "merge"}, Section: b.String()})
	return hf.SideFile{Name: modelcard.ReadmeName, Data: text}, notes
}

// readme returns the text of a model's card, nil without one.
func (m *model) readme() ([]byte, error) {
	if m.gguf != nil {
		return m.gguf.Readme, nil
	}
	text, err := safeio.ReadFile(filepath.Join(m.HF.Path(), modelcard.ReadmeName), maxReadme)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// maxReadme is the longest card that is made into another.
const maxReadme = 16 << 20
