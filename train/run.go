package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/seed18967229/nibble/internal/hint"
	"github.com/seed18967229/nibble/internal/kernel"
	"github.com/seed18967229/nibble/internal/scratch"
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
	"github.com/seed18967229/nibble/train/engine"
	"github.com/seed18967229/nibble/train/model"
	"github.com/seed18967229/nibble/train/optim"
	"github.com/seed18967229/nibble/train/pages"
)

// Examples is a set of examples that are made when they are asked for. Those of a
// data.Dataset may be others in another epoch.
type Examples interface {
	Len() int
	Example(i int) (data.Example, error)
}

// Run is one fine-tuning run.
type Run struct {
	cfg    Config
	engine *engine.Engine
	pages  *pages.Store
	filled bool // what is trained has values
	opt    optim.Optimizer
	lr     optim.Schedule

	train, valid Examples
	steps        int
	examples     int64 // to be taken in all
	order        order

	out   Output
	log   []Record
	state State
	saved int         // the step of the last checkpoint, 0 for none
	asked func() bool // whether to save now
	moved bool        // something that is trained has changed in this step
}

// New prepares a run over training and validation examples (valid may be nil), as
// planned. The configuration must be valid. Of the plan, the choices and the room for a
// step count; without the latter it is made at the first.
func New(base Base, cfg Config, train, valid Examples, plan *Plan, out Output) (*Run, error) {
	if train.Len() == 0 {
		return nil, fmt.Errorf("%w: there are no training examples", tensor.ErrMalformed)
	}
	if err := cfg.CheckData(valid != nil); err != nil {
		return nil, err
	}
	t, params, err := NewTrainable(base.Arch, base.Source, base.Codecs, &cfg)
	if err != nil {
		return nil, err
	}
	cfg.prepare(params)
	opt, err := optim.New(cfg.Optimizer, cfg.options())
	if err != nil {
		return nil, err
	}
	store, err := pages.New(params, opt, pages.Options{Paged: plan.PagedParams, Scratch: plan.Scratch})
	if err != nil {
		return nil, err
	}
	eng, err := engine.New(base.Source, base.Codecs, base.Arch, t, engine.Options{
		Choices: plan.Choices, Batches: plan.Batches, Tokens: plan.Tokens, Positions: cfg.MaxSeqLength, Pager: store,
	})
	if err != nil {
		store.Close()
		return nil, err
	}
	r := &Run{
		cfg: cfg, engine: eng, pages: store, opt: opt, train: train, valid: valid, out: out,
		order: order{seed: cfg.Seed, n: train.Len()},
		asked: func() bool { return false },
		state: State{TrainExamples: train.Len(), Base: base.Fingerprint, Config: cfg},
	}
	if d, ok := train.(*data.Dataset); ok {
		r.state.Data = d.Fingerprints()
	}
	r.steps, r.examples = cfg.steps(train.Len())
	r.lr = cfg.schedule(r.steps)
	return r, nil
}

// Close releases what the run holds.
func (r *Run) Close() {
	r.engine.Close()
	r.pages.Close()
}

// Steps returns the number of steps of the whole run.
func (r *Run) Steps() int { return r.steps }

// Params returns what is trained. Those that are not paged have their values in memory
// once the run has begun.
func (r *Run) Params() []*optim.Param { return r.pages.Params() }

// Trained returns the values of what is trained as they are now.
func (r *Run) Trained() tensor.Source { return r.pages.Values() }

// Stats returns what has been read, written and waited for of what is trained.
func (r *Run) Stats() scratch.Stats { return r.pages.Stats() }

// Engine returns the engine, with the adapters as they are, to evaluate or
// generate.
func (r *Run) Engine() *engine.Engine { return r.engine }

// Resume makes the run go on from a checkpoint. It returns an error if the
// checkpoint is not of such a run.
func (r *Run) Resume(c Checkpoint) error {
	if err := r.cfg.SameRun(&c.State.Config); err != nil {
		return err
	}
	if err := sameBase(r.state.Base, c.State.Base); err != nil {
		return err
	}
	if err := data.Same(r.state.Data, c.State.Data); err != nil {
		return err
	}
	if c.State.TrainExamples != r.train.Len() {
		return hint.Add(fmt.Errorf("the training data has %d examples, but had %d when the run began", r.train.Len(), c.State.TrainExamples),
			"resume with the data of the first run, or start a new one")
	}
	if c.State.Step > r.steps {
		return hint.Add(fmt.Errorf("the run to be resumed has done %d steps, and %d are asked for", c.State.Step, r.steps),
			"ask for more with --iters or --epochs")
	}
	if err := r.pages.Load(c.Trained, c.Optimizer); err != nil {
		return err
	}
	r.filled = true
	r.log = slices.Clone(c.Log)
	now, base := r.state.Data, r.state.Base
	r.state, r.saved = c.State, c.State.Step
	r.state.Data, r.state.Base = now, base
	r.state.Config = r.cfg
	return nil
}

