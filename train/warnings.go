package train

import (
	"fmt"
	"math"
	"slices"
)

// A warning is something a run points out, once, that costs people days if nobody does.
// of returns what there is to say after a step whose record is rec, "" for nothing.
type warning struct {
	name string
	of   func(r *Run, rec *Record) string
}

var warnings = []warning{
	{"guessing", (*Run).guessing},
	{"still", (*Run).still},
	{"diverging", (*Run).diverging},
	{"spike", (*Run).spike},
	{"overfitting", (*Run).overfitting},
}

// warn adds to the record what there is to point out.
func (r *Run) warn(rec *Record) {
	for _, w := range warnings {
		if slices.Contains(r.state.Warned, w.name) {
			continue
		}
		if text := w.of(r, rec); text != "" {
			rec.Notes = append(rec.Notes, text)
			r.state.Warned = append(slices.Clone(r.state.Warned), w.name) // a checkpoint has the list
		}
	}
}

// losses returns those of up to n steps until rec, in their order.
func (r *Run) losses(rec *Record, n int) []float64 {
	out := []float64{rec.Loss}
	for _, x := range slices.Backward(r.log) {
		if len(out) == n || x.Step == 0 {
			break
		}
		out = append(out, x.Loss)
	}
	slices.Reverse(out)
	return out
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// guessing looks whether the loss is what a model has that knows nothing.
func (r *Run) guessing(rec *Record) string {
	const after, window, within = 20, 10, 0.02
	if rec.Step < after && (rec.Step < window || rec.Step != r.steps) {
		return ""
	}
	vocab := r.engine.Vocab()
	guess := math.Log(float64(vocab))
	if m := mean(r.losses(rec, window)); math.Abs(m-guess) <= within*guess {
		return fmt.Sprintf("after %d steps the loss is %.4f, and guessing among %d tokens has %.4f: the model predicts nothing. Do the weights, the tokenizer and the data belong together, and is the learning rate neither too low nor too high?",
			rec.Step, m, vocab, guess)
	}
	return ""
}

// still looks whether what is trained moves.
func (r *Run) still(rec *Record) string {
	const after = 5
	steps := min(after, r.steps)
	if steps > 1 && rec.LearningRate > 0 {
		if last := r.losses(rec, after); len(last) == after && slices.Min(last) == slices.Max(last) {
			return fmt.Sprintf("the loss has been exactly %v for %d steps: nothing that is trained has an effect on it", rec.Loss, after)
		}
	}
	if r.state.Still < steps {
		return ""
	}
	why := fmt.Sprintf("the gradient's norm is %.3g and the learning rate %.3g, so the updates are lost in rounding", rec.GradNorm, rec.LearningRate)
	if rec.GradNorm == 0 {
		why = "the gradient is 0"
	}
	return fmt.Sprintf("what is trained has not changed in %d steps: %s", r.state.Still, why)
}

// diverging looks whether the loss has gone up from the start, and stays there: beyond
// what it began with, twice, or beyond what a model has that knows nothing.
func (r *Run) diverging(rec *Record) string {
	const early, after, margin = 20, 5, 0.5
	first := r.state.FirstLoss
	limit := max(2*first, first+margin)
	if guess := math.Log(float64(r.engine.Vocab())) + margin; first < guess {
		limit = min(limit, guess)
	}
	last := r.losses(rec, after)
	if first == 0 || rec.Step > early || len(last) < after || slices.Min(last) <= limit {
		return ""
	}
	return fmt.Sprintf("the loss began at %.4f and has been above %.4f for %d steps: the learning rate, %v, is too high. End the run, and give a lower --learning-rate or more --warmup-steps",
		first, limit, after, rec.LearningRate)
}

// spike looks whether the loss has jumped.
func (r *Run) spike(rec *Record) string {
	const window = 20
	all := r.losses(rec, window+1)
	if len(all) <= window {
		return ""
	}
	before := all[:window]
	m, square := mean(before), 0.0
	for _, x := range before {
		square += (x - m) * (x - m)
	}
	if over := rec.Loss - m; over > m/2 && over > 6*math.Sqrt(square/window) {
		return fmt.Sprintf("the loss jumped from %.4f, its mean over %d steps, to %.4f: a row of the data may be unlike the others; if it stays so, a lower --learning-rate or a lower --max-grad-norm may help",
			m, window, rec.Loss)
	}
	return ""
}

// overfitting looks whether the validation loss rises while that of the training falls.
func (r *Run) overfitting(rec *Record) string {
	if rec.EvalLoss == nil {
		return ""
	}
	// The last three evaluations, the newest first, and the losses of the steps that led
	// to the newer two.
	evals := []float64{*rec.EvalLoss}
	trained := [2][]float64{{rec.Loss}}
	for _, x := range slices.Backward(r.log) {
		if x.EvalLoss != nil {
			if evals = append(evals, *x.EvalLoss); len(evals) == 3 {
				break
			}
		}
		if x.Step > 0 {
			at := len(evals) - 1
			trained[at] = append(trained[at], x.Loss)
		}
	}
	if len(evals) < 3 || len(trained[1]) == 0 || evals[0] <= 1.01*evals[1] || evals[1] <= evals[2] || mean(trained[0]) >= mean(trained[1]) {
		return ""
	}
	return fmt.Sprintf("the validation loss rises (%.4f, %.4f, %.4f) while the training loss falls (%.4f, %.4f): the model learns its rows by heart. --load-best-model-at-end takes the best one, --early-stopping-patience ends such a run",
		evals[2], evals[1], evals[0], mean(trained[1]), mean(trained[0]))
}
