package arch

type Tokenizers struct{}

var LlamaTokenizers, QwenTokenizers, ByteLevelTokenizers, GemmaTokenizers, Gemma2Tokenizers, Gemma3Tokenizers, Phi3Tokenizers Tokenizers