// fill gives what is trained its first values, unless it has some.
func (r *Run) fill() error {
	if r.filled {
		return nil
	}
	r.filled = true
	return r.pages.Init()
}

// Train goes through the remaining steps. When ctx is done it finishes the step
// it is at, saves a checkpoint and returns the cause.
func (r *Run) Train(ctx context.Context) (State, error) {
	// A step is never cut in two.
	whole := context.WithoutCancel(ctx)
	start := time.Now()
	if err := r.fill(); err != nil {
		return r.state, err
	}
	if r.state.Step == 0 && (r.valid != nil || r.cfg.Sampler != nil) {
		var rec Record
		if err := r.look(whole, &rec, false); err != nil {
			return r.state, err
		}
		if err := r.record(rec); err != nil {
			return r.state, err
		}
	}
	for r.state.Step < r.steps && r.Stopped() == "" {
		rec, err := r.step(whole)
		if err != nil {
			return r.state, fmt.Errorf("step %d: %w", r.state.Step+1, err)
		}
		rec.Elapsed = time.Since(start).Seconds()
		last := r.state.Step == r.steps
		if err := r.look(whole, &rec, last); err != nil {
			return r.state, err
		}
		r.warn(&rec)
		if err := r.record(rec); err != nil {
			return r.state, err
		}
		last = last || r.Stopped() != ""
		stopped := ctx.Err() != nil && !last
		best := rec.Best && r.cfg.LoadBestModelAtEnd
		if due(r.state.Step, r.cfg.SaveEvery) || best || last || stopped || r.asked() {
			if err := r.out.Save(r.checkpoint()); err != nil {
				return r.state, err
			}
			r.saved = r.state.Step
		}
		if stopped {
			return r.state, context.Cause(ctx)
		}
	}
	return r.state, nil
}

// SaveWhen has a checkpoint saved after each step for which asked reports that.
func (r *Run) SaveWhen(asked func() bool) { r.asked = asked }

func (r *Run) record(rec Record) error {
	r.log = append(r.log, rec)
	return r.out.Log(rec)
}

func due(step, every int) bool { return every > 0 && step%every == 0 }

func (r *Run) checkpoint() Checkpoint {
	return Checkpoint{Trained: r.pages.Values(), Optimizer: r.pages.State(), Log: r.log, State: r.state}
}

// step does one optimizer step.
func (r *Run) step(ctx context.Context) (Record, error) {
	start := time.Now()
	step := r.state.Step + 1
	batches, taken, err := r.batches()
	if err != nil {
		return Record{}, err
	}
	labels, tokens := 0, 0
	for _, b := range batches {
		labels += b.NumLabels()
		tokens += len(b.Tokens)
	}
	if labels == 0 {
		return Record{}, fmt.Errorf("%w: none of its %d examples has a token to be trained on", tensor.ErrMalformed, taken)
	}
	r.pages.Begin()
	before := r.disk()
	key := func(k int) uint64 { return r.cfg.Seed ^ uint64(step)<<24 ^ uint64(k) }
	sums, err := r.engine.Grad(ctx, batches, key, 1/float32(labels))
	var loss float64
	for _, s := range sums {
		loss += s
	}
	loss /= float64(labels)
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		// It comes before the gradients that it spoils.
		return Record{}, r.diverged(fmt.Errorf("the loss is %v, %w", loss, optim.ErrNotFinite))
	}
	if err != nil {
		return Record{}, r.diverged(err)
	}
	norm, err := r.pages.Norm()
	if err != nil {
		return Record{}, r.diverged(err)
	}
	lr := r.lr.At(step)
	r.moved = false
	if err := r.update(step, lr, optim.ClipScale(norm, r.cfg.MaxGradNorm)); err != nil {
		return Record{}, r.diverged(err)
	}

	if step == 1 {
		r.state.FirstLoss = loss
	}
	r.state.Step = step
	r.state.Examples += int64(taken)
	r.state.NumTokens += int64(labels)
	r.state.Epoch = float64(r.state.Examples) / float64(r.train.Len())
	switch {
	case r.moved:
		r.state.Still = 0
	case lr > 0:
		r.state.Still++
	}
	after := r.disk()
	return Record{
		Step: step, Epoch: r.state.Epoch, Loss: loss, GradNorm: norm, LearningRate: lr, NumTokens: r.state.NumTokens,
		TokensPerSecond: float64(tokens) / time.Since(start).Seconds(),
		BytesRead:       after.Read - before.Read, BytesWritten: after.Written - before.Written,
		DiskWait: (after.Waited - before.Waited).Seconds(),
	}, nil
}

