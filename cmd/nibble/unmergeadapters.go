package main

import (
	"context"
	"errors"
)

func (a *app) unmergeAdapters(ctx context.Context, merged string, o *unmergeOptions) error {
	return errors.New("later")
}
