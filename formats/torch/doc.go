// Package torch reads PyTorch checkpoints: .bin, .pt and .pth files as
// torch.save writes them.
//
// Since PyTorch 1.6 such a file is a zip archive whose entries are stored as
// they are:
//
//	NAME/data.pkl    a pickle of the object, with storages left out of it
//	NAME/byteorder   "little" or "big"; little if it is missing
//	NAME/data/KEY    the bytes of one storage
//
// Before, it was five pickles in a row (a magic number, a version, facts about
// the machine, the object, the keys of its storages) and then, for each key, the
// number of elements in 64 bits and the elements, always little-endian
// (torch/serialization.py, _save, _load, _legacy_save and _legacy_load of
// PyTorch 2.15).
//
// A pickle is a program. Here it runs on a machine of its own that can only
// build lists, dicts, tuples, numbers, strings, and descriptions of tensors. A
// name that the pickle asks for is looked up in a fixed table (globals.go), like
// that of torch/_weights_only_unpickler.py but shorter; any other is refused,
// and nothing is ever imported or called. What the machine builds is bound in
// memory, whatever the pickle says.
//
// A tensor is a view into a storage, and its bytes are read from the file when
// they are asked for: as they lie there if the view is contiguous, otherwise
// gathered a few mebibytes at a time.
//
// The package knows no names of tensors: model directories, shards and their
// index are formats/hf's.
package torch