// disk adds up what has gone to files and back.
func (r *Run) disk() scratch.Stats {
	e := r.engine.Stats()
	return r.pages.Stats().Add(e.Scratch).Add(scratch.Stats{Read: e.BytesRead + e.HeadRead, Waited: e.Waited})
}

// update changes everything that is trained by its gradient times scale.
func (r *Run) update(step int, lr float64, scale float32) error {
	round := optim.Rounding{Stochastic: r.cfg.BF16StochasticRound, Seed: r.cfg.Seed}
	return r.pages.Update(func(p *optim.Param, state [][]byte) error {
		if scale != 1 {
			kernel.Scale(p.Grad, scale)
		}
		var before probe
		if !r.moved {
			before.look(p.Data)
		}
		r.opt.Step(step, p.Rate(lr), p, state)
		round.Round(step, p)
		r.moved = r.moved || before.changed(p.Data)
		if top := float64(kernel.Absmax(p.Data)); math.IsNaN(top) || math.IsInf(top, 0) {
			err := fmt.Errorf("tensor %q is %w after the update", p.Name, optim.ErrNotFinite)
			if p.Layer >= 0 {
				err = fmt.Errorf("block %d: %w", p.Layer, err)
			}
			return err
		}
		return nil
	})
}

// diverged says what may help if something is not finite.
func (r *Run) diverged(err error) error {
	if !errors.Is(err, optim.ErrNotFinite) {
		return err
	}
	const todo = "a lower --learning-rate or a lower --max-grad-norm may help"
	if r.saved == 0 {
		return hint.Add(err, todo)
	}
	return hint.Add(err, "%s; the last checkpoint is still good, that of step %d", todo, r.saved)
}

// batches makes the micro-batches of the next step and returns how many
// examples they hold.
func (r *Run) batches() (out []*model.Batch, taken int, err error) {
	left := min(int64(r.cfg.perStep()), r.examples-r.state.Examples)
	for taken < int(left) {
		b := &model.Batch{}
		for range min(r.cfg.BatchSize, int(left)-taken) {
			ex, err := r.example(r.state.Examples + int64(taken))
			if err != nil {
				return nil, 0, err
			}
			b.AddDocuments(ex.Tokens, ex.Loss, ex.Ends)
			taken++
		}
		out = append(out, b)
	}
	return out, taken, nil
}

// example returns the training example at a position of the whole run.
func (r *Run) example(pos int64) (data.Example, error) {
	epoch, i := r.order.at(pos)
	if d, ok := r.train.(*data.Dataset); ok {
		return d.ExampleOf(epoch, i)
	}
	return r.train.Example(i)
}

// order is the sequence in which examples are taken: each epoch a permutation
// of its own.
type order struct {
	seed  uint64
	n     int
	epoch int64
	perm  []int32
}

// at returns the epoch and the example at a position of the whole run.
func (o *order) at(pos int64) (epoch int64, i int) {
	epoch = pos / int64(o.n)
	if o.perm == nil || o.epoch != epoch {
		o.perm, o.epoch = data.Permutation(o.seed, epoch, o.n), epoch
	}
	return epoch, int(o.perm[pos%int64(o.n)])
}

// Evaluate returns the mean loss over the labels of the first ValBatches
// batches of the examples.
func (r *Run) Evaluate(ctx context.Context, set Examples) (float64, error) {
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := set.Len()
	if r.cfg.ValBatches >= 0 {
		n = min(n, r.cfg.ValBatches*r.cfg.BatchSize)
	}
	sum, labels, err := engine.Evaluate(ctx, r.engine, n, r.cfg.BatchSize*r.cfg.GradAccumulationSteps, func(b *model.Batch, i int) error {
		ex, err := set.Example(i)
		if err == nil {
			b.AddDocuments(ex.Tokens, ex.Loss, ex.Ends)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	if labels == 0 {
		return 0, fmt.Errorf("%w: the validation data has no token that loss is taken on", tensor.ErrMalformed)
	}
	loss := sum / float64(labels)
	return loss, r.finite(loss)
}
