package arch

// The shapes and conditions that the families' tables are written with.

func hidden(c *Config) []int64        { return []int64{c.HiddenSize} }
func head(c *Config) []int64          { return []int64{c.HeadDim} }
func vocabByHidden(c *Config) []int64 { return []int64{c.VocabSize, c.HiddenSize} }

func hiddenDim(c *Config) int64 { return c.HiddenSize }
func queryDim(c *Config) int64  { return c.NumAttentionHeads * c.HeadDim }
func keyDim(c *Config) int64    { return c.NumKeyValueHeads * c.HeadDim }
func mlpDim(c *Config) int64    { return c.IntermediateSize }
func expertDim(c *Config) int64 { return c.MoEIntermediateSize }
func sharedDim(c *Config) int64 { return c.SharedExpertIntermediateSize }

func qHeads(c *Config) int64     { return c.NumAttentionHeads }
func kvHeads(c *Config) int64    { return c.NumKeyValueHeads }
func numExperts(c *Config) int64 { return c.NumExperts }

func always(*Config, int) bool               { return true }
func untied(c *Config, _ int) bool           { return !c.TieWordEmbeddings }
func hasAttentionBias(c *Config, _ int) bool { return c.AttentionBias }
func hasMLPBias(c *Config, _ int) bool       { return c.MLPBias }
func sparse(c *Config, layer int) bool       { return c.Sparse(layer) }
func dense(c *Config, layer int) bool        { return !c.Sparse(layer) }
