// Package budget chooses one option for each of many items so that all of them
// together stay within a limit and cost as little as may be: the multiple-choice
// knapsack problem. nibble's items are tensors, the options are types to store them
// in, the limit is bytes and the cost an error.
//
// Every item starts with its smallest option. Of what it could have instead only the
// lower convex hull of cost over size is looked at: from one corner to the next, each
// byte buys less than before. All steps of all items are taken in the order of what a
// byte of them buys, as long as they fit; what is left of the limit is filled with any
// option that helps and fits. The result costs at most one step more than the best
// possible (the last that did not fit), and of a model, where a tensor is one of
// hundreds, that is nothing. The order is total, so the same items give the same choice.
package budget
