// Package golden opens the archive of bitsandbytes' answers that the tests of
// nf4 and nf4/bnb compare with (nf4/testdata/README.md). Only tests import it.
package golden
