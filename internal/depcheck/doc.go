// Package depcheck holds the test that imports go one way. It has no code.
package depcheck
