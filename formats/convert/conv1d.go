package convert

import (
	"maps"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/tensor"
)

// bitsandbytes makes a linear layer of a Conv1D, whose weight a checkpoint holds
// as [in, out], and stores the weight as [out, in].

// OutIn returns the view with the weights of Conv1Ds as [out, in].
func (v *View) OutIn(m *arch.Model, codecs tensor.Codecs) (*View, error) {
	return v.turned(m, codecs, func(tensor.DType) bool { return true })
}

// InOut returns the view with the weights of Conv1Ds that are stored in an
// encoding of bitsandbytes as [in, out], decoded.
func (v *View) InOut(m *arch.Model, codecs tensor.Codecs) (*View, error) {
	return v.turned(m, codecs, func(d tensor.DType) bool { return d == tensor.NF4 || d == tensor.FP4 || d == tensor.INT8 })
}

// turned returns the view with the weights of Conv1Ds transposed that have a dtype
// to be turned.
func (v *View) turned(m *arch.Model, codecs tensor.Codecs, turn func(tensor.DType) bool) (*View, error) {
	conv1D := make(map[string]bool)
	for _, t := range m.Tensors() {
		if t.Transposed {
			conv1D[t.Name] = true
		}
	}
	out := &View{Origins: maps.Clone(v.Origins), Dropped: v.Dropped}
	var list []tensor.Entry
	changed := false
	for info := range v.All() {
		if !conv1D[info.Name] || !turn(info.DType) || len(info.Shape) != 2 {
			list = append(list, tensor.Forward(v, info, info.Name))
			continue
		}
		changed = true
		o := v.Origin(info.Name)
		o.Change = transpose
		if out.Origins == nil {
			out.Origins = make(map[string]Origin)
		}
		out.Origins[info.Name] = o
		list = append(list, transposed(v, codecs, info, info.Name))
	}
	if !changed {
		return v, nil
	}
	var err error
	out.Source, err = tensor.NewTable(v.Meta(), list)
	return out, err
}
