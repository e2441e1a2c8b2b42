package main

import (
	"fmt"
	"io"

	"github.com/seed18967229/nibble/formats/vocab"
	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/engine"
)

// klResult is how far a model's predictions are from a base's, by the figures of
// llama-perplexity --kl-divergence. Divergences are in nats, shares and
// probabilities from 0 to 1.
type klResult struct {
	Base   string `json:"base"`
	Rule   string `json:"rule"` // the pass that the tokens are of: llamaRule, or eval
	Tokens int    `json:"tokens"`

	Perplexity     engine.Figure `json:"perplexity"`
	BasePerplexity engine.Figure `json:"base_perplexity"`
	LogRatio       engine.Figure `json:"log_perplexity_ratio"`

	Mean   engine.Figure `json:"mean"`
	Median float64       `json:"median"`
	P99    float64       `json:"p99"`
	Max    float64       `json:"max"`

	SameTop   engine.Figure `json:"same_top"`
	RMSDeltaP engine.Figure `json:"rms_delta_p"`
}

func newKL(base, rule string, d *engine.Divergence) *klResult {
	p := d.Percentiles(0.5, 0.99, 1)
	return &klResult{
		Base: base, Rule: rule, Tokens: d.Labels(),
		Perplexity: d.Perplexity(), BasePerplexity: d.BasePerplexity(), LogRatio: d.LogRatio(),
		Mean: d.KL(), Median: p[0], P99: p[1], Max: p[2],
		SameTop: d.SameTop(), RMSDeltaP: d.RMSDeltaP(),
	}
}

func (r *klResult) text(w io.Writer) {
	fmt.Fprintf(w, "  against           %s, %s tokens of %s\n", r.Base, thousands(int64(r.Tokens)), r.Rule)
	fmt.Fprintf(w, "    perplexity      %.4f ± %.4f, the base's %.4f ± %.4f, ln of the ratio %.6f ± %.6f\n",
		r.Perplexity.Value, r.Perplexity.Uncertainty, r.BasePerplexity.Value, r.BasePerplexity.Uncertainty, r.LogRatio.Value, r.LogRatio.Uncertainty)
	fmt.Fprintf(w, "    KL divergence   %.6f ± %.6f nats; median %.6f, 99%% %.6f, greatest %.6f\n", r.Mean.Value, r.Mean.Uncertainty, r.Median, r.P99, r.Max)
	fmt.Fprintf(w, "    same top token  %.3f ± %.3f %%\n", 100*r.SameTop.Value, 100*r.SameTop.Uncertainty)
	fmt.Fprintf(w, "    right token     probability off by %.3f ± %.3f %% (RMS)\n", 100*r.RMSDeltaP.Value, 100*r.RMSDeltaP.Uncertainty)
}

// openBase opens the model that m, with the vocabulary v, is to be compared with.
func openBase(path string, m *model, v *vocab.Vocab) (*model, error) {
	base, err := openModel(path)
	if err != nil {
		return nil, err
	}
	if err := sameVocab(m, v, base); err != nil {
		base.Close()
		return nil, err
	}
	return base, nil
}

// sameVocab returns an error unless the tokens of two models are the same.
func sameVocab(m *model, v *vocab.Vocab, base *model) error {
	other, err := base.vocab()
	if err != nil {
		return err
	}
	differ := func(what string, args ...any) error {
		return hint.Add(fmt.Errorf("%s and %s: %w: different vocabularies: %s", m.Path, base.Path, tensor.ErrUnsupported, fmt.Sprintf(what, args...)),
			"compare a model with the one that it was made from")
	}
	if m.arch.VocabSize != base.arch.VocabSize {
		return differ("%d logits and %d", m.arch.VocabSize, base.arch.VocabSize)
	}
	if len(v.Pieces) != len(other.Pieces) {
		return differ("%d tokens and %d", len(v.Pieces), len(other.Pieces))
	}
	for i, p := range v.Pieces {
		if q := other.Pieces[i]; p.Text != q.Text {
			return differ("token %d is %q and %q", i, p.Text, q.Text)
		}
	}
	return nil
}
