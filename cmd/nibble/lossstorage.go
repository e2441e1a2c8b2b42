package main

import (
	"math"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/internal/distortion"
	"github.com/seed18967229/nibble/internal/report"
	"github.com/seed18967229/nibble/tensor"
)

// kindSums adds tensors up by how they are stored.
type kindSums struct {
	kinds []report.Kind
	sums  []distortion.Figures
	all   distortion.Figures // of what was quantized
}

func (s *kindSums) add(t *report.Tensor, coded bool) {
	at := -1
	for i, k := range s.kinds {
		if k.Type == t.Type {
			at = i
		}
	}
	if at < 0 {
		at = len(s.kinds)
		s.kinds, s.sums = append(s.kinds, report.Kind{Type: t.Type}), append(s.sums, distortion.Figures{})
	}
	k := &s.kinds[at]
	k.Tensors++
	k.Size = report.NewSize(k.Weights+t.Weights, k.Bytes+t.Bytes)
	if t.Error == nil {
		return
	}
	f := t.Error.Figures()
	s.sums[at].Add(&f)
	if coded {
		k.Error = report.NewLoss(s.sums[at])
		s.all.Add(&f)
	}
}

// storage says how the tensors of a model's view are stored on disk.
type storage struct {
	m     *model
	sizes map[string]int64 // of encodings that lie in several tensors
}

// storage finds out how the model is stored.
func (m *model) storage() *storage {
	s := &storage{m: m, sizes: make(map[string]int64)}
	if m.stored == nil || m.stored == tensor.Source(m.Input) {
		return s
	}
	for info := range m.Input.All() {
		if owner := m.ownerOf(info.Name); owner != "" {
			s.sizes[owner] += info.Size()
		}
	}
	return s
}

// ownerOf returns the quantized weight that a stored tensor is, or belongs to.
func (m *model) ownerOf(name string) string {
	for at := name; ; {
		for _, weight := range []string{at, at + ".weight"} {
			if info, err := m.stored.Info(weight); err == nil && info.DType.Opaque() {
				return weight
			}
		}
		dot := strings.LastIndexByte(at, '.')
		if dot < 0 {
			return ""
		}
		at = at[:dot]
	}
}

// origins returns the stored tensors that one of the view is made of.
func (s *storage) origins(name string) []string {
	if s.m.view == nil {
		return []string{name}
	}
	return s.m.view.Origin(name).From
}

// kind names how a tensor is stored.
func (s *storage) kind(name string) string { return kindsOf(s.m.original(), s.origins(name)) }

// quantized reports whether a tensor is stored in an encoding that no arithmetic is
// done in.
func (s *storage) quantized(name string) bool {
	for _, from := range s.origins(name) {
		if info, err := s.m.original().Info(from); err == nil && (info.DType.Opaque() || blockType(info.DType)) {
			return true
		}
	}
	return false
}

// bytes returns what a tensor of the view takes on disk: of one that holds several, its
// share.
func (s *storage) bytes(info tensor.Info) int64 {
	var n, elems int64
	for _, from := range s.origins(info.Name) {
		stored, err := s.m.original().Info(from)
		if err != nil {
			return info.Size()
		}
		elems += stored.Shape.Elems()
		if size, ok := s.sizes[from]; ok {
			n += size
		} else {
			n += stored.Size()
		}
	}
	if elems == 0 {
		return n
	}
	if own := info.Shape.Elems(); own != elems {
		return int64(math.Round(float64(n) * float64(own) / float64(elems)))
	}
	return n
}

// keptRoles says why matrices of some roles are not quantized.
var keptRoles = map[arch.Role]string{
	arch.Embedding: "embeddings: rows are looked up, not multiplied with",
	arch.Position:  "embeddings: rows are looked up, not multiplied with",
	arch.Head:      "output head",
	arch.Router:    "router: it picks the experts",
}

// keptBecause says why a tensor is not quantized that no rule of the run named.
func keptBecause(roles map[string]arch.Role, info tensor.Info) string {
	if len(info.Shape) < 2 {
		return "norms, biases and other vectors: few weights, and each matters"
	}
	if why := keptRoles[roles[info.Name]]; why != "" {
		return why
	}
	return "no linear layer of the model's blocks"
}
