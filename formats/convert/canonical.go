package convert

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed18967229/nibble/arch"
	"github.com/seed18967229/nibble/pipeline"
	"github.com/seed18967229/nibble/tensor"
)

// Canonical returns the tensors of a checkpoint under the names that the
// family's table has, in the checkpoint's order:
//
//   - a checkpoint of the transformer alone lacks the name of the module it is
//     in ("layers.0..." for "model.layers.0...");
//   - that of a model of text and more has "language_model." somewhere;
//   - experts may be stacked, with gate and up in one tensor
//     (mlp.experts.gate_up_proj, as transformers 5 holds them).
//
// Left out, with the reason, are tensors of other parts than the text model and
// those that no model computes with. A name that the family does not know stays
// as it is, for the caller to refuse. Stored bytes are not touched.
func Canonical(src tensor.Source, m *arch.Model) (*View, error) {
	c := canonical{src: src, m: m, known: make(map[string]arch.Tensor), view: &View{Source: src, Origins: make(map[string]Origin)}}
	for _, t := range append(m.Tensors(), m.Extras()...) {
		c.known[t.Name] = t
	}
	var list []tensor.Entry
	for info := range src.All() {
		entries, err := c.entries(info)
		if err != nil {
			return nil, err
		}
		list = append(list, entries...)
	}
	if len(c.view.Origins) == 0 && len(c.view.Dropped) == 0 {
		return c.view, nil
	}
	var err error
	c.view.Source, err = tensor.NewTable(src.Meta(), list)
	return c.view, err
}

type canonical struct {
	src   tensor.Source
	m     *arch.Model
	known map[string]arch.Tensor
	view  *View
}

// entries returns what a stored tensor is in the family's names.
func (c *canonical) entries(info tensor.Info) ([]tensor.Entry, error) {
	plain := strings.ReplaceAll(info.Name, "language_model.", "")
	for _, name := range []string{info.Name, plain, c.m.Trunk + plain} {
		if _, ok := c.known[name]; ok {
			if name != info.Name {
				c.view.Origins[name] = Origin{From: []string{info.Name}}
			}
			return []tensor.Entry{tensor.Forward(c.src, info, name)}, nil
		}
	}
	for _, name := range []string{plain, c.m.Trunk + plain} {
		if list, err := c.experts(info, strings.TrimSuffix(name, ".weight")); list != nil || err != nil {
			return list, err
		}
	}
	if reason := c.unused(info.Name, plain); reason != "" {
		c.view.Dropped = append(c.view.Dropped, pipeline.Drop{Name: info.Name, Reason: reason})
		return nil, nil
	}
	return []tensor.Entry{tensor.Forward(c.src, info, info.Name)}, nil
}

// unused returns why a tensor is left out, "" if it is not.
func (c *canonical) unused(name, plain string) string {
	for _, end := range c.m.Unused {
		if strings.HasSuffix(plain, end) {
			return "no model of the family computes with it"
		}
	}
	if otherParts(name) {
		return OtherPart
	}
	return ""
}

// OtherPart is why a tensor that is not of the text model is left out.
const OtherPart = "not of the text model"

// Partial reports whether the model has parts that are not in the view, such as
// a vision tower.
func (v *View) Partial() bool {
	return slices.ContainsFunc(v.Dropped, func(d pipeline.Drop) bool { return d.Reason == OtherPart })
}

// otherParts reports whether a tensor belongs to a part of a model that is not
// text, by what llama.cpp's converter goes by (TextModel.filter_tensors in
// conversion/base.py).
func otherParts(name string) bool {
	for _, start := range []string{"mlp", "vit.", "vpm.", "siglip2.", "conformer.", "merger.", "resampler."} {
		if strings.HasPrefix(name, start) {
			return true
		}
	}
	for _, part := range []string{
		"visual.", "vision.", "vision_", "audio.", "audio_", "talker.", "token2wav.", "projector.", "pre_mm_projector_norm",
		"image_newline", "view_seperator", "patch_embed", "patch_merger.", "model.connector.",
	} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// experts cuts a tensor of stacked experts into those of each; nil if it is
// none. Two projections in one tensor lie one behind the other in each expert.
func (c *canonical) experts(info tensor.Info, name string) ([]tensor.Entry, error) {
	at := strings.LastIndex(name, ".experts.")
	if at < 0 {
		return nil, nil
	}
	module, proj := name[:at+len(".experts")], name[at+len(".experts."):]
	projections := []string{proj}
	if proj == "gate_up_proj" {
		projections = []string{"gate_proj", "up_proj"}
	}
	expert := func(p string, e int64) string { return fmt.Sprintf("%s.%d.%s.weight", module, e, p) }
	if _, ok := c.known[expert(projections[0], 0)]; !ok {
		return nil, nil
	}
	n := c.m.NumExperts
	if len(info.Shape) != 3 || info.Shape[0] != n || info.Shape[1]%int64(len(projections)) != 0 || info.DType.Opaque() {
		return nil, fmt.Errorf("tensor %q: %w: %v of %v, where there must be the rows of %d experts", info.Name, tensor.ErrUnsupported, info.DType, info.Shape, n)
	}
	rows := info.Shape[1] / int64(len(projections))
	size := rows * info.RowSize()
	var list []tensor.Entry
	for p, proj := range projections {
		for e := range n {
			part := tensor.Info{Name: expert(proj, e), DType: info.DType, Shape: tensor.Shape{rows, info.Shape[2]}}
			off := (e*int64(len(projections)) + int64(p)) * size
			c.view.Origins[part.Name] = Origin{[]string{info.Name}, unstack}
			list = append(list, slice(c.src, info.Name, part, off))
		}
	}
	return list, nil
}
