// Package parquet reads the rows of a Parquet file as JSON objects, one after the
// other, in the memory of one page of each column.
//
//	"PAR1" | pages of every column of row group 1 | row group 2 ... | footer | length | "PAR1"
//
// The footer holds the schema and where the pages are. A page holds the
// repetition and definition levels of its values, from which lists, structs and
// nulls are put together again, and the values in one of several encodings, most
// often as indices into a dictionary page.
//
// Types become JSON so: strings, enumerations and JSON text are strings, and so are
// bytes that say nothing of themselves if they are UTF-8; other bytes are base64;
// dates and times are ISO 8601; decimals are numbers; NaN and infinities are null;
// a list is a list, a struct an object, a map a list of objects with "key" and
// "value". Null is null.
//
// Read are data pages of both versions; every encoding of the format but the
// deprecated levels of BIT_PACKED; pages packed with Snappy, gzip, Zstandard or not
// at all. Encrypted files are refused.
//
// A file's statements about sizes and counts are not believed: memory grows with
// the bytes that are there. It is written here because the libraries there are
// allocate what a footer claims, which ends the process instead of the file.
//
// The format: https://github.com/apache/parquet-format (version 2.11).
package parquet
