package merge

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
)

// layerNumber finds the number of the layer in a tensor's name.
var layerNumber = regexp.MustCompile(`^(.*?(?:^|\.)(?:layers|layer|h)\.)(\d+)(\..*)$`)

// maxReplicated is how many layers a model may be made of.
const maxReplicated = 1 << 14

// replicate returns base with its layers in another order, some of them more
// than once.
func replicate(base tensor.Source, ranges [][2]int64, e *Effect) (tensor.Source, error) {
	if len(ranges) == 0 {
		return base, nil
	}
	type layered struct {
		info        tensor.Info
		before, end string
	}
	layers := make(map[int64][]layered)
	var before, after []tensor.Info
	for info := range base.All() {
		part := layerNumber.FindStringSubmatch(info.Name)
		if part == nil {
			if len(layers) == 0 {
				before = append(before, info)
			} else {
				after = append(after, info)
			}
			continue
		}
		n, err := strconv.ParseInt(part[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w: %w", info.Name, tensor.ErrMalformed, err)
		}
		layers[n] = append(layers[n], layered{info, part[1], part[3]})
	}
	var entries []tensor.Entry
	for _, info := range before {
		entries = append(entries, tensor.Forward(base, info, info.Name))
	}
	for _, r := range ranges {
		if r[0] < 0 || r[1] < r[0] || r[1] > int64(len(layers)) {
			return nil, fmt.Errorf("%w: layer_replication has the layers %d to %d, the base has %d", tensor.ErrMalformed, r[0], r[1], len(layers))
		}
		for n := r[0]; n < r[1]; n++ {
			if e.Layers == maxReplicated {
				return nil, fmt.Errorf("%w: layer_replication makes more than %d layers", tensor.ErrMalformed, maxReplicated)
			}
			for _, l := range layers[n] {
				name := l.before + strconv.FormatInt(e.Layers, 10) + l.end
				entries = append(entries, tensor.Forward(base, l.info, name))
				e.Origins[name] = l.info.Name
			}
			e.Layers++
		}
	}
	for _, info := range after {
		entries = append(entries, tensor.Forward(base, info, info.Name))
	}
	e.Notes = append(e.Notes, fmt.Sprintf("layer_replication makes %d layers of %d", e.Layers, len(layers)))
	return tensor.NewTable(base.Meta(), entries)
}

// whole is a tensor that the adapter has in place of one of the base's.
type whole struct {
	name, target string
	wrapped      bool // the weight under a pair, saved along with it
}

// matchWhole finds the targets of the tensors that are in place of the base's, and
// makes the base as those want it.
func (m *matcher) matchWhole() error {
	var list []whole
	for _, name := range m.parts.whole {
		w := whole{name: name, wrapped: strings.Contains(name, baseLayer)}
		var ok bool
		if w.target, ok = m.names.find(strings.ReplaceAll(name, baseLayer, "")); !ok {
			if !m.isHead(w.target) {
				return hint.Add(fmt.Errorf("adapter tensor %q: %w: it is neither of a low-rank adapter, nor has the base a tensor %q", name, tensor.ErrMalformed, w.target),
					"was the adapter trained on another model?")
			}
			w.target = m.cfg.Head
		}
		if err := m.once("the whole of "+w.target, name); err != nil {
			return err
		}
		list = append(list, w)
	}
	if err := m.checkSaved(list); err != nil {
		return err
	}
	list, err := m.untie(list)
	if err != nil {
		return err
	}
	if err := m.resize(list); err != nil {
		return err
	}
	for _, w := range list {
		own, rows, err := m.codecs.OpenFrom(m.adapter, w.name)
		if err != nil {
			return err
		}
		info, err := m.base.Info(w.target)
		if err != nil {
			return err
		}
		if !own.Shape.Equal(info.Shape) {
			return hint.Add(fmt.Errorf("adapter tensor %q: %w: its shape is %v, that of the base's %s %v", w.name, tensor.ErrMalformed, own.Shape, w.target, info.Shape),
				"was the adapter trained on another model?")
		}
		m.add(w.target, &replacement{w.target, rows})
		if m.cfg.Arithmetic != Once {
			m.add(w.target, &roundTo{w.target, m.cfg.held(info)})
		}
	}
	return nil
}

// roundTo is what loading into a weight of another type does.
type roundTo struct {
	target string
	to     tensor.DType
}

// Target implements Change.
func (r *roundTo) Target() string { return r.target }

// Apply implements Change.
func (r *roundTo) Apply(w []float32, _ int64) error {
	round(w, r.to)
	return nil
}

// saved reports whether the configuration asks for a module to be trained whole.
func (c Config) saved(tensor string) bool {
	module := tensor[:max(0, strings.LastIndexByte(tensor, '.'))]
	return slices.ContainsFunc(c.Saved, func(s string) bool { return strings.HasSuffix(module, s) })
}

// checkSaved compares the whole tensors with what the configuration asks for.
func (m *matcher) checkSaved(list []whole) error {
	var strange []string
	for _, w := range list {
		bias := strings.HasSuffix(w.target, ".bias") && m.cfg.Bias != "" && m.cfg.Bias != "none"
		if !w.wrapped && !bias && !m.cfg.saved(w.name) && !m.cfg.saved(w.target) && w.target != m.cfg.Embedding && w.target != m.cfg.Head {
			strange = append(strange, w.name)
		}
	}
	for _, s := range m.cfg.Saved {
		if !slices.ContainsFunc(list, func(w whole) bool {
			one := Config{Saved: []string{s}}
			return !w.wrapped && (one.saved(w.name) || one.saved(w.target))
		}) {
			return hint.Add(fmt.Errorf("%w: modules_to_save names %q, of which the adapter has no tensor", tensor.ErrMalformed, s),
				"the weights are incomplete, or adapter_config.json does not belong to them")
		}
	}
	if len(strange) > 0 {
		m.note("%d tensors of the base are replaced though the configuration does not say so: %s", len(strange), strange[0])
	}
	return nil
}

// untie gives the head a tensor of its own if that is asked for, or if the
// adapter makes head and embedding differ. It returns the tensors that are left
// to be put in place.
func (m *matcher) untie(list []whole) ([]whole, error) {
	if m.cfg.Head == "" || tensor.Has(m.base, m.cfg.Head) {
		if m.cfg.Untie {
			m.note("the head has a tensor of its own already, so there is nothing to untie")
		}
		return list, nil
	}
	at := func(target string) int {
		return slices.IndexFunc(list, func(w whole) bool { return w.target == target })
	}
	e, h := at(m.cfg.Embedding), at(m.cfg.Head)
	why := ""
	switch {
	case m.cfg.Untie:
		why = "as asked for"
	case e >= 0 && h >= 0:
		equal, err := same(m.adapter, list[e].name, list[h].name)
		if err != nil {
			return nil, err
		}
		if equal {
			return slices.Delete(list, h, h+1), nil
		}
		why = "the adapter holds others for it than for the embedding"
	case h >= 0 && !list[h].wrapped && m.cfg.saved(list[h].name):
		why = "it was trained whole"
	case e >= 0 && !list[e].wrapped && m.cfg.saved(list[e].name) && !m.cfg.TiedAdapter:
		why = "the embedding was trained whole and it was not"
	}
	if why == "" {
		if h >= 0 {
			list[h].target = m.cfg.Embedding
		}
		return list, nil
	}
	m.note("the head, which was the embedding, gets a tensor of its own: %s", why)
	info, err := m.base.Info(m.cfg.Embedding)
	if err != nil {
		return nil, err
	}
	m.effect.Untied = true
	m.effect.Origins[m.cfg.Head] = m.cfg.Embedding
	return list, m.rebase(func(info tensor.Info) tensor.Entry { return tensor.Forward(m.base, info, info.Name) },
		tensor.Forward(m.base, info, m.cfg.Head))
}

// rebase makes the base of entries for its tensors and more.
func (m *matcher) rebase(entry func(tensor.Info) tensor.Entry, more ...tensor.Entry) error {
	var entries []tensor.Entry
	for info := range m.base.All() {
		entries = append(entries, entry(info))
	}
	base, err := tensor.NewTable(m.base.Meta(), append(entries, more...))
	if err != nil {
		return err
	}
	m.base = base
	return nil
}

// resize gives embedding and head of the base as many rows as the adapter has for
// them: the vocabulary had another size in training.
func (m *matcher) resize(list []whole) error {
	resized := make(map[string]string)
	for _, w := range list {
		if w.target != m.cfg.Embedding && w.target != m.cfg.Head {
			continue
		}
		own, err := m.adapter.Info(w.name)
		if err != nil {
			return err
		}
		info, err := m.base.Info(w.target)
		if err != nil {
			return err
		}
		if len(own.Shape) != 2 || len(info.Shape) != 2 || own.Shape[1] != info.Shape[1] || own.Shape[0] == info.Shape[0] {
			continue
		}
		if m.effect.Vocabulary != 0 && m.effect.Vocabulary != own.Shape[0] {
			return fmt.Errorf("adapter tensor %q: %w: %d rows, the other of embedding and head has %d", w.name, tensor.ErrMalformed, own.Shape[0], m.effect.Vocabulary)
		}
		m.effect.Vocabulary = own.Shape[0]
		resized[w.target] = w.name
	}
	if len(resized) == 0 {
		return nil
	}
	for _, name := range []string{m.cfg.Embedding, m.cfg.Head} {
		if info, err := m.base.Info(name); err == nil && resized[name] == "" && info.Shape.Rows() != m.effect.Vocabulary {
			return hint.Add(fmt.Errorf("%w: the adapter makes the vocabulary %d tokens, but holds no %q for it", tensor.ErrMalformed, m.effect.Vocabulary, name),
				"save the adapter again with save_embedding_layers=True")
		}
	}
	for name := range resized {
		info, err := m.base.Info(name)
		if err != nil {
			return err
		}
		m.note("the adapter makes the vocabulary %d tokens of %d", m.effect.Vocabulary, info.Shape.Rows())
		break
	}
	return m.rebase(func(info tensor.Info) tensor.Entry {
		if by := resized[info.Name]; by != "" {
			return m.extended(info, by)
		}
		return tensor.Forward(m.base, info, info.Name)
	})
}

// extended returns the entry of a tensor of the base with as many rows as the
// adapter has for it: its own, and from there on the adapter's.
func (m *matcher) extended(info tensor.Info, by string) tensor.Entry {
	base, rows := m.base, info.Shape.Rows()
	out := tensor.Info{Name: info.Name, DType: m.cfg.held(info), Shape: tensor.Shape{m.effect.Vocabulary, info.Shape.Cols()}}
	return tensor.Entry{Info: out, Open: func() (io.ReaderAt, error) {
		_, own, err := m.codecs.OpenFrom(base, info.Name)
		if err != nil {
			return nil, err
		}
		_, more, err := m.codecs.OpenFrom(m.adapter, by)
		if err != nil {
			return nil, err
		}
		enc, err := m.codecs.Encoder(out.DType)
		if err != nil {
			return nil, err
		}
		return tensor.Compute(out, &joined{own, more, rows, info.Shape.Cols()}, nil, enc).Open()
	}}
}

// joined is rows of one tensor and, from some row on, those of another.
type joined struct {
	first, second tensor.Rows
	at, cols      int64
}

// ReadRows implements tensor.Rows.
func (j *joined) ReadRows(dst []float32, row int64) error {
	if n := min((j.at-row)*j.cols, int64(len(dst))); n > 0 {
		if err := j.first.ReadRows(dst[:n], row); err != nil {
			return err
		}
		dst, row = dst[n:], j.at
	}
	if len(dst) == 0 {
		return nil
	}
	return j.second.ReadRows(dst, row)
}

// lazyRows is rows of a tensor that is opened when it is first read.
type lazyRows struct {
	open func() (tensor.Rows, error)
	once sync.Once
	rows tensor.Rows
	err  error
}

// ReadRows implements tensor.Rows.
func (l *lazyRows) ReadRows(dst []float32, row int64) error {
	if l.once.Do(func() { l.rows, l.err = l.open() }); l.err != nil {
		return l.err
	}
	return l.rows.ReadRows(dst, row)
}
