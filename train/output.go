package train

import (
	"github.com/seed18967229/nibble/tensor"
	"github.com/seed18967229/nibble/train/data"
)

// Output is where a run puts what it makes.
type Output interface {
	// Log takes the record of a step, as it is made.
	Log(r Record) error

	// Save stores a checkpoint, whole or not at all.
	Save(c Checkpoint) error
}

// Record is what is known of one step; that of step 0 holds the evaluation
// before training. The names are those of transformers' trainer.
type Record struct {
	Step         int     `json:"step"`
	Epoch        float64 `json:"epoch"`
	Loss         float64 `json:"loss,omitempty"`
	GradNorm     float64 `json:"grad_norm,omitempty"`
	LearningRate float64 `json:"learning_rate"`

	// EvalLoss is the loss on the validation data after the step, if it was
	// taken.
	EvalLoss *float64 `json:"eval_loss,omitempty"`

	// NumTokens counts the trained tokens so far: those loss was taken on.
	NumTokens int64 `json:"num_tokens"`

	// TokensPerSecond counts all tokens of the step, Elapsed the seconds since
	// the run began or was resumed.
	TokensPerSecond float64 `json:"tokens_per_second,omitempty"`
	Elapsed         float64 `json:"elapsed,omitempty"`

	// BytesRead and BytesWritten are those of files in the step: of the base, of what is
	// trained and of what was put on disk meanwhile. DiskWait is how many seconds were
	// spent waiting for them.
	BytesRead    int64   `json:"bytes_read,omitempty"`
	BytesWritten int64   `json:"bytes_written,omitempty"`
	DiskWait     float64 `json:"disk_wait,omitempty"`

	// Samples are what the model made of the fixed prompts after the step, if they were
	// asked for.
	Samples []Sample `json:"samples,omitempty"`

	// Best says that no evaluation after an earlier step had as low a loss.
	Best bool `json:"best,omitempty"`

	// Notes are what is worth a warning about the step.
	Notes []string `json:"notes,omitempty"`
}

// Sample is a continuation that the model makes while it is trained.
type Sample struct {
	Prompt string `json:"prompt"`
	Text   string `json:"text"`
}

// Checkpoint is everything a later run needs to go on.
type Checkpoint struct {
	// Trained holds the F32 adapters ("<module>.lora_A.weight") or, after full
	// fine-tuning, tensors.
	Trained tensor.Source

	// Optimizer is the optimizer's state.
	Optimizer tensor.Source

	// Log holds the records up to the step.
	Log []Record

	State State
}

// State is where a run stands.
type State struct {
	// Step is the number of steps done, Examples that of the training
	// examples taken, which is also the position in the data: the order of the
	// examples follows from Seed and the epoch.
	Step     int   `json:"global_step"`
	Examples int64 `json:"examples_seen"`

	// NumTokens counts the trained tokens.
	NumTokens int64 `json:"num_tokens"`

	Epoch float64 `json:"epoch"`

	// TrainExamples is the number of examples in the training data.
	TrainExamples int `json:"train_examples"`

	// Data are the fingerprints of the files of the training data.
	Data []data.Fingerprint `json:"data,omitempty"`

	// Base is the fingerprint of the model that is trained. Checkpoints of old have none.
	Base BaseFingerprint `json:"base,omitzero"`

	// EvalLoss is the last loss on the validation data.
	EvalLoss *float64 `json:"eval_loss,omitempty"`

	// FirstLoss is that of the first step, FirstEvalLoss that before it.
	FirstLoss     float64  `json:"first_loss"`
	FirstEvalLoss *float64 `json:"first_eval_loss,omitempty"`

	// BestMetric is the lowest loss on the validation data after a step, which BestStep
	// is. That before the first does not count: nothing is saved of it.
	BestMetric *float64 `json:"best_metric,omitempty"`
	BestStep   int      `json:"best_global_step,omitempty"`

	// Unimproved counts the last evaluations that were not better than the best.
	Unimproved int `json:"early_stopping_patience_counter,omitempty"`

	// Still counts the last steps that changed nothing of what is trained.
	Still int `json:"still_steps,omitempty"`

	// Warned has what the run has warned of.
	Warned []string `json:"warned,omitempty"`

	// Config is the run's configuration, the seed of all its randomness in it.
	Config Config `json:"config"`
}
