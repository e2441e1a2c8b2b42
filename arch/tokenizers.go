package arch

// TokenizerKind is a kind of tokenizer, by the files that checkpoints have it in.
type TokenizerKind uint8

// The kinds of tokenizers.
const (
	// SentencePiece is tokenizer.model.
	SentencePiece TokenizerKind = iota + 1
	// ByteFallback is a tokenizer.json of a SentencePiece vocabulary: BPE over
	// characters, with bytes for those that have no token.
	ByteFallback
	// ByteLevel is a tokenizer.json, or vocab.json and merges.txt, of BPE over
	// bytes.
	ByteLevel
)

// Tokenizers says which tokenizers the checkpoints of a family come with, and what
// llama.cpp's converter (conversion/<family>.py, set_vocab) writes of them beside
// what it writes for every family. The zero value is a family of which nothing is
// known: any kind, nothing else.
type Tokenizers struct {
	// Kinds are the kinds in the order in which their files are looked for.
	Kinds []TokenizerKind

	// ByteLevelClass is the tokenizer_class that means ByteLevel, whatever files
	// there are; "" for none.
	ByteLevelClass string

	// WritesPrefix says that add_prefix_space of tokenizer_config.json is written
	// as add_space_prefix, before anything else.
	WritesPrefix bool

	// NoPrefix says that add_space_prefix is written as false, behind everything
	// else, for a SentencePiece tokenizer.
	NoPrefix bool

	// Plain says that added tokens of a SentencePiece tokenizer are what their files
	// say: none is taken for special by its looks, their spaces stay as they are, and
	// those of tokenizer.json count.
	Plain bool

	// Extra are special tokens that are written behind the others, if the vocabulary
	// has ExtraSize tokens; any number if that is 0.
	Extra     []ExtraToken
	ExtraSize int64

	// NoBOSSize is a size of the vocabulary for which add_bos_token is written as
	// false.
	NoBOSSize int64
}

// ExtraToken is a special token of a number that no file says. Of the names that
// the converter knows, only "eot" has a key in GGUF.
type ExtraToken struct {
	Name string
	ID   int64
}

// LlamaTokenizers are those of llama, mistral and mixtral: Llama 1 and 2 and
// Mistral come with tokenizer.model, Llama 3 with byte-level BPE. CodeLlama, of
// 32016 tokens, has some for filling in; Granite's small models, of 49152, want no
// BOS.
var LlamaTokenizers = Tokenizers{
	Kinds:        []TokenizerKind{SentencePiece, ByteFallback, ByteLevel},
	WritesPrefix: true,
	Extra:        []ExtraToken{{"prefix", 32007}, {"suffix", 32008}, {"middle", 32009}, {"eot", 32010}},
	ExtraSize:    32016,
	NoBOSSize:    49152,
}

// QwenTokenizers are those of qwen2 and qwen3.
var QwenTokenizers = Tokenizers{Kinds: []TokenizerKind{SentencePiece, ByteLevel}}

// ByteLevelTokenizers are those of families that have nothing else: qwen2moe,
// qwen3moe, gpt2.
var ByteLevelTokenizers = Tokenizers{Kinds: []TokenizerKind{ByteLevel}}

// GemmaTokenizers are those of gemma, with the tokens of CodeGemma.
var GemmaTokenizers = Tokenizers{
	Kinds:    []TokenizerKind{SentencePiece},
	NoPrefix: true,
	Extra:    []ExtraToken{{"prefix", 67}, {"suffix", 69}, {"middle", 68}, {"fsep", 70}, {"eot", 107}},
}

// Gemma2Tokenizers are those of gemma2.
var Gemma2Tokenizers = Tokenizers{Kinds: []TokenizerKind{SentencePiece}, NoPrefix: true}

// Gemma3Tokenizers are those of gemma3. Its tokenizer.json is written as BPE.
var Gemma3Tokenizers = Tokenizers{Kinds: []TokenizerKind{SentencePiece, ByteLevel}, NoPrefix: true}

// Phi3Tokenizers are those of phi3: Phi 3 comes with tokenizer.model, Phi 4 with
// byte-level BPE of the class GPT2Tokenizer. (The converter refuses that of another
// class; here it will do if there is no tokenizer.model.)
var Phi3Tokenizers = Tokenizers{Kinds: []TokenizerKind{SentencePiece, ByteLevel}, ByteLevelClass: "GPT2Tokenizer", Plain: true}
