package main

import (
	"github.com/spf13/cobra"
)

func (a *app) adapterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "adapter",
		Short: "Inspect, convert, combine, resize and extract adapters",
		Long: `Work on LoRA adapters themselves. They are read in any format: a directory of PEFT
or MLX, a .safetensors file of kohya's scripts or of diffusers, a .gguf file.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.adapterInspectCommand(), a.adapterConvertCommand(), a.adapterCombineCommand(), a.adapterResizeCommand(), a.adapterExtractCommand(), a.adapterRankCommand())
	return cmd
}
