// Package arch describes model families as tables: which tensors a model of
// the family has, what each is for, what shape it has, what it is called in a
// Hugging Face checkpoint and in GGUF, and how the hyperparameters are spelled.
//
// A family is one file with one table and one row in Families. Nothing is read
// or written here, and the package knows neither tensors' bytes nor files; it
// imports the standard library alone.
package arch
