package gguf

// Keys of the metadata that concern the file rather than the model in it
// (docs/gguf.md, "General metadata"; src/llama-arch.cpp for the splits).
const (
	KeyArchitecture        = "general.architecture"         // string, required
	KeyType                = "general.type"                 // string: "model", "adapter", ...
	KeyName                = "general.name"                 // string
	KeyFileType            = "general.file_type"            // uint32, a FileType
	KeyQuantizationVersion = "general.quantization_version" // uint32, QuantizationVersion
	KeyAlignment           = "general.alignment"            // uint32; a Writer sets no other than the default

	// These concern one part of a model in several files.
	KeySplitNo      = "split.no"            // uint16, which part, from 0
	KeySplitCount   = "split.count"         // uint16, the number of parts
	KeySplitTensors = "split.tensors.count" // int32, the number of tensors in all parts
)

// QuantizationVersion is the value of KeyQuantizationVersion for the block
// layouts of today (GGML_QNT_VERSION in ggml.h). A file with a quantized tensor
// must have the key.
const QuantizationVersion uint32 = 2
