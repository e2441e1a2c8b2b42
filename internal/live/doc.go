// Package live shows a run of training while it goes on, as a page that a small server
// sends to browsers of this machine, and keeps it afterwards as one file.
//
// It knows nothing of models and training: a Board is given the figures of steps as they
// come, and thins them so that a long run needs no more memory than a short one. The page
// needs no network and no other file; live and kept it is the same page, with its data
// from the server or inside it.
//
// Nobody who watches can hold the run up: a Board never waits, and who is too slow is sent
// the whole anew. The server takes no orders, and answers only those who ask for it by its
// own name, so that a page from elsewhere cannot read what is trained here.
package live
