// Package tensortest holds the conformance suites that every Source, Sink and
// Codec must pass, and sources to test with. A new one is done when its suite
// passes. Only tests import it.
package tensortest
