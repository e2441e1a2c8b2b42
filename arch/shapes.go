package arch

// The shapes and conditions that the families' tables are written with.

func hidden(c *Config) []int64        { return []int64{c.HiddenSize} }
func vocabByHidden(c *Config) []int64 { return []int64{c.VocabSize, c.HiddenSize} }
func q(c *Config) []int64             { return []int64{c.NumAttentionHeads * c.HeadDim} }
func kv(c *Config) []int64            { return []int64{c.NumKeyValueHeads * c.HeadDim} }
func qByHidden(c *Config) []int64     { return []int64{c.NumAttentionHeads * c.HeadDim, c.HiddenSize} }
func kvByHidden(c *Config) []int64    { return []int64{c.NumKeyValueHeads * c.HeadDim, c.HiddenSize} }
func hiddenByQ(c *Config) []int64     { return []int64{c.HiddenSize, c.NumAttentionHeads * c.HeadDim} }
func mlp(c *Config) []int64           { return []int64{c.IntermediateSize} }
func mlpByHidden(c *Config) []int64   { return []int64{c.IntermediateSize, c.HiddenSize} }
func hiddenByMLP(c *Config) []int64   { return []int64{c.HiddenSize, c.IntermediateSize} }

func qHeads(c *Config) int64  { return c.NumAttentionHeads }
func kvHeads(c *Config) int64 { return c.NumKeyValueHeads }

func untied(c *Config) bool        { return !c.TieWordEmbeddings }
func attentionBias(c *Config) bool { return c.AttentionBias }
func mlpBias(c *Config) bool       { return c.MLPBias }
