package main

import (
	"github.com/seed18967229/nibble/train/data"
)

// mostExamined is how many examples are looked at before a run.
const mostExamined = 1000

// examine looks at some of the examples for what data check finds and a run would learn for
// nothing: that no example ends, or that a template is not made for the rows.
func (a *app) examine(opt data.Options, set *data.Set) ([]finding, error) {
	d := &doctor{r: &dataCheckResult{}, o: opt, vocab: opt.Tokenizer.Vocab()}
	var stats data.Stats
	texts := false
	for _, f := range set.Files {
		if f.Part != "train" {
			continue
		}
		texts = texts || f.IsText()
		stats.Examples += f.Stats.Examples
		stats.Dropped += f.Stats.Dropped
		stats.Truncated += f.Stats.Truncated
		stats.Doubled += f.Stats.Doubled
		stats.Systems += f.Stats.Systems
	}
	if stats.Doubled > 0 {
		d.beginning(stats)
	}
	if d.rows, d.systems = int64(stats.Examples+stats.Dropped), int64(stats.Systems); d.systems > 0 && opt.Template != nil {
		d.system()
	}
	if !texts { // which are cut into windows that end anywhere
		if err := d.sample(set.Train, stats.Truncated == stats.Examples); err != nil {
			return nil, err
		}
	}
	var out []finding
	for _, f := range d.r.Checks {
		if f.Status == passed {
			continue
		}
		a.note("warning: %s: %s\n  %s", f.Name, f.Found, f.Todo)
		out = append(out, f)
	}
	return out, nil
}

// sample looks at whether any of some examples, spread evenly, has an end that is trained.
// cut says that all have lost theirs.
func (d *doctor) sample(set *data.Dataset, cut bool) error {
	t := &tally{lengths: counts{}}
	n := min(set.Len(), mostExamined)
	for i := range n {
		e, err := set.Example(int(int64(i) * int64(set.Len()) / int64(n)))
		if err != nil {
			return err
		}
		if d.count(t, e); t.ended > 0 {
			return nil
		}
	}
	if cut {
		t.cut = t.ends
	}
	d.ending(t)
	return nil
}
