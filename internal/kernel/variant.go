package kernel

import (
	"fmt"
	"os"
	"strings"
)

// A variant is one set of inner loops. The plain Go one is complete and what the
// others are tested against; they replace what they have assembly for. Conversions
// and block formats give the same bits in all of them; sums, and so products of
// matrices, norms and what follows, differ in their last places.
type variant struct {
	name string
	convertLoops
	quantLoops
	block32Loops
	table16Loops
	kquantLoops
	elementLoops
	gemmLoops
	attentionLoops
	peakLoops
	distanceLoops
	codedLoops
}

var plain = variant{"go", convertGo, quantGo, block32Go, table16Go, kquantGo, elementGo, gemmGo, attentionGo, peakGo, distanceGo, codedGo}

// variantEnv names a variant to use instead of the best that the machine has.
const variantEnv = "NIBBLE_KERNEL"

// use is what runs. Only tests and With change it.
var use, variantErr = choose(os.Getenv(variantEnv))

func choose(name string) (*variant, error) {
	list := variants()
	if name == "" {
		return list[0], nil
	}
	var names []string
	for _, v := range list {
		if v.name == name {
			return v, nil
		}
		names = append(names, v.name)
	}
	return list[0], fmt.Errorf("%s is %q; this machine has %s", variantEnv, name, strings.Join(names, ", "))
}

// Variant returns the name of the loops in use: "avx512", "avx2" or "go". An error
// says that the environment variable NIBBLE_KERNEL asks for others that this machine
// or build does not have.
func Variant() (string, error) { return use.name, variantErr }

// Variants returns the names of those this machine can run, the best first.
func Variants() []string {
	var names []string
	for _, v := range variants() {
		names = append(names, v.name)
	}
	return names
}

// With calls f with the loops of that name, one of Variants, in use: to measure
// them. Nothing else may use the package meanwhile.
func With(name string, f func() error) error {
	v, err := choose(name)
	if err != nil {
		return err
	}
	old := use
	use = v
	defer func() { use = old }()
	return f()
}
