package hint

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHint(t *testing.T) {
	require.NoError(t, Add(nil, "never mind"))
	inner := Add(io.EOF, "read %s", "more")
	outer := fmt.Errorf("file: %w", inner)
	require.Equal(t, "file: EOF", outer.Error(), "the hint is not part of the message")
	require.Equal(t, "read more", Of(outer))
	require.ErrorIs(t, outer, io.EOF)
	require.Equal(t, "outermost", Of(Add(outer, "outermost")))
	require.Equal(t, "read more", Of(errors.Join(io.ErrClosedPipe, outer)))
	require.Empty(t, Of(io.EOF))
	require.Empty(t, Of(nil))
}
