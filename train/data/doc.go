// Package data makes training and evaluation examples of text: token ids, and
// where in them loss is taken.
//
// A data set is a folder with train, valid and test files, or one file. A file
// holds either rows, one JSON object per line (JSON Lines), or plain text:
//
//   - {"text": "..."} is one example: BOS, the text, EOS.
//   - {"prompt": "...", "completion": "..."} is one example: BOS, both texts as
//     one, EOS. Loss is taken on the completion and EOS, unless asked otherwise.
//   - Plain text is one long sequence, cut into windows of the maximum length.
//
// BOS and the space in front of a text are added as the tokenizer's vocabulary
// says; EOS is always added to a row, because a model that has not seen it does
// not stop. A row that already begins with the text of BOS or ends with that of
// EOS does not get it twice. No other special token is made of text.
//
// Nothing is dropped without being counted (Stats), and nothing that cannot be
// trained on is passed over: Open reads every row once and refuses the first that
// is not sound, with the file and the line.
//
// Memory is 8 bytes per row, or 4 bytes per token of plain text. Rows are read
// and split into tokens again when they are asked for.
//
// The package knows nothing of models or batches.
package data
