// Command asm writes the assembly of package simd: one group of loops into each
// file. `make asm` runs it; a test of internal/kernel/simd fails if what it writes
// is not what is committed.
//
//	go run . -group convert -out ../simd/convert_amd64.s -stubs ../simd/convert_amd64.go -pkg simd
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"

	. "github.com/mmcloughlin/avo/build"
)

// groups are the files there are. Each group adds itself.
var groups = map[string]func(){}

func main() {
	// -out, -stubs and -pkg are avo's own.
	group := flag.String("group", "", "the group to write")
	list := flag.Bool("list", false, "print the names of the groups")
	flag.Parse()
	if *list {
		for _, name := range slices.Sorted(maps.Keys(groups)) {
			fmt.Println(name)
		}
		return
	}
	write, ok := groups[*group]
	if !ok {
		fmt.Fprintf(os.Stderr, "asm: no group %q\n", *group)
		os.Exit(2)
	}
	ConstraintExpr("amd64,!purego")
	write()
	Generate()
}
