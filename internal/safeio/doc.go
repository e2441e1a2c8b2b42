// Package safeio reads sizes that a file declares without believing them:
// memory grows with the bytes that are really there, and arithmetic on declared
// numbers is checked for overflow.
//
// It knows no format.
package safeio
