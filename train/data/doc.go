// Package data makes training and evaluation examples of text: token ids, and
// which of them are trained.
//
// A data set is a folder with training, validation and test files, or one file, of
// any format that the package records reads. A file holds either plain text, which is
// one long sequence cut into windows, or rows, which are laid out as the first one is:
//
//   - text: {"text"}. BOS, the text, EOS.
//   - pair: {"prompt", "completion"}, or question and answer, prompt and response,
//     input and output. BOS, both as one text with nothing added between them, EOS.
//     Loss is taken on the completion and EOS. If both are lists of turns it is a
//     chat of which the completion is trained.
//   - alpaca: {"instruction", "input", "output"}, or instruction, context and
//     response: a pair whose prompt is Stanford Alpaca's.
//   - chat: {"messages"} of role and content, or {"conversations"} of from and value,
//     and tools and a system prompt beside them. The model's template makes the
//     text, which ends as the template has it end; nothing is added but BOS, where
//     the vocabulary wants one and the template has none. Loss is taken on what the
//     assistant writes, and on what ends its turns.
//
// Nothing is put into a chat template that is not a chat, unless it is asked for
// (Options.ApplyTemplate). A token that has a part of what is trained in it is
// trained whole. A row that already begins with the text of BOS or ends with that of
// EOS does not get it twice.
//
// Each file is read once; its rows become tokens on all processors, in order, and go
// to a scratch file without a name. In memory are 8 bytes for each row, and 4 for the
// order that it is taken in. Data sets can be mixed by weights (Source), a part of
// one split off for validation, and rows packed into examples (Options.Packing): as
// documents that do not see each other, with the losses that they have apart.
//
// Nothing is dropped or cut without being counted (Stats), and nothing that cannot be
// trained on is passed over: the first row that is not sound is refused, with the
// file and the line.
//
// The package knows nothing of models or batches.
package data
