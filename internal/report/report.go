package report

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"

	"github.com/seed18967229/nibble/internal/distortion"
)

// A Report is the account of one run.
type Report struct {
	// Program is what wrote it, Command the command line.
	Program string `json:"program"`
	Command string `json:"command"`

	In  string `json:"in"`
	Out string `json:"out,omitempty"`

	// Model says what the model is in a few words, Type what it was quantized to.
	Model string `json:"model,omitempty"`
	Type  string `json:"type,omitempty"`

	// Converted says that Out was not quantized but converted; Error is then of all
	// values.
	Converted bool `json:"converted,omitempty"`

	// Reference is what Out was compared with: In, or the original of it.
	Reference string `json:"reference"`

	Before Size `json:"before"`
	After  Size `json:"after"`

	// Error is of all values together that were quantized in this run.
	Error *Loss `json:"error,omitempty"`

	// Kinds are the tensors of Out by how they are stored.
	Kinds []Kind `json:"kinds,omitempty"`

	Double     *Double     `json:"double_loss,omitempty"`
	Choice     *Choice     `json:"choice,omitempty"`
	Comparison *Comparison `json:"comparison,omitempty"`

	// Merge is of adapters that were merged. A Report of that has nothing else.
	Merge *Merge `json:"merge,omitempty"`

	// Tensors are in the order of the model.
	Tensors []Tensor `json:"tensors"`
	Notes   []string `json:"notes,omitempty"`
}

// Size is what weights take.
type Size struct {
	Weights int64   `json:"weights"`
	Bytes   int64   `json:"bytes"`
	Bits    float64 `json:"bits_per_weight"`
}

// NewSize returns the Size of weights in so many bytes.
func NewSize(weights, bytes int64) Size {
	s := Size{Weights: weights, Bytes: bytes}
	if weights > 0 {
		s.Bits = 8 * float64(bytes) / float64(weights)
	}
	return s
}

// Kind is the tensors that are stored alike.
type Kind struct {
	Type    string `json:"type"`
	Tensors int    `json:"tensors"`
	Size
	Error *Loss `json:"error,omitempty"`
}

// Tensor is one tensor of the model.
type Tensor struct {
	Name  string  `json:"name"`
	Shape []int64 `json:"shape"`
	Was   string  `json:"was"`
	Type  string  `json:"type"`
	Size

	// Kept says why the tensor was not quantized; "" if it was, or if nobody asked.
	Kept string `json:"kept,omitempty"`

	// Error is nil where nothing was measured.
	Error *Loss `json:"error,omitempty"`

	// Input is the error that the values had before this run, if the original is
	// known.
	Input *Loss `json:"input_error,omitempty"`
}

// Loss is what an encoding lost.
type Loss struct {
	RelRMS        Number `json:"relative_rms_error"`
	SNR           Number `json:"snr_db"`
	MaxAbs        Number `json:"max_abs_error"`
	WorstBlock    int64  `json:"worst_block"`
	WorstRelRMS   Number `json:"worst_block_relative_rms_error"`
	BlockSize     int    `json:"block_size,omitempty"`
	Blocks        int64  `json:"blocks"`
	Clipped       int64  `json:"clipped"`
	ZeroBlocks    int64  `json:"zero_blocks"`
	EmptyBlocks   int64  `json:"empty_blocks"`
	NonFinite     int64  `json:"non_finite"`
	MadeNonFinite int64  `json:"made_non_finite"`

	figures distortion.Figures
}

// NewLoss returns the Loss that was measured.
func NewLoss(f distortion.Figures) *Loss {
	return &Loss{
		RelRMS: Number(f.RelRMS()), SNR: Number(f.SNR()), MaxAbs: Number(f.MaxAbs),
		WorstBlock: f.WorstBlock, WorstRelRMS: Number(f.WorstRelRMS), BlockSize: f.Block, Blocks: f.Blocks,
		Clipped: f.Clipped, ZeroBlocks: f.ZeroBlocks, EmptyBlocks: f.EmptyBlocks,
		NonFinite: f.NonFinite, MadeNonFinite: f.MadeNonFinite, figures: f,
	}
}

// Figures returns what the Loss was made of.
func (l *Loss) Figures() distortion.Figures { return l.figures }

// Double is the account of quantizing what was quantized already.
type Double struct {
	// Input is how the input was stored; InputError what that had lost, if the
	// original is known, Expected what it loses of normally distributed weights.
	Input      string  `json:"input"`
	InputError *Loss   `json:"input_error,omitempty"`
	Expected   *Number `json:"expected_input_error,omitempty"`

	// This is the error of this run alone, Both that of the output against the
	// original, if it is known.
	This *Loss `json:"this_error"`
	Both *Loss `json:"both_error,omitempty"`
}

// Choice is how types were chosen under a budget.
type Choice struct {
	// Asked says what was asked for, Budget how many bytes that is.
	Asked  string `json:"asked"`
	Budget int64  `json:"budget"`
	Used   int64  `json:"used"`

	// Objective says what was minimised; Cost is what is left of it.
	Objective string `json:"objective"`
	Cost      Number `json:"cost"`

	// Candidates are the types there were to choose from, Types what was chosen.
	Candidates []string     `json:"candidates"`
	Types      []ChosenType `json:"types"`
}

// ChosenType is the tensors that a type was chosen for.
type ChosenType struct {
	Type    string `json:"type"`
	Tensors int    `json:"tensors"`
	Size
	Modules []ChosenModule `json:"modules"`
}

// ChosenModule counts tensors whose names differ in numbers only, for which there is a *.
type ChosenModule struct {
	Name    string `json:"name"`
	Tensors int    `json:"tensors"`
}

// Comparison is several types measured on the same tensors.
type Comparison struct {
	Types []Compared `json:"types"`
}

// Compared is one type of a comparison.
type Compared struct {
	Type string `json:"type"`

	// Quantized is what the quantized tensors take, Whole the model.
	Quantized Size `json:"quantized"`
	Whole     Size `json:"whole"`

	// RelRMS is the error of all values together, Mean the mean over the tensors.
	RelRMS Number `json:"relative_rms_error"`
	Mean   Number `json:"mean_relative_rms_error"`
	SNR    Number `json:"snr_db"`

	// Worst is the tensor that lost most, WorstRelRMS how much.
	Worst       string `json:"worst_tensor"`
	WorstRelRMS Number `json:"worst_relative_rms_error"`

	// Tensors are the errors by tensor, in the order of Report.Tensors; NaN where
	// the type cannot store a tensor.
	Tensors []Number `json:"tensors"`
}

// A Number is one that JSON may not be able to hold: what is no number is null. It is
// written with nine digits, for the last ones differ from machine to machine.
type Number float64

// MarshalJSON implements json.Marshaler.
func (n Number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(n), 'g', 9, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler; null is NaN.
func (n *Number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*n = Number(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float64)(n))
}

// JSON returns report.json.
func (r *Report) JSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(r)
	return b.Bytes(), err
}
