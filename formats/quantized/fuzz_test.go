package quantized

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed18967229/nibble/internal/tensortest"
	"github.com/seed18967229/nibble/tensor"
)

// endings are all that names can end in that this package looks for.
func endings() []string {
	out := []string{"", ".weight", ".bias", ".SCB"}
	for _, s := range scaleNames {
		out = append(out, s.suffix)
	}
	for _, u := range unused {
		out = append(out, u.suffix)
	}
	for _, m := range methods {
		for _, k := range m.marks {
			for _, part := range k {
				out = append(out, part.suffix)
			}
		}
	}
	return out
}

// No configuration and no list of tensors makes View panic or allocate much; it
// fails in one of two ways, and what it returns can be read.
func FuzzView(f *testing.F) {
	const weight, scaleInv, weightScale = 1, 4, 5 // in endings
	f8, f32 := byte(tensor.F8_E4M3-tensor.Bool), byte(tensor.F32-tensor.Bool)
	layout := []byte{weight, f8, 2, 130, 129, scaleInv, f32, 2, 2, 2}
	require.Equal(f, []string{".weight", ".weight_scale_inv", ".weight_scale"}, []string{endings()[weight], endings()[scaleInv], endings()[weightScale]})
	configs, err := filepath.Glob("testdata/*/config.json")
	require.NoError(f, err)
	require.NotEmpty(f, configs)
	for _, path := range configs {
		text, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(text, layout, byte(0x38))
	}
	f.Add([]byte(`{"quantization_config": {"quant_method": "gptq", "bits": 4}}`), []byte{weight, f8, 2, 249, 249, scaleInv, f32, 2, 242, 242}, byte(0))
	f.Add([]byte(`{"quantization_config": {"load_in_8bit": true}}`), []byte{weight, byte(tensor.I8 - tensor.Bool), 2, 4, 4}, byte(0xff))
	f.Add([]byte(``), []byte{weight, f8, 3, 3, 4, 5, weightScale, f32, 1, 3}, byte(0x7f))
	names := endings()
	f.Fuzz(func(t *testing.T, config, layout []byte, code byte) {
		src := tensortest.FromBytes(layout, names, code)
		Members(config)
		label, derr := Describe(src, config)
		view, drop, err := View(src, config)
		if err != nil {
			require.True(t, errors.Is(err, tensor.ErrMalformed) || errors.Is(err, tensor.ErrUnsupported), "%v", err)
			require.Equal(t, err.Error(), derr.Error())
			return
		}
		require.NoError(t, derr)
		require.NotContains(t, label, "\n")
		for _, d := range drop {
			require.False(t, tensor.Has(view, d.Name))
		}
		require.NoError(t, tensortest.ReadLastRows(view, codecs))
	})
}
