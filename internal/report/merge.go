package report

// Merge is the account of adapters that were merged into a base that is quantized, or
// was when they were trained, or that were written quantized.
type Merge struct {
	// Base is what the base is quantized to, Source what says so, How whether the error
	// was measured or estimated; "" where the base was not quantized.
	Base   string `json:"base_type,omitempty"`
	Source string `json:"base_type_from,omitempty"`
	How    string `json:"base_error_how,omitempty"`

	// Warnings say what matters.
	Warnings []string `json:"warnings,omitempty"`

	Modules []MergedModule `json:"modules"`
}

// MergedModule is one tensor that adapters change. Norms are Frobenius norms; what was
// not measured is nil.
type MergedModule struct {
	Name  string `json:"name"`
	Norm  Number `json:"norm"`
	Delta Number `json:"delta_norm"`

	// Error is the norm of what quantization takes from the base, Ratio that over Delta.
	Error *Number `json:"base_error_norm,omitempty"`
	Ratio *Number `json:"error_over_delta,omitempty"`

	// Survived is the part of the delta in what was written, Noise what else that differs
	// by from the base, relative to the delta.
	Survived *Number `json:"delta_survived,omitempty"`
	Noise    *Number `json:"noise_over_delta,omitempty"`
}

// maps returns the picture of the error over the delta.
func (m *Merge) maps() []*heatMap {
	var names []string
	for _, x := range m.Modules {
		names = append(names, x.Name)
	}
	where := places(names)
	var cells []cell
	for i, x := range m.Modules {
		if x.Error != nil && *x.Error > 0 && x.Delta > 0 {
			cells = append(cells, cell{where[i], float64(*x.Error * *x.Error), float64(x.Delta * x.Delta)})
		}
	}
	if h := newHeatMap("Quantization error over delta", cells); h != nil {
		return []*heatMap{h}
	}
	return nil
}
