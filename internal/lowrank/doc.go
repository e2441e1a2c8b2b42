// Package lowrank finds the matrices of low rank that are nearest to a matrix: its
// truncated singular value decomposition.
//
// The matrix is one of internal/kernel's, which is decoded by rows as it is used, so
// that what is decomposed need not exist whole: what a quantized weight lacks is
// decoded and subtracted inside the products. The method is randomized subspace
// iteration (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithm 4.4): the matrix
// and its transpose are applied to a few rows in turn, and between the two the rows are
// made orthonormal. What is left is as small as the rank.
//
// The result depends on the matrix, the rank and the seed, not on the number of
// processors; as with all products of internal/kernel its last places depend on which
// loops the machine has.
package lowrank
