// Package speed times pieces of work beside each other: in rounds, each case once a
// round, so that what the machine does meanwhile falls on all alike. It also says
// what machine this is and how fast a disk is.
//
// It knows the loops of internal/kernel by name and nothing of what is timed.
package speed
